"""From a row of the training table to trained parameters: the one way in which stages call the one loop."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax

from moejax.data.pipeline import BatchPlan, loader
from moejax.nn import functional
from moejax.runtime import processes
from moejax.runtime.sharding import process_shard, shard_batch
from moejax.train import loop, optim
from moejax.train.optim import SCHEDULES
from moejax.train.params_file import digest_of, whole_array
from moejax.train.state import init_state, make_step, place
from moejax.training import dev
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
DEV = dev.SECTION


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
    eval_fn: dev.Judge | None = None
    key: Any = None  # random key of its noise, where that of the stage would make several trainings draw alike
    on_metrics: Callable | None = None
    plateau: optim.Plateau | None = None  # of the schedule of that name
    leaf_scale: Mapping[str, float] = dataclasses.field(
        default_factory=dict
    )  # of learning rates, by arrays' last names


def train(context: Context, training: Training, params):
    """Trains and returns all params, the trained ones replaced."""
    cfg, work, section = context.cfg, context.work, training.section
    gated = "gate" in training.trainable and section.get("gate_scale", 1.0) != 1.0
    second: dict[str, float] = {}
    if cfg.mixture.second_rate != 1:
        second = dict.fromkeys(SECOND, float(cfg.mixture.second_rate))
    optimizer, schedule = optim.make_optimizer(
        learning_rate=section.learning_rate,
        steps=section.steps,
        warmup=min(section.warmup, section.steps),
        schedule=section.schedule,
        weight_decay=section.weight_decay,
        clip=section.clip,
        b2=section.b2,
        group_scale={"gate": section.gate_scale} if gated else None,
        leaf_scale={**second, **training.leaf_scale} or None,
        plateau=training.plateau,
    )
    for line in summary_of(params, training.trainable):
        work.log(f"  trains {line}")
    key = key_of(cfg, training.name) if training.key is None else training.key
    state, frozen = init_state(params, training.trainable, optimizer, key)
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
    judge = training.eval_fn
    before = None if judge is None else judge.each(state, frozen)
    try:
        state = loop.fit(state, frozen, step_fn, batches, cadence, home, eval_fn=judge, on_metrics=training.on_metrics)
        if judge is not None and before is not None:
            state = _judged(judge, before, state, frozen, section, home, work)
    finally:
        source.close()
    if processes.count() > 1:  # what follows is each process's own work, on its own devices
        return {**params, **jax.tree.map(whole_array, state.params)}
    return {**frozen, **state.params}


def _judged(judge: dev.Judge, before: dev.Each, state, frozen, section, home: loop.Home, work):
    """The state that the stage keeps. The log says what training was worth, also where it was worth nothing."""
    last = judge.each(state, frozen)
    if section.get("keep", "last") == "best" and (best := loop.best(state, home)) is not None:
        other = judge.each(best, frozen)
        if judge.compared(other, last).high < 0:
            work.log(f"  {home.desc}: step {int(best.step)} is kept; the last one: {judge.said(last, other)}")
            state, last = best, other
    work.log(f"  {home.desc}: {judge.said(last, before)}")
    return state


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
