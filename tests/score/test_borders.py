"""How far borders lie from where they are."""

import numpy as np
import pytest

from moejax.score import borders


def test_words_are_paired_by_text_and_the_others_counted():
    true = [("the", 0.0, 0.2), ("big", 0.2, 0.5), ("dog", 0.6, 1.0)]
    found = [("The", 0.01, 0.25), ("dog.", 0.5, 1.1)]
    errors = borders.compare(found, true)
    np.testing.assert_allclose(errors.starts, [0.01, -0.1])
    np.testing.assert_allclose(errors.ends, [0.05, 0.1])
    row = borders.pooled([errors, errors]).row()
    assert (row["words"], row["missed"]) == (4, 2)
    assert row["median_ms"] == pytest.approx(75) and row["within_50_ms"] == pytest.approx(0.5)
    assert row["bias_start_ms"] == pytest.approx(-45) and row["bias_end_ms"] == pytest.approx(75)
    assert borders.pooled([]).row() == {"words": 0, "missed": 0}


def test_the_even_division_is_by_letters():
    assert borders.evenly(["a", "bcd"], 2.0) == [("a", 0.0, 0.5), ("bcd", 0.5, 2.0)]
