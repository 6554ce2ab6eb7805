"""What the decoder has read before a window's first token: previous text, start, language, task, own prefix."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from moejax.errors import BadValue
from moejax.types import Array

PROMPT_LENGTHS = (16, 64)  # static lengths of prompts before the longest, so that short ones do not pay for it
FORCED = 16  # forced tokens are padded to a multiple of this, so that prefixes share a program


class Start(NamedTuple):
    """Where each row begins; prefixes are padded on the left, so that all rows generate at the same column."""

    tokens_BP: Array  # int32
    pad_B: Array  # int32, columns before the row's first token
    sot_B: Array  # int32, column of the start-of-transcript token
    limit_B: Array  # int32, tokens to generate at most; 0 for rows that are not wanted


def shared(prefix, batch: int, limit: int, sot: int = 0) -> Start:
    """The same prefix for every row, or int [B, P] without padding; `sot` is the column of the start token."""
    tokens_BP = jnp.asarray(prefix, jnp.int32)
    if tokens_BP.ndim == 1:
        tokens_BP = jnp.broadcast_to(tokens_BP[None], (batch, tokens_BP.shape[0]))
    pad_B, sot_B, limit_B = (np.full(batch, value, np.int32) for value in (0, sot, limit))
    return Start(tokens_BP, pad_B, sot_B, limit_B)


def most_before(context: int) -> int:
    """Ids that may be `before` a window's own, of a decoder with so many positions."""
    return (context // 2 - 2) // FORCED * FORCED


def starts(tokenizer, languages, prompts, options, *, context: int, rows: int, before=None) -> Start:
    """Prefixes of `rows` rows as the reference's `_get_initial_tokens` makes them, the first `len(languages)` real.

    `prompts`: token ids per real row, or None for `options.prompt`. They are cut from the left to context // 2 - 1.
    `options.prefix` is not in it: it is generated, by force (`forced`). `before`: ids of this window's own text per
    real row, which follow the start; prompts are cut by so many more.
    """
    own = len(forced(tokenizer, options, context))
    room = (options.sample_len or context // 2) + own
    said = [_ids(tokenizer, options.prompt)] * len(languages) if prompts is None else prompts
    if len(said) != len(languages):
        raise ValueError(f"{len(said)} prompts for {len(languages)} windows")
    before = [[] for _ in languages] if before is None else before
    own_length = -(-max(map(len, before)) // FORCED) * FORCED
    if own_length > most_before(context):
        raise BadValue(f"{max(map(len, before))} tokens before a window's own; at most {most_before(context)}")
    most = context // 2 - 1 - own_length
    said = [list(ids or ())[-most:] for ids in said]
    timed = not options.without_timestamps
    starting = [tokenizer.prefix(code, options.task, timed) for code in languages]
    heads = [[*head, *ids] for head, ids in zip(starting, before, strict=True)]
    full = [[tokenizer.sot_prev, *ids, *head] if ids else head for ids, head in zip(said, heads, strict=True)]
    longest = len(starting[0]) + own_length + _prompt_length(max(map(len, said)), most)
    tokens_BP = np.full((rows, longest), tokenizer.eot, np.int32)
    pad_B, sot_B, limit_B = (np.zeros(rows, np.int32) for _ in range(3))
    for b, ids in enumerate(full):
        if len(ids) > context:
            raise BadValue(f"a prefix of {len(ids)} tokens; the decoder has room for {context}")
        tokens_BP[b, longest - len(ids) :] = ids
        pad_B[b], sot_B[b] = longest - len(ids), longest - len(heads[b])
        limit_B[b] = min(room, context - len(ids) + 1)
    return Start(tokens_BP, pad_B, sot_B, limit_B)


def forced(tokenizer, options, context: int) -> list[int]:
    """Ids that a window's own text begins with: `options.prefix`, cut from the left to half the context as in the
    reference; with timestamps <|0.00|> comes first, as in faster-whisper (the reference would ask for a timestamp after
    the text, and published models then say nothing more).
    """
    ids = _ids(tokenizer, options.prefix)[-(context // 2 - (options.sample_len or 0)) :]
    if not ids or options.without_timestamps or ids[0] >= tokenizer.timestamp_begin:
        return ids
    return [tokenizer.timestamp_begin, *ids]


def room_for(tokenizer, options, context: int) -> int:
    """Columns for what a window says: `sample_len`, and the forced tokens in steps that compile alike."""
    steps = -(-len(forced(tokenizer, options, context)) // FORCED) * FORCED
    return min((options.sample_len or context // 2) + steps, context)


def usual(seconds):
    """Tokens with which so much speech is mostly said: 8 a second and 24 more. A search ends with its longest row, and
    one that loops would cost its company the whole room: what takes more is searched again, with others like it.
    """
    return 24 + (8 * np.asarray(seconds)).astype(np.int32)


def _prompt_length(longest, most):
    """Columns for prompts of which the longest has so many tokens, the start-of-previous token included."""
    if not longest:
        return 0
    return 1 + next((length for length in PROMPT_LENGTHS if longest <= length < most), most)


def _ids(tokenizer, text) -> list[int]:
    """Ids of an option that is text, ids or None."""
    return tokenizer.encode(text) if isinstance(text, str) else list(text or ())
