"""SIGTERM at random moments, over all stages: out in 30 seconds with code 75, and on from there."""

import signal
from pathlib import Path

import disturb
from table import Row

from moejax.runtime.stopping import EXIT_PREEMPTED

WITHIN = 30.0


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    found = disturb.many(folder, signal.SIGTERM, tries, seed + 1, want_code=EXIT_PREEMPTED, within=WITHIN)
    return [found.row("SIGTERM at a random moment", f"slowest end {found.slowest:.1f} s, code {EXIT_PREEMPTED}")]
