"""LLaMA (Touvron et al. 2023, arXiv 2302.13971) as a Flax module: the language model behind an audio LLM.

RMS norm, rotary positions with the halves of a head as pairs (Hugging Face's layout; the original's neighbours are
another order of the same rows), SwiGLU, and key heads that several query heads share. Names of the parts are those of
`nn.layers.Block`, so that patterns, experts, gates and routes work on it as on Whisper's decoder.

What is heard comes as vectors [B, A, D]; the id `vocab_size + a` in the tokens stands for the a-th of them.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.errors import BadValue
from moejax.nn.layers import Linear, Noise
from moejax.nn.variables import Backbone, Init
from moejax.ops import products
from moejax.ops.attention import attend
from moejax.types import Array, Route


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
    """Sizes of one network. `head_width` 0: d_model / heads. `stretch`: positions are divided by it ("linear")."""

    d_model: int
    layers: int
    heads: int
    key_heads: int
    ffn: int
    vocab_size: int
    head_width: int = 0
    theta: float = 10000.0
    stretch: float = 1.0
    epsilon: float = 1e-6
    tied: bool = False  # the output matrix is the embedding
    max_positions: int = 2048
    dtype: str = "float32"  # activations and matrix products of the backbone

    def __post_init__(self):
        """ValueError naming the first size that no network can have: sizes come from files that anybody wrote."""
        for name in ("d_model", "layers", "heads", "key_heads", "ffn", "vocab_size", "max_positions"):
            value = getattr(self, name)
            if not (type(value) is int and 1 <= value <= 10_000_000):
                raise BadValue(f"{name} is {value!r}; it takes a whole number from 1 to 10000000")
        if self.heads % self.key_heads:
            raise BadValue(f"heads = {self.heads} does not divide by key_heads = {self.key_heads}")
        if not self.head_width and self.d_model % self.heads:
            raise BadValue(f"d_model = {self.d_model} does not divide by heads = {self.heads}")
        if self.width % 2:
            raise BadValue(f"heads are {self.width} wide; positions turn pairs, so it must be even")
        if not (self.theta > 0 and self.stretch > 0 and self.epsilon > 0):
            raise BadValue(f"theta {self.theta}, stretch {self.stretch} and epsilon {self.epsilon} must be positive")

    @property
    def width(self) -> int:
        """Of one head."""
        return self.head_width or self.d_model // self.heads


class RMSNorm(nnx.Module):
    """x / sqrt(mean x^2 + epsilon) times a scale (Zhang and Sennrich 2019), in float32."""

    def __init__(self, width: int, epsilon: float, *, init: Init):
        self.epsilon = epsilon
        self.scale = Backbone(init.constant(width, value=1.0))

    def __call__(self, x_BTD: Array) -> Array:
        x = x_BTD.astype(jnp.float32)
        y = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.epsilon)
        return (y * self.scale[...].astype(jnp.float32)[None, None]).astype(x_BTD.dtype)


def turned(x_BTHK: Array, position_BT: Array, config: LlamaConfig) -> Array:
    """Heads turned by their position: number k of the first half of a head pairs with number k of the second."""
    half = config.width // 2
    speed_P = config.theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle_BTP = (position_BT.astype(jnp.float32) / config.stretch)[..., None] * speed_P[None, None]
    cos, sin = (wave(angle_BTP)[:, :, None] for wave in (jnp.cos, jnp.sin))
    one, two = jnp.split(x_BTHK.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([one * cos - two * sin, two * cos + one * sin], axis=-1).astype(x_BTHK.dtype)


class SelfAttention(nnx.Module):
    """Causal self-attention without biases; `key_heads` heads of keys and values for all heads of queries."""

    def __init__(self, config: LlamaConfig, *, init: Init):
        c = self.config = config
        self.q = Linear(c.d_model, c.heads * c.width, bias=False, init=init)
        self.k = Linear(c.d_model, c.key_heads * c.width, bias=False, init=init)
        self.v = Linear(c.d_model, c.key_heads * c.width, bias=False, init=init)
        self.out = Linear(c.heads * c.width, c.d_model, bias=False, init=init)

    def __call__(
        self, x_BTD: Array, position_BT: Array, route: Route | None = None, noise: Noise | None = None
    ) -> Array:
        c, (B, T, _) = self.config, x_BTD.shape
        q, k, v = (layer(x_BTD, route, noise).reshape(B, T, -1, c.width) for layer in (self.q, self.k, self.v))
        q, k = (turned(x, position_BT, c) for x in (q, k))
        if products.rounds(x_BTD, self.q.kernel[...]):
            q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))
        k, v = (jnp.repeat(x, c.heads // c.key_heads, axis=2) for x in (k, v))
        out_BTHK = attend(q, k, v, causal=True)
        return self.out(out_BTHK.reshape(B, T, -1).astype(x_BTD.dtype), route, noise)


class Mlp(nnx.Module):
    """SwiGLU (Shazeer 2020): down(silu(gate x) * up x)."""

    def __init__(self, width: int, ffn: int, *, init: Init):
        self.gate = Linear(width, ffn, bias=False, init=init)
        self.up = Linear(width, ffn, bias=False, init=init)
        self.down = Linear(ffn, width, bias=False, init=init)

    def __call__(self, x_BTD: Array, route: Route | None = None, noise: Noise | None = None) -> Array:
        h_BTF = jax.nn.silu(self.gate(x_BTD, route, noise)) * self.up(x_BTD, route, noise)
        return self.down(h_BTF, route, noise)


class LlamaBlock(nnx.Module):
    """Pre-norm transformer block. There is no dropout in it: `noise` is that of what hangs on its layers."""

    def __init__(self, config: LlamaConfig, *, init: Init):
        self.self_attn = SelfAttention(config, init=init)
        self.self_attn_norm = RMSNorm(config.d_model, config.epsilon, init=init)
        self.mlp = Mlp(config.d_model, config.ffn, init=init)
        self.mlp_norm = RMSNorm(config.d_model, config.epsilon, init=init)
        self.router: Any = nnx.data(None)  # nn.gates.TokenGate, set by `nn.inject`

    def own_route(self, x_BTD: Array, route: Route | None) -> Route | None:
        """The route of these tokens in this layer, as in `nn.layers.Block`."""
        if self.router is None or route is None or route.logits_BE is None:
            return route
        return self.router(self.self_attn_norm(x_BTD), route)

    def __call__(
        self, x_BTD: Array, position_BT: Array, route: Route | None = None, noise: Noise | None = None
    ) -> Array:
        own = self.own_route(x_BTD, route)
        x_BTD = x_BTD + self.self_attn(self.self_attn_norm(x_BTD), position_BT, own, noise)
        return x_BTD + self.mlp(self.mlp_norm(x_BTD), own, noise)


class Llama(nnx.Module):
    """tokens [B, L], among them what is heard, to logits [B, L, V] of every next token.

    Padding stands behind a row's tokens: nothing before it sees it.
    """

    def __init__(self, config: LlamaConfig, *, init: Init):
        c = self.config = config
        self.dtype = c.dtype
        self.embed = Backbone(init.normal(c.vocab_size, c.d_model, std=c.d_model**-0.5))
        self.layers = nnx.List([LlamaBlock(c, init=init) for _ in range(c.layers)])
        self.norm = RMSNorm(c.d_model, c.epsilon, init=init)
        self.head: Any = nnx.data(None) if c.tied else Linear(c.d_model, c.vocab_size, bias=False, init=init)

    def inputs(self, tokens_BL: Array, heard_BAD: Array | None = None) -> Array:
        """Vectors [B, L, D] of tokens; an id from `vocab_size` on takes what was heard at that place."""
        x_BLD = jnp.take(self.embed[...], tokens_BL, axis=0, mode="clip").astype(self.dtype)
        if heard_BAD is None:
            return x_BLD
        place_BL = tokens_BL - self.config.vocab_size
        at_BL1 = jnp.clip(place_BL, 0, heard_BAD.shape[1] - 1)[..., None]
        own_BLD = jnp.take_along_axis(heard_BAD.astype(self.dtype), at_BL1, axis=1)
        return jnp.where((place_BL >= 0)[..., None], own_BLD, x_BLD)

    def logits(self, x_BLD: Array) -> Array:
        """float32 logits [B, L, V] of hidden states."""
        x_BLD = self.norm(x_BLD)
        if self.head is not None:
            return products.matmul(x_BLD, self.head.kernel[...]).astype(jnp.float32)
        embed_VD = self.embed[...].astype(x_BLD.dtype)
        return jnp.einsum("BLD,VD->BLV", x_BLD, embed_VD, preferred_element_type=jnp.float32)

    def __call__(
        self,
        tokens_BL: Array,
        heard_BAD: Array | None = None,
        route: Route | None = None,
        noise: Noise | None = None,
        at_BK: Array | None = None,
    ) -> Array:
        """With `at_BK` the logits [B, K, V] of these positions only."""
        if tokens_BL.shape[1] > self.config.max_positions:
            raise BadValue(f"{tokens_BL.shape[1]} tokens exceed the language model's {self.config.max_positions}")
        x_BLD = self.inputs(tokens_BL, heard_BAD)
        position_BL = jnp.broadcast_to(jnp.arange(tokens_BL.shape[1])[None], tokens_BL.shape)
        for block in self.layers:
            x_BLD = block(x_BLD, position_BL, route, noise)
        if at_BK is not None:
            x_BLD = jnp.take_along_axis(x_BLD, at_BK[..., None], axis=1)
        return self.logits(x_BLD)


SIZES = {  # LLaMA as it was first published, and Vicuna
    "7b": LlamaConfig(4096, 32, 32, 32, 11008, 32000),
    "13b": LlamaConfig(5120, 40, 40, 40, 13824, 32000),
}
