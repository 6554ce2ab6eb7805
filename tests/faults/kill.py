"""SIGKILL at random moments, over all stages."""

import signal
from pathlib import Path

import disturb
from table import Row


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    found = disturb.many(folder, signal.SIGKILL, tries, seed, want_code=-signal.SIGKILL)
    return [found.row("SIGKILL at a random moment, restart until done")]
