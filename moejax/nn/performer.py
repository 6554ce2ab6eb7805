"""Transformer layers in the kinds that Performers come in: attention softmax or linear (FAVOR+), plain or causal; layer
norm, ScaleNorm or ReZero; feed-forward plain or gated; rotary positions.

After Choromanski et al. 2021 (arXiv 2009.14794) with the numbers of performer-pytorch (lucidrains): ReZero begins at
1e-3 (the paper: 0), ScaleNorm divides by the norm, at least 1e-5, and its one scale begins at 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.errors import BadValue
from moejax.nn.layers import LayerNorm, Noise, drop
from moejax.nn.sounds import linear
from moejax.nn.variables import Backbone, Buffer, Init
from moejax.ops import favor
from moejax.ops.attention import attend
from moejax.types import Array

ATTENTIONS = ("softmax", "linear", "causal", "causal_linear")
NORMS = ("layer", "scale", "rezero")
REZERO = 1e-3
# {kind: (activation, whether what it gives gates a second half)}
ACTIVATIONS: dict[str, tuple[Callable[[Array], Array], bool]] = {
    "relu": (jax.nn.relu, False),
    "gelu": (lambda x: jax.nn.gelu(x, approximate=False), False),
    "silu": (jax.nn.silu, False),
    "glu": (jax.nn.sigmoid, True),
    "reglu": (jax.nn.relu, True),
    "geglu": (lambda x: jax.nn.gelu(x, approximate=False), True),
    "swiglu": (jax.nn.silu, True),
}


@dataclasses.dataclass(frozen=True)
class Kind:
    """What a layer is made of; `rotary`: positions turn queries and keys (theta 1e4). `features` 0: width ln(width)."""

    width: int
    heads: int
    ffn: int
    attention: str = "softmax"
    norm: str = "scale"
    activation: str = "reglu"
    rotary: bool = False
    features: int = 0

    def __post_init__(self):
        if self.width % self.heads:
            fits = [n for n in range(1, self.width + 1) if self.width % n == 0]
            raise BadValue(f"width {self.width} does not divide by {self.heads} heads; it does by {fits}")
        for what, known in (("attention", ATTENTIONS), ("norm", NORMS), ("activation", tuple(ACTIVATIONS))):
            if getattr(self, what) not in known:
                raise BadValue(f"unknown {what} {getattr(self, what)!r}; known: {', '.join(known)}")


class ScaleNorm(nnx.Module):
    """x / |x| times one number (Nguyen and Salazar 2019)."""

    def __init__(self, *, init: Init):
        self.scale = Backbone(init.constant(1, value=1.0))

    def __call__(self, x_BTD: Array) -> Array:
        norm_BT1 = jnp.linalg.norm(x_BTD.astype(jnp.float32), axis=-1, keepdims=True)
        return (x_BTD / jnp.maximum(norm_BT1, 1e-5) * self.scale[...][None, None]).astype(x_BTD.dtype)


def rotated(x_BTHK: Array, theta: float = 1e4) -> Array:
    """Neighbouring pairs of every head turned by their position (Su et al. 2021); the last number of heads of odd width
    (345 / 5) has no pair and stays.
    """
    T, K = x_BTHK.shape[1], x_BTHK.shape[-1] // 2 * 2
    angle_TP = jnp.arange(T, dtype=jnp.float32)[:, None] * theta ** (-jnp.arange(0, K, 2, dtype=jnp.float32) / K)[None]
    cos, sin = (wave(angle_TP)[None, :, None] for wave in (jnp.cos, jnp.sin))
    one, two = x_BTHK[..., :K:2], x_BTHK[..., 1:K:2]
    turned = jnp.stack([one * cos - two * sin, one * sin + two * cos], axis=-1).reshape(*x_BTHK.shape[:-1], K)
    return jnp.concatenate([turned, x_BTHK[..., K:]], axis=-1)


class KindAttention(nnx.Module):
    """Self- or cross-attention; queries, keys and values without bias, as performer-pytorch has them."""

    def __init__(self, kind: Kind, *, cross: bool = False, init: Init):
        # what is attended to across is whole, whatever the decoder may see of itself
        self.attention = (
            kind.attention.removeprefix("causal_").replace("causal", "softmax") if cross else kind.attention
        )
        self.heads, self.rotary = kind.heads, kind.rotary and not cross
        self.q, self.k, self.v = (_unbiased(kind.width, init) for _ in range(3))
        self.out = linear(kind.width, kind.width, init)
        self.projection: Any = nnx.data(None)
        if "linear" in self.attention:
            size = kind.width // kind.heads
            init.count += 1
            self.number = init.count
            self.projection = Buffer(_drawn(init.seed, init.count, kind.features or favor.features_of(size), size))

    def __call__(self, x_BTD: Array, states_BSD: Array | None = None, mask_BS: Array | None = None) -> Array:
        heard_BSD = x_BTD if states_BSD is None else states_BSD
        q, k, v = (
            layer(of).reshape(*of.shape[:2], self.heads, -1)
            for layer, of in ((self.q, x_BTD), (self.k, heard_BSD), (self.v, heard_BSD))
        )
        if self.rotary:
            q, k = rotated(q), rotated(k)
        if self.attention == "linear":
            out = favor.attend_linear(q, k, v, self.projection[...], key_mask_BS=mask_BS)
        elif self.attention == "causal_linear":
            out = favor.attend_linear_causal(q, k, v, self.projection[...], key_mask_BS=mask_BS)
        else:
            out = attend(q, k, v, key_mask_BS=mask_BS, causal=self.attention == "causal")
        return self.out(out.reshape(x_BTD.shape).astype(x_BTD.dtype))


def _unbiased(width: int, init: Init):
    layer = linear(width, width, init)
    layer.bias = None
    return layer


def _drawn(seed: int, number: int, features: int, size: int) -> Array:
    return favor.projection(jax.random.fold_in(jax.random.key(seed), number), features, size)


class FeedForward(nnx.Module):
    """W2 drop(act(W1 x)); of gated kinds W1 has twice the width, and act of its first half gates the second."""

    def __init__(self, kind: Kind, *, init: Init):
        self.act, self.gated = kind.activation, ACTIVATIONS[kind.activation][1]
        self.fc1 = linear(kind.width, kind.ffn * (2 if self.gated else 1), init)
        self.fc2 = linear(kind.ffn, kind.width, init)

    def __call__(self, x_BTD: Array, noise: Noise | None = None) -> Array:
        act, h = ACTIVATIONS[self.act][0], self.fc1(x_BTD)
        if self.gated:
            gate, value = jnp.split(h, 2, axis=-1)
            h = act(gate) * value
        else:
            h = act(h)
        return self.fc2(drop(noise, h))


class Sub(nnx.Module):
    """What stands around a part of a layer: x + f(norm(x)), or x + g f(x) with a number g (ReZero)."""

    def __init__(self, kind: Kind, *, init: Init):
        self.kind = kind.norm
        self.norm: Any = nnx.data(None)
        self.gain: Any = nnx.data(None)
        if kind.norm == "rezero":
            self.gain = Backbone(init.constant(1, value=REZERO))
        else:
            self.norm = LayerNorm(kind.width, init=init) if kind.norm == "layer" else ScaleNorm(init=init)

    def __call__(self, x_BTD: Array, part: Callable[[Array], Array], noise: Noise | None = None) -> Array:
        if self.gain is not None:
            return x_BTD + drop(noise, part(x_BTD)) * self.gain[...][None, None]
        return x_BTD + drop(noise, part(self.norm(x_BTD)))


class PerformerLayer(nnx.Module):
    """Self-attention, with `cross` attention to states, feed-forward."""

    def __init__(self, kind: Kind, *, cross: bool = False, init: Init):
        self.attention, self.around = KindAttention(kind, init=init), Sub(kind, init=init)
        self.cross = KindAttention(kind, cross=True, init=init) if cross else None
        self.around_cross = Sub(kind, init=init) if cross else None
        self.ffn, self.around_ffn = FeedForward(kind, init=init), Sub(kind, init=init)

    def __call__(
        self,
        x_BTD: Array,
        mask_BT: Array | None = None,
        states_BSD: Array | None = None,
        states_mask_BS: Array | None = None,
        noise: Noise | None = None,
    ) -> Array:
        x_BTD = self.around(x_BTD, lambda x: self.attention(x, None, mask_BT), noise)
        if self.cross is not None and self.around_cross is not None:
            cross = self.cross
            x_BTD = self.around_cross(x_BTD, lambda x: cross(x, states_BSD, states_mask_BS), noise)
        return self.around_ffn(x_BTD, lambda x: self.ffn(x, noise), noise)


def redraw(model: nnx.Module, seed: int, step: Array, interval: int) -> None:
    """New random features for every linear attention in a model at hand (inside a traced function): those of the
    `step // interval`-th drawing, a function of seed and step alone, so that a resumed run draws the same.
    """
    for _, part in nnx.iter_graph(model):
        if isinstance(part, KindAttention) and part.projection is not None:
            features, size = part.projection.shape
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), part.number), step // interval)
            part.projection[...] = favor.projection(key, features, size)
