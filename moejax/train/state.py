"""Train state, and the one step that changes it.

`params` is {group: nested dict of arrays}; the groups that train live in `TrainState.params`, the others are passed
beside it as `frozen` and never copied, differentiated or given optimizer state. `make_step` is the thin jit wrapper;
the mathematics is `train_step` (the split of kauldron's train_step.py).
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from moejax.errors import BadValue
from moejax.runtime import sharding
from moejax.types import Array, Params

Loss = Callable[..., tuple[Array, dict[str, Array]]]  # (params, batch, key[, step]) -> (loss, metrics)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["step", "skipped", "params", "opt_state", "key"],
    meta_fields=[],
)
@dataclasses.dataclass
class TrainState:
    """All that a step changes. step: steps done (int32); skipped: those of them not applied (int32); key: constant."""

    step: Array
    skipped: Array
    params: Params
    opt_state: Any
    key: Array


def init_state(
    params: Params, trainable: Sequence[str], optimizer: optax.GradientTransformation, key: Array
) -> tuple[TrainState, Params]:
    """(TrainState, frozen) from params {group: tree}; `trainable` names whole groups. ValueError for an absent group.

    The state holds copies, because a step donates (destroys) the state it is given and `params` must survive it.
    """
    chosen = _groups(params, trainable)
    live = jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), chosen)
    frozen = {group: tree for group, tree in params.items() if group not in chosen}
    key = jax.random.wrap_key_data(jnp.array(jax.random.key_data(key), copy=True), impl=jax.random.key_impl(key))
    zero = [jnp.zeros((), jnp.int32) for _ in range(2)]
    return TrainState(zero[0], zero[1], live, optimizer.init(live), key), frozen


def _groups(params, trainable):
    if isinstance(trainable, str):
        raise ValueError(f"trainable is a tuple of group names, not the string {trainable!r}")
    if unknown := [group for group in trainable if group not in params]:
        raise ValueError(f"no parameter group {unknown[0]!r} to train; there are: {', '.join(sorted(params))}")
    return {group: params[group] for group in trainable}


def state_sharding(state: TrainState, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh) -> TrainState:
    """TrainState of NamedSharding: optimizer moments lie as their parameters do, counters and key are replicated."""
    params = sharding.param_sharding(state.params, mesh)
    whole = sharding.replicated(mesh)
    opt_state = optax.tree_utils.tree_map_params(
        optimizer, lambda _, like: like, state.opt_state, params, transform_non_params=lambda _: whole
    )
    return TrainState(step=whole, skipped=whole, params=params, opt_state=opt_state, key=whole)


def place(
    state: TrainState, frozen: Params, optimizer: optax.GradientTransformation, mesh: jax.sharding.Mesh
) -> tuple[TrainState, Params, TrainState, Params]:
    """(state, frozen, state shardings, frozen shardings), arrays moved to where the mesh wants them.

    With several processes each gives the whole arrays, equal in all of them.
    """
    on = state_sharding(state, optimizer, mesh), sharding.param_sharding(frozen, mesh)
    if jax.process_count() > 1:  # device_put moves no typed keys to devices of other processes
        state, frozen = jax.jit(lambda *trees: trees, out_shardings=on)(state, frozen)
    else:
        state, frozen = jax.device_put((state, frozen), on)
    return state, frozen, *on


def train_step(
    loss_fn: Loss,
    optimizer: optax.GradientTransformation,
    schedule: optax.Schedule | None,
    stepped: bool,
    state: TrainState,
    frozen: Params,
    batch: Any,
) -> tuple[TrainState, dict[str, Array]]:
    """One update: (new state, metrics). Pure; `loss_fn(params, batch, key) -> (loss, {name: scalar or small array})`,
    which is given the step as a fourth argument if `stepped`.

    A loss, a gradient or a result of the update that is not finite leaves params and optimizer state as they were, bit
    for bit, and adds one to `skipped`; the step counter moves on, so that the next batch and key are taken. Metrics:
    those of loss_fn and loss, grad_norm (before clipping), update_norm, param_norm (both after), skipped (so far),
    learning_rate if `schedule` is given.
    """
    key = jax.random.fold_in(state.key, state.step)

    def loss_of(live):
        return loss_fn({**frozen, **live}, batch, key, *([state.step] if stepped else []))

    (loss, extra), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    grad_norm = optax.tree.norm(grads)
    # the loss is for what reduces the learning rate on a plateau; all else does not look at it
    updates, opt_state = optax.with_extra_args_support(optimizer).update(
        grads, state.opt_state, state.params, value=loss
    )
    params = optax.apply_updates(state.params, updates)
    good = jnp.isfinite(loss) & jnp.isfinite(grad_norm) & _finite((params, opt_state))

    def keep(new, old):
        return jax.tree.map(lambda n, o: jnp.where(good, n, o), new, old)

    new = TrainState(
        step=state.step + 1,
        skipped=state.skipped + (~good).astype(jnp.int32),
        params=keep(params, state.params),
        opt_state=keep(opt_state, state.opt_state),
        key=state.key,
    )
    own = {
        "loss": loss,
        "grad_norm": grad_norm,
        "update_norm": jnp.where(good, optax.tree.norm(updates), 0.0),
        "param_norm": optax.tree.norm(new.params),
        "skipped": new.skipped,
    }
    if schedule is not None:
        plateau = optax.tree.get_all_with_path(opt_state, "plateau_count")
        scale = optax.tree.get(opt_state, "scale") if plateau else 1.0
        own["learning_rate"] = schedule(state.step) * scale if plateau else schedule(state.step)
    if clash := sorted(set(own) & set(extra)):
        raise ValueError(f"loss_fn returns a metric named {clash[0]!r}, which the step itself reports")
    metrics = {name: jnp.asarray(value, jnp.float32) for name, value in {**own, **extra}.items()}
    return new, metrics


def _finite(tree):
    """Whether every number of the tree is finite."""
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return functools.reduce(jnp.logical_and, [jnp.isfinite(leaf).all() for leaf in floats], jnp.array(True))


def check_finite(state: TrainState) -> None:
    """ValueError naming the leaf where params or optimizer state hold a number that is not finite."""
    tree = {"params": state.params, "opt_state": state.opt_state}
    good = jax.device_get(jax.jit(lambda tree: jax.tree.map(lambda leaf: _finite([leaf]), tree))(tree))
    for path, whole in jax.tree_util.tree_leaves_with_path(good):
        if not whole:
            raise BadValue(f"{sharding.path_string(path)} holds a number that is not finite")


def make_step(
    loss_fn: Loss,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    state_sharding: TrainState,
    frozen_sharding: Params,
    *,
    schedule: optax.Schedule | None = None,
    stepped: bool = False,
) -> Callable[[TrainState, Params, Any], tuple[TrainState, dict[str, Array]]]:
    """`train_step` jitted: step(state, frozen, batch) -> (state, metrics), the state donated, shardings written out.

    Output shardings equal input shardings: left to the compiler, the low-rank factors drift to other layouts and the
    second call compiles again. Metrics are replicated. One compilation per batch shape.
    """
    whole = sharding.replicated(mesh)
    return jax.jit(
        functools.partial(train_step, loss_fn, optimizer, schedule, stepped),
        donate_argnums=0,
        in_shardings=(state_sharding, frozen_sharding, sharding.batch_sharding(mesh)),
        out_shardings=(state_sharding, whole),
    )
