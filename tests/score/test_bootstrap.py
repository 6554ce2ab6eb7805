"""Intervals: they cover, they widen with dependence, pairing narrows them, and seeds repeat them."""

import time

import numpy as np
import pytest

from moejax.score import bootstrap


def corpus(rng, *, speakers: int, each: int, spread: float = 0.0, rate: float = 0.2):
    """Errors, words, speakers; `spread` is the standard deviation of the speakers' own rates."""
    rate_P = np.clip(rng.normal(rate, spread, speakers), 0.01, 0.99)
    who_U = np.repeat(np.arange(speakers), each)
    words_U = rng.integers(4, 12, who_U.size)
    return rng.binomial(words_U, rate_P[who_U]), words_U, [f"s{p}" for p in who_U]


def test_value_is_the_corpus_rate_and_lies_in_its_interval():
    errors, words, speakers = corpus(np.random.default_rng(0), speakers=8, each=20)
    found = bootstrap.interval(errors, words, speakers)
    assert found.value == pytest.approx(errors.sum() / words.sum())
    assert found.low < found.value < found.high


def test_about_95_of_100_intervals_cover_the_truth():
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(100):
        found = bootstrap.interval(*corpus(rng, speakers=3, each=60), draws=300, seed=seed)
        covered += found.low <= 0.2 <= found.high
    assert 88 <= covered <= 100


def test_speakers_who_differ_widen_the_interval_beyond_that_of_utterances():
    rng = np.random.default_rng(2)
    errors, words, speakers = corpus(rng, speakers=10, each=40, spread=0.1)
    over_speakers = bootstrap.interval(errors, words, speakers)
    as_if_one = bootstrap.interval(errors, words, ["one"] * len(speakers))
    assert over_speakers.unit == bootstrap.SPEAKERS
    assert over_speakers.high - over_speakers.low > 1.8 * (as_if_one.high - as_if_one.low)


def test_few_speakers_are_kept_and_the_result_says_so():
    errors, words, speakers = corpus(np.random.default_rng(3), speakers=4, each=25)
    assert bootstrap.interval(errors, words, speakers).unit == bootstrap.UTTERANCES
    # Utterances all alike within each speaker: nothing but the speakers could vary, and they are kept.
    flat = bootstrap.interval([1] * 10 + [3] * 10, [10] * 20, ["a"] * 10 + ["b"] * 10)
    assert flat.low == flat.high == pytest.approx(0.2)


def test_resampled_sums_keep_their_expectation_and_size():
    rng = np.random.default_rng(4)
    sizes = [5, 10, 3, 8, 4, 6]
    speakers = [f"s{p}" for p, n in enumerate(sizes) for _ in range(n)]
    values_U = rng.random(len(speakers))
    sums_DQ, _ = bootstrap.resample(np.stack([values_U, np.ones(len(speakers))]), speakers, draws=4000)
    assert sums_DQ.mean(0) == pytest.approx([values_U.sum(), len(speakers)], rel=0.02)
    equal, _ = bootstrap.resample(np.ones((1, 12)), [f"s{i % 6}" for i in range(12)], draws=50)
    assert (equal == 12).all()


def test_pairing_cancels_what_makes_an_utterance_hard():
    rng = np.random.default_rng(5)
    errors, words, speakers = corpus(rng, speakers=10, each=40, spread=0.1)
    better = np.maximum(errors - (rng.random(errors.size) < 0.2), 0)
    gap = bootstrap.difference(better, errors, words, speakers)
    alone = bootstrap.interval(errors, words, speakers)
    assert gap.high < 0
    assert gap.high - gap.low < 0.3 * (alone.high - alone.low)
    assert bootstrap.difference(errors, better, words, speakers).value == -gap.value


def test_randomisation_is_uniform_under_the_null_and_small_under_an_effect():
    rng = np.random.default_rng(6)
    p_values = [bootstrap.randomisation(rng.poisson(2, 80), rng.poisson(2, 80), draws=400, seed=s) for s in range(200)]
    assert 0.4 < np.mean(p_values) < 0.6
    assert np.mean(np.array(p_values) < 0.05) < 0.1
    assert bootstrap.randomisation(rng.poisson(1, 200), rng.poisson(2, 200), draws=999) == 1 / 1000
    assert bootstrap.randomisation([3, 1], [3, 1]) == 1.0


def test_seeds_repeat_and_differ():
    data = corpus(np.random.default_rng(7), speakers=6, each=10)
    assert bootstrap.interval(*data, seed=1) == bootstrap.interval(*data, seed=1)
    assert bootstrap.interval(*data, seed=1) != bootstrap.interval(*data, seed=2)


def test_one_utterance_or_no_words_has_no_interval():
    single = bootstrap.interval([1], [4], ["a"])
    assert single.value == 0.25 and np.isnan(single.low) and np.isnan(single.high)
    silent = bootstrap.interval([1, 2], [0, 0], ["a", "b"])
    assert np.isnan(silent.value) and np.isnan(silent.low)


def test_a_thousand_draws_of_a_thousand_utterances_are_quick():
    data = corpus(np.random.default_rng(8), speakers=25, each=40)
    start = time.process_time()
    bootstrap.interval(*data, draws=1000)
    assert time.process_time() - start < 0.2


def test_mismatched_inputs_are_named():
    with pytest.raises(ValueError, match="3 speakers for values of shape"):
        bootstrap.interval([1, 2], [3, 4], ["a", "b", "c"])
    with pytest.raises(ValueError, match="same utterances"):
        bootstrap.difference([1], [1, 2], [3, 4], ["a", "b"])


@pytest.mark.parametrize("speakers", [4, 12])
def test_many_quantities_have_the_distribution_of_few(speakers):
    errors, words, names = corpus(np.random.default_rng(7), speakers=speakers, each=15, spread=0.08)
    few, unit = bootstrap.resample(np.stack([errors, words]), names, draws=4000)
    many, same = bootstrap.resample_many(np.stack([errors, words], axis=1), names, draws=4000, seed=1)
    assert unit == same
    one, other = (sums_D2[:, 0] / sums_D2[:, 1] for sums_D2 in (few, many))
    assert np.quantile(one, (0.025, 0.5, 0.975)) == pytest.approx(np.quantile(other, (0.025, 0.5, 0.975)), abs=0.005)
    low, high = bootstrap.bounds(np.stack([other, np.full(4000, np.nan)], axis=1))
    assert (low[0], high[0]) == tuple(np.quantile(other, (0.025, 0.975))) and np.isnan([low[1], high[1]]).all()
