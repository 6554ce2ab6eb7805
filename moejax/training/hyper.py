"""Hypernetworks: low-rank updates made from the embedding of an utterance or a speaker, and their controls.

    hyper         a hypernetwork trained on everybody in the training part
    hyper_AB      the same trained on the cohorts of hyper.cohorts (A and B) alone: what it does for the others is the
                  question
    moe_hyper_AB  a bank as large in which a part are experts that a softmax routes, trained on A and B alone
    lora_AB       one LoRA of at least as many numbers as hyper_AB, trained on A and B as long: what they all have to
                  beat

Training is in two parts: first the condition is the mean of the utterance's cohort, then random mixtures of the
utterance's own embedding and its speaker's mean. Nothing of an utterance outside the training cohorts enters, neither
its text nor its sound (the condition's projection is fitted on the training cohorts, too). Decoding conditions on the
utterance alone; two uses more condition otherwise (`systems.hypernetworks`).
"""

import numpy as np

from moejax.cohorts import projection
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.nn.hypernet import FORMS
from moejax.runtime.files import write_json
from moejax.tasks import asr
from moejax.tasks import hypernetwork as task
from moejax.train.params_file import save_params
from moejax.training import fitting, gate_inputs, network, timed
from moejax.work.context import Context
from moejax.work.fields import SHARE, SIZE, STEPS, Field
from moejax.work.stage import Stage

SYSTEMS = ("hyper", "hyper_AB", "moe_hyper_AB", "lora_AB")
SECTIONS = {
    "hyper": {
        **fitting.TRAIN,
        "steps": Field(0, "Optimizer steps of each system; 0: as many as experts and joint together.", limits=STEPS),
        "systems": Field(
            (),
            "Hypernetworks and controls that are trained; () for none. Their views come by themselves.",
            choices=SYSTEMS,
        ),
        "cohorts": Field((), "Training cohorts of the systems whose names end in _AB."),
        "form": Field(
            "bank",
            "How updates are made.\n"
            "bank: coefficients over low-rank atoms; trunk: whole factors from one shared trunk.",
            choices=FORMS,
        ),
        "atoms": Field(
            8,
            "Atoms of a bank, each of mixture.rank.\nA trunk makes one update of rank hyper.atoms x mixture.rank.",
            limits=SIZE,
        ),
        "routed": Field(4, "Of the atoms, so many are experts that a softmax routes in moe_hyper_AB.", limits=SIZE),
        "code": Field(8, "Width of what the layers are told of the condition.", limits=SIZE),
        "hidden": Field(32, "Width of the hidden layer between the condition and the code.", limits=SIZE),
        "dims": Field(
            16,
            "Dimensions of the discriminant of the training speakers, which the condition is seen through.",
            limits=SIZE,
        ),
        "cohort_share": Field(0.3, "Share of the steps in which the condition is the cohort's mean.", limits=SHARE),
        "enroll": Field(5, "Utterances that a new speaker is known by.", limits=SIZE),
    },
}
INDEX = ("hyper", "index.json")


def run(cfg, work) -> dict:
    """Writes W/hyper/<name>/params.safetensors of each system and W/hyper/index.json: {name: {kind, trainable, rank,
    cohorts}}. Errors: a cohort that is not in the training part.
    """
    section = cfg.hyper
    if not section.systems:
        return {}
    context, index = Context(cfg, work), {}
    for name in section.systems:
        rows = training_rows(context, name)
        speakers = set(context.corpus.manifest.column("speaker")[rows])
        work.log(f"  {name}: {len(np.unique(rows))} utterances of {len(speakers)} speakers")
        index[name] = _lora(context, name, rows) if name.startswith("lora") else _hyper(context, name, rows)
        write_json(work.path(*INDEX), index)
    return index


def training_rows(context: Context, name: str) -> np.ndarray:
    """Rows that a system may learn from. Errors: _AB without cohorts, or with one that the training part lacks."""
    if not name.endswith("_AB"):
        return gate_inputs.training_rows(context)
    cohorts = list(context.cfg.hyper.cohorts)
    there = set(context.corpus.manifest.column("cohort")[context.corpus.rows("train")])
    if absent := [cohort for cohort in cohorts if cohort not in there]:
        raise BadValue(f"hyper.cohorts has {absent[0]!r}; the training part has {', '.join(sorted(there))}")
    if not cohorts:
        raise BadValue(f"{name} trains on hyper.cohorts, which is empty; there are {', '.join(sorted(there))}")
    return gate_inputs.training_rows(context, {"cohort": cohorts})


def definition(cfg, name: str) -> task.Hyper:
    """A system's hypernetwork; an atom has the rank and the scale of an expert. Errors: more routed than there are;
    a target with a rank of its own.
    """
    h, m = cfg.hyper, cfg.mixture
    wide = h.atoms if h.form == "trunk" else 1
    if own := [target for target in m.targets if not isinstance(target, str)]:
        raise BadValue(f"mixture.targets gives {own[0][0]!r} a rank of its own; a hypernetwork has one rank: give none")
    routed = h.routed if name.startswith("moe") else 0
    if not 0 <= routed < h.atoms:
        raise BadValue(f"hyper.routed is {routed}; of {h.atoms} atoms (hyper.atoms) at most {h.atoms - 1} are routed")
    return task.Hyper(
        targets=tuple(m.targets),
        form=h.form,
        atoms=h.atoms - routed,
        routed=routed,
        rank=wide * m.rank,
        alpha=wide * m.alpha,
        code=h.code,
        hidden=h.hidden,
        expert_dropout=m.expert_dropout,
    )


def _section(cfg, share: float = 1.0):
    """The training section with a share of the steps."""
    section = cfg.hyper.copy_and_resolve_references()
    with section.unlocked():
        steps = cfg.hyper.steps or cfg.experts.steps + cfg.joint.steps
        section.steps = round(share * steps)
    return section


def _hyper(context, name, rows) -> dict:
    cfg = context.cfg
    hyper = definition(cfg, name)
    graphdef, params = asr.init(
        task.build(context.base.config, hyper, *_projection(context, rows), seed=cfg.seed), context.base.params
    )
    own_NU, voice_NU = gate_inputs.embeddings_of(context, rows), gate_inputs.speaker_means(context, rows)
    share = cfg.hyper.cohort_share
    parts = {
        "cohort": (share, _cohort_means(context, rows, own_NU), False),
        "speaker": (1 - share, np.concatenate([own_NU, voice_NU], axis=1), True),
    }
    for part, (share, condition_NU, mixed) in parts.items():
        section = _section(cfg, share)
        if section.steps:
            loss_fn = task.make_loss(graphdef, asr.Row(voice_mix=mixed, **fitting.row_options(section)), hyper)
            plan, fetch = timed.material(context, rows, section, gate_in=condition_NU, own=mixed)
            params = fitting.train(
                context,
                fitting.Training(
                    "hyper",
                    loss_fn,
                    ("expert", "gate"),
                    section,
                    plan=plan,
                    fetch=fetch,
                    sub=(name, part),
                ),
                params,
            )
    kept = {"expert": params["expert"], "gate": params["gate"], "buffer": {"gate": params["buffer"]["gate"]}}
    save_params(context.work.path("hyper", name, "params.safetensors"), kept, {"mean": own_NU.mean(0).tolist()})
    return _entry(
        context,
        rows,
        kind="hyper",
        rank=hyper.rank,
        form=hyper.form,
        trainable=sum(functional.count(params[group]) for group in ("expert", "gate")),
    )


def _lora(context, name, rows) -> dict:
    """One LoRA with at least as many numbers as `hyper_AB`."""
    cfg = context.cfg
    section = _section(cfg)
    hyper = definition(cfg, "hyper_AB")
    _, recipe = functional.abstract(task.build(context.base.config, hyper, *_projection(context, rows)))
    size = sum(functional.count(recipe[group]) for group in ("expert", "gate"))
    _, one = functional.abstract(asr.build(context.base.config, mixture=single(cfg, 1)))
    rank = -(-size // functional.count(one["expert"]))
    mixture = single(cfg, rank)
    graphdef, params = network.with_experts(context, mixture)
    row = asr.Row(route="label", **fitting.row_options(section))
    plan, fetch = timed.material(context, rows, section, labels=np.zeros(len(rows), np.int64))
    params = fitting.train(
        context,
        fitting.Training(
            "hyper",
            asr.make_loss(graphdef, row, mixture=mixture),
            ("expert",),
            section,
            plan=plan,
            fetch=fetch,
            sub=(name,),
        ),
        params,
    )
    save_params(context.work.path("hyper", name, "params.safetensors"), {"expert": params["expert"]})
    return _entry(context, rows, kind="lora", rank=rank, trainable=functional.count(params["expert"]))


def single(cfg, rank):
    """One LoRA with the scale of an atom, whatever kind the mixture's experts are."""
    return network.definition(cfg, 1, rank=rank, shared_rank=0, kind="lora", stabilised=False)


def _entry(context, rows, **more) -> dict:
    return {
        **more,
        "cohorts": sorted(set(context.corpus.manifest.column("cohort")[rows])),
        "utterances": len(np.unique(rows)),
    }


def _projection(context, rows):
    """What conditions are seen through, fitted on these rows: the discriminant of their speakers, which removes the
    text and keeps the voice, or principal components where there are fewer than three; of unit variance.
    """
    embedding_NU, speaker_N = gate_inputs.embeddings_of(context, rows), context.corpus.manifest.column("speaker")[rows]
    dims = context.cfg.hyper.dims
    if len(set(speaker_N)) > 2:
        mean_U, matrix_UK = projection.fit_discriminant(embedding_NU, speaker_N, dims)
    else:
        found = projection.fit_pca(embedding_NU, dims=dims)
        mean_U, matrix_UK = found.mean_U, found.matrix_UK
    spread_K = ((embedding_NU - mean_U) @ matrix_UK).std(0)
    return mean_U.astype(np.float32), (matrix_UK / np.maximum(spread_K, 1e-6)).astype(np.float32)


def _cohort_means(context, rows, embedding_NU):
    cohort_N, mean_NU = context.corpus.manifest.column("cohort")[rows], embedding_NU.copy()
    for name in set(cohort_N):
        mean_NU[cohort_N == name] = embedding_NU[cohort_N == name].mean(0)
    return mean_NU


STAGE = Stage(
    "hyper",
    run,
    needs=("describe", "base", "embed"),
    together=True,
    reseeded=True,
    switch="hyper.systems",
    reads=("model.weights", "mixture", "hyper", *fitting.BUDGET),
    sections=SECTIONS,
)
