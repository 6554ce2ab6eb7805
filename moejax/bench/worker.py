"""One side of a comparison as a process of its own: jobs are prepared once and called on command.

Commands come as JSON lines on standard input, answers go as JSON lines to the file descriptor that is the first
argument: whatever a library prints cannot spoil the protocol. This module imports neither jax nor torch, so that each
side loads its own engine only.

    {"do": "hello"}                                     -> {"device": .., "versions": {..}}
    {"do": "prepare", "name": n, "job": j, "options": {}} -> {"single": ..} builds it, runs it once (compilation)
    {"do": "call", "name": n, "repeat": r}              -> {"seconds": s} mean of r runs
    {"do": "save", "name": n, "path": file.npy}         -> {"shape": [..]} what the last run gave
    {"do": "value", "name": n}                          -> {"value": ..}  the same as JSON, for small results
    {"do": "drop", "name": n}                           -> {}             frees it
"""

import dataclasses
import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Job:
    """`run` does the work and returns when it is done (devices synchronised); `output` turns its result into an array
    of the layout that all sides share. `single`: long by nature, needs no run to warm up and makes a call by itself.
    """

    run: Callable[[], Any]
    output: Callable[[Any], Any] = np.asarray
    single: bool = False


@dataclasses.dataclass(frozen=True)
class Timed:
    """A result that brings its own time: what a run took without its preparation."""

    value: Any
    seconds: float


def serve(jobs: dict[str, Callable[[dict], Job]], hello: Callable[[], dict]) -> None:
    """Answers commands until standard input ends. `jobs` makes a `Job` from its options, by name.

    An error inside a job is answered as {"error": one line} and printed with its traceback; the process lives on.
    """
    worker = _Worker(jobs, hello)
    with os.fdopen(int(sys.argv[1]), "w", encoding="utf-8") as answers:
        for line in sys.stdin:
            try:
                answer = worker.obey(**json.loads(line))
            except Exception as error:  # goes to the other end, which decides what the row says
                traceback.print_exc()
                answer = {"error": f"{type(error).__name__}: {' '.join(str(error).split())}"[:400]}
            answers.write(json.dumps(answer) + "\n")
            answers.flush()


class _Worker:
    def __init__(self, jobs, hello):
        self.jobs, self.hello = jobs, hello
        self.ready: dict[str, Job] = {}
        self.last: dict[str, Any] = {}

    def obey(self, do, name="", job="", options=None, repeat=1, path=""):
        if do == "hello":
            return self.hello()
        if do == "prepare":
            if job not in self.jobs:
                raise ValueError(f"no job {job!r}; known: {', '.join(sorted(self.jobs))}")
            self.ready[name] = self.jobs[job](options or {})
            if not self.ready[name].single:
                self.call(name)
            return {"single": self.ready[name].single}
        if do == "call":
            return {"seconds": sum(self.call(name) for _ in range(repeat)) / repeat}
        if do == "save":
            array = np.ascontiguousarray(self.ready[name].output(self.last[name]))
            np.save(path, array)
            return {"shape": list(array.shape)}
        if do == "value":
            return {"value": self.last[name]}
        if do == "drop":
            self.ready.pop(name, None)
            self.last.pop(name, None)
            gc.collect()
            return {}
        raise ValueError(f"unknown command {do!r}; known: hello, prepare, call, save, value, drop")

    def call(self, name) -> float:
        self.last[name] = None  # so that two results never stand in memory at once
        start = time.perf_counter()
        result = self.ready[name].run()
        seconds = time.perf_counter() - start
        if isinstance(result, Timed):
            result, seconds = result.value, result.seconds
        self.last[name] = result
        return seconds
