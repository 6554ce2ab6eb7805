"""Words and letters of a known text, placed in its sound: forced alignment by CTC (`ops.ctc`) on the encoder's states.

The decoder's attention (`decode.alignment`) knows words alone; a head that learnt letters places these, too.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.errors import BadValue
from moejax.nn import functional
from moejax.ops.ctc import needed
from moejax.tasks import ctc as task
from moejax.text.units import Inventory
from moejax.types import Params

PAUSE = 0.3  # seconds without a letter between two words that are a pause, not the border of both
FRAMES, LABELS = 256, 64  # lengths are multiples of these: few shapes, few compilations


@dataclasses.dataclass(frozen=True)
class Placed:
    """A word, or a letter of one, and when it sounds: seconds from the beginning, and how sure the head is (mean
    probability over its frames).
    """

    text: str
    start: float
    end: float
    probability: float
    letters: tuple[Placed, ...] = ()


class Forced:
    """Places texts by a trained head."""

    def __init__(self, params: Params, meta: dict, width: int, seconds_per_frame: float):
        """`params` and `meta` as the stage `ctc` saves them; `width` of the encoder's states."""
        self.inventory = Inventory(tuple(meta["units"]), meta.get("spelling", "letters"))
        self.seconds = seconds_per_frame
        self._params = params
        graphdef, _ = functional.abstract(task.build(width, meta["hidden"], len(self.inventory)))
        self._emit, self._align = task.make_emit(graphdef), task.make_align()

    def emitted(self, states_BTD) -> np.ndarray:
        """Log probabilities of units [B, T, C] in the frames of these states."""
        return np.asarray(self._emit(self._params, states_BTD))

    def __call__(self, logp_TC: np.ndarray, words: Sequence[str]) -> list[Placed]:
        """Where each word sounds in these frames. A word without a letter that the head knows (a dash, a digit that no
        training text had) is placed between its neighbours, with probability 0.

        Errors: BadValue for a text of more letters than frames.
        """
        labels, word_of = self.inventory.encode(words)
        T, L = len(logp_TC), len(labels)
        if needed(labels) > T:
            raise BadValue(f"a text of {L} letters does not fit {T * self.seconds:.1f} s of sound")
        if not labels:
            return [Placed(word, 0.0, T * self.seconds, 0.0) for word in words]
        padded_TC = np.pad(logp_TC, ((0, -T % FRAMES), (0, 0)))
        label_L = np.pad(np.array(labels, np.int32), (0, -L % LABELS))
        found = self._align(padded_TC[None], np.array([T]), label_L[None], np.array([L]))
        first_L, last_L = np.asarray(found.first_BL)[0, :L], np.asarray(found.last_BL)[0, :L] + 1
        sure_L = [
            float(np.exp(logp_TC[f:t, label].mean())) for f, t, label in zip(first_L, last_L, labels, strict=True)
        ]
        start_L, end_L = self._borders(first_L, last_L)
        return self._words(words, labels, np.array(word_of), start_L, end_L, sure_L)

    def _borders(self, first_L, last_L):
        """Seconds: what lies between two letters belongs to both by halves, unless it is a pause."""
        start_L, end_L = first_L.astype(float), last_L.astype(float)
        gap_L = start_L[1:] - end_L[:-1]
        near_L = gap_L * self.seconds < PAUSE
        middle_L = (start_L[1:] + end_L[:-1]) / 2
        start_L[1:], end_L[:-1] = np.where(near_L, middle_L, start_L[1:]), np.where(near_L, middle_L, end_L[:-1])
        # A state is centred where its frame begins: mel frames lie around their sample, the strided convolution on them
        return np.maximum(start_L - 0.5, 0) * self.seconds, np.maximum(end_L - 0.5, 0) * self.seconds

    def _words(self, words, labels, word_of, start_L, end_L, sure_L):
        placed, at = [], 0.0
        for number, word in enumerate(words):
            own = np.flatnonzero(word_of == number)
            if not len(own):
                placed.append(Placed(word, at, at, 0.0))
                continue
            letters = tuple(
                Placed(self.inventory.units[labels[i]], float(start_L[i]), float(end_L[i]), sure_L[i]) for i in own
            )
            sure = float(np.mean([one.probability for one in letters]))
            placed.append(Placed(word, letters[0].start, letters[-1].end, sure, letters))
            at = letters[-1].end
        return placed
