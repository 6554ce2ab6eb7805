"""Graded judgements against those of people."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from moejax.score import graded


def test_correlation_and_its_interval():
    rng = np.random.default_rng(0)
    speakers = np.repeat([f"p{k}" for k in range(20)], 10)
    level = np.repeat(rng.standard_normal(20), 10)
    true, found = level + 0.5 * rng.standard_normal(200), level + 0.5 * rng.standard_normal(200)
    got = graded.pearson(found, true, speakers, draws=400)
    assert got.value == pytest.approx(np.corrcoef(found, true)[0, 1], abs=1e-9)
    assert got.low < got.value < got.high and got.unit.startswith("speakers")
    # Speakers are what counts: as if all were of their own, the interval would be narrower
    alone = graded.pearson(found, true, [f"u{k}" for k in range(200)], draws=400)
    assert got.high - got.low > alone.high - alone.low
    shuffled = graded.pearson(rng.permutation(found), true, speakers, draws=400)
    assert shuffled.low < 0 < shuffled.high
    assert np.isnan(graded.pearson(np.ones(200), true, speakers, draws=20).value)


def test_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(1)
    right, wrong = np.round(rng.normal(1, 1, 50), 1), np.round(rng.normal(0, 1, 70), 1)  # with ties
    theirs = roc_auc_score(np.repeat([1, 0], [50, 70]), np.concatenate([right, wrong]))
    assert graded.auc(right, wrong) == pytest.approx(theirs, abs=1e-12)
    found = graded.auc_interval((right, ["a", "b"] * 25), (wrong, ["a", "b"] * 35), draws=50)
    assert found.low <= found.value <= found.high and found.value == pytest.approx(theirs)
    assert np.isnan(graded.auc([], wrong))
