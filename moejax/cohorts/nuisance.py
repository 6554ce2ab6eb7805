"""Frees embeddings of what should not make a cohort: the words that were said, their duration, the silence."""

from __future__ import annotations

from collections import Counter
from typing import cast

import numpy as np
from sklearn.linear_model import Ridge, RidgeCV
from sklearn.model_selection import KFold

from moejax.cohorts.projection import checked

FEWEST = 5  # utterances that must hold a word for it to have a column
MOST_WORDS = 1000
PENALTIES = tuple(float(10**power) for power in range(-1, 5))
FOLDS = 5
SHARE = 5.0  # words in a usual sentence: a share then moves about as far as a count, and the penalty sees both alike


def word_counts(texts: list[str]) -> np.ndarray:
    """Occurrences of every word that `FEWEST` texts hold, the `MOST_WORDS` most frequent, and beside them each word's
    share of its text, which is what it weighs in a mean over frames: `[N, 2 V]`, V may be 0.
    """
    words = [text.split() for text in texts]
    frequency = Counter(word for each in words for word in set(each))
    common = [word for word, count in frequency.most_common(MOST_WORDS) if count >= FEWEST]
    column_of = {word: column for column, word in enumerate(sorted(common))}
    counts_NV = np.zeros((len(texts), len(column_of)))
    for row, each in enumerate(words):
        for word in each:
            if word in column_of:
                counts_NV[row, column_of[word]] += 1
    total_N = np.array([max(len(each), 1) for each in words])
    return np.concatenate([counts_NV, SHARE * counts_NV / total_N[:, None]], axis=1)


def standardised(values_NU: np.ndarray) -> np.ndarray:
    """Columns of mean 0 and variance 1; NaN counts as the mean, a constant column as nothing."""
    values_NU = np.asarray(values_NU, np.float64)
    known_NU = np.isfinite(values_NU)
    mean_U = np.where(known_NU, values_NU, 0).sum(axis=0) / np.maximum(known_NU.sum(axis=0), 1)
    centred_NU = np.where(known_NU, values_NU - mean_U, 0.0)
    spread_U = centred_NU.std(axis=0)
    return centred_NU / np.where(spread_U > 1e-12, spread_U, 1.0)


def freed(x_NU: np.ndarray, nuisance_NV: np.ndarray, group_N: np.ndarray | None = None, *, seed: int = 0) -> np.ndarray:
    """`x_NU` less what a ridge regression foretells of it from the nuisances; the mean stays.

    Every row is freed by a regression on the other folds' rows: one on itself would take with the nuisance whatever it
    learnt by heart. With `group_N` (speakers) the regression sees differences within a group only, so that the words
    of a speaker who reads other texts than everybody else do not take his voice along. The penalty is the one of
    `PENALTIES` with the least leave-one-out error.
    """
    x_NU = checked(x_NU)
    nuisance_NV = np.asarray(nuisance_NV, np.float64)
    if len(nuisance_NV) != len(x_NU):
        raise ValueError(f"freed: {len(nuisance_NV)} rows of nuisances for {len(x_NU)} embeddings")
    nuisance_NV = nuisance_NV - nuisance_NV.mean(axis=0)
    if len(x_NU) < 2 * FOLDS or not nuisance_NV.any():
        return x_NU
    inside_NV, inside_NU = nuisance_NV, x_NU - x_NU.mean(axis=0)
    if group_N is not None:
        inside_NV, inside_NU = within(nuisance_NV, group_N), within(x_NU, group_N)
    penalty = cast(float, RidgeCV(PENALTIES, fit_intercept=False).fit(inside_NV, inside_NU).alpha_)  # set by fit
    out_NU = x_NU.copy()
    for fit_M, rest_M in KFold(FOLDS, shuffle=True, random_state=seed).split(x_NU):
        ridge = Ridge(penalty, fit_intercept=False).fit(inside_NV[fit_M], inside_NU[fit_M])
        out_NU[rest_M] -= ridge.predict(nuisance_NV[rest_M])
    return out_NU


def within(x_NU: np.ndarray, group_N: np.ndarray) -> np.ndarray:
    """Differences from the mean of the row's group."""
    _, index_N = np.unique(np.asarray(group_N).astype(str), return_inverse=True)
    sums_GU = np.zeros((int(index_N.max()) + 1, x_NU.shape[1]))
    np.add.at(sums_GU, index_N, x_NU)
    return x_NU - (sums_GU / np.bincount(index_N)[:, None])[index_N]
