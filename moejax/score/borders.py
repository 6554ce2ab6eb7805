"""How far found borders of words lie from where they are."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Sequence

import numpy as np

Border = tuple[str, float, float]  # text, start and end in seconds
WITHIN = (0.020, 0.050, 0.100)


@dataclasses.dataclass(frozen=True)
class Errors:
    """Found minus true, in seconds, of the words that both have: `starts` and `ends` [W]. `missed` words of the
    reference were not found.
    """

    starts: np.ndarray
    ends: np.ndarray
    missed: int

    @property
    def both(self) -> np.ndarray:
        return np.concatenate([self.starts, self.ends])

    def row(self) -> dict[str, float]:
        """Milliseconds, and shares of borders within some."""
        absolute = np.abs(self.both)
        if not len(absolute):
            return {"words": 0, "missed": self.missed}
        found = {"words": len(self.starts), "missed": self.missed, "median_ms": 1000 * float(np.median(absolute))}
        found |= {"mean_ms": 1000 * float(absolute.mean())}
        found |= {f"within_{round(1000 * w)}_ms": float((absolute <= w).mean()) for w in WITHIN}
        return found | {
            "bias_start_ms": 1000 * float(self.starts.mean()),
            "bias_end_ms": 1000 * float(self.ends.mean()),
        }


def compare(found: Sequence[Border], true: Sequence[Border]) -> Errors:
    """Words are paired where their texts are the same, in order (letter case and marks beside them do not count)."""
    ours, theirs = [_bare(one[0]) for one in found], [_bare(one[0]) for one in true]
    blocks = difflib.SequenceMatcher(None, ours, theirs, autojunk=False).get_matching_blocks()
    pairs = [(found[a + k], true[b + k]) for a, b, size in blocks for k in range(size)]
    starts = np.array([one[1] - other[1] for one, other in pairs])
    ends = np.array([one[2] - other[2] for one, other in pairs])
    return Errors(starts, ends, len(true) - len(pairs))


def pooled(many: Sequence[Errors]) -> Errors:
    """Of several recordings together."""
    return Errors(
        np.concatenate([one.starts for one in many]) if many else np.zeros(0),
        np.concatenate([one.ends for one in many]) if many else np.zeros(0),
        sum(one.missed for one in many),
    )


def evenly(words: Sequence[str], seconds: float) -> list[Border]:
    """The control: the recording divided among its words by their letters."""
    edges = np.concatenate([[0], np.cumsum([len(word) for word in words])]) * seconds / sum(map(len, words))
    return [(word, float(edges[i]), float(edges[i + 1])) for i, word in enumerate(words)]


def _bare(word: str) -> str:
    return "".join(letter for letter in word.lower() if letter.isalnum() or letter == "'")
