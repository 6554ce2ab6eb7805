"""What other processes used of the processor while one process was timed, from /proc.

On a loaded machine a comparison measures the neighbours: the barriers of torch's OpenMP pool collapse when one of its
threads waits for a core, and the same training step read 0.125 of the peer unfiltered and 0.65 clean. So each call
carries the cores that others used during it, and only calls under LIMIT count.
"""

import os
import time
from pathlib import Path

LIMIT = 0.15  # cores used by others above which a call is thrown away
_TICK = os.sysconf("SC_CLK_TCK")
_BUSY = (0, 1, 2, 5, 6, 7)  # user, nice, system, irq, softirq, steal; guest time is contained in user


def available(proc: Path = Path("/proc")) -> bool:
    """Whether this system keeps the books that a clean call is judged by."""
    return (proc / "stat").is_file() and busy_seconds(proc) > 0


def busy_seconds(proc: Path = Path("/proc")) -> float:
    """Processor seconds used by everything since the start of the machine (with what the host took away: steal)."""
    fields = (proc / "stat").read_text().split("\n", 1)[0].split()[1:]
    return sum(int(fields[i]) for i in _BUSY) / _TICK


def process_seconds(pid: int, proc: Path = Path("/proc")) -> float:
    """Processor seconds of one process, its threads, and its children that have ended."""
    # The second field is the program's name in parentheses and may hold anything, spaces and parentheses included.
    fields = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / _TICK


class Meter:
    """`begin(pid)`, then `others()`: cores used meanwhile by all but that process and this one."""

    def __init__(self, proc: Path = Path("/proc")):
        self.proc = proc

    def begin(self, pid: int) -> None:
        self.pid = pid
        self.start = time.perf_counter()
        self.before = self._books()

    def others(self) -> float:
        seconds = time.perf_counter() - self.start
        return max(0.0, self._books() - self.before) / max(seconds, 1e-9)

    def _books(self):
        ours = process_seconds(self.pid, self.proc) + process_seconds(os.getpid(), self.proc)
        return busy_seconds(self.proc) - ours
