"""SIGTERM and SIGINT: a run is asked to stop, and leaves within a set time with code 75.

Training answers by itself: it saves after the step it is in (`train/loop.py`). Everything else ends where it is,
through all `finally`s; its files are whole or absent. Python runs handlers between two of its instructions only, so a
compilation of minutes would delay both: a thread, which the signal wakes whatever the main thread does, then ends the
process when the time is over.
"""

import contextlib
import os
import signal
import socket
import sys
import threading

from moejax.errors import EXIT_PREEMPTED
from moejax.runtime import watchdog

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextlib.contextmanager
def leaving(command: str):
    """In it, SIGTERM or SIGINT ends the process with code 75 as soon as Python code runs: while libraries are imported
    and the config is read, before `listening` begins and after it has ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number, frame):
        os.write(2, f"moejax {command}: stopped on request; run it again to go on\n".encode())
        sys.exit(EXIT_PREEMPTED)

    before = {number: signal.signal(number, stop) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def listening(command: str, within: float):
    """In it, SIGTERM or SIGINT ends the process with code 75, at the latest `within` seconds later (0: no limit)."""
    if threading.current_thread() is not threading.main_thread():  # only the main thread may listen
        yield
        return
    process = os.getpid()

    def stop(number, frame):
        if os.getpid() != process:  # a child that was forked: as if nobody had listened
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
            return
        os.write(2, f"moejax {command}: stopped on request; run it again to go on\n".encode())  # print may be at work
        sys.exit(EXIT_PREEMPTED)

    global _waker
    woken, waker = socket.socketpair()
    _waker = waker
    waker.setblocking(False)
    before = {number: signal.signal(number, stop) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    os.register_at_fork(after_in_child=lambda: os.getppid() == process and signal.set_wakeup_fd(-1))
    thread = threading.Thread(target=_limit, args=(woken, command, within), name="stopping", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _waker = None
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        if not asked.is_set():
            waker.close()  # ends the thread; once asked it stays: the interpreter's own end may take long


asked = threading.Event()
_heard = []  # called on the thread once a signal came
_waker = None
grace = 0.0  # seconds more than `within`: of several processes the first ends last


def hear(call) -> None:
    """`call()` once the process was asked to stop, whatever its main thread is doing."""
    _heard.append(call)


def wake() -> None:
    """As if a signal had come, except that the main thread is not interrupted: the time runs from now on."""
    if _waker is not None:
        _waker.send(bytes([signal.SIGTERM]))


def _limit(woken, command, within):
    while (byte := woken.recv(1)) and byte[0] not in SIGNALS:
        pass
    if not byte:
        woken.close()
        return
    asked.set()
    for call in _heard:
        call()
    if within > 0:
        threading.Event().wait(within + grace)
        watchdog.leave(f"{command}: asked to stop and not at the end of its step within {within:g} s", EXIT_PREEMPTED)
