import numpy as np
import pytest
from sklearn import metrics

from moejax.score import classes

RANDOM = np.random.default_rng(0)
LABEL = RANDOM.choice(4, 200, p=[0.5, 0.3, 0.15, 0.05])
SAID = np.where(RANDOM.random(200) < 0.6, LABEL, RANDOM.choice(4, 200))
GROUPS = [f"actor{n % 10}" for n in range(200)]
FOLDS = np.arange(200) % 10 // 2


def test_figures_are_those_of_scikit_learn():
    found = classes.scores(LABEL, SAID, GROUPS, FOLDS, 4, draws=200)
    np.testing.assert_array_equal(found.confusion_CC, metrics.confusion_matrix(LABEL, SAID))
    assert found.accuracy.value == pytest.approx(metrics.accuracy_score(LABEL, SAID))
    assert found.recall.value == pytest.approx(metrics.balanced_accuracy_score(LABEL, SAID))
    assert found.f1.value == pytest.approx(metrics.f1_score(LABEL, SAID, average="macro"))
    by_fold = [(LABEL == SAID)[fold == FOLDS].mean() for fold in range(5)]
    assert (found.fold_mean, found.fold_std) == pytest.approx((np.mean(by_fold), np.std(by_fold)))
    for interval in (found.accuracy, found.recall, found.f1):
        assert interval.low < interval.value < interval.high and interval.unit.startswith("speakers")
        assert 0.05 < interval.high - interval.low < 0.4


def test_a_class_that_never_occurs_does_not_count_as_missed():
    found = classes.scores(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 0]), list("abcd"), np.arange(4) % 2, 3, draws=20)
    assert found.recall.value == pytest.approx(0.75) and found.accuracy.value == 0.75


def test_overfitting_is_what_validation_adds_to_the_training_loss():
    assert classes.overfitting(0.5, 0.8) == pytest.approx(60.0) and classes.overfitting(0.5, 0.4) == pytest.approx(
        -20.0
    )
    assert classes.overfitting(0.0, 0.4) == float("inf")
