"""`moejax describe --shard i/n`: processes that know nothing of one another listen to a part each; one is killed."""

import signal

import numpy as np
import pytest
import soundfile
import tiny_job
from job import Commands


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A corpus whose recordings are in part written anew, and its config tiny.py."""
    root = tmp_path_factory.mktemp("shards")
    tiny_job.write_corpus(root / "corpus", per_speaker=10)
    for file in sorted((root / "corpus" / "wav").glob("*.wav"))[::3]:
        wave, rate = soundfile.read(file)
        soundfile.write(file, np.stack([wave, wave], axis=1), rate)
    tiny_job.write_config(root / "tiny.py")
    return root


@pytest.fixture(scope="module")
def three(folder):
    helpers = [Commands(folder) for _ in range(3)]
    yield helpers
    for each in helpers:
        each.close()


def described(work) -> dict:
    """{path: bytes} of what `describe` leaves, but for when and how long."""
    files = [file for file in (work / "describe").rglob("*") if file.is_file()]
    return {str(file.relative_to(work)): file.read_bytes() for file in files if file.stem not in ("done", "started")}


def test_shards_describe_what_one_process_does_and_a_killed_one_is_missed(folder, three):
    argv = ("describe", "--config", "tiny.py", "--workdir")
    assert three[0].run(*argv, "W1")[0] == 0
    whole = described(folder / "W1")
    assert sum(name.endswith(".flac") for name in whole) == 20 and not any("heard" in name for name in whole)
    for number, each in enumerate(three, start=1):
        each.start(*argv, "W3", "--shard", f"{number}/3", fault="describe.heard:9=kill" if number == 2 else "")
    assert [each.end()[0] for each in three] == [0, -signal.SIGKILL, 0]
    heard = folder / "W3" / "describe" / "heard.shard2.jsonl"
    assert len(heard.read_text().splitlines()) == 9, "what it had heard is on disk"

    code, said = three[0].run(*argv, "W3")
    assert code == 1 and "shard 2/3 is not finished, 11 utterances are not heard" in said
    assert len(said.strip().splitlines()) == 1 and heard.exists(), "one line, and what was heard stays"
    code, said = three[0].run(*argv, "W3", "--shard", "2/4")
    assert code == 1 and "was begun in 3 shards" in said

    assert three[0].run(*argv, "W3", "--shard", "2/3")[0] == 0
    assert "9 of 20 utterances heard before" in (folder / "W3" / "log.txt").read_text()
    assert three[0].run(*argv, "W3")[0] == 0
    assert described(folder / "W3") == whole

    assert three[0].run(*argv, "W3", "--shard", "1/3")[0] == 0, "it is finished: nothing is done"
    code, said = three[0].run(*argv, "W3", "--shard", "1/3", "--config.data.min_seconds=0.2")
    assert code == 1 and "data.min_seconds 0.1 -> 0.2" in said and "take another workdir" in said
    assert described(folder / "W3") == whole
