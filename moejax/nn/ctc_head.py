"""A head on the frozen encoder that says which letter or phone sounds in each of its frames."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.nn.layers import Linear
from moejax.nn.variables import Head, Init
from moejax.types import Array


class CtcHead(nnx.Module):
    """Log probabilities of blank (class 0) and units in each encoder frame (20 ms), from it and its neighbours.

    Two layers and no more: the encoder has heard the whole window, what is left is to tell units apart where they
    sound.
    """

    def __init__(self, width: int, hidden: int, classes: int, *, init: Init):
        self.inner = Linear(width, hidden, init=init, group=Head)
        self.near = Linear(3 * hidden, hidden, init=init, group=Head)
        self.outer = Linear(hidden, classes, init=init, group=Head)

    def __call__(self, states_BTD: Array) -> Array:
        """[B, T, D] -> log probabilities [B, T, C], float32."""
        h_BTH = jax.nn.gelu(self.inner(states_BTD.astype(jnp.float32)))
        padded = jnp.pad(h_BTH, ((0, 0), (1, 1), (0, 0)))
        beside = jnp.concatenate([padded[:, :-2], h_BTH, padded[:, 2:]], axis=-1)
        return jax.nn.log_softmax(self.outer(h_BTH + jax.nn.gelu(self.near(beside))), axis=-1)
