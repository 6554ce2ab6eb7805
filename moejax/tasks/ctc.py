"""CTC on kept encoder states: how a batch becomes a loss, and states become log probabilities of units.

CTC alone is peaky: it is sure of a unit in one frame and of the blank around it, which says little of where the unit
begins and ends. Dividing by the units' prior (the blank's is nine tenths) while training takes away what the blank
gains by being everywhere (Huang et al. 2024, Less Peaky and More Accurate CTC Forced Alignment by Label Priors).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from moejax.nn import functional
from moejax.nn.ctc_head import CtcHead
from moejax.nn.functional import GraphDef
from moejax.nn.variables import Init
from moejax.ops import ctc
from moejax.types import Array, Params


class Labelled(NamedTuple):
    """Utterances as states and labels. A filler row has no labels."""

    states_BTD: Array
    frames_B: Array
    labels_BL: Array
    count_B: Array


def build(width: int, hidden: int, classes: int, seed: int = 0) -> Callable[[], CtcHead]:
    return lambda: CtcHead(width, hidden, classes, init=Init(seed))


def make_loss(graphdef: GraphDef, prior: float) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`loss_fn(params, batch, key)`: mean negative log likelihood per label, of log probabilities less `prior` times
    those of the batch's mean.
    """

    def loss_fn(params: Params, batch: Labelled, key):
        del key
        logp_BTC = functional.merge(graphdef, {"head": params["head"]})(batch.states_BTD)
        real_BT = jnp.arange(logp_BTC.shape[1])[None] < (batch.frames_B * (batch.count_B > 0))[:, None]
        prior_C = jax.lax.stop_gradient(prior_of(logp_BTC, real_BT))
        found_B = ctc.log_likelihood(logp_BTC - prior * prior_C, batch.frames_B, batch.labels_BL, batch.count_B)
        labels = jnp.maximum(batch.count_B.sum(), 1)
        # A text without labels (filler) has the blank's path alone, which is nobody's to learn
        return -jnp.where(batch.count_B > 0, found_B, 0.0).sum() / labels, {}

    return loss_fn


def prior_of(logp_BTC: Array, real_BT: Array) -> Array:
    """Log of the mean probability of each class over real frames, `[C]`."""
    total_C = jnp.where(real_BT[..., None], jnp.exp(logp_BTC), 0.0).sum((0, 1))
    return jnp.log(jnp.maximum(total_C / jnp.maximum(real_BT.sum(), 1), 1e-6))


def make_likelihood(graphdef: GraphDef) -> Callable[[Params, Labelled], Array]:
    """Jitted log likelihood of each utterance, `[B]`, without a prior: what dev is judged by."""

    @jax.jit
    def run(params, batch):
        logp_BTC = functional.merge(graphdef, {"head": params["head"]})(batch.states_BTD)
        return ctc.log_likelihood(logp_BTC, batch.frames_B, batch.labels_BL, batch.count_B)

    return run


def make_emit(graphdef: GraphDef) -> Callable[[Params, Array], Array]:
    """Jitted log probabilities `[B, T, C]` of states."""

    @jax.jit
    def run(params, states_BTD):
        return functional.merge(graphdef, {"head": params["head"]})(states_BTD)

    return run


def make_align() -> Callable[..., ctc.Spans]:
    """Jitted `ops.ctc.align`."""
    return jax.jit(ctc.align)
