"""What may come next: suppressed ids, hotwords, and the reference's timestamp rules, as pure functions on logits.

Everything here is traced; ids come from a tokenizer outside. `tokens_BL` are the tokens generated so far, of which the
first `count` are real: prefix and prompt are not among them.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from moejax.audio.constants import TIMESTAMP_STEP
from moejax.decode.prefix import FORCED, forced
from moejax.errors import BadValue
from moejax.types import Array


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["banned_V", "banned_first_V", "hotwords_NL", "hotword_bias", "forced_N", "earliest_B"],
    meta_fields=["eot", "timestamps", "max_initial"],
)
@dataclasses.dataclass(frozen=True)
class Rules:
    """What holds during one search. None switches a rule off (and compiles to nothing).

    Attributes:
      banned_V, banned_first_V: ids never chosen, and never chosen first: bool.
      hotwords_NL: token sequences padded with -1, int32; `hotword_bias` scalar, added to logits.
      forced_N: what is said first whatever the network and the other rules say, padded with -1, int32.
      earliest_B: the first timestamp (in steps) that may come in each row, int32; `max_initial` counts from it.
      eot: the end token's id, static.
      timestamps: id of <|0.00|> where the timestamp rules hold, static; the token before it is <|notimestamps|>.
      max_initial: index of the last timestamp that may come first, static; None: any.
    """

    banned_V: Array | None = None
    banned_first_V: Array | None = None
    hotwords_NL: Array | None = None
    hotword_bias: Array | None = None
    forced_N: Array | None = None
    earliest_B: Array | None = None
    eot: int = 0
    timestamps: int | None = None
    max_initial: int | None = None


def make(tokenizer, options, config) -> Rules:
    """The rules of `options` in this vocabulary, as the reference's `DecodingTask` sets them up."""
    initial = options.max_initial_timestamp
    words = [ids for ids in map(tokenizer.encode, options.hotwords) if ids]
    return Rules(
        banned_V=mask(options.banned(tokenizer), config.vocab_size),
        banned_first_V=mask(tokenizer.begin_suppress if options.suppress_blank else (), config.vocab_size),
        hotwords_NL=_rectangle(words) if words else None,
        hotword_bias=np.float32(options.hotword_bias) if words else None,
        forced_N=_padded(forced(tokenizer, options, config.max_target_positions)),
        eot=tokenizer.eot,
        timestamps=None if options.without_timestamps else tokenizer.timestamp_begin,
        max_initial=round(initial / TIMESTAMP_STEP) if initial else None,
    )


def mask(ids, vocab: int):
    """Token ids as a boolean numpy mask [V], None for no ids. Errors: ValueError for ids outside the vocabulary."""
    ids = np.asarray([] if ids is None else ids, np.int64)
    outside = ids[(ids < 0) | (ids >= vocab)]
    if outside.size:
        raise BadValue(f"suppressed ids {outside.tolist()} are outside the vocabulary 0..{vocab - 1}")
    if not ids.size:
        return None
    mask_V = np.zeros((vocab,), bool)
    mask_V[ids] = True
    return mask_V


def apply(rules: Rules, logits_BV, tokens_BL, count):
    """Logits [B, V] under all rules: what may not come next is -inf; at least one id always stays."""
    if rules.hotwords_NL is not None:
        logits_BV = logits_BV + hotwords(logits_BV.shape, tokens_BL, count, rules.hotwords_NL, rules.hotword_bias)
    if rules.banned_V is not None:
        logits_BV = jnp.where(jnp.asarray(rules.banned_V)[None], -jnp.inf, logits_BV)
    if rules.banned_first_V is not None:
        first = count == said_by_force(rules)  # of its own: an end right after the prefix would be no text, too
        logits_BV = jnp.where((jnp.asarray(rules.banned_first_V) & first)[None], -jnp.inf, logits_BV)
    if rules.timestamps is not None:
        earliest_B = 0
        if rules.earliest_B is not None:  # hypotheses of a row lie side by side
            earliest_B = jnp.repeat(jnp.asarray(rules.earliest_B), len(logits_BV) // len(rules.earliest_B))
        logits_BV = timestamps(
            logits_BV,
            tokens_BL,
            count,
            eot=rules.eot,
            begin=rules.timestamps,
            max_initial=rules.max_initial,
            earliest_B=earliest_B,
        )
    if rules.forced_N is not None:
        forced_N = jnp.asarray(rules.forced_N)
        token = jnp.where(count < len(forced_N), forced_N[jnp.minimum(count, len(forced_N) - 1)], -1)
        only_1V = jnp.where(jnp.arange(logits_BV.shape[1]) == token, 0.0, -jnp.inf)[None]
        logits_BV = jnp.where(token >= 0, only_1V, logits_BV)
    return logits_BV


def said_by_force(rules: Rules):
    """How many tokens the rules force; a scalar."""
    return 0 if rules.forced_N is None else (jnp.asarray(rules.forced_N) >= 0).sum()


def timestamps(
    logits_BV, tokens_BL, count, *, eot: int, begin: int, max_initial: int | None, earliest_B: Array | int = 0
):
    """The reference's `ApplyTimestampRules`.

    Timestamps come in pairs except before the end token, do not decrease, and no segment has zero length; the first
    token is a timestamp from `begin + earliest_B` up to `max_initial` more; and where all timestamps together are
    likelier than any single text token, it is a timestamp. `begin` is <|0.00|>, the id before it <|notimestamps|>.
    """
    id_1V = jnp.arange(logits_BV.shape[1])[None]
    seen_BL = (jnp.arange(tokens_BL.shape[1]) < count)[None] & (tokens_BL >= begin)
    last_B1, before_B1 = (_token(tokens_BL, count - back)[:, None] for back in (1, 2))
    last = (count >= 1) & (last_B1 >= begin)
    before = (count < 2) | (before_B1 >= begin)
    # They never decrease, so the latest is the largest.
    latest_B1 = jnp.where(seen_BL, tokens_BL, -1).max(axis=1, keepdims=True)
    least_B1 = jnp.where(last & ~before, latest_B1, latest_B1 + 1)
    time_1V = id_1V >= begin
    banned_BV = (id_1V == begin - 1) | (last & before & time_1V) | (last & ~before & (id_1V < eot))
    banned_BV |= (latest_B1 >= 0) & time_1V & (id_1V < least_B1)
    least_B1 = begin + jnp.reshape(earliest_B, (-1, 1))
    first_BV = id_1V < least_B1 if max_initial is None else (id_1V < least_B1) | (id_1V > least_B1 + max_initial)
    logits_BV = jnp.where(banned_BV | ((count == 0) & first_BV), -jnp.inf, logits_BV)
    time_B = jax.nn.logsumexp(logits_BV[:, begin:], axis=1)
    text_B = logits_BV[:, :begin].max(axis=1)
    return jnp.where((time_B > text_B)[:, None] & ~time_1V, -jnp.inf, logits_BV)


def hotwords(shape, tokens_BL, count, words_NL, bias):
    """Additive bias [B, V]: where the last i tokens are the first i of a word, its next one gets `bias`, i from 0 on.

    A token that continues two words gets it once.
    """
    L = words_NL.shape[1]
    # The last L - 1 tokens; -2 where there are none, which no word has.
    at_J = count - (L - 1) + jnp.arange(L - 1)
    recent_BJ = jnp.take(tokens_BL, jnp.maximum(at_J, 0), axis=1, mode="clip")
    recent_BJ = jnp.where((at_J >= 0)[None], recent_BJ, -2)
    bias_BV = jnp.zeros(shape, jnp.float32)
    for i in range(L):
        said_BN = (recent_BJ[:, None, L - 1 - i :] == words_NL[None, :, :i]).all(-1)
        next_N = words_NL[:, i]
        add_BN = (said_BN & (next_N >= 0)[None]).astype(jnp.int32)
        new_BV = jnp.zeros(shape, jnp.int32).at[:, jnp.maximum(next_N, 0)].add(add_BN)
        bias_BV = jnp.where(new_BV > 0, bias, bias_BV)
    return bias_BV


def _token(tokens_BL, at):
    """Column `at` of the tokens, whatever it holds where `at` is negative."""
    return jax.lax.dynamic_index_in_dim(tokens_BL, jnp.maximum(at, 0), axis=1, keepdims=False)


def _padded(ids):
    """Ids as int32 [N], N a multiple of `prefix.FORCED`; None for none."""
    return np.asarray([*ids, *[-1] * (-len(ids) % FORCED)], np.int32) if ids else None


def _rectangle(words):
    """Words as int32 [N, L] padded with -1; N a power of two from 16 on and L a multiple of 8, so that most lists share
    a compiled program.
    """
    rows, columns = 16, -(-max(map(len, words)) // 8) * 8
    while rows < len(words):
        rows *= 2
    words_NL = np.full((rows, columns), -1, np.int32)
    for n, ids in enumerate(words):
        words_NL[n, : len(ids)] = ids
    return words_NL
