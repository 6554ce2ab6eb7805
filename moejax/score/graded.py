"""Graded judgements: how they correlate with those of people, and how well faults are told from what is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from moejax.score import bootstrap
from moejax.score.bootstrap import Interval


def pearson(
    found_N: np.ndarray, true_N: np.ndarray, speakers: Sequence[str], draws: int = 1000, seed: int = 0
) -> Interval:
    """Pearson's correlation with its 95 % interval over speakers and their utterances; NaN where a side is constant."""
    x, y = (np.asarray(one, np.float64) - np.mean(one) for one in (found_N, true_N))
    moments_UQ = np.stack([np.ones_like(x), x, y, x * x, y * y, x * y], axis=1)
    drawn_DQ, unit = bootstrap.resample_many(moments_UQ, speakers, draws=draws, seed=seed)
    (low,), (high,) = bootstrap.bounds(_of_moments(drawn_DQ)[:, None])
    value = float(_of_moments(moments_UQ.sum(0)[None])[0])
    return Interval(value, float(low), float(high), unit, draws)


def _of_moments(sums_DQ: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = (sums_DQ[:, q] for q in range(6))
    spread_x, spread_y = n * xx - x * x, n * yy - y * y
    there = (spread_x > 1e-12 * n * n) & (spread_y > 1e-12 * n * n)
    below = np.sqrt(np.where(there, spread_x * spread_y, 1.0))
    return np.where(there, (n * xy - x * y) / below, np.nan)


def auc(right_N: np.ndarray, wrong_M: np.ndarray) -> float:
    """Probability that what is right scores higher than what is wrong, ties by halves; NaN where one of them lacks."""
    right_N, wrong_M = np.asarray(right_N, np.float64), np.sort(np.asarray(wrong_M, np.float64))
    if not (len(right_N) and len(wrong_M)):
        return float("nan")
    below = np.searchsorted(wrong_M, right_N, "left") + np.searchsorted(wrong_M, right_N, "right")
    return float(below.mean() / 2 / len(wrong_M))


def auc_interval(
    right: tuple[np.ndarray, Sequence[str]], wrong: tuple[np.ndarray, Sequence[str]], draws: int = 300, seed: int = 0
) -> Interval:
    """`auc` of (scores, speakers) of either kind; speakers are drawn, each with all that is theirs."""
    names = sorted({*right[1], *wrong[1]})
    parts = [
        tuple(np.asarray(scores)[np.asarray(owners) == name] for scores, owners in (right, wrong)) for name in names
    ]
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws if len(names) > 1 else 0):
        picked = rng.integers(0, len(names), len(names))
        found.append(auc(*(np.concatenate([parts[k][side] for k in picked]) for side in (0, 1))))
    value = auc(right[0], wrong[0])
    low, high = np.nanquantile(found, [0.025, 0.975]) if found else (np.nan, np.nan)
    return Interval(value, float(low), float(high), "speakers", draws)
