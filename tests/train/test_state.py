import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy

from moejax.runtime import sharding
from moejax.train import optim, state

MESHES = [
    {"data": 8},
    {"data": 2, "fsdp": 2, "expert": 2},
    {"expert": 4, "data": 2},
    {"fsdp": 2, "model": 2, "data": 2},
]


def start(mesh, trainable=toy.TRAINABLE, **options):
    optimizer, schedule = optim.make_optimizer(learning_rate=1e-2, steps=20, **options)
    fresh, frozen = state.init_state(toy.params(), trainable, optimizer, jax.random.key(0))
    fresh, frozen, *shardings = state.place(fresh, frozen, optimizer, mesh)
    return fresh, frozen, state.make_step(toy.loss, optimizer, mesh, *shardings, schedule=schedule)


def single():
    return sharding.make_mesh({}, jax.devices()[:1])


def run(mesh, steps, **options):
    now, frozen, step = start(mesh, **options)
    placed = jax.tree.map(lambda leaf: leaf.sharding, now)
    for n in range(steps):
        now, metrics = step(now, frozen, sharding.shard_batch(toy.batch(n), mesh))
        jax.block_until_ready(metrics)  # one step in flight: 8 pretend devices on 2 cores may starve a collective
    assert jax.tree.map(lambda leaf: leaf.sharding, now) == placed  # nothing drifted
    return now, frozen, metrics


def paths(tree):
    return {sharding.path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def test_a_step_changes_every_trainable_and_nothing_else():
    before = toy.params()
    now, frozen, metrics = run(single(), 1)
    changed = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), now.params, {g: before[g] for g in toy.TRAINABLE})
    assert all(jax.tree.leaves(changed))
    assert set(frozen) == {"backbone"}
    assert jax.tree.all(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), frozen, {"backbone": before["backbone"]}))
    assert all(np.isfinite(metrics[name]).all() for name in ("loss", "grad_norm", "update_norm", "param_norm"))
    assert metrics["update_norm"] > 0 and metrics["skipped"] == 0 and metrics["load_E"].shape == (toy.E,)


@pytest.mark.parametrize("trainable", [("expert",), ("gate",), ("expert", "gate"), ("backbone", "expert", "gate")])
def test_optimizer_state_covers_exactly_the_trainables(trainable):
    now, _, _ = start(single(), trainable)
    wanted = {f"{group}/{path}" for group in trainable for path in paths(toy.params()[group])}
    assert paths(now.params) == wanted
    for moment in ("mu", "nu"):
        assert {p.split(f"{moment}/")[1] for p in paths(now.opt_state) if f"{moment}/" in p} == wanted


def test_what_trains_is_a_tuple_of_groups_that_there_are():
    optimizer, _ = optim.make_optimizer(learning_rate=1e-2, steps=4)
    with pytest.raises(ValueError, match="'experts'.*backbone, expert, gate"):
        state.init_state(toy.params(), ("experts",), optimizer, jax.random.key(0))
    with pytest.raises(ValueError, match="tuple"):
        state.init_state(toy.params(), "expert", optimizer, jax.random.key(0))


def test_non_finite_step_is_left_out_bit_for_bit_and_counted():
    mesh = single()
    now, frozen, step = start(mesh)
    now, _ = step(now, frozen, toy.batch(0))
    kept = jax.tree.map(np.array, (now.params, now.opt_state))
    bad = toy.batch(1)
    bad["poison_B"][3] = np.nan
    now, metrics = step(now, frozen, bad)
    same = jax.tree.map(lambda a, b: np.array_equal(a, b), kept, (now.params, now.opt_state))
    assert jax.tree.all(same)
    assert (int(now.step), int(now.skipped), int(metrics["skipped"])) == (2, 1, 1)
    assert np.isnan(metrics["loss"]) and metrics["update_norm"] == 0
    now, metrics = step(now, frozen, toy.batch(2))
    assert np.isfinite(metrics["loss"]) and int(now.skipped) == 1
    assert not np.array_equal(now.params["gate"]["out"]["bias"], kept[0]["gate"]["out"]["bias"])


def test_state_is_donated_and_the_callers_params_survive():
    params, key = toy.params(), jax.random.key(0)
    optimizer, _ = optim.make_optimizer(learning_rate=1e-2, steps=20)
    fresh, frozen = state.init_state(params, toy.TRAINABLE, optimizer, key)
    fresh, frozen, *shardings = state.place(fresh, frozen, optimizer, single())
    state.make_step(toy.loss, optimizer, single(), *shardings)(fresh, frozen, toy.batch(0))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((fresh.params, fresh.opt_state)))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves((params, frozen, key)))


def test_key_differs_by_step_and_repeats_by_seed():
    (one, _, a), (two, _, b) = run(single(), 3), run(single(), 3)
    assert a["loss"] == b["loss"] and jax.tree.all(jax.tree.map(np.array_equal, one.params, two.params))
    now, frozen, step = start(single(), group_scale={"expert": 0.0, "gate": 0.0})  # only the noise changes
    now, first = step(now, frozen, toy.batch(0))
    _, second = step(now, frozen, toy.batch(0))
    assert first["loss"] != second["loss"]


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_mesh_shape_does_not_change_the_result(shape):
    one, _, of_one = run(single(), 5)
    many, frozen, of_many = run(sharding.make_mesh(shape), 5)
    np.testing.assert_allclose(of_many["loss"], of_one["loss"], rtol=1e-5)
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one.params), jax.tree.leaves(many.params), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        error = np.linalg.norm(a - b) / np.linalg.norm(a)
        assert error <= 1e-5, (sharding.path_string(path), error)
    if "expert" in shape:
        stack = many.params["expert"]["q"]["A"]
        assert stack.addressable_shards[0].data.shape[0] == toy.E // shape["expert"]
        assert many.opt_state[1].mu["expert"]["q"]["A"].sharding == stack.sharding
    if "fsdp" in shape:
        kernel = frozen["backbone"]["q"]["kernel"]
        assert kernel.addressable_shards[0].data.size < kernel.size


def test_metric_of_the_loss_may_not_hide_the_steps_own():
    optimizer, _ = optim.make_optimizer(learning_rate=1e-2, steps=20)
    now, frozen = state.init_state(toy.params(), toy.TRAINABLE, optimizer, jax.random.key(0))

    def loss(params, batch, key):
        return toy.loss(params, batch, key)[0], {"grad_norm": 1.0}

    with pytest.raises(ValueError, match="'grad_norm'"):
        jax.eval_shape(functools.partial(state.train_step, loss, optimizer, None, False), now, frozen, toy.batch(0))
