"""What is chosen and what is promised, from counts of errors alone."""

import numpy as np
import pytest

from moejax.errors import BadValue
from moejax.personal import choice
from moejax.personal.choice import Way
from moejax.score.wer import Counts

PLAIN, CONTEXT, LORA = Way(0, False), Way(0, True), Way(4, False)


def counts(errors, words=5):
    return [Counts(int(n), words, int(n), 0, 0) for n in errors]


def test_every_recording_is_judged_once_and_too_few_are_refused():
    parts = choice.folds(10)
    assert sorted(place for part in parts for place in part) == list(range(10)) and len(parts) == choice.FOLDS
    with pytest.raises(BadValue, match="7 recordings; from 8 on there is something to choose by"):
        choice.folds(7)


def test_what_helped_others_is_kept_unless_something_is_clearly_better():
    found = {PLAIN: counts([1] * 8), CONTEXT: counts([1] * 8), LORA: counts([1] * 8)}
    assert choice.best(found, range(8)) == CONTEXT
    found[LORA] = counts([0] + [1] * 7)  # one word in one recording
    assert choice.best(found, range(8)) == CONTEXT
    found[LORA] = counts([0, 0, 0, 1, 0, 0, 1, 1])
    assert choice.best(found, range(8)) == LORA
    found[PLAIN] = counts([0, 0, 0, 1, 0, 0, 1, 1])
    assert choice.best(found, range(8)) == PLAIN  # of those that are as good, what is known best
    assert [way.name for way in choice.ways((4,))] == [
        *("as published", "phrases in front", "LoRA of rank 4", "LoRA of rank 4 and phrases in front")
    ]


def test_luck_is_not_promised():
    """Forty ways that are all the same but for chance: the best of them looks better than it will be."""
    rng = np.random.default_rng(0)
    looked, promised, within = [], [], []
    for _ in range(60):
        tried = [Way(rank, False) for rank in range(40)]
        found = {way: counts(rng.binomial(5, 0.4, size=12)) for way in tried}
        parts = choice.folds(12)
        promise = choice.promise(found, parts, tried)
        looked.append(sum(one.errors for one in found[promise.way]) / 60)
        promised.append(promise.expected)
        new = rng.binomial(5, 0.4, size=choice.NEW).sum() / (5 * choice.NEW)
        within.append(promise.low <= new <= promise.high)
    assert np.mean(looked) < 0.33  # the figure that choosing the best would have printed
    assert 0.37 < np.mean(promised) < 0.43 and np.mean(within) > 0.85


def test_a_real_gain_is_chosen_and_promised():
    rng = np.random.default_rng(1)
    found = {PLAIN: counts(rng.binomial(5, 0.5, size=40)), LORA: counts(rng.binomial(5, 0.1, size=40))}
    promise = choice.promise(found, choice.folds(40), [PLAIN, LORA])
    assert promise.way == LORA and promise.expected < 0.2 < promise.published
    assert promise.low < promise.expected < promise.high < promise.published


def test_nothing_that_was_never_wrong_is_promised_to_stay_so():
    for recordings, words, above in ((50, 1, 0.1), (12, 6, 0.03)):
        found = {PLAIN: counts([0] * recordings, words), CONTEXT: counts([0] * recordings, words)}
        promise = choice.promise(found, choice.folds(recordings), [PLAIN, CONTEXT])
        assert (promise.expected, promise.low) == (0, 0) and above < promise.high < 0.2
