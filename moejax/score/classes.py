"""Scores of a classifier: accuracy, recall by class, F1, confusion, and whether it is at chance.

WA (weighted accuracy) is the share of clips that are right, UA (unweighted) the mean of the classes' recalls, macro F1
the mean of their F1, as speech emotion recognition counts them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.score import bootstrap
from moejax.score.bootstrap import Interval


@dataclasses.dataclass(frozen=True)
class Scores:
    """Of clips of all folds together, with intervals over groups: `accuracy` is the WA."""

    accuracy: Interval
    recall: Interval  # UA
    f1: Interval
    confusion_CC: np.ndarray  # clips by [right class, said class]
    fold_mean: float
    fold_std: float  # population, over folds


def confusion(label_N: np.ndarray, said_N: np.ndarray, classes: int) -> np.ndarray:
    """Counts [right class, said class]."""
    return np.bincount(label_N * classes + said_N, minlength=classes * classes).reshape(classes, classes)


def recall(confusion_XCC: np.ndarray) -> np.ndarray:
    """UA of confusions [..., C, C]: the mean recall of the classes that occur."""
    hits, total = np.diagonal(confusion_XCC, axis1=-2, axis2=-1), confusion_XCC.sum(-1)
    return _mean_over(hits, total)


def f1(confusion_XCC: np.ndarray) -> np.ndarray:
    """Macro F1: the mean over classes that occur or are said."""
    hits = np.diagonal(confusion_XCC, axis1=-2, axis2=-1)
    return _mean_over(2 * hits, confusion_XCC.sum(-1) + confusion_XCC.sum(-2))


def _mean_over(numerator, denominator):
    there = denominator > 0
    rates = np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=there)
    return rates.sum(-1) / np.maximum(there.sum(-1), 1)


def scores(
    label_N: np.ndarray, said_N: np.ndarray, groups: Sequence[str], fold_N: np.ndarray, classes: int, draws: int = 1000
) -> Scores:
    """Of what was said of every clip when its fold was tested. Intervals draw groups, then their clips."""
    counts_CC = confusion(label_N, said_N, classes)
    cell_N = label_N * classes + said_N
    hot_NQ = np.zeros((len(label_N), classes * classes), np.float32)
    hot_NQ[np.arange(len(label_N)), cell_N] = 1
    sums_DQ, unit = bootstrap.resample_many(hot_NQ, groups, draws=draws)
    drawn_DCC = sums_DQ.reshape(draws, classes, classes)

    def interval(figure):
        (low,), (high,) = bootstrap.bounds(figure(drawn_DCC)[:, None])
        return Interval(float(figure(counts_CC)), float(low), float(high), unit, draws)

    by_fold = [float((label_N == said_N)[fold_N == fold].mean()) for fold in np.unique(fold_N)]
    share = lambda x: np.trace(x, axis1=-2, axis2=-1) / np.maximum(x.sum((-2, -1)), 1)  # noqa: E731
    return Scores(
        interval(share), interval(recall), interval(f1), counts_CC, float(np.mean(by_fold)), float(np.std(by_fold))
    )


@dataclasses.dataclass(frozen=True)
class Chance:
    """What a classifier that knows nothing would have, given how often it says each class, and how far off it is."""

    expected: float
    sigma: float
    found: float

    @property
    def holds(self) -> bool:
        """At most 3 sigma above; below it nothing leaks: what is frequent in training is rarer in the test."""
        return self.found - self.expected <= 3 * self.sigma


def at_chance(label_N: np.ndarray, said_N: np.ndarray, classes: int) -> Chance:
    """Of shuffled labels: right answers are hits of independent draws from both sides' shares."""
    size = len(label_N)
    right_C, said_C = (np.bincount(x, minlength=classes) / size for x in (label_N, said_N))
    expected = float((right_C * said_C).sum())
    return Chance(expected, float(np.sqrt(expected * (1 - expected) / size)), float((label_N == said_N).mean()))


def overfitting(train: float, validation: float) -> float:
    """(validation - train) / train of two losses in percent, both of a network that is asked without dropout: the loss
    that is printed while training is of a network with noise, averaged while it still learns, and says nothing.
    """
    return 100.0 * (validation - train) / train if train > 0 else float("inf")
