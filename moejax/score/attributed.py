"""Who said what: errors of words that have speakers.

    WDER   of the words that both sides have (right or substituted), the share under a wrong speaker (El Shafey et al.
           2019). It does not see words that are missing or made up.
    cpWER  word errors where each speaker's words stand in one row and speakers are matched for the fewest errors
           (Watanabe et al. 2020, the CHiME-6 challenge; as meeteval counts).

Words are pairs (text, speaker) in the order of their times; texts are compared as they are: normalise first.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jiwer
import numpy as np
from scipy.optimize import linear_sum_assignment

from moejax.score import wer

Said = tuple[str, str]  # word, speaker


@dataclasses.dataclass(frozen=True)
class Attributed:
    """Counts of one recording, or of several. `paired` words stand on both sides, `misattributed` of these have another
    speaker; `errors` of `words` are cpWER's.
    """

    paired: int
    misattributed: int
    errors: int
    words: int

    @property
    def wder(self) -> float:
        return self.misattributed / max(self.paired, 1)

    @property
    def cpwer(self) -> float:
        return self.errors / max(self.words, 1)


def compare(reference: Sequence[Said], hypothesis: Sequence[Said]) -> Attributed:
    """Speakers of the hypothesis are matched to those of the reference one to one, for each figure by itself."""
    pairs = _paired(reference, hypothesis)
    theirs, ours = sorted({who for _, who in reference}), sorted({who for _, who in hypothesis})
    count_RH = np.zeros((len(theirs), len(ours)), np.int64)
    for true, found in pairs:
        count_RH[theirs.index(true), ours.index(found)] += 1
    right = int(count_RH[linear_sum_assignment(-count_RH)].sum())
    return Attributed(len(pairs), len(pairs) - right, _least_errors(reference, hypothesis), len(reference))


def pooled(many: Sequence[Attributed]) -> Attributed:
    """Of several recordings together."""
    return Attributed(*(sum(getattr(one, field.name) for one in many) for field in dataclasses.fields(Attributed)))


def _paired(reference, hypothesis) -> list[tuple[str, str]]:
    """(speaker in the reference, in the hypothesis) of the words that the alignment of least edits pairs."""
    if not reference or not hypothesis:
        return []
    true, found_in = (" ".join(word for word, _ in side) for side in (reference, hypothesis))
    found = []
    for chunk in jiwer.process_words(true, found_in).alignments[0]:
        if chunk.type in ("equal", "substitute"):
            places = zip(
                range(chunk.ref_start_idx, chunk.ref_end_idx),
                range(chunk.hyp_start_idx, chunk.hyp_end_idx),
                strict=True,
            )
            found += [(reference[r][1], hypothesis[h][1]) for r, h in places]
    return found


def _least_errors(reference, hypothesis) -> int:
    """Word errors under the best matching of rows; a row without a partner is missed, or made up, whole."""
    theirs, ours = _rows(reference), _rows(hypothesis)
    size = max(len(theirs), len(ours))
    theirs, ours = (rows + [""] * (size - len(rows)) for rows in (theirs, ours))
    if not size:
        return 0
    counts = wer.count([one for one in theirs for _ in ours], ours * size)
    cost = np.array([one.errors for one in counts]).reshape(size, size)
    return int(cost[linear_sum_assignment(cost)].sum())


def _rows(said) -> list[str]:
    return [" ".join(word for word, who in said if who == name) for name in sorted({who for _, who in said})]
