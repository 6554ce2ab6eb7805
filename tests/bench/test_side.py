"""The protocol between the bench and a side, with a real process."""

import sys
from pathlib import Path

import numpy as np
import pytest

from moejax.bench.side import Side, SideError

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def side(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    with Side("artificial_peer") as side:
        yield side


def prepare(side, job, **options):
    return side.ask(60, do="prepare", name=job, job=job, options=options)


def test_a_job_is_built_once_run_on_command_and_its_result_saved(side, tmp_path):
    assert side.ask(60, do="hello") == {"device": "cpu", "versions": {}}
    prepare(side, "counted")
    side.ask(60, do="call", name="counted", repeat=4)
    answer = side.ask(60, do="save", name="counted", path=str(tmp_path / "x.npy"))
    assert answer == {"shape": [3, 2]}
    np.testing.assert_array_equal(np.load(tmp_path / "x.npy"), np.full((3, 2), 5))  # one run to prepare, four called


def test_time_is_the_mean_of_the_runs_or_what_the_job_says(side):
    prepare(side, "sleep", ms=20)
    assert 0.02 <= side.ask(60, do="call", name="sleep", repeat=50)["seconds"] < 0.5  # not the sum, which is 1 s
    assert prepare(side, "clocked") == {"single": True}
    assert side.ask(60, do="call", name="clocked")["seconds"] == 7.5
    assert side.ask(60, do="value", name="clocked") == {"value": {"answer": 42}}


def test_an_error_in_a_job_is_one_line_and_the_process_lives_on(side):
    with pytest.raises(SideError, match="^RuntimeError: no such engine$"):
        prepare(side, "broken")
    with pytest.raises(SideError, match="no job 'nothing'; known: broken, clocked, counted, fatal, sleep, stuck"):
        prepare(side, "nothing")
    prepare(side, "counted")


def test_a_process_that_dies_leaves_its_last_words(side):
    with pytest.raises(SideError, match="ended with code 3: out of memory, says the engine"):
        prepare(side, "fatal")
    with pytest.raises(SideError, match="is gone"):
        side.ask(60, do="hello")


def test_a_process_that_is_stuck_is_ended(side):
    with pytest.raises(SideError, match="gave no answer to prepare in 1 s"):
        side.ask(1.0, do="prepare", name="stuck", job="stuck", options={})
    assert side.process.poll() is not None


def test_a_library_that_is_missing_is_named(tmp_path, monkeypatch):
    (tmp_path / "poor_peer.py").write_text("import an_engine_that_nobody_has\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Side("poor_peer") as side, pytest.raises(SideError, match="No module named 'an_engine_that_nobody_has'"):
        side.ask(60, do="hello")
