"""Scaled dot-product attention, one function for every platform.

On CPU the score matrix of a 30 s encoder (1500 x 1500 x heads x batch) falls out of the cache. Blocks of one head and
some queries, which stay in it, with the division by the softmax's sum after the product with the values, took 142 ms
where blocks of all heads took 509 (8 x 6 heads x 1500 x 64, float32, 2 cores). On GPU half precision goes to JAX's own
attention, whose scores XLA fuses as far as it can; cuDNN's (`implementation="cudnn"`) was never tried here.
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
    # An utterance at a time: a batch of products is several times slower on a CPU than one product (XLA gives only
    # those to its fast kernels). On several devices the batch stays an axis of a block: it is what they share.
    rows = 1 if jax.device_count() == 1 else B
    blocks = _blocks(rows * T * S * 4, T)
    shape = () if rows == 1 else (rows,)  # of a block, before its two axes

    def laid_out(x_BLHK, parts):
        x = x_BLHK.reshape(B // rows, rows, parts, -1, H, K).transpose(0, 4, 2, 1, 3, 5)
        return x.reshape(-1, *shape, x.shape[4], K)

    q_XTK, k_YSK, v_YSK = laid_out(q_BTHK, blocks), laid_out(k_BSHK, 1), laid_out(v_BSHK, 1)
    mask_GS = None if key_mask_BS is None else key_mask_BS.reshape(-1, *shape, S)

    def block(x):
        mask_S = None if mask_GS is None else mask_GS[x // (H * blocks)]
        return _one_head(q_XTK[x], k_YSK[x // blocks], v_YSK[x // blocks], mask_S)

    out_XTK = jax.lax.map(block, jnp.arange(B // rows * H * blocks))
    out = out_XTK.reshape(B // rows, H, blocks, rows, T // blocks, K)
    return out.transpose(0, 3, 2, 4, 1, 5).reshape(B, T, H, K)


def _blocks(score_bytes, length):
    """Smallest divisor of `length` that brings the scores of a block under the limit."""
    if score_bytes <= BLOCK_BYTES:
        return 1
    wanted = -(-score_bytes // BLOCK_BYTES)
    return next((d for d in range(1, length + 1) if length % d == 0 and d >= wanted), length)


def _one_head(q_TK, k_SK, v_SK, key_mask_S):
    """One head of one utterance, or of several along a first axis of all."""
    score_TS = jnp.einsum("...TK,...SK->...TS", q_TK, k_SK, preferred_element_type=jnp.float32)
    if key_mask_S is not None:
        score_TS = jnp.where(key_mask_S[..., None, :], score_TS, MASKED)
    weight_TS = jnp.exp(score_TS - jax.lax.stop_gradient(score_TS.max(-1, keepdims=True)))
    sum_T1 = weight_TS.sum(-1, keepdims=True)
    out_TK = jnp.einsum("...TS,...SK->...TK", weight_TS.astype(v_SK.dtype), v_SK, preferred_element_type=jnp.float32)
    return (out_TK / sum_T1).astype(v_SK.dtype)


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


def attend_states(q_BQD, x_BSD, key_mask_BS=None):
    """Means of the states x by the softmax of q x, [B, Q, D]: attention whose keys and values are the states
    themselves. float32.
    """
    score_BQS = jnp.einsum("BQD,BSD->BQS", q_BQD, x_BSD, preferred_element_type=jnp.float32)
    if key_mask_BS is not None:
        score_BQS = jnp.where(key_mask_BS[:, None], score_BQS, MASKED)
    weight_BQS = jnp.exp(score_BQS - jax.lax.stop_gradient(score_BQS.max(-1, keepdims=True)))
    sum_BQ1 = weight_BQS.sum(-1, keepdims=True)
    return jnp.einsum("BQS,BSD->BQD", weight_BQS, x_BSD, preferred_element_type=jnp.float32) / sum_BQ1


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
