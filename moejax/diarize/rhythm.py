"""How people take turns: lengths of turns, pauses and overlaps, and how often the same speaker goes on; from any RTTM.

After simulated conversations (Landini et al. 2022, arXiv 2204.00890): talks that are drawn from such statistics overlap
as real ones do, where independent speakers overlap far more.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from moejax.diarize.turns import Turn, merged, read_rttm
from moejax.errors import BadValue, NotThere

QUANTILES = 21
LONGEST = 30.0  # seconds of a turn or pause that counts: an hour's break is no rhythm


@dataclasses.dataclass(frozen=True)
class Rhythm:
    """Quantiles (even from 0 to 1) of seconds: `turn` lengths, pauses of the `same` speaker, pauses before and overlaps
    with `another`; shares: the same speaker goes on, another one begins before the last has ended.
    """

    turn: tuple[float, ...]
    same_pause: tuple[float, ...]
    other_pause: tuple[float, ...]
    overlap: tuple[float, ...]
    same: float
    overlapping: float

    def draw(self, rng: np.random.Generator, name: str) -> float:
        """Seconds from one of the distributions."""
        values = getattr(self, name)
        return float(np.interp(rng.random(), np.linspace(0, 1, len(values)), values))


def measured(talks: Iterable[Sequence[Turn]]) -> Rhythm:
    """Of real talks. What follows what is asked of the speaker who has spoken longest into the talk, so that a short
    word inside a long turn is an overlap and does not end it. Errors: BadValue where there are no two turns.
    """
    lengths, same, other, overlaps = [], [], [], []
    for turns in talks:
        last = None
        for turn in merged(turns):
            lengths.append(turn.end - turn.start)
            if last is not None and turn.speaker == last.speaker:
                same.append(max(turn.start - last.end, 0.0))
            elif last is not None:
                (other if turn.start >= last.end else overlaps).append(abs(turn.start - last.end))
            if last is None or turn.end > last.end:
                last = turn
    if not lengths or not (same or other or overlaps):
        raise BadValue("no talk of these has two turns: nothing to learn a rhythm from")
    follow = len(other) + len(overlaps)
    return Rhythm(
        *(_quantiles(values) for values in (lengths, same, other, overlaps)),
        same=round(len(same) / (len(same) + follow), 4),
        overlapping=round(len(overlaps) / max(follow, 1), 4),
    )


def of_folder(folder: Path | str) -> Rhythm:
    """Of all RTTM files in a folder and below it. Errors: NotThere where there are none."""
    files = sorted(Path(folder).rglob("*.rttm"))
    if not files:
        raise NotThere(f"no .rttm file in {folder}")
    return measured(turns for file in files for turns in read_rttm(file).values())


def _quantiles(values) -> tuple[float, ...]:
    values = np.minimum(values or [0.0], LONGEST)
    return tuple(np.quantile(values, np.linspace(0, 1, QUANTILES)).round(3).tolist())


# The 23 training meetings of AMI that BUT's AMI-diarization-setup lists as every sixth (only words; CC BY 4.0)
MEETING = Rhythm(
    turn=(
        *(0.03, 0.223, 0.28, 0.34, 0.39, 0.46, 0.57, 0.75, 0.99, 1.3, 1.69, 2.12, 2.68, 3.393, 4.31, 5.535, 7.18),
        *(9.642, 13.62, 21.095, 30.0),
    ),
    same_pause=(
        *(0.06, 0.485, 0.735, 1.0, 1.12, 1.19, 1.26, 1.36, 1.46, 1.58, 1.67, 1.77, 1.9, 2.053, 2.26, 2.54, 2.91),
        *(3.413, 4.41, 6.857, 30.0),
    ),
    other_pause=(
        *(0.0, 0.07, 0.12, 0.186, 0.24, 0.3, 0.37, 0.42, 0.49, 0.57, 0.65, 0.74, 0.85, 0.98, 1.14, 1.33, 1.552),
        *(1.894, 2.488, 3.878, 30.0),
    ),
    overlap=(
        *(0.01, 0.17, 0.36, 0.54, 0.73, 0.93, 1.18, 1.49, 1.87, 2.23, 2.72, 3.291, 4.01, 4.84, 5.827, 7.295, 9.358),
        *(12.193, 15.85, 22.425, 30.0),
    ),
    same=0.1488,
    overlapping=0.6642,
)
