"""From a goodness to a score of 0 to 100: how often a sound of such a goodness is right where half of all are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True)
class Calibration:
    """A rising curve by its knots."""

    goodness: tuple[float, ...]
    score: tuple[float, ...]

    @classmethod
    def of(cls, knots: Mapping[str, Sequence[float]]) -> Calibration:
        """Of what `knots` gives, as JSON keeps it."""
        return cls(tuple(knots["goodness"]), tuple(knots["score"]))

    def knots(self) -> dict[str, list[float]]:
        """Plain lists."""
        return {"goodness": list(self.goodness), "score": list(self.score)}

    def __call__(self, goodness_L: Sequence[float] | np.ndarray) -> np.ndarray:
        """Scores [L] of goodnesses [L]."""
        return np.interp(np.asarray(goodness_L, np.float64), self.goodness, self.score)
