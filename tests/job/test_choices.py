"""Keys with few values are refused before any work, with one line; keys that would do nothing do not exist."""

import pytest
from ml_collections import ConfigDict

from moejax.cohorts import clustering, figures, fit, matching, points, stage
from moejax.job import config


@pytest.mark.parametrize(
    ("section", "key", "value", "known"),
    [
        ("gate", "targets", "sfot", "soft, hard"),
        ("evaluate", "speaker_scope", "al", "own, all"),
        ("experts", "route", "labels", "gate, label"),
        ("adapters", "kinds", ("lora", "cohorts"), "lora, lora_total, cohort, speaker"),
        ("mixture", "kind", "loha", "lora, dora"),
        ("gate", "kind", "frame", "utterance, layer, token, label, mixed, constant, rank"),
        ("gate", "input", "lda", "auto, raw, pca, discriminant"),
        ("joint", "schedule", "cosin", "cosine, constant, linear"),
        ("report", "normalizer", "lowercase", "none, lower, basic, english"),
    ],
)
def test_unknown_value_names_key_and_known_values(section, key, value, known):
    with pytest.raises(ValueError, match=f"config key '{section}.{key}' is .*; known: {known}") as caught:
        config.resolve(ConfigDict({section: {key: value}}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("joint", {"steps": 50, "temperature": 4.0, "temperature_steps": 51}, "'joint.temperature_steps' is 51, of"),
        ("joint", {"temperature": 0.0}, "'joint.temperature' is 0"),
        ("mixture", {"targets": (("decoder/*", 0, 4.0),)}, r"'mixture.targets' has .*\(pattern, rank, alpha\)"),
        ("mixture", {"targets": (("decoder/*", 4),)}, "'mixture.targets' has"),
        ("mixture", {"top_p": 0.0}, "'mixture.top_p' is 0"),
        ("mixture", {"threshold": 1.5}, "'mixture.threshold' is 1.5"),
    ],
)
def test_numbers_that_would_never_act_as_asked_are_refused(section, values, message):
    with pytest.raises(ValueError, match=message) as caught:
        config.resolve(ConfigDict({section: values}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gate": {"kind": "token"}, "mixture": {"kind": "dora"}}, "'gate.kind' is token, with mixture.kind dora"),
        ({"gate": {"kind": "rank"}, "mixture": {"targets": (("decoder/*", 4, 8.0),)}}, "'gate.kind' is rank, so all"),
        ({"gate": {"known_share": 1.5}}, "'gate.known_share' is 1.5"),
    ],
)
def test_kinds_that_do_not_go_together_are_refused(values, message):
    with pytest.raises(ValueError, match=message) as caught:
        config.resolve(ConfigDict(values))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("section", "key"), [("gate", "dropout"), ("translate", "spec"), ("experts", "gate_scale"), ("base", "evals")]
)
def test_keys_stand_only_where_they_act(section, key):
    with pytest.raises(KeyError, match=f"config has no key '{section}.{key}'"):
        config.resolve(ConfigDict({section: {key: 1}}))


def test_cluster_choices_are_those_of_the_code():
    assert stage.CHOICES == {
        "level": points.LEVELS,
        "signal": ("embedding", "gradient"),
        "remove": ("text", "seconds", "silence"),
        "method": ("auto", *clustering.METHODS),
        "auto.methods": tuple(clustering.METHODS),
        "match": matching.POLICIES,
        "noise": clustering.NOISE_POLICIES,
        "assign": fit.ASSIGNMENTS,
        "discriminant": fit.DISCRIMINANTS,
        "map": figures.PLANES,
    }
