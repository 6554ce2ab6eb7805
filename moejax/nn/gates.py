"""The gate: from the pooled states of the unadapted encoder to one logit per expert, and what a kind adds to that.

Every kind says one thing about an utterance, `gate(embedding)`: its logits, which the gate stage trains, which routes
are counted by, and which controls exchange. `gate.details(embedding)` is what a kind adds: it starts at zero, so that
every kind begins as the utterance gate, and is learnt in the joint stage.

    utterance   nothing                              layer   logits of each layer with experts
    label       the known cluster instead            rank    logits of each rank within its expert
    mixed       the known cluster, by a weight       token   logits of each token in each decoder layer (`TokenGate`)
    constant    and hears nothing: the control
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.nn.variables import Buffer, Gate, Init
from moejax.ops.routing import dense_weights
from moejax.types import Array, Route


class Details(NamedTuple):
    """What a gate adds to an utterance's logits."""

    layer_BNE: Array | None = None  # to the logits of each layer
    rank_BER: Array | None = None  # logits of each rank within its expert


class MLPGate(nnx.Module):
    """G = Linear ReLU Linear on a fixed affine projection of the embedding (standardisation, or a discriminant that
    keeps the voice).

    Given `voices_PK` (the training speakers' means after that projection) and a `radius`, logits shrink to zero as an
    utterance lies further than the radius from every one of them: a voice unlike any in training gets the even route,
    not that of whoever happens to be nearest. `hidden` = 0 leaves one linear layer. `zero_start` makes the last layer
    zero: every expert begins equally likely, and the gradient of the recognition loss, not chance, tells them apart.
    float32 throughout.
    """

    def __init__(
        self,
        mean_U: Array,
        matrix_UK: Array,
        *,
        num_experts: int,
        hidden: int,
        zero_start: bool = False,
        voices_PK: Array | None = None,
        radius: Array | float = 0.0,
        layers: int = 0,
        rank: int = 0,
        init: Init,
    ):
        self.mean = Buffer(jnp.asarray(mean_U, jnp.float32))
        self.matrix = Buffer(jnp.asarray(matrix_UK, jnp.float32))
        self.voices = None if voices_PK is None else Buffer(jnp.asarray(voices_PK, jnp.float32))
        self.radius = None if voices_PK is None else Buffer(jnp.asarray(radius, jnp.float32))
        width = self.matrix.shape[1]
        if hidden:
            self.hidden_kernel = Gate(init.uniform(width, hidden, bound=width**-0.5))
            self.hidden_bias = Gate(init.constant(hidden))
        else:
            self.hidden_kernel = self.hidden_bias = None
        last = hidden or width
        self.kernel = Gate(init.uniform(last, num_experts, bound=0.0 if zero_start else last**-0.5))
        self.bias = Gate(init.constant(num_experts))

    def __call__(self, embedding_BU: Array) -> Array:
        """Logits [B, E]."""
        h_BF, z_BK = self._hidden(embedding_BU)
        logits_BE = h_BF @ self.kernel[...] + self.bias[...][None]
        return logits_BE if self.voices is None else logits_BE * self._likeness(z_BK)

    def details(self, embedding_BU: Array) -> Details:
        del embedding_BU
        return Details()

    def _hidden(self, embedding_BU):
        """(what the last layer reads, the projected embedding)"""
        h = z_BK = (embedding_BU.astype(jnp.float32) - self.mean[...][None]) @ self.matrix[...]
        if self.hidden_kernel is not None and self.hidden_bias is not None:
            h = jax.nn.relu(h @ self.hidden_kernel[...] + self.hidden_bias[...][None])
        return h, z_BK

    def _likeness(self, z_BK):
        assert self.voices is not None and self.radius is not None  # asked where they are
        return likeness(z_BK, self.voices[...], self.radius[...])[:, None]

    def _more(self, extra, embedding_BU):
        """What an extra kernel [F, groups, width] makes of an utterance: [B, groups, width]."""
        h_BF, z_BK = self._hidden(embedding_BU)
        more = jnp.einsum("BF,FGE->BGE", h_BF, extra[...])
        return more if self.voices is None else more * self._likeness(z_BK)[..., None]


class LayerGate(MLPGate):
    """Every layer with experts has logits of its own: the utterance's and a difference that starts at zero."""

    def __init__(self, *arguments, layers, num_experts, init, **options):
        super().__init__(*arguments, num_experts=num_experts, init=init, **options)
        self.extra = Gate(init.constant(self.kernel.shape[0], layers, num_experts))

    def details(self, embedding_BU: Array) -> Details:
        return Details(layer_BNE=self._more(self.extra, embedding_BU))


class RankGate(MLPGate):
    """Every rank of an expert has a logit of its own, which divides the expert's weight among its ranks."""

    def __init__(self, *arguments, rank, num_experts, init, **options):
        super().__init__(*arguments, num_experts=num_experts, init=init, **options)
        self.extra = Gate(init.constant(self.kernel.shape[0], num_experts, rank))

    def details(self, embedding_BU: Array) -> Details:
        return Details(rank_BER=self._more(self.extra, embedding_BU))


class ConstantGate(nnx.Module):
    """The same logits for everybody: what the mixture is worth without hearing who speaks."""

    def __init__(self, mean_U: Array, matrix_UK: Array, *, num_experts: int, init: Init, **unused):
        self.mean = Buffer(jnp.asarray(mean_U, jnp.float32))
        self.matrix = Buffer(jnp.asarray(matrix_UK, jnp.float32))
        self.bias = Gate(init.constant(num_experts))

    def __call__(self, embedding_BU: Array) -> Array:
        """Logits [B, E]."""
        return jnp.broadcast_to(self.bias[...][None], (embedding_BU.shape[0], self.bias.shape[0]))

    def details(self, embedding_BU: Array) -> Details:
        del embedding_BU
        return Details()


class TokenGate(nnx.Module):
    """In a decoder layer: the utterance's logits and what the layer's normed input at a token adds, from zero on."""

    def __init__(self, width: int, *, num_experts: int, route: Callable[[Array], Route], init: Init):
        self.route = route
        self.kernel = Gate(init.constant(width, num_experts))

    def __call__(self, x_BTD: Array, route: Route) -> Route:
        own_BTE = x_BTD.astype(jnp.float32) @ self.kernel[...]
        assert route.logits_BE is not None and route.heard_B1 is not None  # of a gate that leaves tokens to this one
        logits_BTE = route.logits_BE[:, None] + route.heard_B1[..., None] * own_BTE
        return Route(dense_weights(self.route(logits_BTE), self.kernel.shape[1]))


KINDS = {
    "utterance": MLPGate,
    "layer": LayerGate,
    "token": MLPGate,  # and a TokenGate in each decoder layer
    "label": MLPGate,
    "mixed": MLPGate,
    "constant": ConstantGate,
    "rank": RankGate,
}


def nearest(z_BK: Array, voices_PK: Array) -> Array:
    """Distance [B] to the nearest voice."""
    square_BPK = (z_BK[:, None] - voices_PK[None]) ** 2
    return jnp.sqrt(square_BPK.sum(-1).min(-1))


def likeness(z_BK: Array, voices_PK: Array, radius: Array | float) -> Array:
    """From 1 (a known voice) over one half (at the radius) to 0, all of it within a quarter of the radius or so."""
    return jax.nn.sigmoid(8.0 * (1.0 - nearest(z_BK, voices_PK) / radius))
