"""How sure is a word error rate, and a difference of two? Percentile bootstrap and approximate randomisation.

Utterances of one speaker resemble each other, so the unit that is drawn is the speaker, and within each drawn speaker
its utterances (two-stage bootstrap; Bisani and Ney 2004 for the percentile interval of WER). With fewer than
`MIN_SPEAKERS` speakers that says nothing reliable; then the speakers stay and only their utterances are drawn, and
`unit` in the result says so: such an interval speaks about these speakers, not about new ones.

Where a system was trained several times, errors are [S, U], a row per training seed; the figure is the mean over seeds,
and every draw draws seeds too. The bootstrap variance of a mean of S is (S - 1) / S of the unbiased one, a third too
little for three seeds, so the drawn seeds' distance from equal weights is widened by sqrt(S / (S - 1)).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from moejax.errors import BadValue

Counts = Sequence[int] | np.ndarray  # [U], or [S, U]: a row for each training
MIN_SPEAKERS = 5
SPEAKERS = "speakers, then their utterances"
UTTERANCES = "utterances within each speaker"
OVER = f"over speakers (where there are fewer than {MIN_SPEAKERS}, over their utterances)"  # for tables of many rows
_CELLS = 4_000_000  # random indices held at once


@dataclass(frozen=True)
class Interval:
    """A figure with its percentile interval, and what was drawn to get it (`SPEAKERS` or `UTTERANCES`)."""

    value: float
    low: float
    high: float
    unit: str
    draws: int


def interval(
    errors: Counts, words: Sequence[int], speakers: Sequence[str], *, draws=1000, seed=0, level=0.95
) -> Interval:
    """The corpus rate sum(errors) / sum(words), a fraction, with its interval; its bounds are NaN for one utterance.

    `errors` [U], or [S, U] of S trainings: the mean of their rates.
    """
    found = _interval(np.atleast_2d(np.asarray(errors, np.float64)), words, speakers, draws, seed, level)
    return replace(found, low=float(np.maximum(found.low, 0.0)))  # widened seed weights may be negative, rates not


def difference(
    errors_a: Counts,
    errors_b: Counts,
    words: Sequence[int],
    speakers: Sequence[str],
    *,
    draws=1000,
    seed=0,
    level=0.95,
) -> Interval:
    """Rate of a minus rate of b on the same utterances (negative: a is better), with its paired interval.

    Paired: every draw scores both systems on the same drawn utterances, so what makes an utterance hard cancels. Of
    S trainings each ([S, U]) row s of one is paired with row s of the other; [U] stands for every seed.
    """
    return _interval(gaps(errors_a, errors_b, words), words, speakers, draws, seed, level)


def gaps(errors_a, errors_b, words) -> np.ndarray:
    """gap_SU: errors of a minus those of b, a row for each seed (one where neither has several)."""
    a_SU, b_SU = (np.atleast_2d(np.asarray(x, np.float64)) for x in (errors_a, errors_b))
    size, seeds = len(words), sorted({len(a_SU), len(b_SU)} - {1})
    if not a_SU.shape[1] == b_SU.shape[1] == size:
        raise ValueError(f"paired systems need the same utterances: got {a_SU.shape[1]}, {b_SU.shape[1]}, words {size}")
    if len(seeds) > 1:
        raise ValueError(f"paired systems need the same seeds: got {len(a_SU)} and {len(b_SU)}")
    return a_SU - b_SU


def randomisation(
    errors_a: Counts, errors_b: Counts, *, blocks: Sequence[str] | None = None, draws=10_000, seed=0
) -> float:
    """Two-sided p-value of "a and b are exchangeable utterance by utterance" (approximate randomisation, Noreen 1989).

    Reference lengths are equal for both, so the difference of error sums stands for that of rates. Never 0: the
    observed labelling is one of the draws. Utterances count as independent: more optimistic than `difference`; with
    `blocks` (a name for each utterance, such as its speaker) a block is exchanged as a whole, and with P of them no
    p-value is below about 2 / 2^P. Errors [S, U] of several seeds are exchanged together.
    """
    gap_U = gaps(errors_a, errors_b, range(np.shape(errors_a)[-1])).sum(0).astype(np.int64)
    if blocks is not None:
        _, code_U = np.unique(np.asarray(blocks, dtype=str), return_inverse=True)
        gap_U = np.bincount(code_U, weights=gap_U).astype(np.int64)
    gap_U = gap_U[gap_U != 0]  # exchanging equal counts changes nothing
    if not gap_U.size:
        return 1.0
    rng, extreme, observed = np.random.default_rng(seed), 0, abs(int(gap_U.sum()))
    step = max(1, _CELLS // gap_U.size)
    for start in range(0, draws, step):
        n = min(step, draws - start)
        flip_DU = rng.integers(0, 2, (n, gap_U.size), dtype=np.int8).astype(np.float32)
        sums_D = gap_U.sum() - 2.0 * (flip_DU @ gap_U.astype(np.float32))
        extreme += int((np.abs(sums_D) >= observed - 1e-3).sum())
    return (1 + extreme) / (1 + draws)


def resample(values_QU: np.ndarray, speakers: Sequence[str], *, draws=1000, seed=0) -> tuple[np.ndarray, str]:
    """Sums of Q per-utterance quantities over bootstrap samples, all on the same draws: (sums_DQ, what was drawn)."""
    values_QU = np.asarray(values_QU, np.float64)
    if values_QU.ndim != 2 or values_QU.shape[1] != len(speakers):
        raise ValueError(f"{len(speakers)} speakers for values of shape {values_QU.shape}: the last axis must match")
    if draws < 1:
        raise BadValue(f"draws must be at least 1, not {draws}")
    rng = np.random.default_rng(seed)
    _, code_U = np.unique(np.asarray(speakers, dtype=str), return_inverse=True)
    num_speakers = int(code_U.max()) + 1 if code_U.size else 0
    by_speaker = num_speakers >= MIN_SPEAKERS
    if by_speaker:
        picked_DP = rng.multinomial(num_speakers, np.full(num_speakers, 1 / num_speakers), size=draws)
    else:
        picked_DP = np.ones((draws, num_speakers), np.int64)
    sums_DQ = np.zeros((draws, values_QU.shape[0]))
    for p in range(num_speakers):
        _add_speaker(sums_DQ, values_QU[:, code_U == p], picked_DP[:, p], rng)
    return sums_DQ, SPEAKERS if by_speaker else UTTERANCES


def resample_many(values_UQ: np.ndarray, speakers: Sequence[str], *, draws=1000, seed=0) -> tuple[np.ndarray, str]:
    """`resample` for hundreds of quantities [U, Q]: (sums_DQ, what was drawn), the same distribution by other draws.

    How often each utterance is drawn is itself drawn (multinomial), so that sums are one matrix product per speaker.
    """
    rng = np.random.default_rng(seed)
    _, code_U = np.unique(np.asarray(speakers, dtype=str), return_inverse=True)
    num_speakers = int(code_U.max()) + 1 if code_U.size else 0
    by_speaker = num_speakers >= MIN_SPEAKERS
    picked_DP = np.ones((draws, num_speakers), np.int64)
    if by_speaker:
        picked_DP = rng.multinomial(num_speakers, np.full(num_speakers, 1 / num_speakers), size=draws)
    sums_DQ = np.zeros((draws, values_UQ.shape[1]))
    for p in range(num_speakers):
        values_NQ = np.asarray(values_UQ[code_U == p], np.float64)
        size = len(values_NQ)
        step = max(1, _CELLS // size)
        for start in range(0, draws, step):
            part = slice(start, start + step)
            times_DN = rng.multinomial(picked_DP[part, p] * size, np.full(size, 1 / size))
            sums_DQ[part] += times_DN @ values_NQ
    return sums_DQ, SPEAKERS if by_speaker else UTTERANCES


def ratios(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Rates of sums, NaN where there are no words."""
    return _ratio(numerator, denominator)


def bounds(values_DQ: np.ndarray, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
    """Percentile interval (low [Q], high [Q]) over draws that may be NaN; NaN where fewer than half of them count."""
    counted_Q = np.isfinite(values_DQ).mean(0) > 0.5
    low_Q, high_Q = (np.full(values_DQ.shape[1], np.nan) for _ in range(2))
    if counted_Q.any():
        tails = [(1 - level) / 2, (1 + level) / 2]
        low_Q[counted_Q], high_Q[counted_Q] = np.nanquantile(values_DQ[:, counted_Q], tails, axis=0)
    return low_Q, high_Q


def _add_speaker(sums_DQ: np.ndarray, values_QU: np.ndarray, times_D: np.ndarray, rng: np.random.Generator) -> None:
    """Adds, for each draw, as many resampled copies of one speaker's utterances as that draw picked the speaker."""
    size = values_QU.shape[1]
    draw_K = np.repeat(np.arange(len(times_D)), times_D)
    step = max(1, _CELLS // size)
    for start in range(0, len(draw_K), step):
        owner_K = draw_K[start : start + step]
        index_KU = rng.integers(0, size, (len(owner_K), size), dtype=np.int32)
        for q, values_U in enumerate(values_QU):
            sums_DQ[:, q] += np.bincount(owner_K, weights=values_U[index_KU].sum(1), minlength=len(sums_DQ))


def _interval(values_SU, words, speakers, draws, seed, level) -> Interval:
    """Of the mean over rows of sum(values_SU[s]) / sum(words)."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    words_U = np.asarray(words, np.float64)
    value = _ratio(values_SU.sum(1).mean(), words_U.sum())
    sums_DQ, unit = resample(np.concatenate([values_SU, words_U[None]]), speakers, draws=draws, seed=seed)
    rates_D = _ratio((sums_DQ[:, :-1] * _seed_weights(len(values_SU), draws, seed)).sum(1), sums_DQ[:, -1])
    rates_D = rates_D[np.isfinite(rates_D)]
    if words_U.size < 2 or not rates_D.size:  # nothing varies between draws of one utterance: no interval
        return Interval(float(value), float("nan"), float("nan"), unit, draws)
    low, high = np.quantile(rates_D, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(value), float(low), float(high), unit, draws)


def _seed_weights(seeds: int, draws: int, seed: int) -> np.ndarray:
    """Weight of every training seed in every draw [D, S], each row summing to one; see the module's docstring."""
    if seeds == 1:
        return np.ones((draws, 1))
    rng = np.random.default_rng([seed, seeds])  # apart from that of the speakers, who are then drawn alike for any S
    drawn_DS = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=draws) / seeds
    return 1 / seeds + (drawn_DS - 1 / seeds) * np.sqrt(seeds / (seeds - 1))


def _ratio(numerator, denominator):
    """Quotient that is NaN, without a warning, where the denominator is 0."""
    numerator, denominator = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)
