"""What goes with errors: planted effects are found, and nothing else; chance is named as rarely as promised."""

import numpy as np
import pytest

from moejax.score import effects

PLANTED = {("etiology", "als"): 0.15, ("device", "phone"): 0.15, ("snr", "low"): 0.12}
FREE = ("accent", "gender", "silence", "words", "rate")  # without effect


def corpus(seed: int, speakers: int = 40, each: int = 20, planted=PLANTED, spread: float = 0.05):
    """Errors, words, speakers, {factor: levels}: some factors belong to the speakers, others to the utterances."""
    rng = np.random.default_rng(seed)
    who_U = np.repeat(np.arange(speakers), each)

    def of_speakers(*names):
        return np.array(names)[rng.permutation(np.arange(speakers) % len(names))][who_U]

    def of_utterances():
        return np.array(["low", "middle", "high"])[rng.integers(0, 3, who_U.size)]

    words_U = rng.integers(3, 14, who_U.size)
    levels = {
        "etiology": of_speakers("als", "cerebral palsy", "down syndrome", "parkinson", "stroke"),
        "device": of_speakers("laptop", "phone", "tablet"),
        "snr": of_utterances(),
        "accent": of_speakers("us", "us", "us", "us", "uk"),
        "gender": of_speakers("f", "m"),
        "silence": of_utterances(),
        "words": np.where(words_U < 6, "low", np.where(words_U < 10, "middle", "high")),
        "rate": of_utterances(),
    }
    rate_U = 0.15 + rng.normal(0, spread, speakers)[who_U]
    for (factor, level), effect in planted.items():
        rate_U = rate_U + effect * (levels[factor] == level)
    errors_U = rng.binomial(words_U, np.clip(rate_U, 0.01, 0.95))
    return errors_U, words_U, [f"s{p}" for p in who_U], levels


def leaves_out_zero(effect) -> bool:
    return effect.low > 0 or effect.high < 0


def test_planted_effects_are_named_and_no_others():
    model = effects.fit(*corpus(0))
    named = {(f.factor, e.level) for f in model.factors if f.shown for e in f.worse()}
    assert named == set(PLANTED)
    for f in model.factors:
        if f.factor in FREE:
            assert not f.shown and not any(map(leaves_out_zero, f.effects))
    for (factor, level), effect in PLANTED.items():
        (found,) = (e for f in model.factors if f.factor == factor for e in f.effects if e.level == level)
        assert found.low < effect < found.high
    shares = {f.factor: f.share for f in model.factors}
    assert min(shares[factor] for factor, _ in PLANTED) > 3 * max(shares[factor] for factor in FREE)
    assert sum(shares.values()) + model.common + model.speakers + model.rest == pytest.approx(1)


@pytest.mark.parametrize("planted", [PLANTED, {}], ids=["planted", "nothing planted"])
def test_false_alarms_are_as_rare_as_said_over_many_corpora(planted):
    alarms, intervals, found = [], [], 0
    for seed in range(200):
        model = effects.fit(*corpus(seed, planted=planted))
        null = [f for f in model.factors if not planted or f.factor in FREE]
        alarms.append(any(f.shown for f in null))
        intervals += [leaves_out_zero(e) for f in null for e in f.effects]
        named = {(f.factor, e.level) for f in model.factors if f.shown for e in f.worse()}
        found += set(PLANTED) <= named
    assert np.mean(alarms) <= 0.1  # family-wise, after Holm
    assert 0.02 <= np.mean(intervals) <= 0.08
    assert found >= 160 if planted else found == 0


def test_what_one_speaker_says_is_no_property_of_its_factor():
    """Utterances of a speaker resemble each other: as if independent, speakers' own levels look like effects."""
    alarms = 0
    for seed in range(40):
        errors, words, speakers, levels = corpus(seed, speakers=12, each=60, planted={}, spread=0.1)
        model = effects.fit(errors, words, speakers, {"gender": levels["gender"]})
        alarms += model.factors[0].shown
        assert model.speakers > 0.02
    assert alarms <= 5


def test_factors_that_others_determine_are_set_apart():
    errors, words, speakers, levels = corpus(1)
    twin = {"etiology": levels["etiology"], "atypical": np.where(levels["etiology"] == "als", "yes", "no")}
    model = effects.fit(errors, words, speakers, twin)
    assert [f.factor for f in model.factors] == ["etiology"] and model.confounded == ("atypical",)


def test_rare_levels_are_judged_together_and_runaways_count_once():
    errors, words, speakers, levels = corpus(2)
    device = [f"own{s}" if s in ("s1", "s2", "s3", "s4") else "shared" for s in speakers]
    model = effects.fit(errors, words, speakers, {"device": device})
    assert [(e.level, e.speakers) for e in model.factors[0].effects] == [(effects.OTHERS, 4), ("shared", 36)]
    looped = np.where(np.arange(len(errors)) == 5, 400, errors)
    clipped = np.where(np.arange(len(errors)) == 5, words, errors)
    assert effects.fit(looped, words, speakers, levels) == effects.fit(clipped, words, speakers, levels)


def test_there_is_no_model_of_few_speakers_no_variance_or_no_factor():
    errors, words, speakers, levels = corpus(3)
    assert effects.fit(errors[:80], words[:80], speakers[:80], {f: x[:80] for f, x in levels.items()}) is None
    assert effects.fit(0 * errors, words, speakers, levels) is None
    assert effects.fit(errors, 0 * words, speakers, levels) is None
    assert effects.fit(errors, words, speakers, {"gender": ["f"] * len(errors)}) is None
    assert effects.fit([], [], [], {"gender": []}) is None
