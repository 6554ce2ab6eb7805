"""Configs at full sizes without weights, data or devices: shapes of a whole step, memory of a device, shardings."""

import math
import runpy
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from moejax.diarize import ego, train
from moejax.job import config as configs
from moejax.nn import functional
from moejax.nn.diarizers import Diarizer
from moejax.nn.ego import EgoNet
from moejax.nn.variables import Init
from moejax.runtime import sharding
from moejax.tasks import diarization
from moejax.tasks import ego as ego_task

HEARD = 345  # EEND's features
GET = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "diarize.py"))["get_config"]


def batch_of(cfg, size):
    T = round(cfg.talks.seconds * 10)
    shapes = {"features_BTF": ((size, T, HEARD), jnp.float32), "frames_B": ((size,), jnp.int32)}
    shapes |= {"real_B": ((size,), jnp.bool_)}
    if cfg.ego.steps:
        R = round(cfg.ego.enrol * 10)
        shapes |= {"enrol": ((size, R, HEARD), jnp.float32), "enrolled_B": ((size,), jnp.int32)}
        shapes |= {"ego_BT": ((size, T), jnp.int8)}
    else:
        shapes |= {"active_BTS": ((size, T, cfg.diarizer.most), jnp.bool_), "count_B": ((size,), jnp.int32)}
    return {name: jax.ShapeDtypeStruct(*one) for name, one in shapes.items()}


def built(variant):
    """(config, graphdef, abstract params, loss(params, batch, key))"""
    cfg = configs.resolve(GET(variant))
    if cfg.ego.steps:
        graphdef, params = functional.abstract(lambda: EgoNet(ego.sizes_of(cfg.ego, (HEARD,)), init=Init(0)))
        loss = ego_task.make_loss(graphdef, cfg.ego.dropout, cfg.ego.smoothing, 0, cfg.ego.redraw)
        return cfg, params, lambda params, batch, key: loss(params, batch, key, jnp.int32(0))
    sizes = train.sizes_of(cfg.diarizer, (HEARD,))
    graphdef, params = functional.abstract(lambda: Diarizer(sizes, init=Init(0)))
    return cfg, params, diarization.make_loss(graphdef, cfg.diarizer.dropout)


def linear(d_in, d_out):
    return d_in * d_out + d_out


def notes_size(D=HEARD, F=4 * HEARD, layers=8):
    """By hand: attention without biases but behind it, gated feed-forwards, ScaleNorm of one number."""
    attention, ffn = 3 * D * D + linear(D, D), linear(D, 2 * F) + linear(F, D)
    return layers * (attention + ffn + 2 + 2 * attention + ffn + 3) + 3 * linear(D, D) + D + linear(D, 5)


def mini_size(D=256, F=2048, layers=2):
    return layers * (4 * linear(D, D) + linear(D, F) + linear(F, D) + 4 * D) + linear(HEARD, D) + 2 * D + linear(D, 2)


# scalars that are trained, and MiB on one of eight devices (data 2, fsdp 4) for weights, gradient and Adam's moments:
# widths of 345 do not divide by 4, only feed-forwards are cut
FULL = {
    "notes": (notes_size(), 270),
    "notes-linear": (notes_size(), 270),
    "mini_librispeech": (mini_size(), 11),
}


@pytest.mark.parametrize("variant", FULL)
def test_a_config_builds_at_full_size(variant):
    cfg, params, loss = built(variant)
    own, (count, most) = params["backbone"], FULL[variant]
    assert functional.count(own) == count
    section = cfg.ego if cfg.ego.steps else cfg.diarizer

    others = {
        group: jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), tree)
        for group, tree in params.items()
        if group != "backbone"
    }

    def step(backbone, batch, key):
        return jax.value_and_grad(lambda one: loss({**others, "backbone": one}, batch, key)[0])(backbone)

    value, grads = jax.eval_shape(step, own, batch_of(cfg, section.batch_size), jax.random.key(0))
    assert value.shape == () and jax.tree.map(jnp.shape, grads) == jax.tree.map(jnp.shape, own)
    mesh = sharding.pretend_mesh({"data": 2, "fsdp": 4, "expert": 1, "model": 1}, 8)
    assert section.batch_size % 8 == 0
    held = 0
    for path, leaf in functional.paths({"backbone": own}).items():
        cuts = [mesh.shape[axis] if axis else 1 for axis in sharding.param_spec(path, tuple(leaf.shape), mesh)]
        assert all(size % by == 0 for size, by in zip(leaf.shape, cuts, strict=False))
        held += leaf.size // math.prod(cuts)
    assert 0.9 * most < 4 * 4 * held / 2**20 < most
