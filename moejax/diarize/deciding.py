"""From probabilities to turns: threshold, median filter, shortest turns and pauses, how many may speak at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
from scipy.signal import medfilt

from moejax.diarize import labels
from moejax.diarize.turns import Turn
from moejax.errors import BadValue


@dataclasses.dataclass(frozen=True)
class Deciding:
    """`median`: frames of the filter, an odd number, 1 for none. `shortest_on`, `shortest_off`: frames; shorter turns
    are dropped, after shorter pauses were bridged. `most`: speakers at a time, the likeliest; 0: any number.
    """

    threshold: float = 0.5
    median: int = 11
    shortest_on: int = 0
    shortest_off: int = 0
    most: int = 0

    def __post_init__(self):
        if self.median < 1 or self.median % 2 == 0:
            raise BadValue(f"the median filter takes an odd number of frames, not {self.median}")

    def active(self, prob_TS: np.ndarray) -> np.ndarray:
        """Activity bool [S, T] of probabilities [T, S]."""
        prob_ST = np.asarray(prob_TS, np.float32).T
        active_ST = prob_ST > self.threshold
        if self.most and self.most < len(prob_ST):
            rank_ST = (-prob_ST).argsort(0, kind="stable").argsort(0, kind="stable")
            active_ST &= rank_ST < self.most
        if self.median > 1:
            active_ST = np.array([medfilt(row.astype(np.float32), self.median) for row in active_ST]) > 0.5
            active_ST = active_ST.reshape(prob_ST.shape)
        for row in active_ST:
            _settle(row, self.shortest_off, False)
            _settle(row, self.shortest_on, True)
        return active_ST

    def turns(
        self,
        prob_TS: np.ndarray,
        rate: float,
        names: list[str] | None = None,
        again: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> list[Turn]:
        """Turns; speakers are named by the order in which they begin unless `names` are given. Who is never active
        has none. `again`: activity [S, T] once more (`resegmentation`).
        """
        active_ST = self.active(prob_TS)
        active_ST = again(active_ST) if again else active_ST
        if names is None:
            begins = [row.argmax() if row.any() else len(row) for row in active_ST]
            place = {row: at for at, row in enumerate(np.argsort(begins, kind="stable"))}
            names = [f"speaker{place[row] + 1}" for row in range(len(active_ST))]
        return labels.turns_of(active_ST, names, rate)


def _settle(row_T: np.ndarray, shortest: int, value: bool) -> None:
    """Turns runs of `value` that are shorter into the other value; of pauses only those between two turns."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], row_T == value, [False]]).astype(np.int8))).reshape(-1, 2)
    for start, end in edges:
        if end - start < shortest and (value or 0 < start and end < len(row_T)):
            row_T[start:end] = not value
