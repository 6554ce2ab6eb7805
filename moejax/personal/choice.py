"""Which way reads a person best, judged on recordings that it did not learn from, and what may be promised of it."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.errors import BadValue
from moejax.score.wer import Counts

FOLDS, LEAST = 4, 8  # parts of the cross-validation; recordings without which nothing can be judged
DRAWS = 2000
NEW = 8  # recordings that a promise is about: a visit's worth


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
    """All of them, the simplest first."""
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
    """The way with the fewest errors on these recordings, unless one that promises more before anything is seen is
    within a standard error of it, by the differences of the recordings (the rule of Breiman et al. 1984): first phrases
    in front, which helped most people that were measured and cost typical ones nothing, then the model as published,
    then the smallest LoRA. A dozen recordings decide little between what differs by a few words.
    """
    errors = {way: np.asarray([counts[way][place].errors for place in places]) for way in counts}
    fewest = min(counts, key=lambda way: errors[way].sum())

    def as_good(way):
        more = errors[way] - errors[fewest]
        return more.sum() <= more.std(ddof=1) * np.sqrt(len(more))

    return next(way for way in sorted(counts, key=lambda way: (way.rank, not way.context)) if as_good(way))


@dataclasses.dataclass(frozen=True)
class Promise:
    """Word error rates, as fractions: `published`, and `expected` of new recordings with what bounds it in 95 of 100
    cases, for `NEW` new recordings.
    """

    way: Way
    published: float
    expected: float
    low: float
    high: float


def promise(counts: dict[Way, list[Counts]], parts: Sequence[Sequence[int]], ways: Sequence[Way]) -> Promise:
    """The way chosen on all recordings, and what to expect of it.

    The figure is that of the *choosing*: each part is read in the way that was best on the others, so a way that was
    lucky on all of them promises nothing. The interval is one for `NEW` new recordings: the uncertainty of the rate (a
    bootstrap over recordings, widened to Student's quantile as few of them vary too little among themselves) and how
    much so many recordings vary, which more to learn from does not make less. Nor does it end below what one recording
    more with one word wrong would say: fifty without an error promise none.
    """
    from scipy import stats  # here: a third of a second

    everything = range(len(counts[ways[0]]))
    chosen = best(counts, everything)
    found: dict[int, Counts] = {}
    for part in parts:
        way = best(counts, [place for place in everything if place not in part])
        found |= {place: counts[way][place] for place in part}
    errors, words = (np.asarray([getattr(found[place], kind) for place in everything]) for kind in ("errors", "words"))
    rate, count = errors.sum() / max(words.sum(), 1), len(everything)
    wider = np.sqrt(count / (count - 1)) * stats.t.ppf(0.975, count - 1) / stats.norm.ppf(0.975)
    low, high = rate + wider * np.quantile(_gaps(errors, words, rate), (0.025, 0.975))
    one_more = np.append(errors, 1), np.append(words, max(words.mean(), 1))
    high = max(high, rate + np.quantile(_gaps(*one_more, rate), 0.975))
    plain = counts[Way(0, False)]
    published = sum(one.errors for one in plain) / max(sum(one.words for one in plain), 1)
    return Promise(chosen, published, float(rate), max(0.0, float(low)), float(high))


def _gaps(errors, words, rate):
    """Draws of how far the rate of `NEW` new recordings may be from the one that was found: by how much that of all
    varies from sample to sample, and that of so few.
    """
    rng, count = np.random.default_rng(0), len(errors)

    def gaps(recordings):
        drawn = rng.integers(0, count, (DRAWS, recordings))
        return errors[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1) - rate

    return gaps(count) + gaps(NEW)
