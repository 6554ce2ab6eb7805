"""Greedy decoding of a plain prefix: what training's validation, evaluation and the text translator need."""

import jax.numpy as jnp

from moejax.decode import prefix as prefixes
from moejax.decode.rules import Rules, mask
from moejax.decode.search import Decoded, SearchPlan, sample
from moejax.errors import BadValue


def greedy(
    model,
    states_BTD,
    prefix_BL,
    *,
    max_tokens,
    eot,
    mask_BT=None,
    route=None,
    suppress=None,
    begin_suppress=None,
    limit_B=None,
) -> Decoded:
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
      limit_B: tokens of each row at most, int32; None: `max_tokens`. A text that it cut is as long as it.

    Rows do not see each other: a batch gives what its rows give alone. The mean log-probability of the reference
    implementation's fallback rule is `sum_logprob / (lengths + 1)`.
    """
    vocab, batch = model.config.vocab_size, states_BTD.shape[0]
    start = prefixes.shared(prefix_BL, batch, max_tokens)
    start = start if limit_B is None else start._replace(limit_B=jnp.minimum(limit_B, max_tokens))
    _check(start.tokens_BP.shape[1], max_tokens, model.config.max_target_positions)
    rules = Rules(mask(suppress, vocab), mask(begin_suppress, vocab), eot=eot)
    plan = SearchPlan(eot=eot, max_tokens=max_tokens)
    return sample(model, states_BTD, start, rules, plan=plan, mask_BT=mask_BT, route=route)


def _check(prefix, max_tokens, room):
    if not prefix:
        raise ValueError("greedy: the prefix is empty; it needs at least the start-of-transcript token")
    if max_tokens < 1:
        raise ValueError(f"greedy: max_tokens is {max_tokens}, must be at least 1")
    if prefix - 1 + max_tokens > room:
        raise BadValue(
            f"greedy: max_tokens {max_tokens} after {prefix} prefix tokens; the model has room for {room - prefix + 1}"
        )
