"""Killed at many moments and started again by the same command, a job ends with the same bits as one left alone."""

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import tiny_job
from job import Commands

from moejax.work.folder import Work

STEPS = 40
CHANGES = {
    f"{stage}__{key}": value
    for stage in ("experts", "joint")
    for key, value in {"steps": STEPS, "checkpoint_every": 3, "batch_size": 8}.items()
}
# Kill when this many steps of a stage are on record; the delays behind them are drawn.
MOMENTS = [("experts", 1), ("experts", 9), ("experts", 22), ("joint", 1), ("joint", 10), ("joint", 21)]


@pytest.fixture(scope="module")
def commands(prepared):
    helper = Commands(prepared)
    yield helper
    helper.close()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A job whose gate is done, its config file asking for more steps than the finished one has."""
    job = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path_factory.mktemp("kill"))
    for stage in ("experts", "joint", "adapters", "evaluate", "translate", "report"):
        shutil.rmtree(job / "W" / stage)
    tiny_job.write_config(job / "tiny.py", **CHANGES)
    return job


@pytest.fixture(scope="module")
def undisturbed(prepared, commands):
    """The job left alone."""
    commands.start("joint", "--config", "tiny.py", "--workdir", "W")
    code, said = commands.end()
    assert code == 0, said
    work = Work(prepared / "W", quiet=True)
    assert work.path("log.txt").read_text().count("finished before, skipped") == 5, "all before the experts is done"
    return work


def again(job: Work, to: Path, without) -> Work:
    """A copy of a finished workdir that has these stages before it."""
    folder = Path(shutil.copytree(job.root, to / "W"))
    for stage in without:
        shutil.rmtree(folder / stage)
    return Work(folder, quiet=True)


def recorded(work, stage) -> int:
    """How many steps the stage has on record."""
    file = work.path(stage, "metrics.jsonl")
    return file.read_bytes().count(b"\n") if file.exists() else 0


def interrupt(commands, argv, work, stage, steps, number, delay=0.0):
    """Starts the command and sends it the signal `delay` seconds after `steps` steps are on record."""
    process = commands.start(*argv)
    waited = time.monotonic() + 60
    while recorded(work, stage) < steps:
        assert time.monotonic() < waited, f"{stage} did not reach step {steps}"
        time.sleep(0.001)
    time.sleep(delay)
    os.kill(process, number)
    return commands.end()


def same(one, other, stage):
    """Bit for bit the same parameters, and each step once on record, with the same loss."""
    assert one.path(stage, "params.safetensors").read_bytes() == other.path(stage, "params.safetensors").read_bytes()
    left, right = (tiny_job.records(work.path(stage, "metrics.jsonl")) for work in (one, other))
    assert [r["step"] for r in left] == list(range(1, STEPS + 1))
    assert [(r["step"], r["loss"]) for r in left] == [(r["step"], r["loss"]) for r in right]


def test_killed_six_times_and_resumed(undisturbed, commands, tmp_path):
    work = again(undisturbed, tmp_path, without=("experts", "joint"))
    argv = ("joint", "--config", "tiny.py", "--workdir", work.root)
    drawn = random.Random(4)
    for stage, steps in MOMENTS:
        code, said = interrupt(commands, argv, work, stage, steps, signal.SIGKILL, drawn.uniform(0, 0.03))
        assert code == -signal.SIGKILL, f"{stage} was to be killed after step {steps}: {said}"
        assert not work.path(stage, "done.json").exists()
    commands.start(*argv)
    assert commands.end()[0] == 0
    for stage in ("experts", "joint"):
        same(work, undisturbed, stage)
    log = work.path("log.txt").read_text()
    assert log.count("(resuming)") >= 4, "killed stages must go on, not begin again"


def test_sigterm_saves_and_asks_to_be_run_again(undisturbed, commands, tmp_path):
    work = again(undisturbed, tmp_path, without=("joint",))
    argv = ("joint", "--config", "tiny.py", "--workdir", work.root)
    code, said = interrupt(commands, argv, work, "joint", 7, signal.SIGTERM)
    assert code == 75 and "Traceback" not in said
    assert said.splitlines()[-1].startswith("moejax joint: joint: stopped on request; step ")
    stopped = int(said.split("; step ")[-1].split()[0])
    assert 7 <= stopped < STEPS and work.path("joint", "checkpoints", str(stopped)).is_dir()
    assert recorded(work, "joint") == stopped
    commands.start(*argv)
    assert commands.end()[0] == 0
    same(work, undisturbed, "joint")
