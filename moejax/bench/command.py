"""One whole process as a user starts it: how long it took, what it cost the processor, and who disturbed it."""

import dataclasses
import os
import subprocess
import tempfile
import threading
import time

from moejax.bench import load
from moejax.errors import Failed


class CommandError(Failed):
    """The process failed or was too slow. The message is one line."""


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: wall-clock seconds, processor seconds (user and system, of the process and its ended children), and
    the cores that others used meanwhile (None where nobody keeps the books).
    """

    seconds: float
    processor: float
    others: float | None

    @property
    def clean(self) -> bool:
        return self.others is None or self.others < load.LIMIT


def timed(argv: list[str], environment: dict[str, str] | None = None, *, limit: float, meter: bool = True) -> Run:
    """Runs the command to its end, its output thrown away. `environment` is added to this process's.

    Errors: CommandError when its exit code is not 0 (with the last line that it said) or after `limit` seconds.
    """
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        before, start = _others() if meter else None, time.perf_counter()
        asked = {**os.environ, **(environment or {})}
        asked.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its byte code beside it
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said, env=asked)
        clock = threading.Timer(limit, process.kill)
        clock.start()
        try:
            _, status, used = os.wait4(process.pid, 0)  # the only wait that says what it cost
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            clock.cancel()
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            lines = [line.strip() for line in said.read().splitlines() if line.strip()]
            late = f" after {limit:.0f} s" if seconds >= limit else ""
            raise CommandError(f"ended with code {process.returncode}{late}: {lines[-1] if lines else 'said nothing'}")
    others = None if before is None else max(0.0, _others() - before) / max(seconds, 1e-9)
    return Run(seconds, used.ru_utime + used.ru_stime, others)


def _others() -> float:
    """Processor seconds that all but this process and its ended children have used."""
    return load.busy_seconds() - load.process_seconds(os.getpid())
