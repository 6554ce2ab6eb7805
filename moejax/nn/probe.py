"""A classifier on a frozen encoder: learnt weights of its layers, pooling over time, a small head.

After Whisper-AT (Gong et al. 2023) and SUPERB's probes: what a layer says differs from task to task, so all of them are
heard, each standardised, in shares that are learnt. The head can hold the mixture's experts (`nn.experts`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.errors import BadValue
from moejax.nn.experts import LowRankExperts
from moejax.nn.layers import Noise, drop
from moejax.nn.sounds import linear
from moejax.nn.variables import Buffer, Gate, Head, Init
from moejax.types import Array, Route

POOLINGS = ("mean", "attention")


class WhisperProbe(nnx.Module):
    """Logits [B, classes] of segments' mean states [B, T, layers, D] and how many frames each segment has [B, T].

    pooling   mean: of all frames; attention: a learnt query says how much a segment counts (beside its frames)
    hidden    units of the head; 0: one linear layer
    experts   low-rank experts on the head's first layer, weighed by a linear gate on the pooled states through `route`
    """

    def __init__(
        self,
        shape: tuple[int, int],
        classes: int,
        *,
        pooling: str = "mean",
        hidden: int = 128,
        dropout: float = 0.0,
        experts: int = 0,
        rank: int = 4,
        alpha: float = 8.0,
        route: Callable[[Array], Route] | None = None,
        init: Init,
    ):
        if pooling not in POOLINGS:
            raise BadValue(f"unknown pooling {pooling!r}; known: {', '.join(POOLINGS)}")
        layers, width = shape
        self.shape, self.classes, self.dropout, self.route = tuple(shape), classes, dropout, route
        self.centre = Buffer(jnp.zeros(shape))
        self.spread = Buffer(jnp.ones(shape))
        self.shares = Head(init.constant(layers))
        self.query = Head(init.constant(width)) if pooling == "attention" else None
        self.fc1 = linear(width, hidden, init, Head) if hidden else None
        self.fc2 = linear(hidden or width, classes, init, Head)
        self.gate = Gate(init.uniform(width, experts, bound=width**-0.5)) if experts else None
        if experts:
            own = self.fc1 or self.fc2
            d_in, d_out = own.kernel.get_value().shape
            own.experts = LowRankExperts(d_in, d_out, num_experts=experts, rank=rank, alpha=alpha, init=init)

    def __call__(self, states_BTLD: Array, frames_BT: Array, *, noise: Noise | None = None) -> Array:
        h_BD = self.pooled(states_BTLD, frames_BT)
        route = None
        if self.gate is not None and self.route is not None:
            route = self.route(h_BD @ self.gate[...])
        h_B1D = drop(noise, h_BD[:, None])
        if self.fc1 is not None:
            h_B1D = drop(noise, jax.nn.relu(self.fc1(h_B1D, route)))
        return self.fc2(h_B1D, route)[:, 0]

    def pooled(self, states_BTLD: Array, frames_BT: Array) -> Array:
        """[B, D] float32: of each clip."""
        share_L = jax.nn.softmax(self.shares[...])
        z_BTLD = (states_BTLD.astype(jnp.float32) - self.centre[...][None, None]) / self.spread[...][None, None]
        z_BTD = jnp.einsum("BTLD,L->BTD", z_BTLD, share_L)
        return jnp.einsum("BTD,BT->BD", z_BTD, self.weights(z_BTD, frames_BT))

    def weights(self, z_BTD: Array, frames_BT: Array) -> Array:
        """How much each segment counts [B, T]; adds up to one."""
        score_BT = jnp.log(jnp.maximum(frames_BT.astype(jnp.float32), 1e-9))
        if self.query is not None:
            score_BT = score_BT + z_BTD @ self.query[...] * z_BTD.shape[-1] ** -0.5
        weight_BT = jax.nn.softmax(score_BT, axis=-1)
        return jnp.where(frames_BT > 0, weight_BT, 0.0)
