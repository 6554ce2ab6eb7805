"""Batches of like length from a corpus: a plan that is a pure function of the batch's number, and grain to execute it.

Because the plan is a function, the position of a loader is one integer: it resumes exactly, whatever was prefetched,
and with another number of workers. Few shapes: every bucket is one compilation of the step. The only grain import.
"""

import dataclasses
import functools
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
from absl import flags
from grain import MapDataset, MultiprocessingOptions, ReadOptions
from grain.experimental import index_shuffle

from moejax.errors import BadValue

FILLER = -1  # index of a row that rounds out a batch and is no utterance
ENDLESS = 2**40  # batches in a loader that never ends
LARGE = 1 << 20  # utterances; a plan of more computes its order, place by place, and holds no permutation
_ROUNDS = 4  # of the cipher behind `index_shuffle`, the fewest it takes


def bucket_of(lengths, buckets, names=None):
    """Index of the smallest bucket that holds each utterance. ValueError naming one empty or longer than all."""
    lengths, buckets = np.asarray(lengths, np.int64), np.asarray(buckets, np.int64)
    if not buckets.size or np.any(np.diff(buckets, prepend=0) <= 0):
        raise BadValue(f"buckets must be positive and ascending, not {tuple(buckets.tolist())}")
    where = np.searchsorted(buckets, lengths)
    bad = np.flatnonzero((where == len(buckets)) | (lengths < 1))
    if bad.size:
        i = int(bad[0])
        name = i if names is None else names[i]
        raise BadValue(f"utterance {name} has {lengths[i]} samples; buckets hold 1 to {buckets[-1]}")
    return where


@dataclasses.dataclass(frozen=True, eq=False)
class BatchPlan:
    """Which utterances make up batch i: `plan[i] -> (bucket_samples, index_B)`, -1 marking filler rows; endless.

    lengths     samples per utterance; names (optional, same order) are for error messages
    buckets     ascending sample lengths; an utterance goes to the smallest that holds it, whatever its neighbours are
    batch_size  rows per batch; or, with `samples` given instead, each bucket has as many rows as fit into that many
                samples
    multiple    rows are rounded up to a multiple of this (data * fsdp of the mesh)

    An epoch holds every utterance exactly once, shuffled by (seed, epoch) within its bucket; a bucket's last batch is
    filled up. The order of batches is shuffled over buckets too. Above `LARGE` utterances both are another shuffle, of
    which every place is computed when it is asked for: memory does not grow by an epoch's order.
    """

    lengths: Any
    buckets: tuple
    batch_size: int = 0
    seed: int = 0
    samples: int = 0
    multiple: int = 1
    names: Any = None
    _members: list[np.ndarray] = dataclasses.field(init=False, repr=False)  # rows of each bucket
    _order: Callable[[int], "_Epoch"] = dataclasses.field(init=False, repr=False)  # epoch -> its batches

    def __post_init__(self):
        if len(self.lengths) == 0:
            raise BadValue("no utterances to plan batches of")
        if (self.batch_size > 0) == (self.samples > 0):
            raise ValueError(f"give batch_size or samples, one of them (got {self.batch_size} and {self.samples})")
        where = bucket_of(self.lengths, self.buckets, self.names)
        members = [np.flatnonzero(where == b).astype(np.int32) for b in range(len(self.buckets))]
        object.__setattr__(self, "_members", members)
        object.__setattr__(self, "_order", functools.lru_cache(maxsize=2)(self._epoch))

    def rows(self, bucket_samples):
        """Rows of a batch of this bucket."""
        rows = self.batch_size or max(1, self.samples // bucket_samples)
        return -(-rows // self.multiple) * self.multiple

    @property
    def batches_per_epoch(self):
        """The same for every epoch."""
        return sum(-(-len(m) // self.rows(s)) for m, s in zip(self._members, self.buckets, strict=True))

    def __getitem__(self, number):
        epoch, within = divmod(int(number), self.batches_per_epoch)
        return self._computed(epoch, within) if len(self.lengths) > LARGE else self._order(epoch)[within]

    def _computed(self, epoch, within):
        """Batch `within` of a large plan's epoch: which batch of all buckets comes here, and who is in it."""
        seed = int.from_bytes(hashlib.blake2b(f"{self.seed} {epoch}".encode(), digest_size=4).digest(), "big")
        batch = index_shuffle(within, self.batches_per_epoch - 1, seed, _ROUNDS)
        for members, samples in zip(self._members, self.buckets, strict=True):
            rows = self.rows(samples)
            count = -(-len(members) // rows)
            if batch < count:
                break
            batch -= count
        places = range(batch * rows, min((batch + 1) * rows, len(members)))
        index_B = np.full(rows, FILLER, np.int64)
        index_B[: len(places)] = members[[index_shuffle(place, len(members) - 1, seed, _ROUNDS) for place in places]]
        return int(samples), index_B

    def names_of(self, number):
        """Names of the utterances of batch `number`, or their indices where the plan was given no names."""
        _, index_B = self[number]
        return [f"row {i}" if self.names is None else str(self.names[i]) for i in index_B if i != FILLER]

    def digest(self):
        """16 hex digits that two plans share only if they give the same utterances in the same order."""
        digest, rows = hashlib.blake2b(digest_size=8), [self.rows(samples) for samples in self.buckets]
        digest.update(b"[")  # the JSON of all of it, a part at a time
        for part in _json_parts(np.asarray(self.lengths), lambda some: some.tolist()):
            digest.update(part)
        digest.update(f", {json.dumps(list(map(int, self.buckets)))}, {json.dumps(rows)}, {self.seed}, ".encode())
        names = [b"null"] if self.names is None else _json_parts(self.names, lambda some: [str(name) for name in some])
        for part in names:
            digest.update(part)
        digest.update(b"]")
        return digest.hexdigest()

    def _epoch(self, epoch):
        random = np.random.default_rng([self.seed, epoch])
        batches = [
            _filled(random.permutation(members), self.rows(samples))
            for members, samples in zip(self._members, self.buckets, strict=True)
        ]
        return _Epoch(self.buckets, batches, random.permutation(sum(map(len, batches))).astype(np.int32))

    def __getstate__(self):  # for worker processes; the cache holds a bound method and is rebuilt
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.init}

    def __setstate__(self, fields):
        for name, value in fields.items():
            object.__setattr__(self, name, value)
        self.__post_init__()


@dataclasses.dataclass(frozen=True)
class _Epoch:
    """Batches of each bucket [number, rows], and their order: four bytes a row, and no object for a batch."""

    buckets: tuple
    batches: list[np.ndarray]
    order: np.ndarray

    def __getitem__(self, place):
        number, bucket = int(self.order[place]), 0
        while number >= len(self.batches[bucket]):
            number, bucket = number - len(self.batches[bucket]), bucket + 1
        return int(self.buckets[bucket]), self.batches[bucket][number].astype(np.int64)


def _json_parts(values, listed, block=4096):
    """The bytes of `json.dumps` of a long list, some entries at a time."""
    for at in range(0, len(values), block):
        yield (", " if at else "[").encode() + json.dumps(listed(values[at : at + block]))[1:-1].encode()
    yield b"]" if len(values) else b"[]"


def _filled(indices, rows):
    """Batches [number, rows] of these indices, in their order; the last is filled up."""
    filled = np.full(-(-len(indices) // rows) * rows, FILLER, indices.dtype)
    filled[: len(indices)] = indices
    return filled.reshape(-1, rows)


def eval_batches(lengths, buckets, batch_size, *, multiple=1, names=None):
    """[(bucket_samples, index_B)] once through a corpus, by bucket, in order within it; its last batch is filled up."""
    where = bucket_of(lengths, buckets, names)
    rows = -(-batch_size // multiple) * multiple
    filled = [_filled(np.flatnonzero(where == b), rows) for b in range(len(buckets))]
    return [(int(samples), batch) for samples, batches in zip(buckets, filled, strict=True) for batch in batches]


def loader(plan, fetch, *, workers=0, start=0, prefetch=2, threads=2, shard=(0, 1)):
    """Iterator of `fetch(bucket_samples, index_B)` over a BatchPlan (endless) or a list of `eval_batches` (finite).

    workers   processes that fetch (0: `threads` threads of this process). `fetch` must then pickle, and the stream is
              the same.
    prefetch  batches held ready (per worker process)
    shard     (i, n) of `sharding.process_shard`: this process fetches the i-th of n equal runs of each batch's rows
    The iterator has get_state() -> {"batch": number of the next} and set_state(); close() ends its workers.
    """
    return Loader(plan, fetch, workers=workers, start=start, prefetch=prefetch, threads=threads, shard=shard)


class Loader:
    """See `loader`."""

    def __init__(self, plan, fetch, *, workers, start, prefetch, threads, shard):
        self._plan, self._fetch, self._shard = plan, fetch, shard
        self._workers, self._prefetch, self._threads = workers, prefetch, threads
        self._stream, self._next = None, int(start)

    def __iter__(self):
        return self

    def __next__(self):
        if self._stream is None:
            self._stream = iter(self._open())
        batch = next(self._stream)
        self._next += 1
        return batch

    def get_state(self):
        """{"batch": n}: the n batches before it have been handed out; prefetched ones do not count."""
        return {"batch": self._next}

    def set_state(self, state):
        """Go to where get_state() was taken; ValueError for the state of something else."""
        if set(state) != {"batch"}:
            raise BadValue(f"a loader's state is {{'batch': n}}, not {state!r}")
        self.close()
        self._next = int(state["batch"])

    def close(self):
        """End the threads and processes that fetch ahead; the next batch asked for starts them again."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def _open(self):
        batches = _Batches(self._plan, self._next, self._fetch, self._shard)
        threads = 1 if self._workers else max(1, self._threads)
        # grain's thread buffer must be filled by at least as many slots as threads
        ahead = ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, self._prefetch))
        stream = MapDataset.source(cast(Sequence, batches)).to_iter_dataset(ahead)  # it has what grain asks for
        if self._workers:
            if not flags.FLAGS.is_parsed():  # grain hands them to workers; without absl's app nobody did
                flags.FLAGS.mark_as_parsed()
            options = MultiprocessingOptions(num_workers=self._workers, per_worker_buffer_size=max(1, self._prefetch))
            stream = stream.mp_prefetch(options, worker_init_fn=functools.partial(_end_with, os.getpid()))
        return stream


@dataclasses.dataclass(frozen=True)
class _Batches:
    """The plan from batch `start` on, as grain's random-access source."""

    plan: Any
    start: int
    fetch: Callable
    shard: tuple

    def __len__(self):
        return len(self.plan) - self.start if isinstance(self.plan, list) else ENDLESS

    def __getitem__(self, number):
        bucket_samples, index_B = self.plan[self.start + int(number)]
        part, parts = self.shard
        if len(index_B) % parts:
            raise BadValue(f"{len(index_B)} rows of a batch do not divide among {parts} processes")
        rows = len(index_B) // parts
        return self.fetch(bucket_samples, index_B[part * rows : (part + 1) * rows])


def _end_with(parent, index, count):
    """In a worker: leave when the training process is gone (killed, it cannot end its workers, and they would stay)."""
    del index, count
    for number in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group: the training process still needs batches
        signal.signal(number, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(1.0)
        sys.stderr.flush()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
