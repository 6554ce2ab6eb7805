"""The benchmark's sides against each other, one call each: they must do the same work before they are timed.

Opt-in: needs the extra `peers`, so it is not collected by default. Run `python -m pytest tests/peers/test_bench.py`.
"""

import json

import pytest

from moejax.__main__ import guarded
from moejax.bench import rows

NANO = ["--size", "nano", "--batch", "2", "--seconds", "2", "--tokens", "8"]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    file = tmp_path_factory.mktemp("bench") / "check.json"
    assert guarded(["bench", "--peers", "--check", *NANO, "--json", str(file)]) == 0
    return json.loads(file.read_text())


@pytest.mark.parametrize("difference", rows.differences(), ids=lambda difference: difference.name)
def test_both_sides_give_the_same(report, difference):
    found = next(row for row in report["differences"] if row["name"] == difference.name)
    assert not found["why"]
    # eight tokens of random weights have no near ties; the loss is about 11
    bound = 0.0 if difference.tokens else difference.aim or 1e-4
    assert found["difference"] <= bound
    assert found["largest"] > 1.0


def test_every_side_says_what_it_is(report):
    versions = {name for side in report["sides"].values() for name in side["versions"]}
    assert versions >= {"moejax", "jax", "torch", "transformers", "peft", "openai-whisper", "ctranslate2"}
