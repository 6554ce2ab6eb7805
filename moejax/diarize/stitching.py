"""One recording from windows that overlap: the same speaker has the same row in all of them.

A window's speakers are numbered by themselves. They are matched to those known so far by what both windows say of the
frames that they share; who is silent there is looked for by the sound of the voice, and is new where nobody is near.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.optimize import linear_sum_assignment

SHARED = 0.3  # of the frames in which either speaks, that both have to: the same person
ALIKE = 0.5  # cosine from which on two voices are one


@dataclasses.dataclass(frozen=True)
class Window:
    """`prob_TS` of the frames from `start` on, and `voice_SD`, what each of its speakers sounds like."""

    start: int
    prob_TS: np.ndarray
    voice_SD: np.ndarray


def voices(prob_TS: np.ndarray, frames_TD: np.ndarray) -> np.ndarray:
    """[S, D]: mean frame of each speaker, frames weighed by how surely he speaks alone."""
    prob_TS = np.asarray(prob_TS, np.float64)
    silent_TS = np.log1p(-np.minimum(prob_TS, 1 - 1e-6))
    others_TS = silent_TS.sum(1, keepdims=True) - silent_TS
    alone_TS = prob_TS * np.exp(others_TS)
    return alone_TS.T @ frames_TD / np.maximum(alone_TS.sum(0), 1e-9)[:, None]


def stitched(windows: list[Window], frames: int, most: int = 0, alike: float = ALIKE) -> np.ndarray:
    """Probabilities [frames, speakers] of the recording, the mean where windows overlap. `most`: speakers that there
    are at most (0: any number); who is one too many is the known one whom he resembles most.
    """
    total_TS, seen_T, known_SD = np.zeros((frames, 0)), np.zeros(frames), np.zeros((0, 0))
    for window in windows:
        where = slice(window.start, min(window.start + len(window.prob_TS), frames))
        prob_TS = window.prob_TS[: where.stop - where.start]
        both_T = seen_T[where] > 0
        before_TS = total_TS[where][both_T] / np.maximum(seen_T[where][both_T], 1)[:, None]
        found = _matched(before_TS, prob_TS[both_T])
        found = _by_voice(found, window.voice_SD, known_SD, alike, most)
        for own in range(prob_TS.shape[1]):
            if own not in found:
                found[own] = total_TS.shape[1]
                total_TS = np.concatenate([total_TS, np.zeros((frames, 1))], axis=1)
                known_SD = np.concatenate([known_SD.reshape(-1, window.voice_SD.shape[1]), window.voice_SD[own][None]])
        for own, row in found.items():
            total_TS[where, row] += prob_TS[:, own]
        seen_T[where] += 1
    return total_TS / np.maximum(seen_T, 1)[:, None]


def _matched(before_TS: np.ndarray, prob_TS: np.ndarray) -> dict[int, int]:
    """{speaker of the window: known one} of those who speak together in the shared frames."""
    if not before_TS.size or not prob_TS.size:
        return {}
    both_SK = np.minimum(prob_TS[:, :, None], before_TS[:, None]).sum(0)
    either_SK = np.maximum(prob_TS[:, :, None], before_TS[:, None]).sum(0)
    rows, columns = linear_sum_assignment(-both_SK)
    return {
        int(own): int(known)
        for own, known in zip(rows, columns, strict=True)
        if both_SK[own, known] > SHARED * either_SK[own, known] and both_SK[own, known] > 1.0
    }


def _by_voice(found: dict[int, int], own_SD, known_SD, alike: float, most: int) -> dict[int, int]:
    """The same with those who were not matched, where a known voice that nobody has is near."""
    own = [row for row in range(len(own_SD)) if row not in found]
    free = [row for row in range(len(known_SD)) if row not in found.values()]
    if not own or not free:
        return found
    likeness = _unit(own_SD[own]) @ _unit(known_SD[free]).T
    rows, columns = linear_sum_assignment(-likeness)
    by_likeness = sorted(zip(rows, columns, strict=True), key=lambda pair: -likeness[pair])
    new = len(own)
    found = dict(found)
    for row, column in by_likeness:
        full = most and len(known_SD) + new > most
        if likeness[row, column] >= alike or full:
            found[own[row]] = free[column]
            new -= 1
    return found


def _unit(x_SD: np.ndarray) -> np.ndarray:
    return x_SD / np.maximum(np.linalg.norm(x_SD, axis=1, keepdims=True), 1e-9)
