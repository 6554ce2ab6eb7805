"""Scaled dot-product attention, one function for every platform.

On CPU the score matrix of a 30 s encoder (1500 x 1500 x heads x batch) falls out of the cache. Blocks of one head and
some queries, which stay in it, with the division by the softmax's sum after the product with the values, took 142 ms
where blocks of all heads took 509 (8 x 6 heads x 1500 x 64, float32, 2 cores). On GPU fused attention is used for half
precision, because unfused scores of a large model cost more memory time than all its matrix products.
"""

import jax
import jax.numpy as jnp

BLOCK_BYTES = 24 * 2**20
MASKED = -1e30


def attend(q_BTHK, k_BSHK, v_BSHK, *, key_mask_BS=None, causal=False):
    """Attention output [B, T, H, K]; softmax in float32. `key_mask_BS` true means the key may be seen."""
    B, T, H, K = q_BTHK.shape
    S = k_BSHK.shape[1]
    if jax.default_backend() == "gpu" and q_BTHK.dtype in (jnp.bfloat16, jnp.float16) and T > 1:
        mask = None if key_mask_BS is None else key_mask_BS[:, None, None, :]
        return jax.nn.dot_product_attention(q_BTHK, k_BSHK, v_BSHK, mask=mask, is_causal=causal)
    q_BTHK = q_BTHK * jnp.asarray(K**-0.5, q_BTHK.dtype)
    if causal or B * H * T * S * 4 <= BLOCK_BYTES:
        return _plain(q_BTHK, k_BSHK, v_BSHK, key_mask_BS, causal)
    blocks = _blocks(B * T * S * 4, T)
    # The batch stays one axis of a block: on a mesh it is the axis that the devices share.
    q_XBTK = q_BTHK.reshape(B, blocks, T // blocks, H, K).transpose(3, 1, 0, 2, 4).reshape(H * blocks, B, -1, K)
    k_HBSK, v_HBSK = k_BSHK.transpose(2, 0, 1, 3), v_BSHK.transpose(2, 0, 1, 3)
    out_XBTK = jax.lax.map(
        lambda x: _one_head(q_XBTK[x], k_HBSK[x // blocks], v_HBSK[x // blocks], key_mask_BS), jnp.arange(H * blocks)
    )
    return out_XBTK.reshape(H, blocks, B, T // blocks, K).transpose(2, 1, 3, 0, 4).reshape(B, T, H, K)


def _blocks(score_bytes, length):
    """Smallest divisor of `length` that brings the scores of a block under the limit."""
    if score_bytes <= BLOCK_BYTES:
        return 1
    wanted = -(-score_bytes // BLOCK_BYTES)
    return next((d for d in range(1, length + 1) if length % d == 0 and d >= wanted), length)


def _one_head(q_BTK, k_BSK, v_BSK, key_mask_BS):
    score_BTS = jnp.einsum("BTK,BSK->BTS", q_BTK, k_BSK, preferred_element_type=jnp.float32)
    if key_mask_BS is not None:
        score_BTS = jnp.where(key_mask_BS[:, None, :], score_BTS, MASKED)
    weight_BTS = jnp.exp(score_BTS - jax.lax.stop_gradient(score_BTS.max(-1, keepdims=True)))
    sum_BT1 = weight_BTS.sum(-1, keepdims=True)
    out_BTK = jnp.einsum("BTS,BSK->BTK", weight_BTS.astype(v_BSK.dtype), v_BSK, preferred_element_type=jnp.float32)
    return (out_BTK / sum_BT1).astype(v_BSK.dtype)


def _plain(q_BTHK, k_BSHK, v_BSHK, key_mask_BS, causal):
    score_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q_BTHK, k_BSHK, preferred_element_type=jnp.float32)
    if key_mask_BS is not None:
        score_BHTS = jnp.where(key_mask_BS[:, None, None, :], score_BHTS, MASKED)
    if causal:
        T, S = score_BHTS.shape[-2:]
        visible_TS = jnp.tril(jnp.ones((T, S), bool))
        score_BHTS = jnp.where(visible_TS[None, None], score_BHTS, MASKED)
    weight_BHTS = jax.nn.softmax(score_BHTS, axis=-1).astype(v_BSHK.dtype)
    return jnp.einsum("BHTS,BSHK->BTHK", weight_BHTS, v_BSHK)


def attend_few(q_BHTK, k_BHKS, v_BHSK, visible_BTS=None):
    """Attention output [B, H, T, K] of few scaled queries onto many keys (decoding); softmax in float32.

    Keys are transposed: on a CPU 1.3 x faster for one query and 1.5 x for five. Values are not, that would be slower.
    `visible_BTS` true means that query t may see key s; T may be 1 for all queries alike.
    """
    score_BHTS = jnp.einsum("BHTK,BHKS->BHTS", q_BHTK, k_BHKS, preferred_element_type=jnp.float32)
    if visible_BTS is not None:
        score_BHTS = jnp.where(visible_BTS[:, None], score_BHTS, MASKED)
    weight_BHTS = jax.nn.softmax(score_BHTS, axis=-1).astype(v_BHSK.dtype)
    return jnp.einsum("BHTS,BHSK->BHTK", weight_BHTS, v_BHSK)
