"""Words and their times: tokens grouped into words, times from the aligned tokens, and the reference's corrections.

Follows openai/whisper, whisper/timing.py and tokenizer.py: the constants and the order of the corrections are theirs.
"""

import dataclasses
import itertools
import string

import numpy as np

from moejax.decode.segments import Draft, DraftWord
from moejax.ops.alignment import dtw

PREPENDED = "\"'“¿([{-"
APPENDED = "\"'.。,，!！?？:：”)]}、"
SENTENCE_ENDS = ".。!！?？"
LANGUAGES_WITHOUT_SPACES = ("zh", "ja", "th", "lo", "my", "yue")
LONGEST_MEDIAN = 0.7  # seconds


@dataclasses.dataclass
class Timing:
    """One word of a window; times in seconds from the window's start. `tokens` are its ids, none after a merge."""

    word: str
    tokens: list[int]
    start: float
    end: float
    probability: float


def split_words(tokenizer, tokens, language: str) -> tuple[list[str], list[list[int]]]:
    """Words of token ids and the ids of each.

    A word begins with a blank, a punctuation mark or a special token; in languages without spaces every character
    (or group of tokens that completes one) is a word.
    """
    pieces = _characters(tokenizer, tokens)
    if language in LANGUAGES_WITHOUT_SPACES:
        return [text for text, _ in pieces], [ids for _, ids in pieces]
    words, word_tokens = [], []
    for text, ids in pieces:
        begins = text.startswith(" ") or text.strip() in string.punctuation
        if begins or ids[0] >= tokenizer.eot or not words:
            words.append(text)
            word_tokens.append(list(ids))
        else:
            words[-1] += text
            word_tokens[-1] += ids
    return words, word_tokens


def _characters(tokenizer, tokens):
    """(text, ids) of the shortest groups of tokens that decode to whole characters.

    U+FFFD marks half a character, unless the whole text has it at that place: then the bytes never make one.
    """
    whole = tokenizer.decode(tokens, skip_special=False, strip=False)
    pieces, group, at = [], [], 0
    for token in tokens:
        group.append(token)
        text = tokenizer.decode(group, skip_special=False, strip=False)
        broken = text.find("\ufffd")
        if broken < 0 or whole[at + broken : at + broken + 1] == "\ufffd":
            pieces.append((text, group))
            group, at = [], at + len(text)
    return pieces


def timings(weight_LT, prob_L, tokens, tokenizer, language: str, *, seconds_per_frame: float) -> list[Timing]:
    """Words of a window's text tokens, timed by the path through the attention weights.

    `weight_LT` numpy: smoothed attention of the no-timestamps token and the text tokens (one row more than `tokens`) to
    the encoder frames of real audio; `prob_L` the probability of each text token.
    """
    words, word_tokens = split_words(tokenizer, [*tokens, tokenizer.eot], language)
    if len(word_tokens) <= 1:
        return []
    rows, frames = dtw(-np.asarray(weight_LT))
    begins = np.flatnonzero(np.diff(rows, prepend=-1))  # where the path enters each token
    times = frames[begins] * seconds_per_frame
    bounds = np.cumsum([0, *(len(ids) for ids in word_tokens[:-1])])
    return [
        Timing(word, ids, float(times[i]), float(times[j]), float(np.mean(prob_L[i:j])))
        for word, ids, i, j in zip(words, word_tokens, bounds[:-1], bounds[1:], strict=False)
    ]


def merge_punctuations(words: list[Timing], prepended: str = PREPENDED, appended: str = APPENDED):
    """Joins opening marks to the word after and closing marks to the word before, in place.

    A word that was joined to another stays in the list, empty, with its times.
    """
    following = len(words) - 1
    for i in range(len(words) - 2, -1, -1):
        word, after = words[i], words[following]
        if word.word.startswith(" ") and word.word.strip() in prepended:
            after.word, after.tokens = word.word + after.word, word.tokens + after.tokens
            word.word, word.tokens = "", []
        else:
            following = i
    previous = 0
    for i in range(1, len(words)):
        word, before = words[i], words[previous]
        if not before.word.endswith(" ") and word.word in appended:
            before.word, before.tokens = before.word + word.word, before.tokens + word.tokens
            word.word, word.tokens = "", []
        else:
            previous = i


def text_tokens(drafts: list[Draft], eot: int) -> list[list[int]]:
    """Text ids of each segment, timestamps left out."""
    return [[token for token in draft.tokens if token < eot] for draft in drafts]


def add_words(
    drafts: list[Draft],
    words: list[Timing],
    *,
    eot: int,
    offset: float,
    last_speech: float,
    prepended: str = PREPENDED,
    appended: str = APPENDED,
):
    """Gives a window's words to its segments and lets both correct each other's times, in place.

    `words` are those of all segments' text tokens together; `offset` is the window's start and `last_speech` where
    speech ended before it. Words longer than twice the median are cut at sentence ends and after pauses; a segment
    starts with its first and ends with its last word, unless that word strays by over half a second.
    """
    durations = np.array([word.end - word.start for word in words])
    durations = durations[durations.nonzero()]
    median = min(LONGEST_MEDIAN, float(np.median(durations))) if len(durations) else 0.0
    longest = 2 * median
    if len(durations):
        _shorten_at_sentence_ends(words, longest)
    merge_punctuations(words, prepended, appended)
    left = iter(words)
    for draft, tokens in zip(drafts, text_tokens(drafts, eot), strict=True):
        mine, seen = [], 0
        while seen < len(tokens) and (word := next(left, None)) is not None:
            seen += len(word.tokens)
            if word.word:
                start, end = round(offset + word.start, 2), round(offset + word.end, 2)
                mine.append(DraftWord(word.word, start, end, word.probability, word.tokens))
        if mine:
            _shorten_after_pause(mine, last_speech, median, longest)
            _agree(draft, mine, median)
            last_speech = draft.end
        draft.words = mine


def _shorten_at_sentence_ends(words, longest):
    for before, word in itertools.pairwise(words):
        if word.end - word.start > longest:
            if word.word in SENTENCE_ENDS:
                word.end = word.start + longest
            elif before.word in SENTENCE_ENDS:
                word.start = word.end - longest


def _shorten_after_pause(words, last_speech, median, longest):
    """Cuts the first word after a pause, and the second if both are long."""
    first, second = words[0], words[1] if len(words) > 1 else None
    long_pair = second is not None and second.end - first.start > 2 * longest
    if first.end - last_speech <= 4 * median or not (first.end - first.start > longest or long_pair):
        return
    if second is not None and second.end - second.start > longest:
        # Half of a time since the recording's start: an oddity of the reference, kept for equal results.
        first.end = second.start = max(second.end / 2, second.end - longest)
    first.start = max(0, first.end - longest)


def _agree(draft, words, median):
    first, last = words[0], words[-1]
    if draft.start < first.end and draft.start - 0.5 > first.start:
        first.start = max(0, min(first.end - median, draft.start))
    else:
        draft.start = first.start
    if draft.end > last.start and draft.end + 0.5 < last.end:
        last.end = max(last.start + median, draft.end)
    else:
        draft.end = last.end
