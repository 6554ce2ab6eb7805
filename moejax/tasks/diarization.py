"""Who speaks when: how a batch becomes a loss, and talks become probabilities.

A batch is a dict: what is heard, `states_BTLD` or `features_BTF`; `frames_B`, how many frames are the talk's;
`active_BTS`, the speakers in any order, silent ones last; `count_B`, how many there are; `real_B`.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from moejax.nn import functional, sounds
from moejax.nn.diarizers import Diarizer, Heard, Sizes
from moejax.nn.enrolled_speakers import STATES
from moejax.nn.layers import Noise
from moejax.nn.variables import Init
from moejax.ops import permutation
from moejax.types import Array, Params

TRAINED = ("backbone",)


def init(sizes: Sizes, seed: int) -> tuple[functional.GraphDef, Params]:
    """`(graphdef, params)` of a fresh network."""
    graphdef, params = functional.split(Diarizer(sizes, init=Init(seed)))
    return graphdef, functional.materialise(params)


def standardised(graphdef: functional.GraphDef, params: Params, centre: np.ndarray, spread: np.ndarray) -> Params:
    """Params that standardise by these statistics of training talks."""
    net = functional.merge(graphdef, params)
    sounds.standardise(net, centre, spread)
    return {**params, "buffer": functional.split(net)[1]["buffer"]}


def heard_of(batch: dict) -> Array:
    """What a batch sounds like."""
    return batch["states_BTLD"] if "states_BTLD" in batch else batch["features_BTF"]


def mask_of(batch: dict) -> Array:
    """Which frames are the talk's [B, T]."""
    return jnp.arange(heard_of(batch).shape[1])[None] < batch["frames_B"][:, None]


def activity_loss(logits_BTS: Array, batch: dict, attracted: bool) -> tuple[Array, Array]:
    """(loss of each talk, speaker of each output [B, S]): binary cross-entropy, mean over speakers, sum over frames, in
    the best order. `attracted`: of the first outputs, as many as there are speakers; else of all.
    """
    cost_BSS = permutation.pair_costs(logits_BTS, batch["active_BTS"], mask_of(batch))
    S = cost_BSS.shape[-1]
    if not attracted:
        loss_B, order_BS = permutation.best(cost_BSS)
        return loss_B / S, order_BS
    loss_B, order_BS = permutation.best(permutation.among(cost_BSS, batch["count_B"]))
    return loss_B / jnp.maximum(batch["count_B"], 1), order_BS


def existence_loss(exists_BS: Array, count_B: Array) -> Array:
    """[B]: the first `count_B` attractors are somebody, the next one is nobody, those behind do not count."""
    place_S = jnp.arange(exists_BS.shape[1])
    there_BS = place_S[None] < count_B[:, None]
    asked_BS = place_S[None] <= count_B[:, None]
    loss_BS = jax.nn.softplus(exists_BS) - exists_BS * there_BS
    return (loss_BS * asked_BS).sum(1) / asked_BS.sum(1)


def columns_loss(heard: Heard, batch: dict) -> Array:
    """Loss of each talk where columns stand in the order of the speakers: binary cross-entropy, mean over the columns
    that count, sum over frames. Columns before the speakers' are those of silence and of overlap.
    """
    assert heard.columns_BTC is not None and heard.asked_BS is not None  # of a head that was told who is active
    logits_BTC, active_BTS = heard.columns_BTC.astype(jnp.float32), batch["active_BTS"]
    target_BTC, asked_BC = active_BTS, heard.asked_BS
    if logits_BTC.shape[-1] > active_BTS.shape[-1]:
        many_BT1 = active_BTS.sum(-1, keepdims=True)
        target_BTC = jnp.concatenate([many_BT1 == 0, many_BT1 > 1, active_BTS], axis=-1)
        asked_BC = jnp.pad(asked_BC, ((0, 0), (STATES, 0)), constant_values=True)
    loss_BTC = jax.nn.softplus(logits_BTC) - logits_BTC * target_BTC
    asked_BTC = mask_of(batch)[..., None] & asked_BC[:, None]
    return (loss_BTC * asked_BTC).sum((1, 2)) / jnp.maximum(asked_BC.sum(1), 1)


def make_loss(graphdef: functional.GraphDef, dropout: float = 0.0, existence: float = 1.0) -> Callable:
    """`loss_fn(params, batch, key)`: EEND's, per frame of the batch, plus `existence` times that of attractors, plus
    that of columns of enrolled speakers.
    """

    def loss_fn(params, batch, key):
        net = functional.merge(graphdef, params)
        mask_BT, real_B = mask_of(batch), batch["real_B"].astype(jnp.float32)
        heard = net(heard_of(batch), mask_BT, active_BTS=batch["active_BTS"], noise=Noise(key, dropout))
        frames = jnp.maximum((mask_BT.sum(1) * real_B).sum(), 1)
        loss, metrics = 0.0, {}
        if heard.active_BTS is not None:
            loss_B, _ = activity_loss(heard.active_BTS, batch, heard.exists_BS is not None)
            loss = metrics["activity"] = (loss_B * real_B).sum() / frames
        if heard.columns_BTC is not None:
            metrics["enrolled"] = (columns_loss(heard, batch) * real_B).sum() / frames
            loss = loss + metrics["enrolled"]
        if heard.exists_BS is not None:
            exists_B = existence_loss(heard.exists_BS, batch["count_B"])
            metrics["existence"] = (exists_B * real_B).sum() / jnp.maximum(real_B.sum(), 1)
            loss = loss + existence * metrics["existence"]
        return loss, metrics

    return loss_fn


def make_each(graphdef: functional.GraphDef) -> Callable[[Params, dict], tuple[Array, Array]]:
    """`each(params, batch) -> (activity loss [B], frames [B])` of talks one by one, without noise."""

    @jax.jit
    def each(params, batch):
        mask_BT = mask_of(batch)
        heard = functional.merge(graphdef, params)(heard_of(batch), mask_BT)
        assert heard.active_BTS is not None  # it was told nothing
        return activity_loss(heard.active_BTS, batch, heard.exists_BS is not None)[0], mask_BT.sum(1)

    return each


def make_hear(graphdef: functional.GraphDef) -> Callable[[Params, dict], tuple[Array, Array, Array]]:
    """`hear(params, batch) -> (probabilities [B, T, S], that an attractor is somebody [B, S], frames [B, T, D])`; with
    fixed speakers everybody is.
    """

    @jax.jit
    def hear(params, batch):
        found = functional.merge(graphdef, params)(heard_of(batch), mask_of(batch))
        assert found.active_BTS is not None  # it was told nothing
        prob_BTS = jax.nn.sigmoid(found.active_BTS)
        if found.exists_BS is None:
            return prob_BTS, jnp.ones((prob_BTS.shape[0], prob_BTS.shape[2])), found.frames_BTD
        return prob_BTS, jax.nn.sigmoid(found.exists_BS[:, :-1]), found.frames_BTD

    return hear
