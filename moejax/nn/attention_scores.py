"""What the decoder looks at: cross-attention scores of chosen heads, under teacher forcing."""

from collections.abc import Sequence

import jax.numpy as jnp

from moejax.errors import BadValue
from moejax.nn.whisper import Whisper
from moejax.types import Array, Route


def cross_scores(
    model: Whisper,
    tokens_BL: Array,
    states_BTD: Array,
    heads: Sequence[tuple[int, int]],
    mask_BT: Array | None = None,
    route: Route | None = None,
) -> tuple[Array, Array]:
    """(scores [B, H, L, T] float32 before the softmax, decoder states [B, L, D] before the output norm).

    `heads`: (layer, head) pairs, H of them in their order. Layers after the last one named are run for the states. The
    scores of padded frames are not masked. `model.decoder.logits` of the states are the logits of `model.decode`.
    """
    decoder = model.decoder
    known = [(layer, head) for layer in range(len(decoder.layers)) for head in range(model.config.decoder_heads)]
    if unknown := sorted(set(heads) - set(known)):
        raise BadValue(f"no attention heads {unknown[:3]}; layers 0..{known[-1][0]}, heads 0..{known[-1][1]}")
    seen = mask_BT if model.config.mask_padding else None
    x, found = decoder.inputs(tokens_BL), {}
    for layer, block in enumerate(decoder.layers):
        own, h = block.own_route(x, route), block.self_attn_norm(x)
        kv = block.self_attn.keys_values(h, own)
        x = x + block.self_attn(h, kv, causal=True, route=own)
        cross, norm = block.cross_attn, block.cross_attn_norm
        assert cross is not None and norm is not None  # a decoder's block
        kv = cross.keys_values(states_BTD, route)
        if mine := [head for at, head in heads if at == layer]:
            q_BLHK = cross.split_heads(cross.q(norm(x), own))
            found |= {(layer, head): _scores(q_BLHK[:, :, head], kv[0][:, :, head]) for head in mine}
        x = block.mlp(block.cross(x, kv, seen, own), own)
    return jnp.stack([found[tuple(pair)] for pair in heads], axis=1), x


def _scores(q_BLK, k_BTK):
    scaled = q_BLK * jnp.asarray(q_BLK.shape[-1] ** -0.5, q_BLK.dtype)
    return jnp.einsum("BLK,BTK->BLT", scaled, k_BTK, preferred_element_type=jnp.float32)
