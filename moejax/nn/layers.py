"""Building blocks of the network: linear with optional experts, norm, convolution, attention, transformer block."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.errors import BadValue
from moejax.nn.variables import Backbone, Init
from moejax.ops import products
from moejax.ops.attention import attend, attend_states
from moejax.types import Array, Route


class Noise:
    """Dropout of one forward pass: a key of its own for every use, in program order. None means no dropout."""

    def __init__(self, key: Array, rate: float, expert_rate: float = 0.0):
        self.key, self.rate, self.expert_rate, self.uses = key, rate, expert_rate, 0

    def drop(self, x: Array, rate: float | None = None) -> Array:
        rate = self.rate if rate is None else rate
        if not rate:
            return x
        self.uses += 1
        # One byte per element is enough for a rate and costs a quarter of bernoulli's 32 bits.
        keep = jax.random.bits(jax.random.fold_in(self.key, self.uses), x.shape, jnp.uint8) >= round(rate * 256)
        return jnp.where(keep, x / (1.0 - rate), 0.0)


def drop(noise: Noise | None, x: Array) -> Array:
    return x if noise is None else noise.drop(x)


class Linear(nnx.Module):
    """x W + b, plus the experts' update when the layer has experts and a route is given.

    Weights are stored [in, out], as an array or int8 (`nn.quantize`). `experts` is set by `nn.inject`; without a route
    the layer is the frozen one.
    """

    def __init__(self, d_in: int, d_out: int, *, bias: bool = True, init: Init, group: type[nnx.Param] = Backbone):
        self.kernel = group(init.normal(d_in, d_out, std=d_in**-0.5))
        self.bias = group(init.constant(d_out)) if bias else None
        self.experts: Any = nnx.data(None)  # LayerUpdate of nn.experts

    def __call__(self, x_BTD: Array, route: Route | None = None, noise: Noise | None = None) -> Array:
        experts = None if route is None else self.experts
        factor_BO = None if experts is None else experts.factor(self.kernel[...], route)
        y_BTO = products.matmul(x_BTD, self.kernel[...])
        if factor_BO is None:
            y_BTO = self._biased(y_BTO)
        if experts is not None:
            x_in = x_BTD if noise is None else noise.drop(x_BTD, noise.expert_rate)
            y_BTO = y_BTO + experts(x_in, route).astype(x_BTD.dtype)
        if factor_BO is not None:
            y_BTO = self._biased(y_BTO * factor_BO[:, None].astype(x_BTD.dtype))
        return y_BTO

    def _biased(self, y_BTO):
        return y_BTO if self.bias is None else y_BTO + self.bias[...].astype(y_BTO.dtype)[None, None]


class LayerNorm(nnx.Module):
    """Layer norm over the last axis in float32, epsilon 1e-5 as in Whisper unless told."""

    def __init__(self, width: int, *, epsilon: float = 1e-5, init: Init, group: type[nnx.Param] = Backbone):
        self.epsilon = epsilon
        self.scale = group(init.constant(width, value=1.0))
        self.bias = group(init.constant(width))

    def __call__(self, x_BTD: Array) -> Array:
        x = x_BTD.astype(jnp.float32)
        mean = x.mean(-1, keepdims=True)
        var = jnp.square(x - mean).mean(-1, keepdims=True)
        y = (x - mean) * jax.lax.rsqrt(var + self.epsilon)
        return (y * self.scale[...][None, None] + self.bias[...][None, None]).astype(x_BTD.dtype)


class Conv(nnx.Module):
    """Width-3 convolution with padding 1 as one matrix product over the three shifts (XLA's CPU convolution gradient is
    slow).
    """

    def __init__(self, d_in: int, d_out: int, *, stride: int, init: Init):
        self.stride = stride
        self.kernel = Backbone(init.normal(3, d_in, d_out, std=(3 * d_in) ** -0.5))
        self.bias = Backbone(init.constant(d_out))

    def __call__(self, x_BNM: Array) -> Array:
        N, out = x_BNM.shape[1], -(-x_BNM.shape[1] // self.stride)
        padded = jnp.pad(x_BNM, ((0, 0), (1, 1 + out * self.stride - N), (0, 0)))
        shifts = [padded[:, s : s + out * self.stride : self.stride] for s in range(3)]
        kernel = self.kernel[...].reshape(-1, self.kernel.shape[-1])
        y_BNO = products.matmul(jnp.concatenate(shifts, axis=-1), kernel)
        return y_BNO + self.bias[...].astype(x_BNM.dtype)[None, None]


class Attention(nnx.Module):
    """Multi-head attention with Whisper's biases (none on the keys)."""

    def __init__(self, width: int, heads: int, *, init: Init):
        if width % heads:
            raise BadValue(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.q = Linear(width, width, init=init)
        self.k = Linear(width, width, bias=False, init=init)
        self.v = Linear(width, width, init=init)
        self.out = Linear(width, width, init=init)

    def split_heads(self, x_BTD: Array) -> Array:
        return x_BTD.reshape(*x_BTD.shape[:-1], self.heads, -1)

    def keys_values(self, x_BSD: Array, route: Route | None = None, noise: Noise | None = None) -> tuple[Array, Array]:
        """Keys and values [B, S, H, K] of a sequence, for a cache or for this call."""
        return self.split_heads(self.k(x_BSD, route, noise)), self.split_heads(self.v(x_BSD, route, noise))

    def __call__(
        self,
        x_BTD: Array,
        keys_values: tuple[Array, Array],
        *,
        key_mask_BS: Array | None = None,
        causal: bool = False,
        route: Route | None = None,
        noise: Noise | None = None,
    ) -> Array:
        heads = (self.split_heads(self.q(x_BTD, route, noise)), *keys_values)
        if products.rounds(x_BTD, self.q.kernel[...]):
            heads = tuple(head.astype(jnp.bfloat16) for head in heads)  # products of attention as those of the layers
        out_BTHK = attend(*heads, key_mask_BS=key_mask_BS, causal=causal)
        return self.out(out_BTHK.reshape(x_BTD.shape).astype(x_BTD.dtype), route, noise)

    def to_states(
        self,
        x_BTD: Array,
        states_BSD: Array,
        *,
        key_mask_BS: Array | None = None,
        route: Route | None = None,
        states_route: Route | None = None,
    ) -> Array:
        """The same attention to states that have no keys and values yet (`keys_values(states_BSD, states_route)`).

        Both are linear in the states, so their matrices, the experts' with them, move to the other side of the sums:
        q (W x) = (W^T q) x, and the mean of W x + b is W (mean of x) + b. With few tokens that is fewer operations than
        keys and values of 1500 states of which each token sees the mean, and no array as large as the states is made.
        """
        B, T, D = x_BTD.shape
        own_HO = jnp.repeat(jnp.eye(self.heads, dtype=jnp.float32), D // self.heads, axis=1)
        q_BTO = self.q(x_BTD, route).astype(jnp.float32) * (D // self.heads) ** -0.5
        q_BQO = (q_BTO[:, :, None] * own_HO[None, None]).reshape(B, -1, D)
        states_BSD = states_BSD.astype(jnp.float32)
        like = jax.ShapeDtypeStruct(q_BQO.shape, states_BSD.dtype)
        (q_BQD,) = jax.linear_transpose(lambda x: self.k(x, states_route), like)(q_BQO)
        mean_BQD = attend_states(q_BQD, states_BSD, key_mask_BS)
        v_BTHO = self.v(mean_BQD, states_route).reshape(B, T, self.heads, D)
        return self.out((v_BTHO * own_HO[None, None]).sum(2).astype(x_BTD.dtype), route)


class Block(nnx.Module):
    """Pre-norm transformer block; with `cross` also attention to the encoder."""

    def __init__(self, width: int, heads: int, ffn: int, *, cross: bool, init: Init):
        self.self_attn = Attention(width, heads, init=init)
        self.self_attn_norm = LayerNorm(width, init=init)
        self.cross_attn = Attention(width, heads, init=init) if cross else None
        self.cross_attn_norm = LayerNorm(width, init=init) if cross else None
        self.fc1 = Linear(width, ffn, init=init)
        self.fc2 = Linear(ffn, width, init=init)
        self.mlp_norm = LayerNorm(width, init=init)
        self.router: Any = nnx.data(None)  # nn.gates.TokenGate, set by `nn.inject`

    def own_route(self, x_BTD: Array, route: Route | None) -> Route | None:
        """The route of these tokens in this layer: `route`, unless the layer has a gate of its own and the route asks
        for it.
        """
        if self.router is None or route is None or route.logits_BE is None:
            return route
        return self.router(self.self_attn_norm(x_BTD), route)

    def mlp(self, x_BTD: Array, route: Route | None = None, noise: Noise | None = None) -> Array:
        h_BTF = jax.nn.gelu(self.fc1(self.mlp_norm(x_BTD), route, noise), approximate=False)
        return x_BTD + drop(noise, self.fc2(drop(noise, h_BTF), route, noise))

    def cross(
        self,
        x_BTD: Array,
        keys_values: tuple[Array, Array],
        key_mask_BS: Array | None = None,
        route: Route | None = None,
        noise: Noise | None = None,
    ) -> Array:
        assert self.cross_attn is not None and self.cross_attn_norm is not None  # a block with `cross`
        h = self.cross_attn_norm(x_BTD)
        h = self.cross_attn(h, keys_values, key_mask_BS=key_mask_BS, route=route, noise=noise)
        return x_BTD + drop(noise, h)

    def __call__(
        self,
        x_BTD: Array,
        states_BSD: Array | None = None,
        *,
        mask_BT: Array | None = None,
        states_mask_BS: Array | None = None,
        causal: bool = False,
        route: Route | None = None,
        noise: Noise | None = None,
    ) -> Array:
        own = self.own_route(x_BTD, route)
        h = self.self_attn_norm(x_BTD)
        kv = self.self_attn.keys_values(h, own, noise)
        h = self.self_attn(h, kv, key_mask_BS=mask_BT, causal=causal, route=own, noise=noise)
        x_BTD = x_BTD + drop(noise, h)
        if self.cross_attn is not None and self.cross_attn_norm is not None and states_BSD is not None:
            # What the encoder said is the same for all tokens, and so is its route
            if _few(x_BTD, states_BSD, self.cross_attn.heads) and noise is None:
                h, by = self.cross_attn_norm(x_BTD), {"route": own, "states_route": route}
                x_BTD = x_BTD + self.cross_attn.to_states(h, states_BSD, key_mask_BS=states_mask_BS, **by)
            else:
                kv = self.cross_attn.keys_values(states_BSD, route, noise)
                x_BTD = self.cross(x_BTD, kv, states_mask_BS, own, noise)
        return self.mlp(x_BTD, own, noise)


def _few(x_BTD, states_BSD, heads) -> bool:
    """Whether attention is cheaper without keys and values (`Attention.to_states`)."""
    T, S = x_BTD.shape[1], states_BSD.shape[1]
    return jax.default_backend() == "cpu" and T * heads <= 2 * x_BTD.shape[2] and S > 4 * T
