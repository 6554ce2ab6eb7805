"""Which parts of a recording are heard: `clip_timestamps` read, checked, and cut to a recording's length."""

import itertools
import math

from moejax.errors import BadValue

RULE = "give seconds start,end,start,end ... in order, each end after its start; a last end left out is the recording's"


def parsed(times) -> list[tuple[float, float]]:
    """(start, end) in seconds of each clip, the last end infinity where it was left out; the whole recording for none.

    `times`: a string with commas, or numbers. Errors: BadValue for what is no list of clips in order.
    """
    shown = times if isinstance(times, str) else ",".join(map(str, times))
    parts = [part for part in times.split(",") if times.strip()] if isinstance(times, str) else list(times)
    try:
        points = [float(part) for part in parts]
    except (TypeError, ValueError):
        raise BadValue(f"clip_timestamps is {shown!r}, not numbers; {RULE}") from None
    if any(not math.isfinite(point) for point in points):
        raise BadValue(f"clip_timestamps is {shown!r}, not finite; {RULE}")
    points = points or [0.0]
    if points[0] < 0:
        raise BadValue(f"clip_timestamps begins before the recording, at {points[0]:g} s; {RULE}")
    if len(points) % 2:
        points.append(math.inf)
    clips = list(zip(points[::2], points[1::2], strict=True))
    for start, end in clips:
        if end <= start:
            raise BadValue(f"clip_timestamps has the clip {start:g},{end:g}, which does not last; {RULE}")
    for before, after in itertools.pairwise(clips):
        if after[0] < before[1]:
            raise BadValue(f"clip_timestamps has {after[0]:g} after {before[1]:g}; {RULE}")
    return clips


def within(clips: list[tuple[float, float]], units: int, per_second: float) -> list[tuple[int, int]]:
    """The clips of `parsed` in whole units (mel frames, samples) of a recording of so many.

    Errors: BadValue for a clip that begins where the recording has ended, except in a recording without anything.
    """
    found = []
    for start, end in clips:
        first = round(start * per_second)
        if first >= units > 0:
            raise BadValue(
                f"clip_timestamps has a clip from {start:g} s on; the recording ends at {units / per_second:.2f} s"
            )
        found.append((min(first, units), units if end == math.inf else min(round(end * per_second), units)))
    return found
