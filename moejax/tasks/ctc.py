"""CTC on kept encoder states: how a batch becomes a loss, and states become log probabilities of units.

Dividing by the units' prior against CTC's peaks (Huang et al. 2024, Less Peaky and More Accurate CTC Forced Alignment
by Label Priors) was tried and left out: borders of simulated speech were further off (0.30 frames against 0.19), those
of TIMIT's words the same (27 ms against 28).
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


def make_loss(graphdef: GraphDef) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`loss_fn(params, batch, key)`: mean negative log likelihood per label."""

    def loss_fn(params: Params, batch: Labelled, key):
        del key
        logp_BTC = functional.merge(graphdef, {"head": params["head"]})(batch.states_BTD)
        found_B = ctc.log_likelihood(logp_BTC, batch.frames_B, batch.labels_BL, batch.count_B)
        # A text without labels (filler) has the blank's path alone, which is nobody's to learn
        return -jnp.where(batch.count_B > 0, found_B, 0.0).sum() / jnp.maximum(batch.count_B.sum(), 1), {}

    return loss_fn


def make_likelihood(graphdef: GraphDef) -> Callable[[Params, Labelled], Array]:
    """Jitted log likelihood of each utterance, `[B]`: what dev is judged by."""

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
