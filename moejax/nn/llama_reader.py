"""LLaMA for a few tokens at a time: what `nn.incremental` is for Whisper's decoder, for the same searches.

The prefix of a search holds what was heard (ids from `vocab_size` on, see `nn.llama`), so the encoder's states are
vectors of the language model here, and there is no attention across.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moejax.nn.incremental import Fused, Reader, fuse
from moejax.nn.layers import Linear
from moejax.nn.llama import turned
from moejax.ops import products
from moejax.ops.attention import attend_few
from moejax.ops.int8 import Int8Matrix
from moejax.types import Array, Route


class Apart(NamedTuple):
    """Linear layers that read the same input one after another, as they are: kernels in int8 stay so in memory."""

    layers: tuple[tuple[Linear, float], ...]  # (layer, scale of its output)
    route: Route | None

    def __call__(self, x_BTD: Array, weight_BTE: Array | None = None) -> Array:
        """Outputs side by side, as those of `nn.incremental.Fused`."""
        route = self.route if weight_BTE is None else Route(weight_BTE)
        return jnp.concatenate([scale * layer(x_BTD, route) for layer, scale in self.layers], axis=-1)


class _Layer(NamedTuple):
    qkv: Fused | Apart
    out: Fused | Apart
    gate_up: Fused | Apart
    down: Fused | Apart


class LlamaReader(Reader):
    """One search's language model: made inside the trace from a merged model whose `decoder` is a `Llama`, from what
    was heard [B, A, D] and the route.
    """

    def __init__(self, model: Any, states_BTD: Array, mask_BT: Array | None = None, route: Route | None = None):
        del mask_BT  # the prefix says what of it is heard
        self.decoder, self.config = model.decoder, model.decoder.config
        self.heard_BAD, self.batch, self.route = states_BTD, states_BTD.shape[0], route
        self.layers = [self._layer(block, route) for block in self.decoder.layers]

    def cache(self, length: int) -> list[tuple[Array, Array]]:
        """Zeros: per layer keys [B, H, K, length] and values [B, H, length, K], of the heads that keys have."""
        c = self.config
        keys, values = (self.batch, c.key_heads, c.width, length), (self.batch, c.key_heads, length, c.width)
        return [(jnp.zeros(keys, c.dtype), jnp.zeros(values, c.dtype)) for _ in self.layers]

    def read(
        self,
        tokens_BT: Array,
        position_BT: Array,
        cache: list[tuple[Array, Array]],
        column: Array | int,
        visible_BTS: Array,
    ) -> tuple[Array, list[tuple[Array, Array]]]:
        """Hidden states [B, T, D] after T more tokens, and the cache with their keys at `column` and after."""
        x, new = self.decoder.inputs(tokens_BT, self.heard_BAD), []
        for block, layer, own in zip(self.decoder.layers, self.layers, cache, strict=True):
            x, own = self._step(block, layer, x, position_BT, own, column, visible_BTS)
            new.append(own)
        return x, new

    def logits(self, x_BTD: Array) -> Array:
        """float32 logits [B, T, V] of hidden states."""
        if self.decoder.head is None or not products.rounds(x_BTD, self.decoder.head.kernel[...]):
            return self.decoder.logits(x_BTD)
        # Two rows at least, as in `nn.incremental`: a CPU has no fast product of one row in bfloat16.
        rows = x_BTD.shape[0] * x_BTD.shape[1]
        x_1RD = jnp.pad(x_BTD.reshape(1, rows, -1), ((0, 0), (0, max(0, 2 - rows)), (0, 0)))
        return self.decoder.logits(x_1RD)[0, :rows].reshape(*x_BTD.shape[:2], -1)

    def _step(self, block, layer, x, position_BT, cache, column, visible_BTS):
        c, own = self.config, block.own_route(x, self.route)
        weight_BTE = None if own is self.route else own.weight_BX
        B, T, shared = *x.shape[:2], c.heads // c.key_heads
        parts = layer.qkv(block.self_attn_norm(x), weight_BTE).reshape(B, T, -1, c.width)
        q, k, v = jnp.split(parts, (c.heads, c.heads + c.key_heads), axis=2)
        q, k = (turned(part, position_BT, c) for part in (q, k))
        write = jax.lax.dynamic_update_slice_in_dim
        cache = (
            write(cache[0], k.transpose(0, 2, 3, 1), column, axis=3),
            write(cache[1], v.transpose(0, 2, 1, 3), column, axis=2),
        )
        # Queries that share keys are queries of one head: [B, H of keys, shared * T, K]
        q = q.reshape(B, T, c.key_heads, shared, c.width).transpose(0, 2, 3, 1, 4).reshape(B, c.key_heads, -1, c.width)
        said = attend_few(q, *cache, jnp.tile(visible_BTS, (1, shared, 1)))
        said = said.reshape(B, c.key_heads, shared, T, c.width).transpose(0, 3, 1, 2, 4).reshape(B, T, -1)
        x = x + layer.out(said, weight_BTE)
        gate, up = jnp.split(layer.gate_up(block.mlp_norm(x), weight_BTE), 2, axis=-1)
        return x + layer.down(jax.nn.silu(gate) * up, weight_BTE), cache

    def _layer(self, block, route):
        own, mlp = block.self_attn, block.mlp
        by_token = block.router is not None and route is not None and route.logits_BE is not None

        def joined(*layers):
            if isinstance(layers[0][0].kernel[...], Int8Matrix):
                return Apart(layers, route)
            return fuse(self.config.dtype, route, by_token, *layers)

        return _Layer(
            qkv=joined((own.q, self.config.width**-0.5), (own.k, 1), (own.v, 1)),
            out=joined((own.out, 1)),
            gate_up=joined((mlp.gate, 1), (mlp.up, 1)),
            down=joined((mlp.down, 1)),
        )
