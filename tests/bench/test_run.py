"""The command: what it refuses, and a whole run of ours alone on the smallest network."""

import json

import numpy as np
import pytest
from conftest import CACHE

from moejax.__main__ import guarded
from moejax.bench import rows, run, table, weights
from moejax.bench.side import SideError
from moejax.commands import tree
from moejax.commands.bench import settings


def parse(argv):
    return settings(*tree.parsed(["bench", *argv]))


NANO = ["--size", "nano", "--batch", "2", "--seconds", "1", "--tokens", "4"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["melon"], "unknown bench 'melon'; known: mel, encode, train, decode, diarize, transcribe"),
        (["--calls", "2"], "--calls must be at least 3"),
        (["--batch", "0"], "--batch must be positive, got 0"),
        (["--batch", "3", "--devices", "2"], "does not divide by --devices 2"),
        (["--bach", "3"], "--bach"),
        (["--dtype", "int4"], "invalid choice: 'int4'"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(argv, message):
    with pytest.raises(ValueError, match=message) as refused:
        parse(argv)
    assert "\n" not in str(refused.value)


def test_sizes_without_the_published_vocabulary_are_refused():
    with pytest.raises(ValueError, match="bench has no size 'micro'; known: nano, tiny, "):
        weights.sized("micro", 30.0)


def test_every_row_of_the_table_is_there_with_its_bars():
    found = rows.rows(weights.sized("tiny", 30.0), 8, 30.0, 64, 4)
    assert {row.group for row in found} == set(rows.GROUPS)
    bars = {row.name: (row.must, row.aim) for row in found}
    assert bars["log-mel / openai-whisper (faster form)"] == (0.70, 0.40)
    assert bars["audio context 6 s over 30 s, training step"] == bars["audio context 4 s over 30 s, training step"]
    assert bars["decoder step, E=64 over E=1"] == (1.15, 1.08)
    assert bars["greedy 64 / ctranslate2 int8"] == (1.10, 0.85)
    assert [row.name for row in found if row.group == "diarize"][0] == "attention over 30 s, linear over softmax"
    assert len(found) == 19
    for row in found:
        assert all(task.side != row.ours.side for task in row.theirs)  # each side in a process of its own


def test_a_run_of_ours_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(run.load, "available", lambda: False)  # the tests' machine is not quiet: every call counts
    monkeypatch.setattr(run.measure, "TARGET", 0.01)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(CACHE))
    file = tmp_path / "bench.json"
    assert guarded(["bench", "decode", *NANO, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert [row["name"] for row in report["rows"]] == ["greedy 4", "greedy, routes E=10 k=2 over none"]
    for row in report["rows"]:
        assert row["status"] == "measured" and len(row["ours_calls"]) >= 3 and row["ours_seconds"] > 0
        assert row["above_floor"] == pytest.approx(row["ours_seconds"] / row["floor_seconds"])
    assert report["rows"][0]["ratio"] is None and report["rows"][1]["ratio"] > 0
    assert report["peaks"]["flops_per_s"] > 1e8 and report["counted"].startswith("all calls")
    out = capsys.readouterr().out
    assert "greedy, routes E=10 k=2 over none" in out and "GFLOP/s" in out


def test_a_peer_that_is_not_installed_is_a_row_that_says_so(monkeypatch):
    bench = run.Bench(parse(["mel", "--peers"]), None, say=lambda message: None)

    class Missing:
        def __init__(self, module, environment):
            self.module = module

        def ask(self, *_, **__):
            raise SideError(f"{self.module} ended with code 1: ModuleNotFoundError: No module named 'whisper'")

        def close(self):
            pass

    monkeypatch.setattr(run, "Side", Missing)
    row = rows.rows(weights.sized("nano", 1.0), 2, 1.0, 4, 4)[0]
    found = bench._measure(row, None)
    assert found["status"] == "not measured" and 'pip install "moejax[peers]"' in found["why"]
    report = {
        "rows": [found],
        "differences": [],
        "settings": vars(bench.settings),
        "machine": table.machine(),
        "sides": {"ours": {"kind": "cpu"}},
        "counted": "all calls",
        "peaks": None,
        "seconds": 1.0,
    }
    assert "not measured" in table.text(report)


def test_a_difference_of_shape_is_infinite(tmp_path):
    for name, array in (("a", np.zeros(3)), ("b", np.full(3, 0.5)), ("c", np.zeros(4))):
        np.save(tmp_path / f"{name}.npy", array)
    found = [table.difference(tmp_path / "a.npy", tmp_path / f"{x}.npy", tokens=False)["difference"] for x in "abc"]
    assert found == [0.0, 0.5, float("inf")]
    assert table.difference(tmp_path / "a.npy", tmp_path / "b.npy", tokens=True)["difference"] == 1.0


@pytest.mark.parametrize(
    ("value", "must", "aim", "said"),
    [
        (0.3, 0.7, 0.4, "aim"),
        (0.5, 0.7, 0.4, "must"),
        (0.8, 0.7, 0.4, "MISSED"),
        (1.1, 1.15, None, "must"),
        (None, 0.7, 0.4, ""),
        (0.5, None, None, ""),
    ],
)
def test_verdict(value, must, aim, said):
    assert table.verdict(value, must, aim) == said


def test_random_weights_leave_nothing_out(tmp_path):
    facts = weights.write(tmp_path / "m", size="nano", seconds=1.0)
    from moejax.convert import hf_whisper
    from moejax.nn import functional
    from moejax.text.tokenizer import Tokenizer

    config, params = hf_whisper.load(tmp_path / "m")
    assert config.max_source_positions == 50 and config.vocab_size == 51865
    assert all(np.std(leaf) > 0.01 for leaf in functional.paths(params["backbone"]).values())
    tokenizer = Tokenizer.from_hf_folder(tmp_path / "m")
    assert facts["prefix"] == tokenizer.prefix("en", "transcribe") == [50258, 50259, 50359, 50363]
    assert facts["eot"] == 50257 and facts["suppress"] == [50257, 50258, 50358, 50359, 50360, 50361, 50362]


def test_the_command_line_knows_it(capsys):
    assert guarded(["bench", "melon"]) == 1
    assert (
        capsys.readouterr().err
        == "moejax bench: unknown bench 'melon'; known: mel, encode, train, decode, diarize, transcribe\n"
    )
    assert guarded(["bench", "--help"]) == 0
    assert "--peers" in capsys.readouterr().out
