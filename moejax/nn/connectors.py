"""From what encoders say to vectors of a language model: what stands between an audio LLM's two halves, and learns.

A connector is called with the speech encoder's states [B, T, D], and where there is a second encoder with its states
[B, S, D'] and which of them are real; it gives [B, A, width] with A = `count(T)` whatever was said. All of it is of the
group `Head`.

    qformer   SALMONN's (Tang et al. 2024, arXiv 2310.13289): a BERT-style Q-Former on windows of a third of a second
    pooled    Qwen2-Audio's (Chu et al. 2024, 2407.10759): means of neighbouring states through one linear layer
    stacked   SLAM-ASR's (Ma et al. 2024, 2402.08846): neighbouring states side by side through two linear layers
"""

import dataclasses
from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.errors import BadValue
from moejax.nn.layers import LayerNorm, Linear, Noise, drop
from moejax.nn.variables import Head, Init
from moejax.ops.attention import attend
from moejax.types import Array

FRAMES = 50  # states of Whisper's encoder in a second
BERT = 1e-12  # epsilon of its norms


@dataclasses.dataclass(frozen=True)
class ConnectorConfig:
    """`window` and `stride` in seconds of the Q-Former's windows; `pool`: states of the pooled connector's means;
    `stack`: states side by side of the stacked one, and `hidden` the width between its layers (there 5 and 2048).
    """

    kind: str = "qformer"
    width: int = 768
    layers: int = 2
    heads: int = 12
    ffn: int = 3072
    queries: int = 1
    window: float = 0.333333
    stride: float = 0.333333
    pool: int = 2
    stack: int = 10
    hidden: int = 512

    def __post_init__(self):
        if self.kind not in KINDS:
            raise BadValue(f"unknown kind of connector {self.kind!r}; known: {', '.join(KINDS)}")
        if self.width % self.heads:
            raise BadValue(f"width {self.width} of the connector does not divide by {self.heads} heads")
        if round(FRAMES * self.window) < 1 or round(FRAMES * self.stride) < 1 or min(self.pool, self.stack) < 1:
            raise BadValue("window, stride, pool and stack of a connector must cover at least one state (0.02 s)")


def windows(x_BTD: Array, size: int, stride: int) -> Array:
    """Windows [B, A, size, D] of a sequence; the ragged tail is left out, as torch's unfold does."""
    if x_BTD.shape[1] < size:
        raise BadValue(f"{x_BTD.shape[1]} states are shorter than a window of {size}")
    count = (x_BTD.shape[1] - size) // stride + 1
    if stride == size:
        return x_BTD[:, : count * size].reshape(x_BTD.shape[0], count, size, x_BTD.shape[2])
    at_AS = jnp.arange(count)[:, None] * stride + jnp.arange(size)[None]
    return x_BTD[:, at_AS]


class BertAttention(nnx.Module):
    """Multi-head attention with biases everywhere, the sum normed: norm(x + out(attention(x, other)))."""

    def __init__(self, width: int, heads: int, d_other: int, *, init: Init):
        self.heads = heads
        self.q, self.out = (Linear(width, width, init=init, group=Head) for _ in range(2))
        self.k, self.v = (Linear(d_other, width, init=init, group=Head) for _ in range(2))
        self.norm = LayerNorm(width, epsilon=BERT, init=init, group=Head)

    def __call__(self, x_BQD: Array, other_BSD: Array, noise: Noise | None = None) -> Array:
        def heads(x):
            return x.reshape(*x.shape[:2], self.heads, -1)

        said = attend(heads(self.q(x_BQD)), heads(self.k(other_BSD)), heads(self.v(other_BSD)))
        return self.norm(x_BQD + drop(noise, self.out(said.reshape(x_BQD.shape))))


class BertLayer(nnx.Module):
    """Queries look at themselves, at what is heard, and through a feed-forward layer; norms after every sum."""

    def __init__(self, width: int, heads: int, ffn: int, d_heard: int, *, init: Init):
        self.self_attn = BertAttention(width, heads, width, init=init)
        self.cross_attn = BertAttention(width, heads, d_heard, init=init)
        self.fc1, self.fc2 = Linear(width, ffn, init=init, group=Head), Linear(ffn, width, init=init, group=Head)
        self.norm = LayerNorm(width, epsilon=BERT, init=init, group=Head)

    def __call__(self, x_BQD: Array, heard_BSD: Array, noise: Noise | None = None) -> Array:
        x_BQD = self.cross_attn(self.self_attn(x_BQD, x_BQD, noise), heard_BSD, noise)
        h_BQF = jax.nn.gelu(self.fc1(x_BQD), approximate=False)
        return self.norm(x_BQD + drop(noise, self.fc2(h_BQF)))


class QFormer(nnx.Module):
    """heard [B, S, D] -> [B, Q, width]: what learnt queries make of it (Li et al. 2023, arXiv 2301.12597; BERT without
    words, positions and the branch for texts).
    """

    def __init__(self, config: ConnectorConfig, d_heard: int, *, init: Init):
        c = config
        self.queries = Head(init.normal(c.queries, c.width, std=0.02))
        self.norm = LayerNorm(c.width, epsilon=BERT, init=init, group=Head)
        self.layers = nnx.List([BertLayer(c.width, c.heads, c.ffn, d_heard, init=init) for _ in range(c.layers)])

    def __call__(self, heard_BSD: Array, noise: Noise | None = None) -> Array:
        x_1QD = self.queries[...][None]
        x_BQD = drop(noise, self.norm(jnp.broadcast_to(x_1QD, (heard_BSD.shape[0], *x_1QD.shape[1:]))))
        for layer in self.layers:
            x_BQD = layer(x_BQD, heard_BSD, noise)
        return x_BQD


class WindowQFormer(nnx.Module):
    """Both encoders' states, normed and side by side, window by window through one Q-Former and a linear layer.

    The shorter of both is filled up with zeros, also where the second encoder's states are not real, as the published
    system does for a recording that comes alone.
    """

    def __init__(self, config: ConnectorConfig, d_states: int, d_sounds: int, d_out: int, *, init: Init):
        self.size, self.stride = round(FRAMES * config.window), round(FRAMES * config.stride)
        self.queries = config.queries
        self.states_norm = LayerNorm(d_states, init=init, group=Head)
        self.sounds_norm: Any = LayerNorm(d_sounds, init=init, group=Head) if d_sounds else nnx.data(None)
        self.qformer = QFormer(config, d_states + d_sounds, init=init)
        self.project = Linear(config.width, d_out, init=init, group=Head)

    def count(self, frames: int) -> int:
        """Vectors that so many states of the speech encoder become."""
        return ((frames - self.size) // self.stride + 1) * self.queries

    def __call__(
        self,
        states_BTD: Array,
        sounds_BSD: Array | None = None,
        sounds_mask_BS: Array | None = None,
        noise: Noise | None = None,
    ) -> Array:
        heard_BTD = self.states_norm(states_BTD.astype(jnp.float32))
        if (self.sounds_norm is None) != (sounds_BSD is None):
            raise ValueError("a connector of two encoders is given the states of both, one of one those of one")
        if sounds_BSD is not None:
            other: Array = self.sounds_norm(sounds_BSD.astype(jnp.float32))
            if sounds_mask_BS is not None:
                other = jnp.where(sounds_mask_BS[..., None], other, 0.0)
            longest = max(heard_BTD.shape[1], other.shape[1])
            both = [jnp.pad(x, ((0, 0), (0, longest - x.shape[1]), (0, 0))) for x in (heard_BTD, other)]
            heard_BTD = jnp.concatenate(both, axis=-1)
        heard_BASD = windows(heard_BTD, self.size, self.stride)
        B, A, S, D = heard_BASD.shape
        said_XQD = self.qformer(heard_BASD.reshape(B * A, S, D), noise)
        return self.project(said_XQD).reshape(B, A * self.queries, -1)


def _one_encoder(config: ConnectorConfig, d_sounds: int) -> None:
    if d_sounds:
        raise BadValue(f"the {config.kind} connector hears one encoder; take kind qformer for two")


class OfNeighbours(nnx.Module):
    """A connector of the speech encoder alone: every `size` neighbouring states become one vector (`of`)."""

    def __init__(self, config: ConnectorConfig, d_sounds: int, size: int):
        _one_encoder(config, d_sounds)
        self.size = size

    def count(self, frames: int) -> int:
        """Vectors that so many states of the speech encoder become."""
        return frames // self.size

    @abstractmethod
    def of(self, states_BASD: Array, noise: Noise | None) -> Array:
        """[B, A, D] of the states of each vector."""

    def __call__(
        self,
        states_BTD: Array,
        sounds_BSD: Array | None = None,
        sounds_mask_BS: Array | None = None,
        noise: Noise | None = None,
    ) -> Array:
        del sounds_BSD, sounds_mask_BS
        return self.of(windows(states_BTD.astype(jnp.float32), self.size, self.size), noise)


class PooledLinear(OfNeighbours):
    """Means of neighbouring states through one linear layer."""

    def __init__(self, config: ConnectorConfig, d_states: int, d_sounds: int, d_out: int, *, init: Init):
        super().__init__(config, d_sounds, config.pool)
        self.project = Linear(d_states, d_out, init=init, group=Head)

    def of(self, states_BASD: Array, noise: Noise | None) -> Array:
        del noise
        return self.project(states_BASD.mean(2))


class StackedMlp(OfNeighbours):
    """Neighbouring states side by side through linear, ReLU, linear."""

    def __init__(self, config: ConnectorConfig, d_states: int, d_sounds: int, d_out: int, *, init: Init):
        super().__init__(config, d_sounds, config.stack)
        self.fc1 = Linear(config.stack * d_states, config.hidden, init=init, group=Head)
        self.fc2 = Linear(config.hidden, d_out, init=init, group=Head)

    def of(self, states_BASD: Array, noise: Noise | None) -> Array:
        h_BAF = jax.nn.relu(self.fc1(states_BASD.reshape(*states_BASD.shape[:2], -1)))
        return self.fc2(drop(noise, h_BAF))


KINDS = {"qformer": WindowQFormer, "pooled": PooledLinear, "stacked": StackedMlp}
