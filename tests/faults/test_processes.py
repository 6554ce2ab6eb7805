"""Two processes run a whole job, and what they decode is what one decodes."""

import shutil
import socket

import numpy as np
import pytest
import tiny_job
import training
from job import Commands

from moejax.train import metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The finished tiny job, to be gone on with from its config file."""
    job = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path_factory.mktemp("processes"))
    tiny_job.write_config(job / "tiny.py")
    return job


@pytest.fixture(scope="module")
def both(folder):
    helpers = [Commands(folder), Commands(folder)]
    yield helpers
    for each in helpers:
        each.close()


def run(both, *argv, count=2) -> list[tuple[int, str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for i, each in enumerate(both[:count]):
        each.start(*argv, environment=training.address(i, count, port) if count > 1 else {})
    return [each.end() for each in both[:count]]


def hypotheses(work) -> dict:
    """{(system, id): (hypothesis, route)}"""
    return {
        (path.stem, record["id"]): (record["hypothesis"], record["route"])
        for path in work.glob("evaluate/*.jsonl")
        for record in tiny_job.records(path)
    }


def test_two_processes_decode_what_one_decodes(folder, both):
    argv = ("evaluate", "--config", "tiny.py", "--workdir", "W")
    found = []
    for count in (1, 2):
        shutil.rmtree(folder / "W" / "evaluate")
        assert [code for code, _ in run(both, *argv, count=count)] == [0] * count
        found.append(hypotheses(folder / "W"))
    assert found[0] == found[1] and len(found[0]) > 100


def test_two_processes_run_all_stages(folder, both):
    fewer = {"adapters__kinds": ("lora",), "evaluate__systems": ("base", "lora", "moe"), "translate__steps": 0}
    fewer |= {
        "translate__backends": ("offline", "offline_tuned"),
        "translate__tuned_utterances": 16,
        "translate__tuned_steps": 1,
    }
    tiny_job.write_config(folder / "fewer.py", **fewer, report__draws=10)  # compilations are what it takes
    said = run(both, "all", "--config", "fewer.py", "--workdir", "W2")
    assert [code for code, _ in said] == [0, 0], said
    for stage in ("base", "gate", "experts", "joint"):
        one, two = (metrics.read(folder / name / stage / metrics.FILE) for name in ("W", "W2"))
        assert [r["step"] for r in one] == [r["step"] for r in two]
        np.testing.assert_allclose(one[0]["loss"], two[0]["loss"], rtol=1e-4)
    assert (folder / "W2" / "report" / "table.csv").exists()
    assert len(tiny_job.records(folder / "W2" / "translate" / "tuned" / "heard.jsonl")) == 16  # by the first alone
    assert (folder / "W2" / "translate" / "moe.offline_tuned.jsonl").exists()
    assert {name for name, _ in hypotheses(folder / "W2")} == {"base", "lora", "moe"}
