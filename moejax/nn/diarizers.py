"""Who speaks in which frame, end to end: self-attention over frames, then a fixed number of speakers or attractors.

    SA-EEND   Fujita et al. 2019 (arXiv 1909.06247): an output for each of a fixed number of speakers
    EEND-EDA  Horiguchi et al. 2020 (2005.09921): an LSTM reads the frames and writes an attractor for each speaker
              until one says that it is nobody
    AED-EEND and TS-VAD: `enrolled_speakers.py`

What is heard are EEND's log-mel features, or, the project's own way, the states of all layers of a frozen Whisper
encoder (means of 0.1 s), each standardised, in learnt shares: what tells voices apart is there already.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.errors import BadValue
from moejax.nn.enrolled_speakers import NOBODY, EnrolledDecoder, TargetSpeakers
from moejax.nn.layers import LayerNorm, Noise, drop
from moejax.nn.sounds import linear
from moejax.nn.variables import Backbone, Buffer, Init
from moejax.ops import favor, products
from moejax.ops.attention import attend
from moejax.types import Array

ATTENTIONS = ("softmax", "linear")
HEADS = ("attractors", "fixed", "aed", "tsvad")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """`hears`: (layers, width) of encoder states, or (width,) of features. `most`: speakers that it can tell apart."""

    hears: tuple[int, ...]
    most: int = 4
    head: str = "attractors"
    attention: str = "softmax"
    width: int = 256
    heads: int = 4
    layers: int = 4
    ffn: int = 1024
    features: int = 0  # of linear attention; 0: the usual number
    enhance: bool = False  # of the head aed: frames attend to its attractors (AED-EEND-EE)

    def __post_init__(self):
        if self.width % self.heads:
            fits = [n for n in range(1, self.width + 1) if self.width % n == 0]
            raise BadValue(f"width {self.width} does not divide by {self.heads} heads; it does by {fits}")
        if self.head not in HEADS or self.attention not in ATTENTIONS:
            raise BadValue(f"head is one of {', '.join(HEADS)}, attention one of {', '.join(ATTENTIONS)}")
        if self.enhance and self.head != "aed":
            raise BadValue(f"enhance is of the head aed, not of {self.head}")


@dataclasses.dataclass(frozen=True)
class Heard:
    """Logits: who is active [B, T, most]; that an attractor is somebody [B, most + 1], None with fixed speakers. And
    the frames as the network sees them [B, T, D].

    Where it was told who is active: `columns_BTC`, in the order of these speakers, the columns of silence and overlap
    before them if it has any, and `asked_BS`, whose columns count.
    """

    active_BTS: Array | None
    exists_BS: Array | None
    frames_BTD: Array
    columns_BTC: Array | None = None
    asked_BS: Array | None = None


class SelfAttention(nnx.Module):
    """Multi-head attention with biases everywhere; linear: by random features, which are drawn once for all."""

    def __init__(self, width: int, heads: int, *, kind: str = "softmax", features: int = 0, init: Init):
        self.heads, self.kind = heads, kind
        self.q, self.k, self.v, self.out = (linear(width, width, init) for _ in range(4))
        self.projection: Any = nnx.data(None)
        if kind == "linear":
            size = width // heads
            init.count += 1
            key = jax.random.fold_in(jax.random.key(init.seed), init.count)
            self.projection = Buffer(favor.projection(key, features or favor.features_of(size), size))

    def __call__(self, x_BTD: Array, mask_BT: Array | None = None) -> Array:
        q, k, v = (layer(x_BTD).reshape(*x_BTD.shape[:2], self.heads, -1) for layer in (self.q, self.k, self.v))
        if self.kind == "linear":
            out = favor.attend_linear(q, k, v, self.projection[...], key_mask_BS=mask_BT)
        else:
            out = attend(q, k, v, key_mask_BS=mask_BT)
        return self.out(out.reshape(x_BTD.shape).astype(x_BTD.dtype))


class EendLayer(nnx.Module):
    """EEND's own order: the sum goes on from the *normalised* stream, which is neither pre- nor post-norm."""

    def __init__(self, width: int, heads: int, ffn: int, *, kind: str = "softmax", features: int = 0, init: Init):
        self.norm1, self.norm2 = LayerNorm(width, init=init), LayerNorm(width, init=init)
        self.attention = SelfAttention(width, heads, kind=kind, features=features, init=init)
        self.fc1, self.fc2 = linear(width, ffn, init), linear(ffn, width, init)

    def __call__(self, x_BTD: Array, mask_BT: Array | None = None, noise: Noise | None = None) -> Array:
        x_BTD = self.norm1(x_BTD)
        x_BTD = self.norm2(x_BTD + drop(noise, self.attention(x_BTD, mask_BT)))
        return x_BTD + drop(noise, self.fc2(drop(noise, jax.nn.relu(self.fc1(x_BTD)))))


class LSTM(nnx.Module):
    """One layer (Hochreiter and Schmidhuber 1997), gates in torch's order; a masked frame changes nothing."""

    def __init__(self, d_in: int, width: int, *, init: Init):
        bound = width**-0.5
        self.kernel = Backbone(init.uniform(d_in, 4 * width, bound=bound))
        self.own_kernel = Backbone(init.uniform(width, 4 * width, bound=bound))
        self.bias = Backbone(init.uniform(4 * width, bound=bound))

    def __call__(
        self, x_BTD: Array, carry: tuple[Array, Array] | None = None, mask_BT: Array | None = None
    ) -> tuple[Array, tuple[Array, Array]]:
        """(states [B, T, width], the last (h, c))."""
        own, (B, T) = self.own_kernel[...], x_BTD.shape[:2]
        given_BTG = products.matmul(x_BTD, self.kernel[...]) + self.bias[...][None, None]
        seen_BT = jnp.ones((B, T), bool) if mask_BT is None else mask_BT

        def step(carry, now):
            (h_BD, c_BD), (given_BG, seen_B) = carry, now
            i, f, g, o = jnp.split(given_BG + products.matmul(h_BD, own), 4, axis=-1)
            new_c = jax.nn.sigmoid(f) * c_BD + jax.nn.sigmoid(i) * jnp.tanh(g)
            new_h = jax.nn.sigmoid(o) * jnp.tanh(new_c)
            c_BD, h_BD = (jnp.where(seen_B[:, None], new, old) for new, old in ((new_c, c_BD), (new_h, h_BD)))
            return (h_BD, c_BD), h_BD

        zero_BD = jnp.zeros((B, own.shape[0]), given_BTG.dtype)
        last, h_TBD = jax.lax.scan(step, carry or (zero_BD, zero_BD), (given_BTG.swapaxes(0, 1), seen_BT.T))
        return h_TBD.swapaxes(0, 1), last


class Attractors(nnx.Module):
    """A vector for each speaker, and one more, from frames in an order drawn by `key`; and whether it is somebody."""

    def __init__(self, width: int, *, init: Init):
        self.reader, self.writer = LSTM(width, width, init=init), LSTM(width, width, init=init)
        self.exists = linear(width, 1, init)

    def __call__(self, x_BTD: Array, mask_BT: Array | None, count: int, key: Array) -> tuple[Array, Array]:
        """([B, count, D], logits [B, count])."""
        order_T = jax.random.permutation(key, x_BTD.shape[1])
        _, carry = self.reader(x_BTD[:, order_T], mask_BT=None if mask_BT is None else mask_BT[:, order_T])
        attractor_BSD, _ = self.writer(jnp.zeros((x_BTD.shape[0], count, x_BTD.shape[2]), x_BTD.dtype), carry)
        return attractor_BSD, self.exists(attractor_BSD)[..., 0]


class Diarizer(nnx.Module):
    """Encoder states [B, T, layers, D] or features [B, T, F] -> `Heard`."""

    def __init__(self, sizes: Sizes, *, init: Init):
        s = self.sizes = sizes
        *layers, width = s.hears
        self.centre, self.spread = Buffer(jnp.zeros(s.hears)), Buffer(jnp.ones(s.hears))
        self.shares: Any = Backbone(init.constant(layers[0])) if layers else nnx.data(None)
        self.project = linear(width, s.width, init)
        body = {"kind": s.attention, "features": s.features, "init": init}
        self.layers = nnx.List([EendLayer(s.width, s.heads, s.ffn, **body) for _ in range(s.layers)])
        self.norm = LayerNorm(s.width, init=init)
        self.attractors = Attractors(s.width, init=init) if s.head in ("attractors", "tsvad") else None
        self.speakers = linear(s.width, s.most, init) if s.head == "fixed" else None
        own = (s.width, s.heads, s.ffn)
        self.enrolled = EnrolledDecoder(*own, enhance=s.enhance, init=init) if s.head == "aed" else None
        self.targets = TargetSpeakers(*own, init=init) if s.head == "tsvad" else None

    def __call__(
        self,
        x: Array,
        mask_BT: Array | None = None,
        *,
        active_BTS: Array | None = None,
        noise: Noise | None = None,
    ) -> Heard:
        """`active_BTS`: who speaks, for heads that learn from enrolments by the labels; others do not look at it."""
        x_BTD = self.project(drop(noise, self.standardised(x)))
        for layer in self.layers:
            x_BTD = layer(x_BTD, mask_BT, noise)
        x_BTD = self.norm(x_BTD)
        if self.speakers is not None:
            return Heard(self.speakers(x_BTD), None, x_BTD)
        mask_BT = jnp.ones(x_BTD.shape[:2], bool) if mask_BT is None else mask_BT
        if self.enrolled is not None:
            if active_BTS is not None:
                return Heard(None, None, x_BTD, *self.enrolled.taught(x_BTD, mask_BT, active_BTS, noise))
            found_BTS, has_BS = self.enrolled.found(x_BTD, mask_BT, self.sizes.most)
            exists_BS = jnp.where(jnp.pad(has_BS, ((0, 0), (0, 1))), -NOBODY, NOBODY)
            return Heard(found_BTS, exists_BS, x_BTD)
        assert self.attractors is not None  # of the other heads
        key = jax.random.key(0) if noise is None else jax.random.fold_in(noise.key, 2**20)
        attractor_BSD, exists_BS = self.attractors(x_BTD, mask_BT, self.sizes.most + 1, key)
        first_BTS = jnp.einsum("BTD,BSD->BTS", x_BTD, attractor_BSD[:, :-1])
        if self.targets is None:
            return Heard(first_BTS, exists_BS, x_BTD)
        if active_BTS is not None:
            return Heard(first_BTS, exists_BS, x_BTD, *self.targets.taught(x_BTD, mask_BT, active_BTS, noise))
        return Heard(self.targets.found(x_BTD, mask_BT, first_BTS, exists_BS[:, :-1]), exists_BS, x_BTD)

    def standardised(self, x: Array) -> Array:
        """[B, T, D], layers in their shares."""
        x = (x.astype(jnp.float32) - self.centre[...][None, None]) / self.spread[...][None, None]
        return x if self.shares is None else jnp.einsum("BTLD,L->BTD", x, jax.nn.softmax(self.shares[...]))
