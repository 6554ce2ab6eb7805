"""Several seeds and several comparisons: against SciPy, against closed testing, and against what must be so."""

import itertools

import numpy as np
import pytest
import scipy.stats

from moejax.score import bootstrap, seeds
from moejax.score.multiplicity import holm


def counts(rng, seeds=1, utterances=60, rate=0.2, spread=0.0):
    words_U = rng.integers(4, 12, utterances)
    rate_S = np.clip(rate + spread * rng.standard_normal(seeds), 0.01, 0.9)
    return np.stack([rng.binomial(words_U, r) for r in rate_S]), words_U


@pytest.mark.parametrize("one_each", [False, True], ids=["one speaker", "a speaker for each utterance"])
def test_intervals_agree_with_scipy(one_each):
    """Both ways of drawing reduce to a plain bootstrap over utterances, which SciPy does too."""
    errors_SU, words_U = counts(np.random.default_rng(0), utterances=80)
    speakers = [f"s{i}" for i in range(80)] if one_each else ["s"] * 80
    ours = bootstrap.interval(errors_SU[0], words_U, speakers, draws=20_000)
    theirs = scipy.stats.bootstrap(
        (errors_SU[0], words_U),
        lambda e, w, axis: e.sum(axis) / w.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)
    assert ours.unit == (bootstrap.SPEAKERS if one_each else bootstrap.UTTERANCES)


def test_paired_differences_agree_with_scipy():
    rng = np.random.default_rng(2)
    (a_U, b_U), words_U = counts(rng, seeds=2, utterances=80)
    ours = bootstrap.difference(a_U, b_U, words_U, ["s"] * 80, draws=20_000)
    theirs = scipy.stats.bootstrap(
        (a_U, b_U, words_U),
        lambda a, b, w, axis: (a - b).sum(axis) / w.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=20_000,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.002)


def test_randomisation_agrees_with_scipy():
    rng = np.random.default_rng(3)
    (a_U, b_U), _ = counts(rng, seeds=2, utterances=30)
    b_U = b_U + (rng.random(30) < 0.15)
    ours = bootstrap.randomisation(a_U, b_U, draws=20_000)
    theirs = scipy.stats.permutation_test(
        (a_U, b_U), lambda a, b, axis: (a - b).sum(axis), permutation_type="samples", n_resamples=20_000, rng=rng
    ).pvalue
    assert ours == pytest.approx(theirs, abs=0.02) and 0.005 < ours < 0.9


def test_exchanging_speakers_as_a_whole_is_the_exact_test_over_their_sums():
    rng = np.random.default_rng(4)
    (a_U, b_U), _ = counts(rng, seeds=2, utterances=60)
    speakers = [f"s{i % 8}" for i in range(60)]
    gap_P = np.array([(a_U - b_U)[np.array(speakers) == s].sum() for s in sorted(set(speakers))])
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    exact = np.mean(np.abs(signs @ gap_P) >= abs(gap_P.sum()))
    assert bootstrap.randomisation(a_U, b_U, blocks=speakers, draws=40_000) == pytest.approx(exact, abs=0.015)


def test_equal_seeds_are_one_seed():
    errors_SU, words_U = counts(np.random.default_rng(5))
    speakers = [f"s{i % 7}" for i in range(60)]
    one = bootstrap.interval(errors_SU[0], words_U, speakers)
    three = bootstrap.interval(np.tile(errors_SU, (3, 1)), words_U, speakers)
    assert (three.value, three.low, three.high) == pytest.approx((one.value, one.low, one.high))


def test_seeds_that_differ_widen_the_interval_by_the_standard_error_of_their_mean():
    """With many words the utterances hardly vary, so the interval is that of the mean of S seeds: unbiased in square,
    which drawing S of S without more is not.
    """
    words_U = np.full(20, 10_000)
    rate_S = np.array([0.20, 0.23, 0.29])
    errors_SU = np.outer(rate_S, words_U)
    speakers = ["s"] * 20
    sums_DQ, _ = bootstrap.resample(np.concatenate([errors_SU, words_U[None]]), speakers, draws=20_000)
    rates_D = (sums_DQ[:, :-1] * bootstrap._seed_weights(3, 20_000, 0)).sum(1) / sums_DQ[:, -1]
    assert rates_D.mean() == pytest.approx(rate_S.mean(), abs=1e-3)
    assert rates_D.std() == pytest.approx(rate_S.std(ddof=1) / np.sqrt(3), rel=0.03)
    found = bootstrap.interval(errors_SU, words_U, speakers)
    assert found.value == pytest.approx(0.24) and found.low < 0.21 < 0.27 < found.high


def test_about_95_of_100_intervals_of_seeds_and_utterances_cover_the_truth():
    rng, covered = np.random.default_rng(6), 0
    for seed in range(100):
        errors_SU, words_U = counts(rng, seeds=8, utterances=80, spread=0.02)
        found = bootstrap.interval(errors_SU, words_U, ["s"] * 80, draws=300, seed=seed)
        covered += found.low <= 0.2 <= found.high
    assert 86 <= covered <= 99


def test_mismatched_seeds_are_named():
    with pytest.raises(ValueError, match="same seeds: got 2 and 3"):
        bootstrap.difference(np.ones((2, 4)), np.ones((3, 4)), [5] * 4, ["s"] * 4)


def test_holm_is_closed_testing_with_bonferroni():
    """Its definition, by brute force: a hypothesis falls when every intersection that contains it falls."""
    rng = np.random.default_rng(7)
    for _ in range(50):
        p = rng.random(5) ** 3
        every = [set(s) for n in range(1, 6) for s in itertools.combinations(range(5), n)]
        closed = [max(min(1, len(s) * min(p[j] for j in s)) for s in every if i in s) for i in range(5)]
        assert holm(p) == pytest.approx(closed)


def test_holm_leaves_out_what_was_not_tested():
    assert holm([0.01, float("nan"), 0.04]) == pytest.approx([0.02, float("nan"), 0.04], nan_ok=True)
    assert holm([]) == [] and holm([0.7, 0.9]) == [1.0, 1.0]


def rows(system, seed, errors, speakers=None):
    who = speakers or "abcdef"
    same = {"system": system, "seed": seed, "words": 10}
    return [same | {"id": f"u{i}", "errors": e, "speaker": who[i % 6]} for i, e in enumerate(errors)]


def test_systems_are_paired_by_the_seeds_that_both_have_and_the_base_by_all():
    rng = np.random.default_rng(8)
    found = [r for s in range(3) for r in rows("moe", s, rng.poisson(1, 30))]
    found += rows("speaker", 0, rng.poisson(2, 30)) + rows("base", 0, rng.poisson(4, 30))
    scores = seeds.collect(found, fixed=["base"])
    ids = list(scores.words)
    assert seeds.rate(scores, "moe", ids)["seeds"] == 3 and seeds.rate(scores, "base", ids)["seeds"] == 0
    gap = seeds.difference((scores, "moe"), (scores, "base"), ids)
    assert gap["seeds"] == 3 and gap["high"] < 0
    means = [seeds.rate(scores, s, ids)["wer"] for s in ("moe", "base")]
    assert gap["difference"] == pytest.approx(means[0] - means[1])
    assert seeds.difference((scores, "moe"), (scores, "speaker"), ids)["seeds"] == 1
    (corrected,) = seeds.corrected([gap])
    assert corrected["p_holm"] == gap["p"] and seeds.verdict(corrected) == "better"
    many = seeds.corrected([gap | {"p": 0.03}, gap | {"p": 0.5}])
    assert seeds.verdict(many[0]) == "better, but not after correction"


def test_only_systems_that_scored_everything_are_whole():
    scores = seeds.collect(rows("moe", 0, [1, 2, 3]) + rows("moe", 1, [1, 2]) + rows("lora", 0, [0, 0, 0]))
    assert scores.whole(["u0", "u1", "u2"]) == ["lora"] and scores.whole(["u0", "u1"]) == ["moe", "lora"]
    with pytest.raises(ValueError, match="twice for system 'moe', seed 0"):
        seeds.collect(rows("moe", 0, [1]) + rows("moe", 0, [1]))
