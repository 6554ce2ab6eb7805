"""Ends a run that is stuck: nobody beat for so long. The reason and the stacks of all threads go to stderr.

A beat is cheap and comes from every loop of every stage (training steps, batches, lines of the log). What does not
beat is one long call into a library: the limit has to be longer than the longest of these, a first compilation say.
"""

import contextlib
import faulthandler
import os
import threading
import time

EXIT_STUCK = 76  # EX_PROTOCOL of sysexits.h: stuck, or another process is gone; run the same command again

_last = time.monotonic()
_name = "the run"


def beat(name: str = "") -> None:
    """The run is alive; `name` says what it does from here on."""
    global _last, _name
    _last = time.monotonic()
    _name = name or _name


@contextlib.contextmanager
def watching(seconds: float):
    """In it, so long a silence ends the process; 0 watches nothing. For the command line only."""
    over = threading.Event()
    beat()
    if seconds > 0:
        threading.Thread(target=_watch, args=(seconds, over), name="watchdog", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _watch(seconds, over):
    while not over.wait(min(1.0, seconds / 10)):
        if (silent := time.monotonic() - _last) > seconds:
            leave(f"{_name} is stuck: nothing was done for {silent:.0f} s (runtime.watchdog={seconds:g})", EXIT_STUCK)


def leave(reason: str, code: int) -> None:
    """Says why, with the stacks of all threads, and ends the process at once, whatever it is doing."""
    os.write(2, f"moejax: {reason}. Run the same command again to go on from the newest checkpoint.\n".encode())
    faulthandler.dump_traceback(2, all_threads=True)
    os._exit(code)
