"""Goodness of pronunciation against all paths written out, and on sounds that are known."""

import itertools

import numpy as np
import pytest

from moejax.tasks.calibration import Calibration
from moejax.tasks.goodness import FLOOR, goodness
from moejax.training.goodness import calibrated


def likelihood(p_TC, labels, free=None):
    """Summed probability of all paths that read as the labels; the one at `free` may be any unit."""
    T, C = p_TC.shape
    total = 0.0
    alphabet = range(C)
    for place in itertools.product(range(2 * len(labels) + 1), repeat=T):  # places of the blank-extended text
        steps = np.diff(place)
        if place[0] > 1 or place[-1] < 2 * len(labels) - 1 or (steps < 0).any() or (steps > 2).any():
            continue
        same = [
            place[t + 1] % 2 == 1
            and step == 2
            and labels[place[t] // 2] == labels[place[t + 1] // 2]
            and free not in (place[t] // 2, place[t + 1] // 2)
            for t, step in enumerate(steps)
        ]
        if any(step == 2 and (place[t] % 2 == 0) for t, step in enumerate(steps)) or any(same):
            continue
        chance = 1.0
        for t, at in enumerate(place):
            if at % 2 == 0:
                chance *= p_TC[t, 0]
            elif at // 2 == free:
                chance *= sum(p_TC[t, c] for c in alphabet if c)
            else:
                chance *= p_TC[t, labels[at // 2]]
        total += chance
    return total


def test_it_is_the_ratio_of_summed_paths():
    rng = np.random.default_rng(0)
    p_TC = rng.dirichlet(np.ones(4), 4)
    labels, others = [1, 3, 3], [2, 1, 2]
    right_L, wrong_L = goodness(np.log(p_TC), labels, others)
    for place in range(3):
        free = likelihood(p_TC, labels, free=place) + likelihood(p_TC, labels[:place] + labels[place + 1 :])
        swapped = [*labels[:place], others[place], *labels[place + 1 :]]
        assert right_L[place] == pytest.approx(np.log(likelihood(p_TC, labels) / free), abs=1e-4)
        assert wrong_L[place] == pytest.approx(np.log(likelihood(p_TC, swapped) / free), abs=1e-4)


def test_a_sound_that_is_another_or_missing_stands_out():
    units = {".": 0, "a": 1, "b": 2, "c": 3}
    logp_TC = np.full((14, 4), np.log(0.02))
    for t, unit in enumerate("..aa..bbb.cc.."):
        logp_TC[t, units[unit]] = np.log(0.94)
    right_L, wrong_L = goodness(logp_TC, [1, 2, 3], [2, 3, 1])
    assert right_L.min() > -0.5 and wrong_L.max() < -3
    (_, missing, _), _ = goodness(logp_TC, [1, 3, 3])  # b was said where c was asked for
    assert missing < -3
    (_, left_out, _, _), _ = goodness(logp_TC, [1, 3, 2, 3])  # nothing was said where c was asked for
    assert left_out < -3
    assert (goodness(logp_TC[:2], [1, 2, 3])[0] == FLOOR).all()
    assert [len(one) for one in goodness(logp_TC, [])] == [0, 0]


def test_a_score_is_how_often_such_a_sound_is_right():
    rng = np.random.default_rng(0)
    right, wrong = -rng.exponential(1, 2000), -2 - rng.exponential(2, 500)
    curve = calibrated(right, wrong)
    assert (np.diff(curve.score) >= 0).all() and 0 <= min(curve.score) and max(curve.score) <= 100
    # Kinds weigh alike, however many there are: between the two scales 100 P(right | goodness) by their densities
    density = np.exp(-3.0), 0.5 * np.exp(-0.5)  # at -3, of right and wrong
    assert curve([-3.0])[0] == pytest.approx(100 * density[0] / sum(density), abs=6)
    assert curve([-0.1])[0] == pytest.approx(100) and curve([-30.0])[0] == pytest.approx(0)
    assert Calibration.of(curve.knots()) == curve
