"""The command line: help that lists what there is, and one line on stderr for everything that a user can get wrong."""

import dataclasses
import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import tiny_job
import yaml
from ml_collections import ConfigDict

from moejax import __main__ as cli
from moejax import __version__
from moejax.job import config as configs
from moejax.job import graph
from moejax.runtime import stopping
from moejax.runtime.files import read_json
from moejax.speech import espeak
from moejax.training import describe

pytestmark = pytest.mark.job

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    """A folder corpus of a few tones; the test stands beside it."""
    monkeypatch.chdir(tmp_path)
    return tiny_job.write_corpus(tmp_path / "corpus", per_speaker=4)


def call(capsys, *argv):
    """(exit code, stdout, stderr) of a command."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(arg) for arg in argv])
    out, err = capsys.readouterr()
    return stop.value.code or 0, out, err


def refused(capsys, *argv) -> str:
    """The one line on stderr of a command that must end with exit code 1."""
    code, _, err = call(capsys, *argv)
    assert code == 1 and err.endswith("\n") and err.count("\n") == 1, (code, err)
    assert "Traceback" not in err and err.startswith(f"moejax {argv[0]}: ")
    return err


def unfinished(workdir) -> None:
    """Nothing is marked done, nothing is half-written."""
    left = [p.name for p in Path(workdir).rglob("*")]
    assert not [name for name in left if name == "done.json" or re.search(r"\.(tmp|partial|new|old)\b", name)]


def test_help_lists_every_stage_and_command(capsys):
    for argv in (["--help"], ["all", "--help"]):
        code, out, err = call(capsys, *argv)
        assert code == 0 and not err
        assert all(f"\n  {name} " in out for name in graph.STAGES) and "--traceback" in out
    out = call(capsys, "help")[1]
    assert all(f"moejax {name}" in out for name in ("all", "plan", "config", "transcribe", "export", "bench"))
    assert "--system NAME" in out and "exit codes: " in out
    assert call(capsys, "--version")[1].strip() == __version__
    assert call(capsys)[0] == 2


def test_config_prints_every_key(capsys):
    code, out, _ = call(capsys, "config", "--config", ROOT / "configs/quickstart.py:fast", "--config.joint.steps=17")
    assert code == 0
    keys = {line.split(":")[0].strip() for line in out.splitlines()}
    assert {"joint", "num_experts", "buckets", "targets", "balance", "max_skipped_share"} <= keys
    assert re.search(r"joint:(\n  .*)*\n  steps: 17\n", out)


@pytest.mark.parametrize("file", ["quickstart.py:fast", "fsdd.py", "whisper_large_v2.py"])
def test_what_config_prints_is_plain_yaml_and_the_same_config(capsys, file):
    code, out, _ = call(capsys, "config", "--config", ROOT / "configs" / file)
    assert code == 0 and "!!" not in out and "&id" not in out
    again = configs.resolve(ConfigDict(yaml.safe_load(out)))
    there = configs.load(str(ROOT / "configs" / file))
    assert json.loads(again.to_json()) == json.loads(there.to_json())  # the user's own have no types


def test_a_key_of_an_open_section_can_be_added(capsys):
    """The user's own keys: those of a config file's mapping can be changed, and new ones set, as any other."""
    added = ("--config.data.columns.text=words", "--config.model.sizes.d_model=64", "--config.data.columns.audio=path")
    code, out, _ = call(capsys, "config", "--config", ROOT / "configs/an4.py", *added)
    assert code == 0 and re.search(r"columns:\n(    .*\n)*    text: words\n", out)
    assert "d_model: 64" in out and "audio: path" in out


def test_plan_prints(capsys):
    code, out, _ = call(capsys, "plan", "--config", ROOT / "configs/quickstart.py", "--devices", "2")
    assert code == 0 and "2 devices, mesh data=2" in out and "GiB" in out
    assert "whole number, got 'two'" in refused(
        capsys, "plan", "--config", ROOT / "configs/quickstart.py", "--devices", "two"
    )


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (
            ["train"],
            r"unknown command 'train' .did you mean align..; known: align, all, ask, bench, .*score, serve, .*report",
        ),
        (["all", "--workdir", "W"], r"--config FILE.py is missing"),
        (["all", "--config"], r"--config wants a value"),
        (["all", "--config", "TINY"], r"--workdir W is missing"),
        (["all", "--config", "configs/none.py", "--workdir", "W"], r"'configs/none.py' does not exist"),
        (["all", "--config", "TINY:huge", "--workdir", "W"], r"get_config\('huge'\) failed"),
        (
            ["joint", "--config", "TINY", "--workdir", "W", "--config.joint.setps=3"],
            r"no key 'joint.setps'; did you mean joint.steps\?.*valid here: .*batch_size",
        ),
        (["joint", "--config", "TINY", "--workdir", "W", "--config.jiont.steps=3"], r"no key 'jiont.*mean joint"),
        (["all", "--config", "TINY", "--workdir", "W", "--config.joint.steps=many"], r"joint.steps.*many"),
        (["all", "--config", "TINY", "--workdir", "W", "--config.joint.steps=1.5"], r"joint.steps.*1.5"),
        (["all", "--config", "TINY", "--workdir", "W", "joint.steps=3"], r"unexpected argument 'joint.steps=3'"),
        (["all", "--config", "TINY", "--workdir", "W", "--steps=3"], r"steps"),
        (["describe", "--config", "TINY", "--workdir", "W", "--config.data.root=nowhere"], r"no folder 'nowhere'"),
        (
            ["describe", "--config", "TINY", "--workdir", "W", "--config.data.source=disk"],
            r"'data.source' is 'disk'; known: builtin",
        ),
        (
            ["describe", "--config", "TINY", "--workdir", "W", "--config.data.split=random"],
            r"'data.split' is 'random'; known: per_speaker",
        ),
        (
            ["describe", "--config", "TINY", "--workdir", "W", "--config.data.columns.text=words"],
            r"no column 'words' \(data.columns.text\); it has file, text",
        ),
        (["transcribe", "a.wav"], r"usage: moejax transcribe"),
        (["transcribe", "a.wav", "--model", "nowhere"], r"a.wav: no such file"),
        (["transcribe", "a.wav", "--model", "nowhere", "--beams", "3"], r"no option '--beams'"),
    ],
    ids=lambda value: " ".join(value)[:60] if isinstance(value, list) else None,
)
def test_what_is_wrong_is_said_in_one_line(capsys, corpus, argv, words):
    config = str(tiny_job.write_config(corpus.parent / "tiny.py"))
    line = refused(capsys, *[arg.replace("TINY", config) for arg in argv])
    assert re.search(words, line), line
    unfinished("W")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"joint__setps": 3}, r"no key 'joint.setps'; did you mean joint.steps\?"),
        ({"joint__steps": "many"}, r"'joint.steps'.*str"),
        ({"mixture__targets": 3}, r"'mixture.targets'.*int"),
        ({"joint": 3}, r"'joint' is a section, got 3"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_in_one_line(capsys, corpus, change, words):
    if "joint" in change:
        config = corpus.parent / "tiny.py"
        text = "from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict({'joint': 3})\n"
        config.write_text(text)
    else:
        config = tiny_job.write_config(corpus.parent / "tiny.py", **change)
    assert re.search(words, refused(capsys, "all", "--config", config, "--workdir", "W"))
    assert not Path("W").exists()


@pytest.mark.parametrize("text", ["def get_config(:\n", "import no_such_module\n", "x = 1\n"])
def test_a_file_that_is_no_config(capsys, tmp_path, text):
    (tmp_path / "broken.py").write_text(text)
    assert "broken.py" in refused(capsys, "all", "--config", tmp_path / "broken.py", "--workdir", tmp_path / "W")


def test_a_table_without_texts(capsys, corpus):
    tiny_job.write_table(corpus, [("wav/ann-000.wav", "ann")], columns=("file", "speaker"))
    config = tiny_job.write_config(corpus.parent / "tiny.py")
    line = refused(capsys, "describe", "--config", config, "--workdir", "W")
    assert "no column for text (data.columns.text); it has file, speaker" in line
    unfinished("W")


def test_a_few_unreadable_recordings_are_skipped_and_counted(capsys, corpus):
    (corpus / "wav" / "ann-000.wav").write_bytes(b"RIFF no sound at all")
    config = tiny_job.write_config(corpus.parent / "tiny.py")
    code, out, _ = call(capsys, "describe", "--config", config, "--workdir", "W")
    assert code == 0 and re.search(r"skipped: \w+ 1\b", out)
    done = read_json(Path("W/describe/done.json"))["summary"]
    assert done["utterances"] == 23 and sum(done["skipped"].values()) == 1
    assert "wav/ann-000" in Path("W/describe/skipped.csv").read_text()


def test_many_unreadable_recordings_stop_the_run(capsys, corpus):
    for i in range(4):
        (corpus / "wav" / f"ann-{i:03d}.wav").write_bytes(b"RIFF no sound at all")
    config = tiny_job.write_config(corpus.parent / "tiny.py")
    line = refused(capsys, "describe", "--config", config, "--workdir", "W")
    assert "4 of 24 utterances (16.7 %)" in line and "data.max_skipped_share=0.05" in line and "wav/ann-000" in line
    unfinished("W")


def test_a_recording_that_vanishes_later_is_named(capsys, corpus):
    """After the corpus was described, a stage that cannot read one of its files says which and is not done."""
    config = tiny_job.write_config(corpus.parent / "tiny.py", base__steps=2)
    assert call(capsys, "describe", "--config", config, "--workdir", "W")[0] == 0
    victim = corpus / "wav" / "bob-001.wav"
    content, times = victim.read_bytes(), victim.stat()
    victim.write_bytes(b"\0" * len(content))
    os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))  # or describe would find out first
    assert "bob-001.wav" in refused(capsys, "base", "--config", config, "--workdir", "W")
    assert not Path("W/base/done.json").exists() and not Path("W/base/model").exists()


def test_transcribe_names_the_file_that_it_cannot_read(capsys, tmp_path_factory, tmp_path):
    job = tiny_job.shared(tmp_path_factory)
    record = tiny_job.records(job / "W" / "evaluate" / "moe.jsonl")[0]
    good = job / "corpus" / f"{record['id']}.wav"
    bad = tmp_path / "noise.wav"
    bad.write_bytes(b"RIFF no sound at all")
    assert call(capsys, "transcribe", good, "--model", job / "W") == (0, record["hypothesis"] + "\n", "")
    code, out, err = call(capsys, "transcribe", bad, good, tmp_path / "none.wav", "--model", job / "W")
    assert code == 1 and out == f"{good}\t{record['hypothesis']}\n"
    assert err.count("\n") == 2 and "noise.wav" in err and "none.wav" in err
    assert "no system 'lora_x'" in refused(capsys, "transcribe", good, "--model", job / "W", "--system", "lora_x")


def test_a_real_process_answers_with_one_line_and_its_code(corpus):
    config = tiny_job.write_config(corpus.parent / "tiny.py")
    argv = [sys.executable, "-m", "moejax", "all", "--config", str(config), "--workdir", "W", "--config.gate.hiden=3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, env=environment)
    assert done.returncode == 1 and not done.stdout
    assert re.fullmatch(r"moejax all: config has no key 'gate.hiden'; did you mean gate.hidden\?.*\n", done.stderr)


def test_a_file_in_place_of_the_workdir(capsys, corpus):
    config = tiny_job.write_config(corpus.parent / "tiny.py")
    Path("W").write_text("notes")
    for workdir in ("W", "W/below"):
        assert "W is a file" in refused(capsys, "describe", "--config", config, "--workdir", workdir)
    assert Path("W").read_text() == "notes"


def test_a_folder_that_is_not_there_leaves_no_workdir(capsys, corpus):
    config = tiny_job.write_config(corpus.parent / "tiny.py")
    refused(capsys, "describe", "--config", config, "--workdir", "W", "--config.data.root=nowhere")
    assert not Path("W").exists()


def test_without_the_synthesiser_nothing_is_begun(capsys, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "espeakng_loader" else find(name))
    argv = ("--config", ROOT / "configs/quickstart.py:fast", f"--config.data.cache_dir={tmp_path / 'cache'}")
    line = refused(capsys, "describe", *argv, "--workdir", tmp_path / "W")
    assert espeak.MISSING.split(";")[0] in line
    assert [p.name for p in (tmp_path / "W").rglob("*")] == ["log.txt"]


@pytest.mark.parametrize(
    "bug", [lambda _: int("x"), lambda _: {}["x"], lambda _: len(3), lambda _: np.zeros(2) + np.zeros(3)]
)
def test_a_bug_keeps_its_traceback_whatever_its_type(capsys, monkeypatch, bug):
    monkeypatch.setattr(graph, "closure", bug)
    config = ROOT / "configs/quickstart.py"
    with pytest.raises((ValueError, KeyError, TypeError)):
        cli.main(["describe", "--config", str(config), "--workdir", "W"])


def test_traceback_shows_where_a_refusal_came_from():
    with pytest.raises(FileNotFoundError, match="nowhere.py"):
        cli.main(["all", "--config", "nowhere.py", "--workdir", "W", "--traceback"])


def test_a_reader_that_goes_away_ends_the_command_quietly():
    argv = [sys.executable, "-m", "moejax", "config", "--config", str(ROOT / "configs/quickstart.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(argv, stdout=write, stderr=subprocess.PIPE, text=True, env=environment)
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it listens to the end
def test_sigterm_outside_training_asks_to_be_run_again(capsys, corpus, monkeypatch):
    """As in training: code 75, which launch/slurm.sh answers by queueing the job again; nothing is marked as begun."""
    config = tiny_job.write_config(corpus.parent / "tiny.py")
    signalled = dataclasses.replace(describe.STAGE, run=lambda cfg, work: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setitem(graph.STAGES, "describe", signalled)
    monkeypatch.setattr(stopping, "asked", threading.Event())  # the tests after this one were not asked to stop
    before = signal.getsignal(signal.SIGTERM)
    patient = "--config.runtime.stop_within=0"  # or the time limit ends the tests
    code, _, _ = call(capsys, "describe", "--config", config, "--workdir", "W", patient)
    assert code == 75 and signal.getsignal(signal.SIGTERM) is before
    unfinished("W")
    assert not Path("W/describe").exists()


def test_the_plan_of_many_layers_is_short(capsys):
    _, out, _ = call(capsys, "plan", "--config", ROOT / "configs/fsdd.py")
    lines = out.split("arrays:\n")[1].split("\n\n")[0].splitlines()
    total = int(re.search(r"joint trains (\d+) arrays", out)[1])
    assert len(lines) < 30 and sum(int(line.split(" x ")[0]) for line in lines) == total
    assert any("self_attn/q" in line and "cross_attn/out" in line for line in lines)


@pytest.mark.parametrize("script", ["local.sh", "slurm.sh", "slurm_describe.sh"])
def test_a_launch_script_without_arguments_says_how_it_is_called(tmp_path, script):
    (tmp_path / "launch").mkdir()
    for file in (ROOT / "launch").iterdir():
        shutil.copy(file, tmp_path / "launch")
    done = subprocess.run(["bash", f"launch/{script}"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and not done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["launch"]


@pytest.mark.parametrize(("left", "shard"), [({}, "2/16"), ({"SHARDS": "20"}, "2/20")], ids=["whole", "again"])
def test_an_array_of_slurm_jobs_listens_to_a_shard_each_and_queues_one_that_was_stopped_again(tmp_path, left, shard):
    (tmp_path / "launch").mkdir()
    shutil.copy(ROOT / "launch" / "slurm_describe.sh", tmp_path / "launch")
    (tmp_path / "launch" / "setup_env.sh").touch()
    for name, line in (
        ("bin/srun", 'exec "$@"'),
        ("bin/scontrol", 'echo "scontrol $*"'),
        (".venv/bin/python", 'echo "python $*"; exit 75'),
    ):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\n{line}\n")
        file.chmod(0o755)
    of_job = {
        "SLURM_ARRAY_TASK_ID": "2",
        "SLURM_ARRAY_TASK_COUNT": "16",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_JOB_ID": "7",
    }
    environment = {**os.environ, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", **of_job, **left}
    line = ["bash", "launch/slurm_describe.sh", "my.py", "W", "--config.data.root=D"]
    done = subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True)
    said = f"python -m moejax describe --shard {shard} --config my.py --workdir W"
    assert done.stdout.splitlines() == [
        f"{said} --config.describe.threads=4 --config.data.root=D",
        "scontrol requeue 7",
    ]
    assert done.returncode == 75


@pytest.mark.parametrize("said", ["2", "0/3", "4/3", "a/b", "1/"])
def test_a_shard_that_is_none_is_refused_in_one_line(capsys, said):
    code, _, error = call(capsys, "describe", "--config", "tiny.py", "--workdir", "W", "--shard", said)
    assert code == 1 and f"wants I/N, the I-th of N parts from 1 to N, got '{said}'" in error
    assert len(error.strip().splitlines()) == 1


def test_slurm_jobs_write_where_a_fresh_clone_has_a_folder():
    output = re.search(r"--output=(\S+)", (ROOT / "launch" / "slurm.sh").read_text())[1]
    assert "/" not in output and f"{output.replace('%j', '*')}" in (ROOT / ".gitignore").read_text().split()
