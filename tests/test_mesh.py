"""Joint training of a real mixture comes out the same however the devices are arranged."""

import functools

import jax
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.runtime import sharding
from moejax.tasks import asr

MESHES = [{"data": 8}, {"data": 2, "fsdp": 2, "expert": 2}, {"data": 2, "model": 2, "expert": 2}]
STEPS = 5
MIXTURE = asr.Mixture(
    ("encoder/layers/*/self_attn/v", "encoder/layers/*/fc1", "decoder/layers/*/cross_attn/q", "decoder/layers/*/fc?"),
    num_experts=tiny.E,
    rank=2,
    alpha=4.0,
    shared_rank=2,
    routing="topk",
    top_k=2,
)
ROW = asr.Row(route="gate", balance=0.1, z=1e-3)


def train(mesh):
    graphdef, params = tiny.model(MIXTURE, hidden=8)
    loss_fn = tiny.loss_of(graphdef, ROW, MIXTURE, (0.4, 0.3, 0.2, 0.1))[0]
    now, frozen, step = tiny.trainer(loss_fn, params, ("expert", "gate"), mesh=mesh)
    made, history = tiny.collator(40), []
    for n in range(STEPS):
        rows = (8 * n + np.arange(8)) % 40
        # Filler rows and rows of unequal length lie unequally over the devices: a mean of means would show.
        now, metrics = step(now, frozen, made(tiny.BUCKET, np.where(rows % 8 == 7, -1, rows)))
        history.append(jax.device_get(metrics))  # one step in flight: pretend devices may starve a collective
    return now, frozen, history


@functools.cache
def alone():
    return train(tiny.single())


@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_five_joint_steps_are_those_of_one_device(shape):
    one, _, want = alone()
    many, frozen, got = train(sharding.make_mesh(shape))
    for (path, a), b in zip(jax.tree_util.tree_leaves_with_path(one.params), jax.tree.leaves(many.params), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert np.linalg.norm(a - b) <= 1e-5 * np.linalg.norm(a), sharding.path_string(path)
    for before, after in zip(want, got, strict=True):
        for name in ("loss", "ce", "balance", "z", "entropy", "load_EC", "grad_norm"):
            np.testing.assert_allclose(after[name], before[name], rtol=2e-5, atol=1e-6, err_msg=name)
        assert after["load_EC"].sum() == pytest.approx(7, rel=1e-5)  # utterances of the whole batch, filler left out
    flat = {sharding.path_string(p): x for p, x in jax.tree_util.tree_leaves_with_path((many.params, frozen))}
    stack = next(x for path, x in flat.items() if path.endswith("decoder/layers/0/fc1/experts/A"))
    kernel = next(x for path, x in flat.items() if path.endswith("backbone/decoder/layers/0/fc1/kernel"))
    assert stack.addressable_shards[0].data.shape[0] == tiny.E // shape.get("expert", 1)
    assert kernel.size // kernel.addressable_shards[0].data.size == shape.get("fsdp", 1) * shape.get("model", 1)


def test_training_moved_the_parameters_that_are_compared():
    before, after = tiny.model(MIXTURE, hidden=8)[1], alone()[0].params
    for group in ("expert", "gate"):
        assert all(tiny.changed(before[group], after[group]).values())
