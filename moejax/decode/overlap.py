"""Where two neighbouring pieces of a recording share audio: whose text counts up to where.

By tokens as transformers' recognition pipeline does it ("chunking with stride": slide one sequence over the other, take
the shift with the most matches, change over in the middle of the match), or by times.
"""

import numpy as np

from moejax.decode.segments import Draft
from moejax.decode.words import text_tokens
from moejax.errors import BadValue

MERGES = ("tokens", "times")
TOKENS_PER_SECOND = 10  # fast English has about 7


def longest_common(left, right, *, most: int | None = None) -> tuple[int, int]:
    """(tokens of `left` to keep, tokens of `right` to leave out) at the best overlap of left's end and right's start.

    The best shift has the largest share of matching places, slightly in favour of long overlaps, and at least two
    matches; without one everything is kept. `most`: longest overlap to try, and then no shift beyond left's start.
    """
    left, right = np.asarray(left, np.int64), np.asarray(right, np.int64)
    best, cut = 0.0, (len(left), 0)
    shifts = len(left) + len(right) if most is None else min(most, len(left), len(right)) + 1
    for shift in range(1, shifts):
        left_start, left_stop = max(0, len(left) - shift), min(len(left), len(left) + len(right) - shift)
        right_start, right_stop = max(0, shift - len(left)), min(len(right), shift)
        matches = int((left[left_start:left_stop] == right[right_start:right_stop]).sum())
        score = matches / shift + shift / 10000
        if matches > 1 and score > best:
            best, cut = score, ((left_start + left_stop) // 2, (right_start + right_stop) // 2)
    return cut


def merge(left: list[Draft], right: list[Draft], *, middle: float, seconds: float, how: str, tokenizer):
    """Takes out of the segments of two neighbours, in place, what both say.

    `middle` is the time of the cut, in the middle of `seconds` of shared audio. With "tokens" the two texts are matched
    (over no more tokens than can be said in the shared time), and where nothing matches times decide; with "times" each
    side keeps the words (segments, where words have no times) whose middle is on its side of the cut.
    """
    if how not in MERGES:
        raise BadValue(f"merge is {how!r}; known: {', '.join(MERGES)}")
    if not left or not right:
        return
    ours, theirs = (sum(text_tokens(side, tokenizer.eot), []) for side in (left, right))
    keep, leave = len(ours), 0
    if how == "tokens":
        keep, leave = longest_common(ours, theirs, most=max(4, int(TOKENS_PER_SECOND * seconds)))
    if (keep, leave) == (len(ours), 0):
        keep, leave = (_tokens_before(side, middle, tokenizer.eot) for side in (left, right))
    _trim(left, 0, keep, tokenizer, latest=middle + seconds / 2)
    _trim(right, leave, len(theirs), tokenizer, earliest=middle - seconds / 2)


def _tokens_before(drafts, time, eot):
    """Text tokens of the words or segments, from the first on, whose middle lies before a time."""
    count = 0
    for draft, tokens in zip(drafts, text_tokens(drafts, eot), strict=True):
        spans = [(word.start, word.end, len(word.tokens)) for word in draft.words or ()]
        for start, end, length in spans or [(draft.start, draft.end, len(tokens))]:
            if (start + end) / 2 >= time:
                return count
            count += length
    return count


def _trim(drafts, first, stop, tokenizer, *, earliest=-np.inf, latest=np.inf):
    """Keeps the text tokens from place `first` to before `stop`; segments that lose tokens move within the times."""
    place = 0
    for draft in list(drafts):
        ids = [token for token in draft.tokens if token < tokenizer.eot]
        begin, place = place, place + len(ids)
        if first <= begin and place <= stop:
            continue
        low, high = max(first - begin, 0), min(stop - begin, len(ids))
        if low >= high:
            drafts.remove(draft)
            continue
        cut_start, cut_end = low > 0, high < len(ids)
        times = [token for token in draft.tokens if token >= tokenizer.timestamp_begin]
        draft.tokens = [*([] if cut_start else times[:1]), *ids[low:high], *([] if cut_end else times[1:])]
        draft.text = tokenizer.decode(ids[low:high], strip=False)
        draft.start = min(max(draft.start, earliest), draft.end) if cut_start else draft.start
        draft.end = max(min(draft.end, latest), draft.start) if cut_end else draft.end
        if draft.words:
            ends = np.cumsum([len(word.tokens) for word in draft.words])
            draft.words = [word for word, end in zip(draft.words, ends, strict=True) if low < end <= high]
            if draft.words:
                draft.start = draft.words[0].start if cut_start else draft.start
                draft.end = draft.words[-1].end if cut_end else draft.end
