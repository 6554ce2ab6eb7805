"""Texts that several processes translate; here the processes are threads, and `meet` is a barrier."""

import threading

import pytest

from moejax.systems import shared_texts

TEXTS = [f"text {number % 300}" if number % 7 else "  " for number in range(400)]


class Processes(threading.local):
    """As much of `runtime.processes` as is asked for, for each thread."""

    number, barrier = 0, threading.Barrier(1)

    def index(self):
        return self.number

    def first(self):
        return self.number == 0

    def share(self, items):
        return items[self.number :: self.barrier.parties]

    def meet(self):
        self.barrier.wait(timeout=20)


class Lost(Exception):
    """A process is gone."""


def run(monkeypatch, file, count, lost=None):
    """What `count` processes find, and the blocks that each translated; number `lost` ends at its second block."""
    processes, barrier = Processes(), threading.Barrier(count)
    monkeypatch.setattr(shared_texts, "processes", processes)
    found, blocks = {}, {number: [] for number in range(count)}

    def work(number):
        processes.number, processes.barrier = number, barrier

        def translate(block):
            if number == lost and blocks[number]:
                barrier.abort()
                raise Lost
            blocks[number].append(tuple(block))
            return [f"{text} -> {block[0]}" for text in block]  # what a text becomes depends on its company

        try:
            found[number] = shared_texts.translated(file, translate, TEXTS)
        except (Lost, threading.BrokenBarrierError):
            pass

    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found, blocks


def test_any_number_of_processes_finds_what_one_does_and_translates_each_block_once(monkeypatch, tmp_path):
    one, (whole, *_) = run(monkeypatch, tmp_path / "one", 1)[0][0], run(monkeypatch, tmp_path / "one", 1)[1].values()
    assert [bool(text) for text in one] == [bool(text.strip()) for text in TEXTS] and len(whole) > 3
    for count in (2, 3, 7):
        found, blocks = run(monkeypatch, tmp_path / "W" / "many", count)
        assert list(found.values()) == [one] * count
        assert sorted(block for own in blocks.values() for block in own) == sorted(whole)
        assert not list((tmp_path / "W").iterdir()), "nothing is left"


@pytest.mark.parametrize("later", [1, 2, 5])
def test_who_is_lost_costs_what_it_was_at(monkeypatch, tmp_path, later):
    one, whole = run(monkeypatch, tmp_path / "one", 1)
    found, before = run(monkeypatch, tmp_path / "W" / "many", 3, lost=1)
    assert not found and len(before[1]) == 1
    share = tmp_path / "W" / "many.1.share"
    share.write_bytes(share.read_bytes()[:-5])  # half a line
    found, blocks = run(monkeypatch, tmp_path / "W" / "many", later)
    assert list(found.values()) == [one[0]] * later
    done = sum(map(len, before.values()))
    assert sum(map(len, blocks.values())) == len(whole[0]) - done + 1, "the block whose last line was cut, and the lost"
    assert not list((tmp_path / "W").iterdir())
