"""Optimizers by name, with a learning-rate schedule and one factor per parameter group."""

import dataclasses
from collections.abc import Mapping

import jax
import optax

from moejax.errors import BadValue

SCHEDULES = ("cosine", "constant", "linear")
PLATEAU = "plateau"  # one more, where a training says what a plateau is
OPTIMIZERS = ("adamw", "adam", "sgd")


@dataclasses.dataclass(frozen=True)
class Plateau:
    """The learning rate is multiplied by `factor` when the mean training loss of an epoch (`steps`) has not fallen by a
    relative 1e-4 for `patience` epochs; never under `least` of the first. Of the training loss, as all of it then lies
    in the optimizer's state: resuming is exact, and the validation fold stays for what it is for.
    """

    steps: int
    patience: int = 5
    factor: float = 0.5
    least: float = 0.01


def make_schedule(name: str, learning_rate: float, steps: int, warmup: int = 0) -> optax.Schedule:
    """Learning rate by step: linear from 0 over `warmup` steps, then constant or down to 0 at `steps`."""
    if name not in SCHEDULES:
        raise BadValue(f"unknown schedule {name!r}; known: {', '.join(SCHEDULES)}")
    if not 0 <= warmup <= steps:
        raise BadValue(f"warmup {warmup} must lie between 0 and steps {steps}")
    after = max(1, steps - warmup)
    then = {
        "cosine": optax.cosine_decay_schedule(learning_rate, after),
        "constant": optax.constant_schedule(learning_rate),
        "linear": optax.linear_schedule(learning_rate, 0.0, after),
    }[name]
    if not warmup:
        return then
    # counts from 1 / warmup: a first step with learning rate 0 would do nothing
    start = optax.linear_schedule(learning_rate / warmup, learning_rate, max(1, warmup - 1))
    return optax.join_schedules([start, then], [warmup])


def scale_by_group(scales: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiply the updates of each top-level group by its factor (default 1); KeyError for a group that is absent."""

    def update(updates, params=None):
        del params
        if unknown := sorted(set(scales) - set(updates)):
            raise KeyError(f"group_scale names {unknown[0]!r}; known: {', '.join(sorted(updates))}")
        return {group: optax.tree.scale(scales.get(group, 1.0), tree) for group, tree in updates.items()}

    return optax.stateless(update)


def scale_by_leaf(scales: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiply the updates of leaves with these last names, in whatever group, by their factors."""

    def update(updates, params=None):
        del params
        return jax.tree_util.tree_map_with_path(
            lambda path, leaf: leaf * scales.get(str(getattr(path[-1], "key", path[-1])), 1.0), updates
        )

    return optax.stateless(update)


def _matrices(params):
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def make_optimizer(
    name: str = "adamw",
    *,
    learning_rate: float,
    steps: int,
    warmup: int = 0,
    schedule: str = "cosine",
    weight_decay: float = 0.0,
    clip: float | None = 1.0,
    b1: float = 0.9,
    b2: float = 0.999,
    group_scale: Mapping[str, float] | None = None,
    leaf_scale: Mapping[str, float] | None = None,
    plateau: Plateau | None = None,
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """(optax transformation, schedule) for params {"expert": .., "gate": ..}.

    `clip` bounds the global gradient norm (0 or None: no clipping). `group_scale` multiplies the learning rate of
    whole groups, e.g. {"gate": 0.1}; groups that are not trained must not be named. `leaf_scale` does so by the last
    names of arrays. Weight decay acts on arrays of two or more axes only. The schedule "plateau" is constant, times
    what `plateau` makes of the loss.
    """
    if name not in OPTIMIZERS:
        raise BadValue(f"unknown optimizer {name!r}; known: {', '.join(OPTIMIZERS)}")
    if schedule == PLATEAU and plateau is None:
        raise ValueError("the schedule plateau needs to be told what one is")
    rate = make_schedule("constant" if schedule == PLATEAU else schedule, learning_rate, steps, warmup)
    parts = [optax.clip_by_global_norm(clip)] if clip else []
    if name in ("adamw", "adam"):
        parts.append(optax.scale_by_adam(b1=b1, b2=b2))
    else:
        parts.append(optax.trace(decay=b1))
    if weight_decay:
        parts.append(optax.add_decayed_weights(weight_decay, mask=_matrices))
    if group_scale:
        parts.append(scale_by_group(dict(group_scale)))
    if leaf_scale:
        parts.append(scale_by_leaf(dict(leaf_scale)))
    parts.append(optax.scale_by_learning_rate(rate))
    if schedule == PLATEAU and plateau is not None:
        parts.append(
            optax.contrib.reduce_on_plateau(
                factor=plateau.factor,
                patience=plateau.patience,
                accumulation_size=plateau.steps,
                min_scale=plateau.least,
            )
        )
    return optax.chain(*parts), rate
