"""Whole commands: what the table makes of them, what is refused, and a run of ours on a tiny model without peers."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import soundfile
import tiny_model

from moejax.__main__ import guarded
from moejax.bench import command, engines, run, serving, transcribe, whole_table, workloads
from moejax.bench.command import CommandError, Run
from moejax.commands import tree
from moejax.commands.bench import OPTIONS, settings


def parse(argv):
    return settings(*tree.parsed(["bench", *argv]))


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["transcribe"], "wants recordings: either --data FOLDER or --files"),
        (["transcribe", "--data", "a", "--files", "b.wav"], "either --data FOLDER or --files"),
        (["transcribe", "mel", "--data", "a"], "transcribe is a table of its own"),
        (["transcribe", "--data", "a", "--size", "tiny"], "bench transcribe has no --size"),
        (["mel", "--hour"], r"bench \(mel, encode, train, decode, diarize\) has no --hour"),
        (
            ["transcribe", "--data", "a", "--workloads", "talk,walk"],
            "unknown workload 'walk'; known: short, clips, talk",
        ),
        (["transcribe", "--data", "a", "--calls", "0"], "--calls must be positive, got 0"),
    ],
)
def test_a_wrong_command_is_refused_in_one_line(argv, message):
    with pytest.raises(ValueError, match=message) as refused:
        parse(argv)
    assert "\n" not in str(refused.value)


def test_every_option_reaches_one_of_the_tables():
    fields = {name for one in (transcribe, serving, run) for name in one.Settings.__dataclass_fields__}
    assert set(OPTIONS) == fields
    asked = parse(["transcribe", "--data", "x", "--hour", "--calls", "1", "--model", "base"])
    assert asked.names == ("short", "clips", "talk", "hour") and (asked.calls, asked.model) == (1, "base")


def test_a_process_is_timed_with_its_children():
    burn = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {burn!r}])"
    run = command.timed([sys.executable, "-c", outer], limit=60, meter=False)
    assert 0.3 <= run.processor < 5 and run.seconds >= 0.3 and run.others is None and run.clean
    with pytest.raises(CommandError, match="ended with code 3: what it said last"):
        command.timed([sys.executable, "-c", "print('what it said last'); raise SystemExit(3)"], limit=60)
    with pytest.raises(CommandError, match="after 0 s"):
        command.timed([sys.executable, "-c", "import time; time.sleep(60)"], limit=0.2)


def test_a_disturbed_row_shows_its_quickest_run_and_says_so(tmp_path):
    row = transcribe.Row(None, engines.ENGINES[0], tmp_path)
    assert row.best(2) == (None, "")
    row.runs = [Run(3.0, 1.0, 0.5), Run(2.0, 1.1, 0.9), Run(9.0, 1.2, 0.0)]
    assert row.best(2) == (Run(2.0, 1.1, 0.9), "best of 3, others used 0.5 cores")
    row.runs.append(Run(5.0, 1.3, 0.1))
    found, note = row.best(2)
    assert (found.seconds, note) == (7.0, "")


def recorded(folder, lengths):
    for place, seconds in enumerate(lengths):
        tiny_model.record(folder / f"{place}.wav", seconds, place)
        (folder / f"{place}.txt").write_text(f"the cat {place}")
    return [str(folder / f"{place}.wav") for place in range(len(lengths))]


def test_workloads_of_files_with_texts_beside_them(tmp_path, monkeypatch):
    monkeypatch.setattr(workloads, "HOUR", 60.0)
    found = workloads.found(None, tuple(recorded(tmp_path, (3, 10, 32))))
    short, clips, talk, hour = workloads.made(found, workloads.NAMES, tmp_path / "out")
    assert [one.text for one in short.recordings] == ["the cat 1"]
    assert [one.text for one in clips.recordings] == ["the cat 0", "the cat 1"]  # 32 s is no clip
    assert [one.text for one in talk.recordings] == ["the cat 0 the cat 1 the cat 2"]
    assert talk.seconds == pytest.approx(45 + 3 * workloads.GAP, abs=0.01)
    assert (
        hour.recordings[0].text == " ".join(2 * [talk.recordings[0].text]) and 60 <= hour.seconds < 92
    )  # again from the first
    audio, rate = soundfile.read(talk.recordings[0].path)
    assert rate == 16000 and not np.abs(audio[3 * rate + 100 : 3 * rate + 4000]).any()


def test_a_long_recording_is_the_talk_as_it_is(tmp_path):
    found = workloads.found(None, tuple(recorded(tmp_path, (3, 250))))
    (talk,) = workloads.made(found, ("talk",), tmp_path / "out")
    assert talk.recordings[0].text == "the cat 1" and talk.seconds == 250


def test_a_folder_with_a_table_and_one_without(tmp_path):
    recorded(tmp_path, (1, 1))
    assert [one.text for one in workloads.found(str(tmp_path), ())] == ["the cat 0", "the cat 1"]
    (tmp_path / "metadata.csv").write_text("file,text\n1.wav,a dog\n")
    assert [one.text for one in workloads.found(str(tmp_path), ())] == ["a dog"]
    (tmp_path / "metadata.csv").write_text("path,words\n1.wav,a dog\n")
    with pytest.raises(ValueError, match="the columns file,text"):
        workloads.found(str(tmp_path), ())
    for missing in ((str(tmp_path / "none"), ()), (None, (str(tmp_path / "none.wav"),))):
        with pytest.raises(FileNotFoundError, match="none"):
            workloads.found(*missing)


def measured(workload, engine, pipeline, seconds, wer):
    names = ("workload", "engine", "pipeline", "seconds", "wer")
    row = dict(zip(names, (workload, engine, pipeline, seconds, wer), strict=True))
    return row | {"processor": seconds, "note": "", "first": None, "runs": [], "texts": [], "why": ""}


def test_verdicts_want_speed_at_the_same_accuracy():
    rows = [
        measured("talk", "moejax", "sequential float32", 9.0, 0.050),
        measured("talk", "moejax", "chunked float32", 5.0, 0.056),
        measured("talk", "faster-whisper", "sequential int8", 10.0, 0.050),
        measured("talk", "faster-whisper", "batched int8", 8.0, 0.050),
        measured("talk", "openai-whisper", "sequential float32", None, None),
        measured("short", "moejax", "sequential float32", 2.0, 0.0),
    ]
    rows[4]["why"] = "openai-whisper is not installed"
    calls = [{"workload": "short", "why": "", "ratio": 1.2}]
    talk, alike, short, first = whole_table.verdicts(rows, calls)
    # The quicker chunked one makes 0.6 points more errors, so it does not count
    assert (talk["value"], talk["met"]) == (9.0 / 8.0, "MISSED") and (short["met"], first["met"]) == ("must", "must")
    assert (alike["value"], alike["why"]) == (5.0 / 8.0, "chunked float32 / batched int8")
    rows[1]["wer"] = 0.055
    assert whole_table.verdicts(rows, calls)[0]["value"] == 5.0 / 8.0
    rows[3]["wer"] = 0.070  # the peer's quickest makes more errors than any of ours: beside the next one
    talk, alike, *_ = whole_table.verdicts(rows, calls)
    assert (talk["value"], alike["value"], alike["why"]) == (5.0 / 8.0, 0.5, "chunked float32 / sequential int8")
    lone = whole_table.verdicts(rows[:2], [])
    assert lone[0]["value"] is None and lone[0]["why"] == "no peer was measured"


def test_a_peer_that_is_not_installed_is_a_row_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert engines.ENGINES[0].missing() == ""
    assert {engine.missing() for engine in engines.ENGINES[4:]} == {
        'faster-whisper is not installed (pip install "moejax[peers]")',
        'openai-whisper is not installed (pip install "moejax[peers]")',
    }


def test_peers_get_the_same_weights_in_their_own_format(tmp_path):
    hf_folder = tiny_model.write(tmp_path / "hf", timed=True)
    models = engines.Models("hf", hf_folder, "en", tmp_path)
    with pytest.raises(ValueError, match="vocabulary other than the published ones"):
        models.openai_whisper()
    (tmp_path / "model.pt").write_bytes(b"")
    assert engines.Models("m", tmp_path / "model.pt", "en", tmp_path).openai_whisper() == tmp_path / "model.pt"


def test_a_run_of_ours_on_a_tiny_model(tmp_path, capsys, monkeypatch):
    """Two of our pipelines, each started twice, on one recording; the report keeps every run and text."""
    monkeypatch.setattr(transcribe.load, "available", lambda: False)  # the tests' machine is not quiet
    monkeypatch.setattr(transcribe, "ENGINES", (engines.ENGINES[0], engines.ENGINES[2]))
    monkeypatch.setattr(transcribe, "WAIT", 0.0)
    model = tiny_model.write(tmp_path / "m", timed=True)
    files, file = recorded(tmp_path, (2,)), tmp_path / "bench.json"
    argv = ["bench", "transcribe", "--model", str(model), "--files", *files, "--workloads", "short", "--calls", "1"]
    assert guarded([*argv, "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert [row["pipeline"] for row in report["rows"]] == ["sequential float32", "chunked float32"]
    for row in report["rows"]:
        assert row["why"] == "" and len(row["runs"]) == 1 and row["first"]["seconds"] > 0
        assert row["seconds"] == row["runs"][0]["seconds"] and row["wer"] is not None and len(row["texts"]) == 1
    (call,) = report["calls"]
    assert call["why"] == "" and len(call["calls"]) == 4 and call["ratio"] > 0
    out = capsys.readouterr().out
    assert "moejax, first start" in out and "short: a later start" in out and "first call / later calls" in out
