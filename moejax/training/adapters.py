"""The baselines: one LoRA of an expert's rank, one of the mixture's total size, one per cohort, one per speaker, the
merged LoRAs of the cohorts, and the whole network fine-tuned.

LoRAs are experts with a known route: all cohorts' (or all speakers') adapters stand side by side in one stacked array
and train as one batched program, each on its own utterances. Kinds of the same rank get equally long stacks (the
surplus is never routed to and is cut off afterwards), so that they share one compilation.
"""

import dataclasses

import jax
import numpy as np

from moejax.convert import hf_whisper, whisper_folder
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.runtime import processes
from moejax.runtime.files import write_json
from moejax.tasks import asr
from moejax.train.params_file import save_params
from moejax.training import dev, encoder_states, fitting, gate_inputs, network, timed
from moejax.work.context import Context
from moejax.work.fields import STEPS, Field
from moejax.work.stage import Stage

MANY = ("cohort", "speaker")  # kinds of several systems; the others have the name of their one
FULL, MERGED = "full", "lora_merged"


def run(cfg, work) -> dict:
    """Writes W/adapters/<kind>/params.safetensors (W/adapters/full/model, a Hugging Face folder) and
    W/adapters/index.json: {system: {kind, label, ...}}.
    """
    context = Context(cfg, work)
    rows = gate_inputs.training_rows(context)
    planned = {kind: KINDS[kind](context, rows) for kind in cfg.adapters.kinds if kind != FULL}
    names = [name for found, _, _ in planned.values() for name in found]
    names += [MERGED] if "cohort" in planned else []
    names += cfg.st.kinds
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadValue(f"two adapters would be called {twice[0]!r}: rename that group or leave out a kind")
    index, summary = {}, {}
    for kind, (names, labels, rank) in planned.items():
        stack = max(len(other) for other, _, its_rank in planned.values() if its_rank == rank)
        mixture = network.definition(cfg, stack, rank=rank, shared_rank=0)
        params = _train(context, kind, rows, labels, mixture)
        trained = jax.tree.map(lambda leaf: leaf[: len(names)], params["expert"])  # noqa: B023 - used at once
        save_params(work.path("adapters", kind, "params.safetensors"), {"expert": trained})
        each = functional.count(trained) // len(names)
        for label, name in enumerate(names):
            index[name] = {"kind": kind, "label": label, "rank": mixture.rank, "trainable": each}
        if kind == "cohort" and len(names) > 1 and mixture.kind == "dora":
            context.work.log(f"  no {MERGED}: mixture.kind is dora, whose adapters are no products to take the mean of")
        elif kind == "cohort" and len(names) > 1:
            index[MERGED] = _merged(work, trained, mixture)
        summary[kind] = {"adapters": len(names), "rank": mixture.rank, "trainable_each": each}
        write_json(work.path("adapters", "index.json"), index)
    if FULL in cfg.adapters.kinds:
        summary[FULL] = index[FULL] = _full(context, rows)
        write_json(work.path("adapters", "index.json"), index)
    return summary


def _merged(work, expert, mixture) -> dict:
    """The mean of the cohorts' updates (of the products B A, not of the factors) as one LoRA, which has the rank of all
    of them together: A side by side, B over one another and divided by their number.
    """
    flat = functional.paths(expert)
    count, rank = next(iter(flat.values())).shape[0], mixture.rank
    # Alpha grows with the rank (`mixtures.definition`), so the scale stays, unless it is rank-stabilised
    share = count**-0.5 / count if mixture.stabilised else 1.0 / count
    merged = {}
    for path, leaf in flat.items():
        E, first, second = leaf.shape
        if path.endswith("/A"):
            merged[path] = leaf.transpose(1, 0, 2).reshape(1, first, E * second)
        elif path.endswith("/B"):
            merged[path] = leaf.reshape(1, E * first, second) * share
        else:
            raise BadValue(f"adapters of kind cohort cannot be merged: {path} is no factor of a low-rank product")
    save_params(work.path("adapters", "merged", "params.safetensors"), {"expert": functional.nest(merged)})
    size = functional.count(expert)
    return {"kind": "merged", "label": 0, "rank": count * rank, "trainable": size}


def _full(context, rows) -> dict:
    """The whole network, trained as long as the adapters, from float32 weights. Its Adam needs two copies more."""
    cfg = context.cfg
    section = _section(cfg, FULL)
    config, params = whisper_folder.load(context.base.folder)
    config = dataclasses.replace(config, dtype=cfg.model.dtype)
    graphdef, params = asr.init(asr.build(config, seed=cfg.seed), params)
    loss_fn = asr.make_loss(graphdef, asr.Row(**fitting.row_options(section)))
    plan, fetch = timed.material(context, rows, section)
    params = fitting.train(
        context,
        fitting.Training(
            "adapters",
            loss_fn,
            ("backbone",),
            section,
            plan=plan,
            fetch=fetch,
            sub=(FULL,),
            eval_fn=dev.judge(context, graphdef, None, "none", section),
        ),
        params,
    )
    folder = context.work.path("adapters", FULL, "model")
    kept = {group: params[group] for group in ("backbone", "buffer")}
    if processes.first():
        hf_whisper.save(folder, config, kept, tokenizer=context.base.tokenizer)
    return {"kind": FULL, "label": 0, "rank": 0, "trainable": functional.count(params["backbone"])}


def _section(cfg, kind):
    """The training section of a kind: as many steps as experts and joint, and its own learning rate."""
    section = cfg.adapters.copy_and_resolve_references()
    with section.unlocked():
        section.steps = cfg.adapters.steps or cfg.experts.steps + cfg.joint.steps
        if kind == "lora_total" and cfg.adapters.total_learning_rate:
            section.learning_rate = cfg.adapters.total_learning_rate
        if kind == FULL:
            section.learning_rate = cfg.adapters.full_learning_rate or cfg.adapters.learning_rate / 10
    return section


def _train(context, kind, rows, labels, mixture):
    cfg = context.cfg
    section = _section(cfg, kind)
    graphdef, params = network.with_experts(context, mixture)
    row = asr.Row(route="label", frozen=True, **fitting.row_options(section))
    loss_fn = asr.make_loss(graphdef, row, mixture=mixture, num_cohorts=len(context.corpus.cohorts))
    single = None if kind in MANY else np.zeros(len(context.corpus.manifest), np.int64)
    kept = encoder_states.why_not(row, mixture) is None
    plan, fetch = timed.material(context, rows, section, labels=labels, kept=kept)
    judge = None if single is None else dev.judge(context, graphdef, mixture, "label", section, single, kept)
    return fitting.train(
        context,
        fitting.Training(
            "adapters",
            loss_fn,
            ("expert",),
            section,
            plan=plan,
            sub=(kind,),
            fetch=fetch,
            eval_fn=judge,
        ),
        params,
    )


def _one(context, rows):
    return ["lora"], np.zeros(len(rows), np.int64), context.cfg.mixture.rank


def _total(context, rows):
    """One LoRA with as many parameters as all experts and the shared one together."""
    E = network.gate_of(context.work)["meta"]["num_experts"]  # may differ from the config's when clusters were fewer
    return ["lora_total"], np.zeros(len(rows), np.int64), E * context.cfg.mixture.rank + context.cfg.mixture.shared_rank


def _by(column):
    def names_and_labels(context, rows):
        values = context.corpus.manifest.column(column)[rows]
        known = sorted(set(values))
        return [f"lora_{v or 'unnamed'}" for v in known], np.searchsorted(known, values), context.cfg.mixture.rank

    return names_and_labels


# How each kind of LoRA is laid out; the whole network is none.
KINDS = {"lora": _one, "lora_total": _total, "cohort": _by("cohort"), "speaker": _by("speaker"), FULL: None}
SINGLE = tuple(kind for kind in KINDS if kind not in MANY)

SECTIONS = {
    "adapters": {
        **fitting.TRAIN,
        **fitting.DEV,  # for the kinds that are one system
        "steps": Field(0, "Optimizer steps of each kind; 0: as many as experts and joint together.", limits=STEPS),
        "kinds": Field(
            ("lora", "lora_total", "cohort", "speaker"),
            "Baselines that are trained.\n"
            "lora: one LoRA of an expert's rank; lora_total: one as large as the mixture; cohort: one for each cohort,"
            " and lora_merged, their mean; speaker: one for each speaker; full: the whole network.",
            choices=tuple(KINDS),
        ),
        "total_learning_rate": Field(0.0, "Learning rate of lora_total; 0: adapters.learning_rate.", limits=(0.0, 1.0)),
        "full_learning_rate": Field(
            0.0, "Learning rate of full; 0: a tenth of adapters.learning_rate.", limits=(0.0, 1.0)
        ),
    },
}
STAGE = Stage(
    "adapters",
    run,
    needs=("describe", "base", "gate"),
    together=True,
    reseeded=True,
    sections=SECTIONS,
    reads=("model.weights", "mixture", "gate", "adapters", *fitting.BUDGET),
)
