"""Text that stands in silence and whose words are oddly long, short or unlikely: dropped, and the silence skipped.

The reference's `hallucination_silence_threshold` (openai/whisper, whisper/transcribe.py), which needs word times.
"""

import dataclasses

from moejax.decode.segments import Draft
from moejax.decode.words import APPENDED, PREPENDED

_PUNCTUATION = PREPENDED + APPENDED


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Where a window lies, in seconds of the recording.

    `end` is that of a full window, `seconds` what it holds, `total` the recording's length, `last_speech` the end of
    the last word before it.
    """

    start: float
    end: float
    seconds: float
    total: float
    last_speech: float


def is_anomalous(draft: Draft | None) -> bool:
    """Whether a segment's first eight words look invented."""
    if draft is None or not draft.words:
        return False
    words = [word for word in draft.words if word.word not in _PUNCTUATION][:8]
    score = sum(_oddness(word) for word in words)
    return score >= 3 or score + 0.01 >= len(words)


def _oddness(word):
    duration = word.end - word.start
    unlikely = 1.0 if word.probability < 0.15 else 0.0
    return unlikely + max(0.0, 0.133 - duration) * 15 + max(0.0, duration - 2.0)


def leading_gap(drafts: list[Draft], stretch: Stretch, threshold: float) -> float | None:
    """Seconds of silence to skip before the window's first words if these look invented; None to go on."""
    first = next((draft for draft in drafts if draft.words), None)
    if first is None or not is_anomalous(first):
        return None
    gap = first.start - stretch.start
    return gap if gap > threshold else None


def drop_surrounded(drafts: list[Draft], stretch: Stretch, threshold: float) -> float | None:
    """Cuts the list, in place, before the first odd segment between silences (or odd neighbours).

    Returns the time to go on from, infinity for the recording's end, None if nothing was cut.
    """
    before_end = stretch.last_speech
    for i, draft in enumerate(drafts):
        if not draft.words:
            continue
        if is_anomalous(draft):
            after = next((other for other in drafts[i + 1 :] if other.words), None)
            after_start = after.words[0].start if after and after.words else stretch.start + stretch.seconds
            silence_before = (
                draft.start - before_end > threshold or draft.start < threshold or draft.start - stretch.start < 2.0
            )
            silence_after = after_start - draft.end > threshold or is_anomalous(after) or stretch.end - draft.end < 2.0
            if silence_before and silence_after:
                del drafts[i:]
                ending = stretch.total - draft.end < threshold
                return float("inf") if ending else max(stretch.start + 1, draft.start)
        before_end = draft.end
    return None
