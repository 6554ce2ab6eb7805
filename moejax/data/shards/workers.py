"""Recordings read and encoded by several processes, handed back in the order of their utterances."""

import collections
import concurrent.futures
import functools
import itertools
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures.process import BrokenProcessPool

from moejax.data.manifest import Utterance
from moejax.data.shards.recording import Bad, Packed
from moejax.data.shards.recording import packed as one
from moejax.errors import Failed

_TOGETHER = 8  # utterances handed over at once
_AHEAD = 3  # such parts on their way, for each process: what is in memory does not grow with the corpus


def packed(utterances: Iterable[Utterance], processes: int) -> Generator[Packed | Bad, None, None]:
    """What becomes of each; `processes` 0: here. Errors: those of the utterances; Failed where a process died."""
    if not processes:
        yield from map(one, utterances)
        return
    parts = iter(functools.partial(_part, iter(utterances)), [])
    pool = concurrent.futures.ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), initializer=_end_with, initargs=(os.getpid(),)
    )
    waiting: collections.deque = collections.deque()
    try:
        for part in parts:
            waiting.append((part, pool.submit(_all, part)))
            if len(waiting) >= _AHEAD * processes:
                yield from _result(*waiting.popleft())
        while waiting:
            yield from _result(*waiting.popleft())
    finally:
        pool.shutdown(cancel_futures=True)


def _part(rows: Iterator[Utterance]) -> list[Utterance]:
    return list(itertools.islice(rows, _TOGETHER))


def _all(part: list[Utterance]) -> list[Packed | Bad]:
    return [one(utterance) for utterance in part]


def _result(part, future) -> list[Packed | Bad]:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise Failed(
            f"pack: a worker died (killed, or out of memory) at one of {part[0].id!r} to {part[-1].id!r}; the same "
            "command goes on, with --workers 0 it shows where"
        ) from error


def _end_with(parent: int) -> None:
    """In a worker: leave when the packing process is gone, which cannot end its workers when it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; the parent ends its workers

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
