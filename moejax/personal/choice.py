"""Which way reads a person best, judged on recordings that it did not learn from, and what may be promised of it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.errors import BadValue
from moejax.score import bootstrap
from moejax.score.wer import Counts

FOLDS, LEAST = 4, 8  # parts of the cross-validation; recordings without which nothing can be judged
DRAWS = 2000


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to read a person: a LoRA of a rank (0: none), phrases in front of every window or none."""

    rank: int
    context: bool

    @property
    def name(self) -> str:
        """As the table calls it."""
        parts = [f"LoRA of rank {self.rank}"] * bool(self.rank) + ["phrases in front"] * self.context
        return " and ".join(parts) or "as published"


def ways(ranks: Sequence[int]) -> list[Way]:
    """All of them, the simplest first: where two read alike, the first is taken."""
    return [Way(rank, context) for rank in (0, *ranks) for context in (False, True)]


def folds(count: int, seed: int = 0) -> list[list[int]]:
    """Places of the recordings that each part judges. Errors: BadValue for fewer than `LEAST` recordings."""
    if count < LEAST:
        raise BadValue(
            f"{count} recordings; from {LEAST} on there is something to choose by (moejax enroll takes three)"
        )
    order = np.random.default_rng(seed).permutation(count)
    return [sorted(part.tolist()) for part in np.array_split(order, FOLDS)]


def best(counts: dict[Way, list[Counts]], places: Sequence[int]) -> Way:
    """The way with the fewest errors on these recordings, the simplest of equals."""
    return min(counts, key=lambda way: sum(counts[way][place].errors for place in places))


@dataclasses.dataclass(frozen=True)
class Promise:
    """Word error rates, as fractions: `published`, and `expected` of new recordings with what bounds it in 95 of 100
    cases, for as many new recordings as there were to learn from.
    """

    way: Way
    published: float
    expected: float
    low: float
    high: float


def promise(counts: dict[Way, list[Counts]], parts: Sequence[Sequence[int]], ways: Sequence[Way]) -> Promise:
    """The way chosen on all recordings, and what to expect of it.

    The figure is that of the *choosing*: each part is read in the way that was best on the others, so a way that was
    lucky on all of them promises nothing. The interval is one for new recordings: the uncertainty of the rate (a
    bootstrap over recordings, widened to Student's quantile as few of them vary too little among themselves) and as
    much again, because new recordings vary as these do.
    """
    from scipy import stats  # here: a third of a second

    everything = range(len(counts[ways[0]]))
    chosen = best(counts, everything)
    found: dict[int, Counts] = {}
    for part in parts:
        way = best(counts, [place for place in everything if place not in part])
        found |= {place: counts[way][place] for place in part}
    errors, words = ([getattr(found[place], kind) for place in everything] for kind in ("errors", "words"))
    rate = sum(errors) / max(sum(words), 1)
    sums_DQ, _ = bootstrap.resample(np.asarray([errors, words]), [str(place) for place in everything], draws=2 * DRAWS)
    gap_D = sums_DQ[:, 0] / np.maximum(sums_DQ[:, 1], 1) - rate
    count = len(everything)
    wider = np.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975)
    low, high = rate + wider * np.quantile(gap_D[:DRAWS] + gap_D[DRAWS:], (0.025, 0.975))
    plain = counts[ways[0]]
    published = sum(one.errors for one in plain) / max(sum(one.words for one in plain), 1)
    return Promise(chosen, published, rate, max(0.0, float(low)), float(high))
