"""The decoder for a few tokens at a time: a cache of keys and values, and weights laid out once per search.

One function reads: a prefix in one parallel pass, then one token per hypothesis in every step. Hypotheses of one
utterance (a beam, several samples) are *queries onto one pool of keys*: a boolean mask says which keys belong to whose
history. Reordering a beam therefore moves bits of that mask; no key or value is ever copied, neither the encoder's
nor the prefix's nor the hypotheses' own.

What won on a CPU: queries, keys and values as one matrix product, the query scale in the weights, the embedding
as it lies on the left of its product, keys and values of the encoder computed once.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moejax.nn.layers import Linear
from moejax.nn.whisper import Whisper
from moejax.ops import mixture, products
from moejax.ops.attention import attend_few
from moejax.types import Array, Route


class Fused(NamedTuple):
    """Linear layers that read the same input, side by side: one matrix product."""

    kernel: Any  # [D, sum of widths]; where experts lie side by side, their B below it: [D + Q, sum of widths]
    bias: Any  # [sum of widths]
    experts: Any  # mixture.Folded of all layers together, or None
    factor: Any = None  # [B, sum of widths] of the outputs without their bias (DoRA), or None

    def __call__(self, x_BTD, weight_BTE=None):
        """Outputs [B, T, sum of widths]. `weight_BTE`: of the experts, where every token has its own."""
        if weight_BTE is not None:
            return self._replace(experts=mixture.of_tokens(self.experts, weight_BTE))(x_BTD)
        if self.factor is not None:
            y_BTO = x_BTD @ self.kernel + mixture.apply_folded(x_BTD, self.experts).astype(x_BTD.dtype)
            return y_BTO * self.factor[:, None].astype(x_BTD.dtype) + self.bias[None, None]
        if self.experts is None:
            return x_BTD @ self.kernel + self.bias[None, None]
        if self.experts.B is None:
            # One product for the layer and its experts: x W + h B = [x h] [W; B].
            x_BTD = jnp.concatenate([x_BTD, mixture.hidden(x_BTD, self.experts)], axis=-1)
            return x_BTD @ self.kernel + self.bias[None, None]
        update_BTO = mixture.apply_folded(x_BTD, self.experts).astype(x_BTD.dtype)
        return x_BTD @ self.kernel + self.bias[None, None] + update_BTO


class Layer(NamedTuple):
    """One block's layers; norms are the block's own."""

    qkv: Fused
    out: Fused
    cross_q: Fused
    cross_out: Fused
    fc1: Fused
    fc2: Fused
    cross: tuple[Any, Any]  # keys [B, H, K, T] and values [B, H, T, K] of the encoder states


class Reader:
    """One search's decoder: made inside the trace from a merged model, the encoder's states and the route."""

    def __init__(self, model: Whisper, states_BTD: Array, mask_BT: Array | None = None, route: Route | None = None):
        self.decoder, self.config = model.decoder, model.config
        self.batch, self.route = states_BTD.shape[0], route
        self.seen_BT = mask_BT if self.config.mask_padding else None
        self.layers = [self._layer(block, states_BTD, route) for block in self.decoder.layers]
        embed_VD = self.decoder.embed[...]
        self.embed_VD = embed_VD if products.rounds(states_BTD, embed_VD) else embed_VD.astype(self.config.dtype)

    def cache(self, length: int) -> list[tuple[Array, Array]]:
        """Zeros: per layer keys [B, H, K, length] and values [B, H, length, K]."""
        c = self.config
        width = c.d_model // c.decoder_heads
        keys, values = (self.batch, c.decoder_heads, width, length), (self.batch, c.decoder_heads, length, width)
        return [(jnp.zeros(keys, c.dtype), jnp.zeros(values, c.dtype)) for _ in self.layers]

    def grow(self, cache: list[tuple[Array, Array]], columns: int) -> list[tuple[Array, Array]]:
        """The cache with room for more columns."""
        none = (0, 0)
        return [
            (jnp.pad(k_BHKS, (none, none, none, (0, columns))), jnp.pad(v_BHSK, (none, none, (0, columns), none)))
            for k_BHKS, v_BHSK in cache
        ]

    def read(
        self,
        tokens_BT: Array,
        position_BT: Array,
        cache: list[tuple[Array, Array]],
        column: Array | int,
        visible_BTS: Array,
    ) -> tuple[Array, list[tuple[Array, Array]]]:
        """Hidden states [B, T, D] after T more tokens, and the cache with their keys at `column` and after.

        `position_BT` are places in the row's own sequence, `visible_BTS` says which columns of the cache each token
        may look at, its own included.
        """
        x = jnp.take(self.decoder.embed[...], tokens_BT, axis=0, mode="clip")
        x = (x + jnp.take(self.decoder.positions[...], position_BT, axis=0, mode="clip")).astype(self.config.dtype)
        new = []
        for block, layer, layer_cache in zip(self.decoder.layers, self.layers, cache, strict=True):
            x, layer_cache = self._block(block, layer, x, layer_cache, column, visible_BTS)
            new.append(layer_cache)
        return x, new

    def logits(self, x_BTD: Array) -> Array:
        """float32 logits [B, T, V] of hidden states."""
        x_RD = self.decoder.norm(x_BTD).reshape(-1, x_BTD.shape[-1]).astype(self.embed_VD.dtype)
        rows = len(x_RD)
        if products.rounds(x_BTD, self.embed_VD):
            # Two rows at least: a CPU has no fast product of one row in bfloat16 (35 ms for 51,864 columns, 3 for two).
            x_RD = jnp.pad(x_RD, ((0, max(0, 2 - rows)), (0, 0)))
        # The long matrix on the left, as it lies in memory: on a CPU 1.4 to 1.6 times as fast for eight rows.
        logits_VR = jax.lax.dot_general(
            self.embed_VD, x_RD, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        return logits_VR.T[:rows].reshape(*x_BTD.shape[:2], -1)

    def _block(self, block, layer, x, cache, column, visible_BTS):
        own = block.own_route(x, self.route)
        weight_BTE = None if own is self.route else own.weight_BX
        q, k, v = (self._heads(part) for part in jnp.split(layer.qkv(block.self_attn_norm(x), weight_BTE), 3, axis=-1))
        write = jax.lax.dynamic_update_slice_in_dim
        cache = (write(cache[0], k.swapaxes(2, 3), column, axis=3), write(cache[1], v, column, axis=2))
        x = x + layer.out(self._flat(attend_few(q, *cache, visible_BTS)), weight_BTE)
        q = layer.cross_q(block.cross_attn_norm(x), weight_BTE)
        seen = None if self.seen_BT is None else self.seen_BT[:, None]
        keys_BHKT, values_BHTK = layer.cross
        heard_BHTK = attend_few(self._heads(q), keys_BHKT, values_BHTK, seen)
        x = x + layer.cross_out(self._flat(heard_BHTK), weight_BTE)
        h_BTF = layer.fc1(block.mlp_norm(x), weight_BTE)
        return x + layer.fc2(jax.nn.gelu(h_BTF, approximate=False), weight_BTE), cache

    def _layer(self, block, states_BTD, route):
        own, cross, dtype = block.self_attn, block.cross_attn, self.config.dtype
        by_token = block.router is not None and route is not None and route.logits_BE is not None
        scale = (self.config.d_model // self.config.decoder_heads) ** -0.5
        keys, values = (cross.split_heads(_long(linear, states_BTD, route)) for linear in (cross.k, cross.v))
        return Layer(
            qkv=fuse(dtype, route, by_token, (own.q, scale), (own.k, 1), (own.v, 1)),
            out=fuse(dtype, route, by_token, (own.out, 1)),
            cross_q=fuse(dtype, route, by_token, (cross.q, scale)),
            cross_out=fuse(dtype, route, by_token, (cross.out, 1)),
            fc1=fuse(dtype, route, by_token, (block.fc1, 1)),
            fc2=fuse(dtype, route, by_token, (block.fc2, 1)),
            cross=(keys.transpose(0, 2, 3, 1), values.transpose(0, 2, 1, 3)),
        )

    def _heads(self, x_BTD):
        """[B, H, T, K]"""
        return x_BTD.reshape(*x_BTD.shape[:2], self.config.decoder_heads, -1).swapaxes(1, 2)

    def _flat(self, x_BHTK):
        B, _, T, _ = x_BHTK.shape
        return x_BHTK.swapaxes(1, 2).reshape(B, T, -1)


def _long(linear, x_BTD, route):
    """The layer with its experts on a long sequence: added to each utterance's weights they cost nothing there, while
    the update of 1500 frames cost 15 % (CPU, rank 16). Half precision would round them away: there they stay apart.
    """
    if linear.experts is None or route is None or x_BTD.dtype != jnp.float32:
        return linear(x_BTD, route)
    kernel_BDO = linear.kernel[...].astype(x_BTD.dtype)[None] + mixture.delta(linear.experts.fold(route))
    factor_BO = linear.experts.factor(linear.kernel[...], route)
    y_BTO = x_BTD @ (kernel_BDO if factor_BO is None else kernel_BDO * factor_BO[:, None])
    return y_BTO if linear.bias is None else y_BTO + linear.bias[...].astype(x_BTD.dtype)[None, None]


def fuse(dtype, route: Route | None, by_token: bool, *layers: tuple[Linear, float]) -> Fused:
    """`Fused` of (linear layer, scale of its output); `by_token`: their gate weighs every token."""
    kernels, biases, experts, factors = [], [], [], []
    for linear, scale in layers:
        kernel = linear.kernel[...].astype(dtype)
        bias = jnp.zeros(kernel.shape[1:], dtype) if linear.bias is None else linear.bias[...].astype(dtype)
        own, folded, factor_BO = None if route is None else linear.experts, None, None
        if own is not None:
            folded = own.fold_tokens() if by_token else own.fold(route)
            factor_BO = own.factor(linear.kernel[...], route)
        factors.append(factor_BO)
        if scale != 1:
            kernel, bias = kernel * scale, bias * scale
            folded = None if folded is None else folded._replace(B=folded.B * scale)
        kernels.append(kernel)
        biases.append(bias)
        experts.append(folded)
    kernel_DO, bias_O = jnp.concatenate(kernels, axis=1), jnp.concatenate(biases)
    folded = mixture.side_by_side(experts, [kernel.shape[1] for kernel in kernels])
    if any(factor_BO is not None for factor_BO in factors):
        assert route is not None  # else there were no factors
        rows = route.weight_BX.shape[0]
        whole = [
            jnp.ones((rows, kernel.shape[1])) if factor_BO is None else factor_BO
            for factor_BO, kernel in zip(factors, kernels, strict=True)
        ]
        return Fused(kernel_DO, bias_O, folded, jnp.concatenate(whole, axis=1))
    if folded is None or folded.weight_BQ is None or folded.B.dtype != kernel_DO.dtype:
        return Fused(kernel_DO, bias_O, folded)
    return Fused(jnp.concatenate([kernel_DO, folded.B]), bias_O, folded._replace(B=None))
