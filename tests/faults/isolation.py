"""Cases run one after another in a process of their own: a crash or a hang costs that case and is told, not the run.

`spawn`, because a fork of a process in which JAX runs may hang by itself.
"""

import importlib
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator

START_SECONDS = 120.0  # imports of the child


def each(function: str, cases: Iterable, *, seconds: float, shared=()) -> Iterator[tuple[object, dict]]:
    """(case, outcome) of `module:function` called as function(case, *shared), each within `seconds`.

    The function gives a dict. Others are {"fault": "crash" | "hang" | "error", "detail": one line}: the process died,
    took longer, or raised.
    """
    child = None
    try:
        for case in cases:
            child = child or _Child(function, shared)
            outcome = child.run(case, seconds)
            if outcome.get("fault") in ("crash", "hang"):
                child = child.end()
            yield case, outcome
    finally:
        if child is not None:
            child.end()


class _Child:
    def __init__(self, function, shared):
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=_serve, args=(other, function, shared), daemon=True)
        self.process.start()
        other.close()
        if not self.pipe.poll(START_SECONDS) or self.pipe.recv() != "ready":
            raise RuntimeError(f"the process for {function} did not start")

    def run(self, case, seconds) -> dict:
        self.pipe.send(case)
        start = time.monotonic()
        if not self.pipe.poll(seconds):
            return {"fault": "hang", "detail": f"no answer within {seconds:g} s"}
        try:
            return {"seconds": time.monotonic() - start} | self.pipe.recv()
        except EOFError:
            self.process.join()
            return {"fault": "crash", "detail": f"the process ended with {self.process.exitcode}"}

    def end(self) -> None:
        self.pipe.close()
        self.process.kill()
        self.process.join()


def _serve(pipe, function, shared):
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    module, _, name = function.partition(":")
    call = getattr(importlib.import_module(module), name)
    pipe.send("ready")
    while True:
        try:
            case = pipe.recv()
        except EOFError:
            return
        try:
            outcome = call(case, *shared)
        except Exception as error:
            outcome = {"fault": "error", "detail": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
        pipe.send(outcome)
