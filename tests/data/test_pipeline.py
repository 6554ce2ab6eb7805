import json
import pickle
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from moejax.data import pipeline

BUCKETS = (100, 200, 400)
LENGTHS = np.random.default_rng(0).integers(1, 401, size=53)


def plan(**options):
    return pipeline.BatchPlan(**{"lengths": LENGTHS, "buckets": BUCKETS, "batch_size": 8, "seed": 1, **options})


class Fetch:
    """Pickles, as a fetch for worker processes must."""

    def __call__(self, bucket_samples, index_B):
        real_B = index_B != pipeline.FILLER
        audio_BS = np.zeros((len(index_B), bucket_samples), np.float32)
        audio_BS[:, 0] = np.where(real_B, index_B, -1)
        return {"audio_BS": audio_BS, "index_B": index_B, "real_B": real_B}


def take(stream, count):
    return [next(stream) for _ in range(count)]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x[name], y[name]) for x, y in zip(a, b, strict=True) for name in x)


@pytest.mark.parametrize("options", [{}, {"batch_size": 0, "samples": 900}, {"batch_size": 5, "multiple": 4}], ids=str)
def test_every_utterance_once_per_epoch_in_the_bucket_of_its_own_length(options):
    order = plan(**options)
    for epoch in (0, 3):
        seen = Counter()
        for i in range(order.batches_per_epoch):
            samples, index_B = order[epoch * order.batches_per_epoch + i]
            assert len(index_B) == order.rows(samples) and len(index_B) % options.get("multiple", 1) == 0
            real = index_B[index_B != pipeline.FILLER]
            assert real.size
            for n in real:
                assert samples == min(b for b in BUCKETS if b >= LENGTHS[n])
            seen.update(real.tolist())
        assert seen == Counter(range(len(LENGTHS)))


def test_sample_budget_gives_short_buckets_more_rows():
    order = plan(batch_size=0, samples=800)
    assert [order.rows(b) for b in BUCKETS] == [8, 4, 2]


def test_plan_is_a_function_of_the_batch_number_and_differs_by_epoch_and_seed():
    def epoch(order, e):
        n = order.batches_per_epoch
        return [order[e * n + i][1].tolist() for i in range(n)]

    assert epoch(plan(), 5) == epoch(pickle.loads(pickle.dumps(plan())), 5)
    assert plan()[3][1].tolist() == epoch(plan(), 0)[3]
    assert epoch(plan(), 0) != epoch(plan(), 1) != epoch(plan(seed=2), 1)


def test_an_epoch_is_the_one_that_it_always_was():
    """Permutations of what NumPy draws by [seed, epoch]: within the buckets, then of the batches."""
    order, random = plan(), np.random.default_rng([1, 2])
    batches = []
    for low, high in zip((0, *BUCKETS), BUCKETS, strict=False):
        members = random.permutation(np.flatnonzero((LENGTHS > low) & (LENGTHS <= high)))
        filled = np.full(-(-len(members) // 8) * 8, pipeline.FILLER)
        filled[: len(members)] = members
        batches += [(high, row.tolist()) for row in filled.reshape(-1, 8)]
    expected = [batches[i] for i in random.permutation(len(batches))]
    first = 2 * order.batches_per_epoch
    found = [order[first + i] for i in range(order.batches_per_epoch)]
    assert [(samples, index_B.tolist()) for samples, index_B in found] == expected
    assert all(index_B.dtype == np.int64 for _, index_B in found)


def test_a_plan_holds_nine_bytes_a_row_beside_its_lengths():
    rows = 200_000
    lengths = np.random.default_rng(0).integers(1, 401, size=rows).astype(np.int32)
    tracemalloc.start()
    try:
        order = plan(lengths=lengths)
        assert order[7][0] in BUCKETS  # an epoch's order is there
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert held < 9 * rows, held / rows


def test_too_long_or_empty_utterance_is_named():
    with pytest.raises(ValueError, match="utterance b has 401 samples; buckets hold 1 to 400"):
        plan(lengths=[5, 401], names=["a", "b"])
    with pytest.raises(ValueError, match="utterance 1 has 0 samples"):
        plan(lengths=[5, 0])
    with pytest.raises(ValueError, match="ascending"):
        plan(buckets=(200, 100))
    with pytest.raises(ValueError, match="one of them"):
        plan(samples=100)


@pytest.mark.parametrize(("before", "after"), [(0, 0), (1, 0), (0, 2)])
def test_loader_resumes_exactly_whatever_the_workers(before, after):
    straight = pipeline.loader(plan(), Fetch())
    want = take(straight, 20)
    straight.close()
    first = pipeline.loader(plan(), Fetch(), workers=before)
    head = take(first, 7)
    kept = first.get_state()
    first.close()
    second = pipeline.loader(plan(), Fetch(), workers=after)
    second.set_state(kept)
    tail = take(second, 13)
    second.close()
    assert kept == {"batch": 7} and same(head + tail, want)


def test_set_state_rewinds_a_running_loader_and_refuses_another_ones_state():
    stream = pipeline.loader(plan(), Fetch(), start=2)
    want = take(stream, 3)
    stream.set_state({"batch": 2})
    assert same(take(stream, 3), want)
    with pytest.raises(ValueError, match="next_index"):
        stream.set_state({"next_index": 3})
    stream.close()


def test_processes_read_disjoint_rows_of_the_same_batches():
    streams = [pipeline.loader(plan(), Fetch(), shard=(i, 2)) for i in (0, 1)]
    for n in range(5):
        rows = np.concatenate([next(stream)["index_B"] for stream in streams])
        assert rows.tolist() == plan()[n][1].tolist()
    for stream in streams:
        stream.close()


def test_evaluation_goes_once_in_order_and_ends():
    batches = pipeline.eval_batches(LENGTHS, BUCKETS, 6, multiple=4)
    seen = [b["index_B"][b["real_B"]] for b in pipeline.loader(batches, Fetch())]
    flat = np.concatenate(seen)
    assert sorted(flat) == list(range(len(LENGTHS)))
    assert [b for b, _ in batches] == sorted(b for b, _ in batches)
    assert all(np.all(np.diff(part) > 0) for part in seen)
    assert {len(index_B) for _, index_B in batches} == {8}


def test_error_of_fetch_reaches_the_caller():
    def broken(bucket_samples, index_B):
        raise OSError("no such file: x.wav")

    stream = pipeline.loader(plan(), broken)
    with pytest.raises(OSError, match=r"x\.wav"):
        next(stream)
    stream.close()


ORPHAN = """
import os, signal, sys
sys.path[:0] = [{root!r}, {here!r}]
from test_pipeline import Fetch, pipeline, plan
if __name__ == "__main__":
    stream = pipeline.loader(plan(), Fetch(), workers=1)
    next(stream)
    import multiprocessing
    print([child.pid for child in multiprocessing.active_children()], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def alive(pid):
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_workers_of_a_killed_program_end(tmp_path):
    here = Path(__file__).parent
    script = tmp_path / "orphan.py"
    script.write_text(ORPHAN.format(root=str(here.parent.parent), here=str(here)))
    out = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    workers = json.loads(out.stdout or "[]")
    assert workers, out.stderr
    deadline = time.monotonic() + 10
    while any(alive(pid) for pid in workers) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(alive(pid) for pid in workers)
