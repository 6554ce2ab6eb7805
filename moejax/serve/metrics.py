"""What a server counts, as text that Prometheus reads. Numbers alone: no text, no name of a file or of a speaker."""

import bisect
import threading
from collections import defaultdict

SECONDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0)
COUNTERS = {
    "moejax_requests_total": "requests answered, by route and status",
    "moejax_errors_total": "requests refused or failed, by what was wrong",
    "moejax_audio_seconds_total": "seconds of audio read, by model",
    "moejax_busy_seconds_total": "seconds in which the model was at work",
}
GAUGES = {
    "moejax_queue_length": "recordings that wait for the model",
    "moejax_queue_audio_seconds": "seconds of audio that wait for the model",
    "moejax_reading": "recordings that the model reads",
}
HISTOGRAMS = {
    "moejax_batch_size": ("recordings that are read together, this one too, as each begins", SIZES),
    "moejax_request_seconds": ("seconds from a request to its answer, by route", SECONDS),
    "moejax_wait_seconds": ("seconds that a recording waited for the model", SECONDS),
}


class Metrics:
    """Counters, gauges and histograms with labels; safe to use from any thread."""

    def __init__(self):
        self._lock = threading.Lock()
        self._values: dict[str, dict[tuple, float]] = defaultdict(lambda: defaultdict(float))
        self._counts: dict[str, dict[tuple, list[int]]] = defaultdict(dict)

    def add(self, name: str, amount: float = 1.0, **labels: str) -> None:
        """Adds to a counter or a gauge."""
        with self._lock:
            self._values[name][_key(labels)] += amount

    def set(self, name: str, value: float) -> None:
        """Sets a gauge."""
        with self._lock:
            self._values[name][()] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Adds a value to a histogram."""
        bounds, key = HISTOGRAMS[name][1], _key(labels)
        with self._lock:
            counts = self._counts[name].setdefault(key, [0] * (len(bounds) + 1))
            counts[bisect.bisect_left(bounds, value)] += 1
            self._values[name][key] += value

    def value(self, name: str, **labels: str) -> float:
        """What a counter or gauge stands at; of a histogram the sum."""
        with self._lock:
            return self._values[name].get(_key(labels), 0.0)

    def text(self) -> str:
        """Everything in Prometheus' text format, version 0.0.4."""
        with self._lock:
            lines = []
            for kind, known in (("counter", COUNTERS), ("gauge", GAUGES)):
                for name, about in known.items():
                    lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
                    values = self._values[name] or ({(): 0.0} if kind == "gauge" else {})
                    lines += [f"{name}{_labels(key)} {value:.10g}" for key, value in sorted(values.items())]
            for name, (about, bounds) in HISTOGRAMS.items():
                lines += [f"# HELP {name} {about}", f"# TYPE {name} histogram"]
                for key, counts in sorted(self._counts[name].items()):
                    total = 0
                    for bound, count in zip((*bounds, float("inf")), counts, strict=True):
                        total += count
                        limit = "+Inf" if bound == float("inf") else f"{bound:g}"
                        lines.append(f"{name}_bucket{_labels((*key, ('le', limit)))} {total}")
                    lines.append(f"{name}_sum{_labels(key)} {self._values[name][key]:.10g}")
                    lines.append(f"{name}_count{_labels(key)} {total}")
            return "\n".join(lines) + "\n"


def _key(labels: dict[str, str]) -> tuple:
    return tuple(sorted(labels.items()))


def _labels(key: tuple) -> str:
    escaped = ((name, value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for name, value in key)
    return "{" + ",".join(f'{name}="{value}"' for name, value in escaped) + "}" if key else ""
