"""Valid comparisons: both sides alternate, calls disturbed by others are thrown away, medians of the rest compared."""

import dataclasses
import math
import statistics
import time

from moejax.bench.load import LIMIT
from moejax.bench.side import Side

CALLS = 3  # clean calls that a median needs at least
TARGET = 0.6  # seconds that a call should last: /proc counts in ticks of 10 ms, and LIMIT is 0.15 of a core
PATIENCE = 600.0  # seconds after which a call is given up and its process ended
PAUSE = 0.3  # seconds between calls: idle OpenMP and XLA threads spin for a while after their work and would disturb


@dataclasses.dataclass
class Contestant:
    """One prepared job on one side, and its calls so far: (seconds of one run, cores used by others or None)."""

    side: Side
    name: str
    repeat: int = 0  # runs in a call; 0: not known yet
    calls: list[tuple[float, float | None]] = dataclasses.field(default_factory=list)

    @property
    def clean(self) -> list[float]:
        return [seconds for seconds, others in self.calls if others is None or others < LIMIT]

    def median(self) -> float | None:
        """Seconds; None without enough clean calls."""
        return statistics.median(self.clean) if len(self.clean) >= CALLS else None

    def why_not(self) -> str:
        """Why there is no median, for the table."""
        if not self.calls:
            return "no call was made before the time limit"
        worst = statistics.median(others for _, others in self.calls if others is not None)
        return f"{len(self.clean)} of {len(self.calls)} calls clean, others used {worst:.2f} cores (median)"


def settle(contestant: Contestant, patience: float) -> None:
    """Chooses how many runs make a call, so that it is long enough to be judged, unless that is known."""
    if contestant.repeat:
        return
    seconds = contestant.side.ask(patience, do="call", name=contestant.name)["seconds"]
    contestant.repeat = max(1, min(200, math.ceil(TARGET / max(seconds, 1e-6))))


def alternate(contestants, *, meter, wanted=CALLS, limit=120.0, pause=PAUSE, report=lambda contestants: None) -> None:
    """Calls all contestants in turn until each has `wanted` clean calls, or `limit` seconds are over.

    The order turns round each time, so that a drift of the machine hits all alike. Without a meter every call counts.
    """
    start = time.monotonic()
    turn = 0
    while any(len(c.clean) < wanted for c in contestants):
        if time.monotonic() - start > limit:
            return
        for contestant in contestants if turn % 2 == 0 else reversed(contestants):
            time.sleep(pause)
            contestant.calls.append(_call(contestant, meter))
            report(contestants)
        turn += 1


def _call(contestant, meter):
    if meter is not None:
        meter.begin(contestant.side.pid)
    answer = contestant.side.ask(PATIENCE, do="call", name=contestant.name, repeat=contestant.repeat)
    return answer["seconds"], None if meter is None else meter.others()
