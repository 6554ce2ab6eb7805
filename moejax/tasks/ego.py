"""One enrolled speaker among others: how a batch becomes a loss, and talks become ego classes.

A batch is a dict: what is heard [B, T, ...] and `enrol` [B, R, ...] of it, `frames_B` and `enrolled_B` (how many frames
of each are real; 0 enrolled for a target that is not there), `ego_BT` (places in `diarize.labels.EGO`), `real_B`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from moejax.nn import functional
from moejax.nn.ego import CLASSES, EgoNet, EgoSizes
from moejax.nn.layers import Noise
from moejax.nn.performer import redraw
from moejax.nn.variables import Init
from moejax.tasks.diarization import heard_of, mask_of
from moejax.types import Array, Params


def init(sizes: EgoSizes, seed: int) -> tuple[functional.GraphDef, Params]:
    """`(graphdef, params)` of a fresh network."""
    graphdef, params = functional.split(EgoNet(sizes, init=Init(seed)))
    return graphdef, functional.materialise(params)


def make_loss(
    graphdef: functional.GraphDef, dropout: float = 0.0, smoothing: float = 0.0, seed: int = 0, interval: int = 0
) -> Callable:
    """`loss_fn(params, batch, key, step)`: cross-entropy per real frame; random features redrawn every `interval` steps
    (0: never).
    """

    def loss_fn(params, batch, key, step):
        net = functional.merge(graphdef, params)
        if interval:
            redraw(net, seed, step, interval)
        noise = Noise(key, dropout)
        logits_BTC = _logits(net, batch, noise)
        target_BTC = (1 - smoothing) * jax.nn.one_hot(batch["ego_BT"], CLASSES) + smoothing / CLASSES
        seen_BT = mask_of(batch) & batch["real_B"][:, None]
        loss_BT = -(jax.nn.log_softmax(logits_BTC) * target_BTC).sum(-1)
        count = jnp.maximum(seen_BT.sum(), 1)
        hit_BT = (logits_BTC.argmax(-1) == batch["ego_BT"]) & seen_BT
        return (loss_BT * seen_BT).sum() / count, {"accuracy": hit_BT.sum() / count}

    return loss_fn


def with_features(graphdef: functional.GraphDef, params: Params, seed: int, step: int, interval: int) -> Params:
    """Params with the random features that the last step was made with."""
    net = functional.merge(graphdef, params)
    if interval:
        redraw(net, seed, jnp.asarray(max(step - 1, 0)), interval)
    return {**params, "buffer": functional.split(net)[1]["buffer"]}


def make_classes(graphdef: functional.GraphDef) -> Callable[[Params, dict], Array]:
    """`classes(params, batch) -> probabilities [B, T, 5]`."""

    @jax.jit
    def classes(params, batch):
        return jax.nn.softmax(_logits(functional.merge(graphdef, params), batch, None))

    return classes


def _logits(net, batch, noise):
    enrolled_BR = jnp.arange(batch["enrol"].shape[1])[None] < batch["enrolled_B"][:, None]
    return net(heard_of(batch), mask_of(batch), batch["enrol"], enrolled_BR, noise=noise)
