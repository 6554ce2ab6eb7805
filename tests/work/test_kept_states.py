"""Encoder states by what was heard: whole or absent, whoever writes them."""

import pickle

import numpy as np
import pytest

from moejax.runtime import processes
from moejax.work.heard import Heard

KEYS = [bytes([i]) * 16 for i in range(5)]


def states(number, frames):
    return np.random.default_rng(number).standard_normal((frames, 3)).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    return Heard(tmp_path / "states" / "a", 3, "float32", 1000)


def test_what_was_kept_comes_back_in_another_process_too(store):
    store.add((key, states(i, i + 1)) for i, key in enumerate(KEYS[:3]))
    other = Heard(store.path, 3, "float32", 1000)
    sent = pickle.loads(pickle.dumps(other))
    for one in (store, other, sent):
        assert KEYS[2] in one and KEYS[3] not in one
        np.testing.assert_array_equal(one(KEYS[2]), states(2, 3))


def test_two_runs_in_one_workdir_see_what_the_other_has_heard(store):
    other = Heard(store.path, 3, "float32", 1000)
    other.add([(KEYS[0], states(0, 2))])
    store.add([(KEYS[0], states(9, 2)), (KEYS[1], states(1, 2))])
    np.testing.assert_array_equal(store(KEYS[0]), states(0, 2))  # the first stays
    assert KEYS[1] not in other
    other.refresh()
    np.testing.assert_array_equal(other(KEYS[1]), states(1, 2))
    assert store.path.with_name("a.bin").stat().st_size == 4 * 12


def test_what_a_killed_run_left_half_is_not_there_and_what_comes_after_is_whole(store):
    store.add([(KEYS[0], states(0, 2)), (KEYS[1], states(1, 2))])
    for ending in ("bin", "idx"):
        with open(store.path.with_name(f"a.{ending}"), "ab") as file:
            file.write(b"half")
    again = Heard(store.path, 3, "float32", 1000)
    again.add([(KEYS[2], states(2, 2))])
    for one in (again, Heard(store.path, 3, "float32", 1000)):
        for number in range(3):
            np.testing.assert_array_equal(one(KEYS[number]), states(number, 2))


def test_an_entry_whose_states_were_cut_off_is_none(store):
    store.add([(KEYS[0], states(0, 2)), (KEYS[1], states(1, 2))])
    with open(store.path.with_name("a.bin"), "r+b") as file:
        file.truncate(3 * 12)
    again = Heard(store.path, 3, "float32", 1000)
    assert KEYS[0] in again and KEYS[1] not in again
    again.add([(KEYS[1], states(1, 2))])
    np.testing.assert_array_equal(Heard(store.path, 3, "float32", 1000)(KEYS[1]), states(1, 2))


def test_nothing_over_the_limit(store):
    small = Heard(store.path, 3, "float32", 5 * 12)
    small.add([(KEYS[0], states(0, 4)), (KEYS[1], states(1, 2)), (KEYS[2], states(2, 1))])
    assert KEYS[0] in small and KEYS[1] not in small and KEYS[2] in small and not small.room(1)


def test_each_of_several_processes_writes_its_own_files_and_all_read_them(store, monkeypatch):
    store.add([(KEYS[0], states(0, 2))])
    monkeypatch.setattr(processes, "index", lambda: 1)
    second = Heard(store.path, 3, "float32", 1000)
    assert KEYS[0] in second
    second.add([(KEYS[1], states(1, 3))])
    assert sorted(file.name for file in store.path.parent.iterdir()) == ["a.1.bin", "a.1.idx", "a.bin", "a.idx"]
    assert KEYS[1] not in store
    store.refresh()
    for one in (store, second, pickle.loads(pickle.dumps(store))):
        for number, frames in ((0, 2), (1, 3)):
            np.testing.assert_array_equal(one(KEYS[number]), states(number, frames))
