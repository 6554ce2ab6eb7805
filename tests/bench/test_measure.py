"""Which calls count, and what is said when too few do."""

import os
import subprocess
import sys
import time

import pytest

from moejax.bench import load, measure
from moejax.bench.measure import Contestant, alternate, settle


class Scripted:
    """A side whose calls take what the script says; remembers the order."""

    pid = 1

    def __init__(self, name, seconds, order):
        self.name, self.seconds, self.order = name, seconds, order

    def ask(self, timeout, do, name, repeat=1):
        self.order.append(self.name)
        return {"seconds": self.seconds}


class Neighbours:
    """A meter whose readings are given."""

    def __init__(self, readings):
        self.readings = iter(readings)

    def begin(self, pid):
        pass

    def others(self):
        return next(self.readings)


def contest(readings, seconds=(1.0, 2.0), **options):
    order = []
    contestants = [Contestant(Scripted(name, s, order), name) for name, s in zip("ab", seconds, strict=True)]
    meter = None if readings is None else Neighbours(readings)
    alternate(contestants, meter=meter, pause=0.0, **options)
    return *contestants, "".join(order)


def test_the_sides_take_turns_and_the_order_turns_round():
    a, b, order = contest([0.0] * 6)
    assert order == "abbaab"
    assert (a.median(), b.median()) == (1.0, 2.0)


def test_disturbed_calls_are_thrown_away_and_made_again():
    a, b, order = contest([0.0, 0.0, 0.9, 0.0, 0.1, 0.149, 0.15, 0.0, 0.0, 0.0])
    assert len(a.clean) == 5 and len(b.clean) == 3
    assert [others for _, others in b.calls if others >= load.LIMIT] == [0.9, 0.15]
    assert len(order) == 10 and len(a.calls) == len(b.calls) == 5


def test_without_enough_clean_calls_there_is_no_median_but_a_reason():
    def forever():
        while True:
            yield 0.7

    a, b, _ = contest(forever(), limit=0.05)
    assert a.median() is None and b.median() is None
    assert a.why_not() == f"0 of {len(a.calls)} calls clean, others used 0.70 cores (median)"


def test_without_a_meter_every_call_counts():
    a, _, order = contest(None, wanted=5)
    assert len(a.clean) == 5 and len(order) == 10
    assert a.calls[0] == (1.0, None)


@pytest.mark.parametrize(("seconds", "repeat"), [(2.0, 1), (0.05, 12), (1e-5, 200)])
def test_short_jobs_are_repeated_until_a_call_can_be_judged(seconds, repeat):
    contestant = Contestant(Scripted("a", seconds, []), "a")
    settle(contestant, 1.0)
    assert contestant.repeat == repeat == max(1, min(200, round(measure.TARGET / seconds)))


def test_a_job_that_makes_a_call_by_itself_is_not_tried_first():
    order = []
    settle(Contestant(Scripted("a", 9.0, order), "a", repeat=1), 1.0)
    assert not order


def write_proc(folder, busy, own):
    (folder / "stat").write_text(f"cpu  {busy} 10 20 900 30 0 5 7 4 0\ncpu0 1 1 1 1\n")
    for pid, ticks in own.items():
        (folder / str(pid)).mkdir(exist_ok=True)
        (folder / str(pid) / "stat").write_text(f"{pid} (a (b) c) S " + "0 " * 10 + f"{ticks} 2 3 4 0 0\n")


def test_books_are_read_as_the_kernel_writes_them(tmp_path):
    write_proc(tmp_path, 100, {7: 50})
    tick = os.sysconf("SC_CLK_TCK")
    assert load.busy_seconds(tmp_path) == (100 + 10 + 20 + 5 + 7) / tick  # not idle, iowait, nor guest time twice
    assert load.process_seconds(7, tmp_path) == (50 + 2 + 3 + 4) / tick
    assert load.available(tmp_path) and not load.available(tmp_path / "nowhere")


def test_others_are_all_but_the_timed_process_and_this_one(tmp_path, monkeypatch):
    clock = iter([0.0, 2.0])
    monkeypatch.setattr(load.time, "perf_counter", lambda: next(clock))
    write_proc(tmp_path, 100, {7: 50, os.getpid(): 10})
    meter = load.Meter(tmp_path)
    meter.begin(7)
    # 1.9 s of processor time in 2 s: 1 s of the timed process, 0.1 s of ours, 0.8 s of others
    tick = os.sysconf("SC_CLK_TCK")
    write_proc(tmp_path, 100 + round(1.9 * tick), {7: 50 + tick, os.getpid(): 10 + tick // 10})
    assert meter.others() == pytest.approx(0.4)


def test_the_time_of_a_real_process_is_in_the_books_of_the_machine():
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        busy, deadline = load.busy_seconds(), time.monotonic() + 60
        while load.process_seconds(child.pid) < 0.3:
            assert time.monotonic() < deadline, "the child got no processor"
            time.sleep(0.05)
        assert load.busy_seconds() - busy > 0.5 * 0.3
    finally:
        child.kill()
        child.wait()
