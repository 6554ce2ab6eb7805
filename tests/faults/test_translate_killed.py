"""The stage `translate` by several processes: each translates a share, nobody pays twice, and the tables are those of
one; also when one of them is killed.
"""

import csv
import shutil
import signal
import socket

import pytest
import tiny_job
import training
from deepl_server import KEY, Server
from job import Commands

LEFT = ("*.jsonl", "table.*", "summary.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The corpus with a text of its own for each recording, more than one block, and a config without a mixture."""
    root = tmp_path_factory.mktemp("translate")
    tiny_job.write_corpus(root / "corpus")
    with open(root / "corpus" / "metadata.csv", newline="", encoding="utf-8") as file:
        columns, *rows = csv.reader(file)
    rows = [[row[0], f"{row[1]} {number}", *row[2:]] for number, row in enumerate(rows)]
    tiny_job.write_table(root / "corpus", rows, columns)
    tiny_job.write_config(
        root / "tiny.py",
        **{"data__split_fractions": (0.3, 0.1, 0.6), "gate__num_experts": 0, "base__steps": 4},
        **{"adapters__kinds": ("lora",), "adapters__steps": 1, "evaluate__systems": ("base",)},
        **{"translate__backends": ("offline", "deepl"), "translate__systems": ("base",), "translate__steps": 2},
    )
    return root


@pytest.fixture(scope="module")
def three(folder):
    helpers = [Commands(folder) for _ in range(3)]
    yield helpers
    for each in helpers:
        each.close()


def left(work) -> dict:
    """{name: bytes} of what the stage leaves, but for its model."""
    return {file.name: file.read_bytes() for pattern in LEFT for file in (work / "translate").glob(pattern)}


def test_processes_translate_what_one_does_and_one_pays(folder, three, monkeypatch):
    monkeypatch.setenv("DEEPL_AUTH_KEY", KEY)
    server = Server()
    service = {"deepl_server": server.url, "deepl_cache": str(folder / "cache")}
    argv = ["translate", "--config", "tiny.py", "--workdir", "W", "--config.runtime.heartbeat=3"]
    argv += [f"--config.translate.{key}={value}" for key, value in service.items()]

    def run(count, faults=("", "", "")):
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        for i, each in enumerate(three[:count]):
            joined = training.address(i, count, port) if count > 1 else {}
            each.start(*argv, fault=faults[i], environment={"DEEPL_AUTH_KEY": KEY, **joined})
        return [each.end() for each in three[:count]]

    def undone():
        for pattern in (*LEFT, "done.json"):
            for file in (folder / "W" / "translate").glob(pattern):
                file.unlink()

    try:
        ((code, said),) = run(1)
        assert code == 0, said
        whole, paid = left(folder / "W"), server.used
        assert {"transcript.offline.jsonl", "transcript.deepl.jsonl", "summary.json"} <= set(whole)
        assert len(tiny_job.records(folder / "W" / "translate" / "transcript.offline.jsonl")) > 64, "two blocks"
        undone()
        shutil.rmtree(folder / "cache")
        codes = [code for code, _ in run(2, faults=("", "translate.block=kill", ""))]
        assert codes[1] == -signal.SIGKILL and codes[0]
        assert [file.name for file in (folder / "W" / "translate").glob("*.share")], "what nobody has put together yet"
        for count in (3, 2):
            assert [code for code, _ in run(count)] == [0] * count
            assert left(folder / "W") == whole
            assert not list((folder / "W" / "translate").glob("*.share"))
            undone()
        assert server.used == 2 * paid, "once before the cache was removed, and once for all processes after that"
        assert set(server.carried.values()) == {2}
    finally:
        server.close()
