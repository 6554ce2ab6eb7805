"""Every key is declared once, in full; what it cannot be is refused before any work, with one line; keys that would do
nothing do not exist.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from moejax.cohorts import clustering, names
from moejax.job import config, graph, stages
from moejax.work.fields import Field

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("key", stages.FIELDS)
def test_every_key_has_a_doc_and_takes_its_own_default(key):
    field = stages.FIELDS[key]
    field.check(key, field.default)
    first = field.doc.split("\n")[0]
    assert len(first) <= 125 and first.endswith(".") and (first[0].isupper() or first[0] in "{XA")
    assert all(line.strip() == line and line.endswith(".") for line in field.doc.split("\n"))
    assert field.allowed() and not (field.choices and field.takes)
    assert field.limits[0] < field.limits[1] and (field.limits == Field(0, "").limits or field.type in (int, float))


def test_no_section_is_declared_twice():
    names = [name for declared in stages.DECLARED for name in declared]
    assert len(names) == len(set(names)) == len(stages.SECTIONS)


def test_methods_of_clustering_are_those_of_the_code():
    assert tuple(clustering.METHODS) == names.METHODS


@pytest.mark.parametrize("key", [key for key, field in stages.FIELDS.items() if not field.open])
def test_help_for_a_key_says_all_about_it(key):
    field, text = stages.FIELDS[key], config.help_text(key)
    lines = text.splitlines()
    assert lines[0] == f"{key} = {field.default!r}" and field.doc.split("\n") == [
        line.strip() for line in lines[1 : 1 + len(field.doc.split("\n"))]
    ]
    assert f"    takes {field.allowed()}" in lines and (field.no_result is True) == ("    changes no result" in lines)
    assert all(choice in text for choice in field.choices)


def test_help_lists_all_keys_those_of_a_section_or_the_nearest():
    everything, gmm = config.help_text(), config.help_text("cluster.gmm")
    assert re.findall(r"^(\S+) = ", everything, re.M) == list(stages.FIELDS)
    assert len(everything.splitlines()) == 2 * len(stages.FIELDS)
    assert re.findall(r"^(\S+) = ", gmm, re.M) == [f"cluster.gmm.{key}" for key in stages.SECTIONS["cluster"]["gmm"]]
    assert "takes a whole number at least 2 and at most 1000" in gmm
    assert config.help_text("data.options.workers") == config.help_text("data.options")  # a key of the user's own
    for key, words in (
        ("gate.kidn", "no key 'gate.kidn'; did you mean gate.kind.*valid here: b2, "),
        ("gat", "did you mean gate"),
        ("gate.kind.x", "no key 'gate.kind.x'"),
    ):
        with pytest.raises(KeyError, match=words) as error:
            config.help_text(key)
        assert "\n" not in str(error.value)


def test_the_page_of_keys_is_current():
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    command = "python -m moejax.job.config > docs/config.md"
    assert page == config.markdown(), f"docs/config.md is out of date: {command}"
    assert command in page
    said = subprocess.run(
        [sys.executable, "-m", "moejax.job.config"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert said.stdout == page


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
        ("data", "source", "folders", "builtin, folder, hf, arrayrecord, webdataset, commonvoice, digits"),
        ("data", "language", "klingon", "en, zh, de"),
        ("model", "size", "huge", "micro, .*large-v2"),
        ("model", "weights", "int4", "float32, bfloat16, int8"),
        ("cluster", "method", "dbscan", "auto, hdbscan"),
        ("cluster", "noise", "keep", "drop"),
        ("cluster", "map", "umap", "pca"),
        ("translate", "backends", ("google",), "auto, none, offline, offline_tuned, deepl"),
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


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"adapters": {"kinds": ("lora", "lora_total")}}, "'adapters.kinds' has 'lora_total'"),
        ({"evaluate": {"systems": ("base", "moe_mean_gate")}}, "'evaluate.systems' has 'moe_mean_gate'"),
        ({"hyper": {"systems": ("hyper",)}}, "'hyper.systems' has 'hyper'"),
        ({"st": {"kinds": ("lora_st",)}, "model": {"pretrained": "tiny"}}, "'st.kinds' has 'lora_st'"),
    ],
)
def test_without_experts_nothing_is_asked_for_that_is_made_of_them(values, words):
    plain = {"gate": {"num_experts": 0}, "adapters": {"kinds": ("lora",)}}
    found = config.resolve(ConfigDict(plain))
    inputs = {name: graph.stage_inputs(name, found, dict.fromkeys(stages.STAGES, "digest")) for name in stages.STAGES}
    for name in ("embed", "cluster", "gate", "experts", "joint"):
        assert inputs[name] == {"gate.num_experts": ()}, "idle"
    assert "stage describe" in inputs["adapters"] and "stage gate" not in inputs["adapters"]
    with pytest.raises(ValueError, match=f"'gate.num_experts' is 0, so there is no mixture; {words}"):
        config.resolve(ConfigDict({**plain, **values}))
