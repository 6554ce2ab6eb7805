"""A target speaker's model: who is known by an enrolment, and every frame is one of five ego classes.

Encoder and decoder of Performer layers, as the project TS-DIA has them: the decoder reads the frames behind a token of
the enrolment, with rotary positions, and attends to the encoder. The enrolment is frames in which the target speaks
alone, of another recording: the same encoder hears them, and their mean is the token; none stands for nobody.

Every frame is told how alike it and the token are, channel by channel, as TS-VAD sets the profile beside every frame
(Medennikov et al. 2020, arXiv 2005.07272): a token that frames could only attend to was passed over.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.nn.layers import Noise, drop
from moejax.nn.performer import Kind, PerformerLayer
from moejax.nn.sounds import linear
from moejax.nn.variables import Backbone, Buffer, Init
from moejax.types import Array

CLASSES = 5


@dataclasses.dataclass(frozen=True)
class EgoSizes:
    """`hears` as of `diarizers.Sizes`; `decoder`: attention of the decoder, which sees whole recordings unless it is
    one of the causal kinds. With a causal decoder the model still does not stream: its encoder sees the future.
    """

    hears: tuple[int, ...]
    width: int = 345
    heads: int = 5
    layers: int = 8
    ffn: int = 1380
    attention: str = "softmax"
    decoder: str = "softmax"
    norm: str = "scale"
    activation: str = "reglu"
    features: int = 0


class EgoNet(nnx.Module):
    """Logits [B, T, 5] of frames [B, T, ...] for a target enrolled by frames [B, R, ...]."""

    def __init__(self, sizes: EgoSizes, *, init: Init):
        s = self.sizes = sizes
        *layers, width = s.hears
        self.centre, self.spread = Buffer(jnp.zeros(s.hears)), Buffer(jnp.ones(s.hears))
        self.shares: Any = Backbone(init.constant(layers[0])) if layers else nnx.data(None)
        self.project = linear(width, s.width, init)
        kind = Kind(s.width, s.heads, s.ffn, s.attention, s.norm, s.activation, features=s.features)
        own = dataclasses.replace(kind, attention=s.decoder, rotary=True)
        self.encoder = nnx.List([PerformerLayer(kind, init=init) for _ in range(s.layers)])
        self.decoder = nnx.List([PerformerLayer(own, cross=True, init=init) for _ in range(s.layers)])
        self.enrolled = linear(s.width, s.width, init)
        self.alike = linear(s.width, s.width, init)
        self.nobody = Backbone(init.normal(s.width, std=0.02))
        self.classes = linear(s.width, CLASSES, init)

    def encode(self, x: Array, mask_BT: Array | None, noise: Noise | None = None) -> tuple[Array, Array]:
        """(projected frames, encoder states), both [B, T, D]."""
        x = (x.astype(jnp.float32) - self.centre[...][None, None]) / self.spread[...][None, None]
        if self.shares is not None:
            x = jnp.einsum("BTLD,L->BTD", x, jax.nn.softmax(self.shares[...]))
        h_BTD = states_BTD = self.project(drop(noise, x))
        for layer in self.encoder:
            states_BTD = layer(states_BTD, mask_BT, noise=noise)
        return h_BTD, states_BTD

    def token(self, enrol: Array, mask_BR: Array, noise: Noise | None = None) -> Array:
        """[B, D] of who is enrolled."""
        _, states_BRD = self.encode(enrol, mask_BR, noise)
        seen_BR1 = mask_BR[..., None].astype(jnp.float32)
        mean_BD = (states_BRD * seen_BR1).sum(1) / jnp.maximum(seen_BR1.sum(1), 1.0)
        known_BD = self.enrolled(mean_BD[:, None])[:, 0]
        return jnp.where(mask_BR.any(1, keepdims=True), known_BD, self.nobody[...][None])

    def __call__(self, x: Array, mask_BT: Array, enrol: Array, mask_BR: Array, *, noise: Noise | None = None) -> Array:
        h_BTD, states_BTD = self.encode(x, mask_BT, noise)
        token_B1D = self.token(enrol, mask_BR, noise)[:, None]
        h_BTD = h_BTD + self.alike(_unit(states_BTD) * _unit(token_B1D))
        y_BTD = jnp.concatenate([token_B1D, h_BTD], axis=1)
        seen_BT = jnp.concatenate([jnp.ones_like(mask_BT[:, :1]), mask_BT], axis=1)
        for layer in self.decoder:
            y_BTD = layer(y_BTD, seen_BT, states_BTD, mask_BT, noise)
        return self.classes(y_BTD[:, 1:])


def _unit(x_BTD: Array) -> Array:
    """Of mean square 1."""
    return x_BTD * jax.lax.rsqrt(jnp.square(x_BTD).mean(-1, keepdims=True) + 1e-6)
