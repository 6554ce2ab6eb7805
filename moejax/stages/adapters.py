"""The baselines: one LoRA of an expert's rank, one of the mixture's total size, one per cohort, one per speaker.

They are experts with a known route: all cohorts' (or all speakers') adapters stand side by side in one stacked array
and train as one batched program, each on its own utterances. Kinds of the same rank get equally long stacks (the
surplus is never routed to and is cut off afterwards), so that they share one compilation.
"""

import jax
import numpy as np

from moejax.nn import functional
from moejax.stages import fitting, mixtures
from moejax.stages.artifacts import write_json
from moejax.stages.corpus import Corpus
from moejax.tasks import asr
from moejax.train.checkpoint import save_params

DEFAULTS = {
    "adapters": {
        **fitting.TRAIN,
        **fitting.DEV,  # for the kinds lora and lora_total
        "steps": 0,  # 0: as many as experts and joint together
        "kinds": ("lora", "lora_total", "cohort", "speaker"),
        "total_learning_rate": 0.0,  # of lora_total; 0: the same as learning_rate
    },
}


def run(cfg, work) -> dict:
    """Writes W/adapters/<kind>/params.safetensors and W/adapters/index.json: {system: {kind, label, ...}}."""
    corpus = Corpus(cfg, work)
    rows = corpus.rows("train")
    unknown = [kind for kind in cfg.adapters.kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"unknown adapter kind {unknown[0]!r}; known: {', '.join(KINDS)}")
    planned = {kind: KINDS[kind](corpus, rows) for kind in cfg.adapters.kinds}
    names = [name for found, _, _ in planned.values() for name in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"two adapters would be called {twice[0]!r}: rename that group or leave out a kind")
    index, summary = {}, {}
    for kind, (names, labels, rank) in planned.items():
        stack = max(len(other) for other, _, its_rank in planned.values() if its_rank == rank)
        mixture = mixtures.definition(cfg, stack, rank=rank, shared_rank=0)
        params = _train(corpus, kind, rows, labels, mixture)
        trained = jax.tree.map(lambda leaf: leaf[: len(names)], params["expert"])  # noqa: B023 - used at once
        save_params(work.path("adapters", kind, "params.safetensors"), {"expert": trained})
        each = functional.count(trained) // len(names)
        for label, name in enumerate(names):
            index[name] = {"kind": kind, "label": label, "rank": mixture.rank, "trainable": each}
        summary[kind] = {"adapters": len(names), "rank": mixture.rank, "trainable_each": each}
        write_json(work.path("adapters", "index.json"), index)
    return summary


def _train(corpus, kind, rows, labels, mixture):
    cfg = corpus.cfg
    section = cfg.adapters.copy_and_resolve_references()
    with section.unlocked():
        section.steps = cfg.adapters.steps or cfg.experts.steps + cfg.joint.steps
        if kind == "lora_total" and cfg.adapters.total_learning_rate:
            section.learning_rate = cfg.adapters.total_learning_rate
    graphdef, params = mixtures.with_experts(corpus, mixture)
    row = asr.Row(route="label", **fitting.row_options(section))
    loss_fn = asr.make_loss(graphdef, row, mixture=mixture, num_cohorts=len(corpus.cohorts))
    single = np.zeros(len(corpus.manifest), np.int64) if kind in ("lora", "lora_total") else None
    dev = None if single is None else fitting.dev_loss(corpus, graphdef, mixture, "label", section, single)
    return fitting.train(
        corpus, "adapters", loss_fn, params, ("expert",), section,
        plan=fitting.speech_plan(corpus, rows, section), fetch=corpus.collator(rows, labels), sub=(kind,),
        eval_fn=dev,
    )  # fmt: skip


def _one(corpus, rows):
    return ["lora"], np.zeros(len(rows), np.int64), corpus.cfg.mixture.rank


def _total(corpus, rows):
    """One LoRA with as many parameters as all experts and the shared one together."""
    E = mixtures.gate_of(corpus.work)["meta"]["num_experts"]  # may differ from the config's when clusters were fewer
    return ["lora_total"], np.zeros(len(rows), np.int64), E * corpus.cfg.mixture.rank + corpus.cfg.mixture.shared_rank


def _by(column):
    def names_and_labels(corpus, rows):
        values = corpus.manifest.column(column)[rows]
        known = sorted(set(values))
        return [f"lora_{v or 'unnamed'}" for v in known], np.searchsorted(known, values), corpus.cfg.mixture.rank

    return names_and_labels


KINDS = {"lora": _one, "lora_total": _total, "cohort": _by("cohort"), "speaker": _by("speaker")}
