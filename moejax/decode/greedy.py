"""Greedy decoding: the most likely token each time, with a static key/value cache, batched, ending early.

The whole search is one traced function. The encoder's keys and values are computed once, the prefix is read in a loop
that never forms logits, and a `while_loop` with the layers unrolled in its body stops when every row has ended.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Decoded(NamedTuple):
    """What a search found; the prefix is not repeated in it."""

    tokens_BL: jax.Array  # int32, padded with the end token
    lengths_B: jax.Array  # int32, tokens before the end token; equals L where the limit came first
    sum_logprob_B: jax.Array  # float32, of the chosen tokens and the end token, after suppression


def greedy(
    model, states_BTD, prefix_BL, *, max_tokens, eot, mask_BT=None, route=None, suppress=None, begin_suppress=None
):
    """Greedy continuation of a prefix for each row.

    Args:
      model: `nn.whisper.Whisper`, merged inside the caller's trace.
      states_BTD: encoder states.
      prefix_BL: start tokens, at least one: a list for all rows, or int [B, L].
      max_tokens: static number of tokens to generate at most, the end token included.
      eot: id of the end token.
      mask_BT: true on encoder frames of real audio; only models with `mask_padding` look at it.
      route: `types.Route` of the experts, fixed for the whole search.
      suppress, begin_suppress: token ids that are never chosen, and never chosen first.

    Returns `Decoded`. Rows do not see each other: a batch gives what its rows give alone. The mean log-probability of
    the reference implementation's fallback rule is `sum_logprob / (lengths + 1)`.
    """
    batch, vocab = states_BTD.shape[0], model.config.vocab_size
    prefix_BL = jnp.asarray(prefix_BL, jnp.int32)
    if prefix_BL.ndim == 1:
        prefix_BL = jnp.broadcast_to(prefix_BL[None], (batch, prefix_BL.shape[0]))
    start, length = prefix_BL.shape[1] - 1, prefix_BL.shape[1] - 1 + max_tokens
    _check(start, length, max_tokens, model.config)
    banned_V = _banned(suppress, vocab)
    banned_first_V = banned_V | _banned(begin_suppress, vocab)

    cross = model.cross_kv(states_BTD, route)
    cache = model.init_cache(batch, length)

    def step(tokens_B, position, cache):
        return model.decode_step(tokens_B[:, None], position, cache, cross, mask_BT, route)

    def read(position, cache):
        # The logits are dropped, so the compiler removes the largest matrix product of the step.
        return step(jax.lax.dynamic_index_in_dim(prefix_BL, position, 1, keepdims=False), position, cache)[1]

    if start:
        cache = jax.lax.fori_loop(0, start, read, cache)

    def going(carry):
        count, _, _, ended_B, _, _ = carry
        return (count < max_tokens) & ~jnp.all(ended_B)

    def write(carry):
        count, last_B, tokens_BL, ended_B, sum_B, cache = carry
        logits_BV, cache = step(last_B, start + count, cache)
        if banned_first_V.any():
            banned = jnp.where(count == 0, jnp.asarray(banned_first_V), jnp.asarray(banned_V))
            logits_BV = jnp.where(banned[None], -jnp.inf, logits_BV)
        next_B, best_B = _argmax(logits_BV)
        logprob_B = best_B - jax.nn.logsumexp(logits_BV, axis=-1)
        next_B = jnp.where(ended_B, eot, next_B)
        sum_B = jnp.where(ended_B, sum_B, sum_B + logprob_B)
        tokens_BL = jax.lax.dynamic_update_slice_in_dim(tokens_BL, next_B[:, None], count, axis=1)
        return count + 1, next_B, tokens_BL, ended_B | (next_B == eot), sum_B, cache

    carry = (
        jnp.int32(0),
        prefix_BL[:, -1],
        jnp.full((batch, max_tokens), eot, jnp.int32),
        jnp.zeros((batch,), bool),
        jnp.zeros((batch,), jnp.float32),
        cache,
    )
    _, _, tokens_BL, _, sum_B, _ = jax.lax.while_loop(going, write, carry)
    lengths_B = jnp.sum(tokens_BL != eot, axis=1, dtype=jnp.int32)
    return Decoded(tokens_BL, lengths_B, sum_B)


def _argmax(logits_BV):
    """Index and value of each row's maximum, the first of equals.

    Two plain reductions: XLA's own argmax carries (value, index) pairs, which a CPU does not vectorise.
    """
    best_B = logits_BV.max(axis=-1)
    index_V = jnp.arange(logits_BV.shape[-1], dtype=jnp.int32)
    hit_BV = jnp.where(logits_BV == best_B[:, None], index_V[None], logits_BV.shape[-1] - 1)
    return hit_BV.min(axis=-1), best_B


def _banned(ids, vocab):
    """Token ids as a boolean numpy mask [V]."""
    mask_V = np.zeros((vocab,), bool)
    ids = np.asarray([] if ids is None else ids, np.int64)
    outside = ids[(ids < 0) | (ids >= vocab)]
    if outside.size:
        raise ValueError(f"greedy: suppressed ids {outside.tolist()} are outside the vocabulary 0..{vocab - 1}")
    mask_V[ids] = True
    return mask_V


def _check(start, length, max_tokens, config):
    if start < 0:
        raise ValueError("greedy: the prefix is empty; it needs at least the start-of-transcript token")
    if max_tokens < 1:
        raise ValueError(f"greedy: max_tokens is {max_tokens}, must be at least 1")
    if length > config.max_target_positions:
        most = config.max_target_positions - start
        raise ValueError(
            f"greedy: max_tokens {max_tokens} after {start + 1} prefix tokens; the model has room for {most}"
        )
