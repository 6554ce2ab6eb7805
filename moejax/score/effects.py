"""Which properties of utterances go with errors? One linear mixed model of all of them, with speakers drawn at random.

An utterance's error rate (errors per word, at most 1) is the sum of one effect for each property, of its speaker's own
level (a random intercept; Laird and Ware 1982), and of a rest whose variance falls with the number of words. The two
variances are estimated by restricted maximum likelihood (Patterson and Thompson 1971), the effects by generalised least
squares under them: what varies within speakers (noise, length) is judged within speakers, what does not (etiology)
between them.

Intervals and p-values come from leaving out one speaker at a time (the cluster jackknife, CR3: Bell and McCaffrey 2002;
MacKinnon, Nielsen and Webb 2023) with t of speakers - 1 degrees of freedom. They hold where the model's variances are
wrong, and stay calibrated with few speakers to a level, where bootstrap draws without any of them break down.

Rates are clipped because one repetition loop of 400 words would otherwise own the variance.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.optimize
import scipy.stats

from moejax.score import multiplicity
from moejax.score.bootstrap import MIN_SPEAKERS, Counts

MIN_LEVEL_SPEAKERS = 3  # a level of fewer is judged together with others
OTHERS = "others"
_TOLERANCE = 1e-9  # of eigenvalues, beside the largest


@dataclass(frozen=True)
class Effect:
    """Of one level against the factor's other levels, everything else held equal: a difference of rates, with its 95 %
    interval. `speakers` and `utterances` are those of the level.
    """

    level: str
    value: float
    low: float
    high: float
    speakers: int
    utterances: int


@dataclass(frozen=True)
class Explained:
    """`share`: of the variance of the utterances' rates, what no other factor explains (R^2 less that without it). `p`:
    of "it has no effect" (F test), `p_holm` corrected over the factors.
    """

    factor: str
    share: float
    p: float
    p_holm: float
    effects: tuple[Effect, ...]

    @property
    def shown(self) -> bool:
        return self.p_holm < 0.05

    def worse(self) -> list[Effect]:
        """Levels with more errors than the others, by more than noise; most first."""
        return sorted((e for e in self.effects if e.low > 0), key=lambda e: -e.value)

    def better(self) -> list[Effect]:
        return sorted((e for e in self.effects if e.high < 0), key=lambda e: e.value)


@dataclass(frozen=True)
class Model:
    """Shares of the variance: each factor's own in `factors`, `common` to several of them, of the `speakers` beyond
    them, and the `rest`; they add up to 1. `confounded` are factors that the ones before them determine.
    """

    factors: tuple[Explained, ...]
    confounded: tuple[str, ...]
    common: float
    speakers: float
    rest: float
    num_speakers: int
    num_utterances: int


def fit(
    errors: Counts, words: Counts, speakers: Sequence[str], levels: Mapping[str, Sequence[str] | np.ndarray]
) -> Model | None:
    """The model over utterances [U]; `levels` has every factor's level of each utterance, in order of precedence.

    Utterances without words are left out. None with fewer than `MIN_SPEAKERS` speakers, where all rates are equal, or
    where no factor varies.
    """
    words_U = np.asarray(words, np.float64)
    keep_U = words_U > 0
    words_U = words_U[keep_U]
    if not words_U.size:
        return None
    rate_U = np.minimum(np.asarray(errors, np.float64)[keep_U] / words_U, 1.0)
    weight_U = words_U / words_U.mean()
    names, who_U = np.unique(np.asarray(speakers, dtype=str)[keep_U], return_inverse=True)
    if len(names) < MIN_SPEAKERS or np.ptp(rate_U) == 0:
        return None
    merged = {f: _merged(np.asarray(x, dtype=str)[keep_U], who_U) for f, x in levels.items()}
    design = _Design(merged, weight_U)
    if not design.slices:
        return None
    parts = _Parts(np.column_stack([design.columns_UK, rate_U]), weight_U, who_U, len(names))
    return _model(design, parts, merged, weight_U, who_U)


def _model(design: "_Design", parts: "_Parts", merged: dict, weight_U: np.ndarray, who_U: np.ndarray) -> Model:
    value_K, covariance_KK = parts.effects(ratio := parts.variance_ratio())
    P, found = len(parts.sums_PJ), []
    for factor, part in design.slices.items():
        names = np.unique(merged[factor])
        contrast_LK = _against_others(design, factor, names, merged[factor], weight_U)
        effects = _effects(contrast_LK, value_K, covariance_KK, float(scipy.stats.t.ppf(0.975, P - 1)))
        sizes = [(merged[factor] == name) for name in names]
        told = tuple(
            Effect(str(name), float(value), float(low), float(high), len(np.unique(who_U[at])), int(at.sum()))
            for name, (value, low, high), at in zip(names, effects, sizes, strict=True)
        )
        p = _f_test(value_K[part], covariance_KK[part, part], P)
        found.append((factor, parts.residual(without=part), p, told))
    full, total = parts.residual(), parts.total()
    adjusted = multiplicity.holm([p for _, _, p, _ in found])
    explained = tuple(
        Explained(factor, max((without - full) / total, 0.0), p, holm, told)
        for (factor, without, p, told), holm in zip(found, adjusted, strict=True)
    )
    own = ratio / (ratio + 1.0)  # of what is left: weights have mean 1, so the rest's is an utterance's mean variance
    left = full / total
    common = 1.0 - left - sum(e.share for e in explained)
    return Model(explained, tuple(design.confounded), common, own * left, (1 - own) * left, P, len(who_U))


def _merged(level_U: np.ndarray, who_U: np.ndarray) -> np.ndarray:
    """Levels of fewer than `MIN_LEVEL_SPEAKERS` speakers become one, and where that is still too few the largest."""

    def rare(names: np.ndarray) -> list[str]:
        return [n for n in names if len(np.unique(who_U[level_U == n])) < MIN_LEVEL_SPEAKERS]

    level_U = level_U.astype(object)
    few = np.isin(level_U.astype(str), rare(np.unique(level_U.astype(str))))
    level_U[few] = OTHERS
    names, counts = np.unique(level_U.astype(str), return_counts=True)
    if OTHERS in names and OTHERS in rare(names):
        large = [(count, name) for name, count in zip(names, counts, strict=True) if name != OTHERS]
        level_U[level_U == OTHERS] = max(large)[1] if large else OTHERS
    return level_U.astype(str)


class _Design:
    """Columns [U, K]: a constant, and for each factor an indicator of each level but the first, about its mean.

    `slices` has each factor's columns; one that follows from the factors before it is `confounded` and has none.
    """

    def __init__(self, merged: Mapping[str, np.ndarray], weight_U: np.ndarray):
        self.slices: dict[str, slice] = {}
        self.confounded: list[str] = []
        self.columns_UK = np.ones((len(weight_U), 1))
        for factor, level_U in merged.items():
            names = np.unique(level_U)
            if len(names) < 2:
                continue
            new = (level_U[:, None] == names[None, 1:]).astype(np.float64)
            new -= np.average(new, axis=0, weights=weight_U)
            wider, before = np.column_stack([self.columns_UK, new]), self.columns_UK.shape[1]
            if _rank(wider.T @ wider) < wider.shape[1]:
                self.confounded.append(factor)
            else:
                self.columns_UK, self.slices[factor] = wider, slice(before, wider.shape[1])


class _Parts:
    """Cross products of the columns [U, J] (the design's K, and the rate) speaker by speaker: all that fits need."""

    def __init__(self, values_UJ: np.ndarray, weight_U: np.ndarray, who_U: np.ndarray, P: int):
        order = np.argsort(who_U, kind="stable")
        bounds = np.searchsorted(who_U[order], np.arange(P + 1))
        self.weight_P = np.bincount(who_U, weights=weight_U, minlength=P)
        self.cross_PJJ = np.zeros((P, values_UJ.shape[1], values_UJ.shape[1]))
        self.sums_PJ = np.zeros((P, values_UJ.shape[1]))
        for p, (start, stop) in enumerate(zip(bounds, bounds[1:], strict=False)):
            at = order[start:stop]
            weighed_NJ = weight_U[at, None] * values_UJ[at]
            self.cross_PJJ[p], self.sums_PJ[p] = values_UJ[at].T @ weighed_NJ, weighed_NJ.sum(0)
        self.size = len(who_U)

    def under(self, ratio: float) -> np.ndarray:
        """The cross products [P, J, J] under a speaker's variance of `ratio` times that of the rest (Woodbury)."""
        shrink_P = ratio / (1.0 + ratio * self.weight_P)
        return self.cross_PJJ - shrink_P[:, None, None] * self.sums_PJ[:, :, None] * self.sums_PJ[:, None, :]

    def variance_ratio(self) -> float:
        """Of the speakers' variance to the rest's, by restricted maximum likelihood."""

        def deviance(log_ratio: float) -> float:
            ratio = float(np.exp(log_ratio))
            cross_JJ = self.under(ratio).sum(0)
            free = self.size - (K := cross_JJ.shape[0] - 1)
            residual = max(_residual(cross_JJ), 1e-300)
            size = np.log1p(ratio * self.weight_P).sum()
            return free * np.log(residual / free) + size + np.linalg.slogdet(cross_JJ[:K, :K])[1]

        return float(np.exp(scipy.optimize.minimize_scalar(deviance, bounds=(-14.0, 6.0), method="bounded").x))

    def effects(self, ratio: float) -> tuple[np.ndarray, np.ndarray]:
        """(effects [K], their covariance [K, K] from leaving out each speaker)."""
        cross_PJJ = self.under(ratio)
        total_JJ = cross_PJJ.sum(0)
        value_K = _solved(total_JJ)
        apart_PK = _solved(total_JJ - cross_PJJ) - value_K
        P = len(apart_PK)
        return value_K, (P - 1) / P * apart_PK.T @ apart_PK

    def residual(self, without: slice | None = None) -> float:
        """Weighted sum of squares that the design leaves, without a factor's columns."""
        cross_JJ = self.cross_PJJ.sum(0)
        keep = np.ones(len(cross_JJ), bool)
        if without is not None:
            keep[without] = False
        return _residual(cross_JJ[np.ix_(keep, keep)])

    def total(self) -> float:
        """The same with nothing but the mean."""
        ends = self.cross_PJJ.sum(0)[np.ix_((0, -1), (0, -1))]
        return _residual(ends)


def _solved(cross_JJ: np.ndarray) -> np.ndarray:
    """Least-squares effects [.., K] from cross products [.., J, J]; what is not determined is 0."""
    inverse = np.linalg.pinv(cross_JJ[..., :-1, :-1], rcond=_TOLERANCE, hermitian=True)
    return (inverse @ cross_JJ[..., :-1, -1:])[..., 0]


def _residual(cross_JJ: np.ndarray) -> float:
    return float(cross_JJ[-1, -1] - cross_JJ[-1, :-1] @ _solved(cross_JJ))


def _rank(gram_KK: np.ndarray) -> int:
    scale = np.sqrt(np.diag(gram_KK))
    values = np.linalg.eigvalsh(gram_KK / scale[:, None] / scale[None, :])
    return int((values > 1e-7 * values[-1]).sum())


def _against_others(design: _Design, factor: str, names, level_U, weight_U) -> np.ndarray:
    """Rows [L, K]: a level's effect less the mean effect of the other levels, which weigh by their words."""
    share_L = np.array([weight_U[level_U == name].sum() for name in names]) / weight_U.sum()
    others_LL = np.tile(share_L, (len(names), 1))
    np.fill_diagonal(others_LL, 0.0)
    contrast_LL = np.eye(len(names)) - others_LL / others_LL.sum(1, keepdims=True)
    contrast_LK = np.zeros((len(names), design.columns_UK.shape[1]))
    contrast_LK[:, design.slices[factor]] = contrast_LL[:, 1:]  # the first level's effect is 0
    return contrast_LK


def _effects(contrast_LK, value_K, covariance_KK, quantile: float) -> np.ndarray:
    """(value, low, high) [L, 3]."""
    value_L = contrast_LK @ value_K
    spread_L = quantile * np.sqrt(np.maximum(np.einsum("lk,km,lm->l", contrast_LK, covariance_KK, contrast_LK), 0.0))
    return np.stack([value_L, value_L - spread_L, value_L + spread_L], axis=1)


def _f_test(value_Q: np.ndarray, covariance_QQ: np.ndarray, P: int) -> float:
    """p of "all are 0" by Hotelling's T^2, whose covariance has P - 1 degrees of freedom; NaN where they do not do."""
    Q = len(value_Q)
    if P <= Q:
        return float("nan")
    squared = value_Q @ np.linalg.pinv(covariance_QQ, hermitian=True) @ value_Q
    return float(scipy.stats.f.sf(squared * (P - Q) / (Q * (P - 1)), Q, P - Q))
