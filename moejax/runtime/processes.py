"""Several processes that train one model: how they find each other, agree, stop together, and notice who is lost.

    MOEJAX_COORDINATOR=host:port MOEJAX_PROCESSES=2 MOEJAX_PROCESS=0 moejax all ...     (the same with 1, and so on)
    MOEJAX_COORDINATOR=auto moejax all ...                                               what the cluster says, on a TPU

Everything here goes through the key-value store of `jax.distributed`, on a thread of its own, and works while the main
thread is inside a collective. Jax's own preemption service is turned off: it swallows SIGTERM wherever nobody polls it.
Its own heartbeats end a process without a word; they get twice the time, so that the reason is said here first.
"""

import atexit
import contextlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from moejax.errors import BadValue, Refused
from moejax.runtime import stopping, watchdog

PREFIX = "moejax/state/"
GOODBYE = 1.0  # seconds between the last goodbye and the end of the store

_group: "Group | None" = None
_together = False


def first() -> bool:
    """Whether this process writes what is written once; true where there is only one."""
    return _group is None or _group.index == 0


def count() -> int:
    return 1 if _group is None else _group.count


def index() -> int:
    """Number of this process among them, from 0."""
    return 0 if _group is None else _group.index


def share(items: Sequence, process: int | None = None) -> list:
    """Those of these items that fall to this process (or to one with that number) where all divide a piece of work."""
    return list(items[index() if process is None else process :: count()])


@contextlib.contextmanager
def working(together: bool):
    """In it, all processes work on one thing (`together`), or this one does by itself."""
    global _together
    before, _together = _together, together
    try:
        yield
    finally:
        _together = before


def alone() -> bool:
    """Whether this is one of several processes and works by itself: on its own devices, and without meeting others."""
    return count() > 1 and not _together


def start(heartbeat: float) -> None:
    """Joins the processes named by the environment, if any; before jax makes its first array.

    A process that nothing was heard of for `heartbeat` seconds ends the others, with code 76 and its number.
    """
    global _group
    address = os.environ.get("MOEJAX_COORDINATOR", "")
    if not address or _group is not None:
        return
    import jax

    found: dict[str, Any] = {} if address == "auto" else {"coordinator_address": address, **_numbers()}
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_enable_async_dispatch", False)  # else two processes on CPUs hang in gloo
    jax.distributed.initialize(**found, heartbeat_timeout_seconds=max(2, round(2 * heartbeat)))
    _group = Group(jax.process_index(), jax.process_count(), heartbeat)


def _numbers() -> dict:
    names = {"num_processes": "MOEJAX_PROCESSES", "process_id": "MOEJAX_PROCESS"}
    for name in names.values():
        if not os.environ.get(name, "").isdecimal():
            raise BadValue(f"MOEJAX_COORDINATOR is set, {name} is {os.environ.get(name)!r}; it has to be a number")
    return {key: int(os.environ[name]) for key, name in names.items()}


def agree(value: Any = None) -> Any:
    """What the first process gives (JSON), in all of them; each calls this as often as the others."""
    return value if _group is None else _group.agree(value)


def meet(value: Any = None) -> list:
    """What each process gives (JSON), by their numbers, once all have called this: what they wrote before is there."""
    return [value] if _group is None else _group.meet(value)


def failed(error: Exception) -> None:
    """Tells the others why this process ends. Does not return if the reason is another process that was lost: of that,
    a collective says no more than that a connection broke, and it says it first.
    """
    if _group is None or hasattr(error, "exit_code"):  # asked to stop
        return
    if not isinstance(error, Refused):  # a collective that breaks does not say who is lost
        time.sleep(_group.heartbeat + 2)  # the clock names who is lost, and ends this process
    _group.has_failed = True
    _group.tell("failed", f"process {_group.index} of {_group.count} failed: {error}")


class Steps:
    """Agreement on the step after which all stop; with one process, what `local()` says (whether a signal came)."""

    def __init__(self, at: int, local):
        self._local, self._lock, self._at, self.target = local, threading.Lock(), at, None

    def __enter__(self):
        if _group is not None:
            _group.enter(self)
        return self

    def __exit__(self, *error):
        if _group is not None:
            _group.leave()

    def asked(self, step: int) -> bool:
        """Whether to stop after this step; waits while the agreement is being made."""
        if _group is None:
            return self._local()
        with self._lock:
            self._at = step
            return self.target is not None and step >= self.target

    def finished(self) -> bool:
        """Once the last step is done: whether one of the processes was asked to stop meanwhile. Each waits for the
        others: who left alone would leave them in the next collective.
        """
        return self._local() if _group is None else _group.finish(self._local())

    def settle(self, group) -> None:
        """On another thread, in every process: the step after the one that the furthest has dispatched. Meanwhile
        nobody gets past `asked`, and nobody needs to: the store does not wait for the main threads.
        """
        with self._lock:
            steps = group.exchange(f"at/{group.trainings}", self._at)
            self.target = max(steps) + 1


class Group:
    """This process among the others; two threads talk to the store and watch the clock."""

    def __init__(self, index: int, count: int, heartbeat: float):
        from jax._src import distributed  # the store has no public name; multihost_utils uses it like this

        self.index, self.count, self.heartbeat = index, count, heartbeat
        assert distributed.global_state.client is not None  # `start` has joined the others
        self.client = distributed.global_state.client
        self.agreements = self.meetings = self.trainings = 0
        self._steps: Steps | None = None
        self._failure: str | None = None
        self._stopping, self._over = False, threading.Event()
        now = time.monotonic()
        self._answered, self._seen = now, {other: ("", now) for other in range(count) if other != index}
        self.has_failed = False
        stopping.hear(lambda: self.tell("stop", str(index)))
        stopping.grace = 0.0 if index else 2.0  # jax aborts whoever is left when the first process is gone
        for work in (self._talk, self._watch):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()
        atexit.register(self._depart)  # before that of jax, which waits until the others depart too

    def _depart(self):
        self._over.set()
        if self.has_failed:  # the others end by themselves, and jax would abort this process for it
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
        self._hang_up()

    def _hang_up(self):
        """All say goodbye and the first closes the store a moment later: jax closes it at once, and aborts (SIGABRT)
        whoever has said goodbye but still listens for errors.
        """
        from jax._src import distributed

        try:
            self.client.shutdown()
        except Exception as error:  # noqa: BLE001 - the work is done and on disk; who did not say goodbye is named
            print(f"moejax: the processes did not end together: {' '.join(str(error).split())}", file=sys.stderr)
        distributed.global_state.client = None
        if self.index == 0:
            time.sleep(GOODBYE)

    def tell(self, key: str, value: str) -> None:
        try:
            self.client.key_value_set(PREFIX + key, value, allow_overwrite=True)
        except Exception:  # noqa: BLE001 - the store is gone; the clock will tell
            pass

    def get(self, key: str) -> str:
        """A value that another process sets sooner or later; signals are served meanwhile."""
        while True:
            if self._failure is not None:
                raise BadValue(self._failure)
            watchdog.beat()
            try:
                return self.client.blocking_key_value_get(key, 500)
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):
                    raise

    def agree(self, value):
        self.agreements += 1
        key = f"moejax/agreed/{self.agreements}"
        if self.index:
            return json.loads(self.get(key))
        self.client.key_value_set(key, json.dumps(value))
        return value

    def meet(self, value) -> list:
        self.meetings += 1
        key = f"moejax/met/{self.meetings}"
        self.client.key_value_set(f"{key}/{self.index}", json.dumps(value))
        return [json.loads(self.get(f"{key}/{q}")) for q in range(self.count)]

    def exchange(self, key: str, value: int) -> list[int]:
        self.client.key_value_set(f"moejax/{key}/{self.index}", str(value))
        return [int(self.client.blocking_key_value_get(f"moejax/{key}/{q}", 60_000)) for q in range(self.count)]

    def finish(self, asked: bool) -> bool:
        key = f"moejax/end/{self.trainings}"
        self.client.key_value_set(f"{key}/{self.index}", str(int(asked or self._stopping)))
        return any([int(self.get(f"{key}/{q}")) for q in range(self.count)])

    def enter(self, steps: Steps) -> None:
        self.trainings += 1
        self._steps = steps
        if self._stopping:
            self._settle(steps)

    def leave(self) -> None:
        steps, self._steps = self._steps, None
        if self._stopping and steps is not None and steps.target is None:
            os.kill(os.getpid(), signal.SIGTERM)

    def _settle(self, steps: Steps):
        threading.Thread(target=steps.settle, args=(self,), name="settle", daemon=True).start()

    def _talk(self):
        beats = 0
        while True:
            try:
                beats += 1
                self.tell(f"alive/{self.index}", str(beats))
                self._read(dict(self.client.key_value_dir_get(PREFIX)))
            except Exception:  # noqa: BLE001 - as above
                pass
            time.sleep(min(0.5, self.heartbeat / 8))

    def _read(self, state):
        now = self._answered = time.monotonic()
        state = {key.removeprefix(PREFIX): value for key, value in state.items()}
        for other, (value, _) in list(self._seen.items()):
            if state.get(f"alive/{other}", "") != value:
                self._seen[other] = (state[f"alive/{other}"], now)
        self._failure = state.get("failed")
        if "stop" in state and not self._stopping:
            self._stopping, asked_here = True, stopping.asked.is_set()
            stopping.wake()
            if self._steps is not None:
                self._settle(self._steps)
            elif not asked_here:  # else a second signal would meet a process that is on its way out
                os.kill(os.getpid(), signal.SIGTERM)

    def _watch(self):
        failed_at = None
        while not self._over.wait(0.1):
            now = time.monotonic()
            silent = [other for other, (_, at) in self._seen.items() if now - at > self.heartbeat]
            if now - self._answered > self.heartbeat:
                self._end(0 if self.index else next(iter(silent), 0))
            if silent:
                self._end(silent[0])
            failed_at = failed_at or (now if self._failure and not self.has_failed else None)
            if self._failure and failed_at and now - failed_at > 5:
                # The main thread is inside a collective and cannot say it itself; to run it again would not help
                watchdog.leave(self._failure, 1)

    def _end(self, lost):
        if self._over.is_set():
            return
        reason = f"nothing was heard of process {lost} of {self.count} for {self.heartbeat:g} s (runtime.heartbeat)"
        watchdog.leave(f"{reason}: it was killed, is stuck, or cannot be reached", watchdog.EXIT_STUCK)
