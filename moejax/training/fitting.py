"""From a row of the training table to trained parameters: the one way in which stages call the one loop."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from moejax.cohorts.embed import options as embedding_options
from moejax.data.pipeline import FILLER, BatchPlan, loader
from moejax.nn import functional
from moejax.runtime import processes
from moejax.runtime.sharding import process_shard, shard_batch
from moejax.score import wer
from moejax.tasks import asr, recognition
from moejax.text import normalize
from moejax.train import loop, optim
from moejax.train.optim import SCHEDULES
from moejax.train.params_file import digest_of, whole_array
from moejax.train.state import init_state, make_step, place
from moejax.training import encoder_states, gate_inputs
from moejax.work.context import Context, key_of
from moejax.work.fields import BATCH, COUNT, STEPS, Field, above, below

# Adapters and hypernetworks train as long as experts and joint together unless their own steps say otherwise.
BUDGET = ("experts.steps", "joint.steps")
SECOND = ("B", "shared_B")  # second factors of low-rank pairs
# Keys that every training section has.
PLAIN = {
    "steps": Field(0, "Optimizer steps.", limits=STEPS),
    "batch_size": Field(32, "Utterances in a batch, over all devices.", limits=BATCH),
    "learning_rate": Field(3e-3, "Learning rate at its highest, after the warmup.", limits=(above(0), 1.0)),
    "warmup": Field(
        20, "Steps in which the learning rate rises to its highest; at most all steps count.", limits=STEPS
    ),
    "schedule": Field(
        "cosine",
        "Course of the learning rate after the warmup.\ncosine and linear end at 0 with the last step, constant stays.",
        choices=SCHEDULES,
    ),
    "weight_decay": Field(
        0.0, "Decoupled weight decay (AdamW) of arrays with two or more axes; 0: none.", limits=(0.0, 100.0)
    ),
    "clip": Field(1.0, "Greatest norm of a step's gradient, which is scaled down to it; 0: no limit."),
    "b2": Field(
        0.98,
        "Adam's share of the old in its mean of squared gradients.\n0.999 remembers longer than these runs last.",
        limits=(0.0, below(1)),
    ),
    "checkpoint_every": Field(100, "Steps between two saved checkpoints.", limits=COUNT, no_result=True),
    "log_every": Field(10, "Steps between two lines of metrics.", limits=COUNT, no_result=True),
}
# Those of sections that train on speech: noise in training (0 turns each off).
NOISES = {
    "dropout": Field(0.0, "Share of activations that are dropped in training.", limits=(0.0, below(1))),
    "smoothing": Field(
        0.0, "Label smoothing: share of a target's probability that all other tokens get.", limits=(0.0, below(1))
    ),
    "spec": Field(False, "SpecAugment: whether bands of time and frequency are masked in training."),
    "time_masks": Field(2, "Masked stretches of time in an utterance, with spec.", limits=(0, 1000)),
    "time_width": Field(10, "Longest masked stretch, in mel frames; at most a fifth of the utterance."),
    "freq_masks": Field(2, "Masked bands of frequency in an utterance, with spec.", limits=(0, 1000)),
    "freq_width": Field(12, "Widest masked band, in mel bins."),
    "warp_time": Field(0.0, "Tempo is changed by a random factor within 1 +- this.", limits=(0.0, 0.9)),
    "warp_freq": Field(0.0, "Vocal-tract length is changed by a random factor within 1 +- this.", limits=(0.0, 0.9)),
    "level": Field(0.0, "Greatest random gain and spectral slope, in log-mel units.", limits=(0.0, 100.0)),
}
TRAIN = {**PLAIN, **NOISES}
DEV = {
    "evals": Field(4, "How often in a stage one batch of dev is scored and logged; 0: never.", limits=(0, 10_000)),
    "best": Field(
        "loss",
        "Score by which a checkpoint is kept as the best.\n"
        "loss: the cross-entropy of the batch of dev; wer: its word error rate, for which it is decoded too (greedily;"
        " one compilation more).",
        choices=("loss", "wer"),
    ),
}


def row_options(section) -> dict:
    """The noise keys of a training section, for `tasks.asr.Row`."""
    return {name: section[name] for name in NOISES}


@dataclasses.dataclass(frozen=True)
class Training:
    """One training: what is learnt (`loss_fn` over the groups in `trainable`), from what, and for how long.

    `plan` says which rows make up batch i and `fetch(bucket, rows)` makes the batch; `section` is the config section
    with its steps and rates. It resumes from W/<name>/<sub...>/checkpoints. The loss is given the step if `stepped`.
    """

    name: str
    loss_fn: Callable
    trainable: tuple[str, ...]
    section: Any
    plan: Any
    fetch: Callable
    sub: tuple[str, ...] = ()
    stepped: bool = False
    eval_fn: Callable | None = None
    on_metrics: Callable | None = None


def train(context: Context, training: Training, params):
    """Trains and returns all params, the trained ones replaced."""
    cfg, work, section = context.cfg, context.work, training.section
    gated = "gate" in training.trainable and section.get("gate_scale", 1.0) != 1.0
    optimizer, schedule = optim.make_optimizer(
        learning_rate=section.learning_rate,
        steps=section.steps,
        warmup=min(section.warmup, section.steps),
        schedule=section.schedule,
        weight_decay=section.weight_decay,
        clip=section.clip,
        b2=section.b2,
        group_scale={"gate": section.gate_scale} if gated else None,
        leaf_scale=dict.fromkeys(SECOND, cfg.mixture.second_rate) if cfg.mixture.second_rate != 1 else None,
    )
    for line in summary_of(params, training.trainable):
        work.log(f"  trains {line}")
    state, frozen = init_state(params, training.trainable, optimizer, key_of(cfg, training.name))
    state, frozen, state_on, frozen_on = place(state, frozen, optimizer, context.mesh)
    step_fn = make_step(
        training.loss_fn, optimizer, context.mesh, state_on, frozen_on, schedule=schedule, stepped=training.stepped
    )
    plan = training.plan
    source = loader(plan, training.fetch, workers=cfg.runtime.workers, shard=process_shard(context.mesh))
    batches = loop.Batches(source, lambda batch: shard_batch(batch, context.mesh), plan.names_of)
    cadence = loop.Cadence(
        section.steps,
        section.checkpoint_every,
        section.log_every,
        -(-section.steps // section.evals) if training.eval_fn else 0,
        cfg.runtime.max_skipped,
    )
    home = loop.Home(
        work.path(training.name, *training.sub),
        "/".join((training.name, *training.sub)),
        {"base": digest_of(frozen), "data": plan.digest()},
        force=cfg.runtime.force,
        progress=not work.quiet,
    )
    try:
        state = loop.fit(
            state, frozen, step_fn, batches, cadence, home, eval_fn=training.eval_fn, on_metrics=training.on_metrics
        )
    finally:
        source.close()
    if processes.count() > 1:  # what follows is each process's own work, on its own devices
        return {**params, **jax.tree.map(whole_array, state.params)}
    return {**frozen, **state.params}


def dev_loss(context: Context, graphdef, mixture, route: str, section, labels_N=None, kept: bool = False, asked=None):
    """`eval_fn` of `train`: {"ce"}, or with `section.best` "wer" {"wer", "ce"}, without noise on one batch of
    utterances spread evenly over dev; None where there is no dev part or `section.evals` is 0.

    All are padded to the longest bucket, so that it is one compilation and not a sample of the short ones; that and a
    few forward passes are all it costs. `labels_N` are those of every row of the manifest, for the route "label".
    `kept`: encoder states may be kept; those of dev are where the base writes times. `asked`: rows -> (rows, what the
    gate hears, what is written of each), where that is not what was said (loss alone).
    """
    rows = context.corpus.manifest.indices(split="dev")
    if not section.evals or not len(rows):
        return None
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, section.batch_size).round().astype(int))]
    written, gate_in = None, gate_inputs.embeddings_of(context, rows) if route == "gate" else None
    if asked is not None:
        rows, gate_in, written = asked(rows)
    decoded = asked is None and section.best == "wer"
    kept = kept and bool(context.base.times) and not decoded  # a word error rate is decoded from audio
    states = encoder_states.opened(context) if kept else None
    collate = context.collator(rows, None if labels_N is None else labels_N[rows], gate_in, states, written)
    bucket = context.buckets[-1]
    collate.lengths = {bucket: max(collate.lengths.values())}
    filler = np.full(-len(rows) % context.multiple, FILLER)
    index_B = np.concatenate([np.arange(len(rows)), filler])
    part, parts = process_shard(context.mesh)
    batch = shard_batch(collate(bucket, np.split(index_B, parts)[part]), context.mesh)
    calm = None if mixture is None else dataclasses.replace(mixture, expert_dropout=0.0)
    loss_fn = asr.make_loss(
        graphdef, asr.Row(route=route, frozen=True), mixture=calm, num_cohorts=len(context.corpus.cohorts)
    )
    cross_entropy = jax.jit(lambda params, batch: loss_fn(params, batch, jax.random.key(0))[1]["ce"])
    wer_of = _dev_wer(context, graphdef, calm, route, batch, rows) if decoded else None

    def score(state, frozen):
        params = {**frozen, **state.params}
        found = {"wer": wer_of(params)} if wer_of else {}
        return found | {"ce": np.asarray(cross_entropy(params, batch))}

    return score


def _dev_wer(context, graphdef, mixture, route, batch, rows):
    """`params -> WER` of one batch whose first rows are these of the manifest."""
    tokenizer, normal = context.base.tokenizer, normalize.get("lower")
    references = [normal(text) for text in context.corpus.manifest.column("text")[rows]]
    predict = recognition.make_predict(
        graphdef,
        prefix=context.prefix(),
        eot=tokenizer.eot,
        max_tokens=context.max_tokens(),
        route=route,
        mixture=mixture,
        embedding=embedding_options(context.cfg),
    )

    def wer_of(params):
        decoded, _ = predict(params, batch.audio_BS, batch.samples_B, batch.label_B)
        tokens_BL, lengths_B = whole_array(decoded.tokens_BL), whole_array(decoded.lengths_B)
        texts = [tokenizer.decode(tokens_BL[b, : lengths_B[b]]) for b in range(len(references))]
        return wer.rate(wer.count(references, [normal(text) for text in texts]))

    return wer_of


def speech_plan(context: Context, rows, section) -> BatchPlan:
    """Shuffled batches of these rows by length, endless."""
    return BatchPlan(
        lengths=context.corpus.samples[rows],
        buckets=context.buckets,
        batch_size=section.batch_size,
        seed=context.cfg.seed,
        multiple=context.multiple,
        names=context.corpus.manifest.strings("id", rows),
    )


def summary_of(params, trainable) -> list[str]:
    """One line per trainable group: how many arrays and scalars, and the layers they sit on."""
    lines = []
    for group in trainable:
        flat = functional.paths(params[group])
        layers = sorted({path.rsplit("/", 1)[0] for path in flat})
        shown = ", ".join(layers[:3]) + (f", ... ({len(layers)} layers)" if len(layers) > 3 else "")
        lines.append(f"{group}: {len(flat)} arrays, {functional.count(params[group]):,} scalars: {shown}")
    return lines
