"""Several processes run a whole job; what they pool and decode is what one does, also when one of them is killed."""

import shutil
import signal
import socket

import numpy as np
import pytest
import soundfile
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
def three(folder):
    helpers = [Commands(folder) for _ in range(3)]
    yield helpers
    for each in helpers:
        each.close()


def run(three, *argv, count=2, faults=("", "", "")) -> list[tuple[int, str]]:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    for i, each in enumerate(three[:count]):
        each.start(*argv, fault=faults[i], environment=training.address(i, count, port) if count > 1 else {})
    return [each.end() for each in three[:count]]


def hypotheses(work, files="*.jsonl") -> dict:
    """{(system, id): (hypothesis, route)}"""
    return {
        (path.name.split(".")[0], record["id"]): (record["hypothesis"], record["route"])
        for path in work.glob(f"evaluate/{files}")
        for record in tiny_job.records(path)
    }


def test_two_processes_decode_what_one_decodes(folder, three):
    argv = ("evaluate", "--config", "tiny.py", "--workdir", "W")
    found = []
    for count in (1, 2):
        shutil.rmtree(folder / "W" / "evaluate")
        assert [code for code, _ in run(three, *argv, count=count)] == [0] * count
        found.append(hypotheses(folder / "W"))
    assert found[0] == found[1] and len(found[0]) > 100


def test_one_of_three_is_killed_in_evaluate_and_the_table_is_that_of_one(folder, three):
    argv = ("evaluate", "--config", "tiny.py", "--workdir", "W", "--config.runtime.heartbeat=3")
    whole = hypotheses(folder / "W")  # of two processes, and of one: the test above
    shutil.rmtree(folder / "W" / "evaluate")
    codes = [code for code, _ in run(three, *argv, count=3, faults=("", "", "evaluate.batch:3=kill"))]
    assert codes[2] == -signal.SIGKILL and all(codes), "who is left ends, too, and does not wait for ever"
    kept = hypotheses(folder / "W") | hypotheses(folder / "W", "*.share")
    assert 0 < len(kept) < len(whole) and all(whole[key] == found for key, found in kept.items())
    assert hypotheses(folder / "W", "*.share"), "what nobody has put together yet"
    ((code, said),) = run(three, *argv, count=1)
    assert code == 0, said
    assert hypotheses(folder / "W") == whole and not list(folder.glob("W/evaluate/*.share"))
    said = (folder / "W" / "log.txt").read_text().rpartition("[evaluate] decode")[2]
    assert f"{len({key for key in kept if key[0] == 'base'})} of" in said and "decoded before" in said, said


def described(work) -> dict:
    """{path: bytes} of what `describe` leaves, but for when and how long."""
    files = [file for file in (work / "describe").rglob("*") if file.is_file()]
    return {str(file.relative_to(work)): file.read_bytes() for file in files if file.stem not in ("done", "started")}


def test_two_processes_describe_what_one_does_also_after_one_was_killed(folder, three):
    shutil.copytree(folder / "corpus", folder / "loud")
    for file in sorted((folder / "loud" / "wav").glob("*.wav"))[::3]:  # which are written anew
        wave, rate = soundfile.read(file)
        soundfile.write(file, np.stack([wave, wave], axis=1), rate)
    tiny_job.write_config(folder / "loud.py", data__root="loud")
    found = []
    for work, count in (("D1", 1), ("D2", 2)):
        argv = ("describe", "--config", "loud.py", "--workdir", work, "--config.runtime.heartbeat=3")
        if count == 2:
            codes = [code for code, _ in run(three, *argv, faults=("", "describe.heard:9=kill"))]
            assert codes[1] == -signal.SIGKILL and codes[0]
            assert list(folder.glob("D2/describe/heard.0.jsonl")) and not (folder / "D2/describe/done.json").exists()
        assert [code for code, _ in run(three, *argv, count=count)] == [0] * count
        found.append(described(folder / work))
    assert found[0] == found[1] and sum(name.endswith(".flac") for name in found[0]) > 10
    assert not any("heard" in name for name in found[0])


def test_two_processes_pool_and_pull_what_one_does(folder, three):
    tiny_job.write_config(folder / "pulled.py", embed__signals=("gradient",))
    found = []
    for count in (1, 2):
        work = shutil.copytree(folder / "W", folder / f"P{count}")
        shutil.rmtree(work / "embed")
        argv = ("embed", "--config", "pulled.py", "--workdir", work.name)
        assert [code for code, _ in run(three, *argv, count=count)] == [0] * count
        arrays = [np.load(work / "embed" / name) for name in ("embeddings.npz", "gradients.npz")]
        found.append({name: one[name] for one in arrays for name in one.files})
        assert not list(work.glob("embed/share*"))
    assert {"embedding", "gradient"} <= set(found[0])
    for name, one in found[0].items():
        np.testing.assert_array_equal(one, found[1][name])


def test_two_processes_run_all_stages(folder, three):
    fewer = {"adapters__kinds": ("lora",), "evaluate__systems": ("base", "lora", "moe"), "translate__steps": 0}
    fewer |= {
        "translate__backends": ("offline", "offline_tuned"),
        "translate__tuned_utterances": 16,
        "translate__tuned_steps": 1,
    }
    tiny_job.write_config(folder / "fewer.py", **fewer, report__draws=10)  # compilations are what it takes
    said = run(three, "all", "--config", "fewer.py", "--workdir", "W2")
    assert [code for code, _ in said] == [0, 0], said
    for stage in ("base", "gate", "experts", "joint"):
        one, two = (metrics.read(folder / name / stage / metrics.FILE) for name in ("W", "W2"))
        assert [r["step"] for r in one] == [r["step"] for r in two]
        np.testing.assert_allclose(one[0]["loss"], two[0]["loss"], rtol=1e-4)
    assert (folder / "W2" / "report" / "table.csv").exists()
    assert len(tiny_job.records(folder / "W2" / "translate" / "tuned" / "heard.jsonl")) == 16  # by the first alone
    assert (folder / "W2" / "translate" / "moe.offline_tuned.jsonl").exists()
    assert {name for name, _ in hypotheses(folder / "W2")} == {"base", "lora", "moe"}
