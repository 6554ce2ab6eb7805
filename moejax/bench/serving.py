"""`moejax bench serve`: many clients at once at our server, and at faster-whisper's batching behind the same route."""

import dataclasses
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from moejax.bench import serving_table, table, workloads
from moejax.bench.engines import OURS, SERVERS, Engine, Models, environment
from moejax.bench.served import Load, Served
from moejax.bench.transcribe import error_rate, said
from moejax.convert import find
from moejax.errors import BadValue, Refused

SEED = 0  # of who asks for what


@dataclasses.dataclass
class Settings:
    """What is asked for; see `moejax bench --help`."""

    groups: tuple[str, ...] = ("serve",)
    peers: bool = False
    json: str | None = None
    model: str = "tiny.en"
    language: str = "en"
    data: str | None = None
    files: tuple[str, ...] = ()
    clients: int = 50
    calls: int = 2
    row_limit: float = 1800.0
    limit: float = 7200.0

    def checked(self) -> "Settings":
        """The same. Errors: BadValue for numbers that measure nothing, or no recordings."""
        for name in ("clients", "calls", "row_limit", "limit"):
            if getattr(self, name) <= 0:
                raise BadValue(f"--{name} must be positive, got {getattr(self, name)}")
        if (self.data is None) == (not self.files):
            raise BadValue("bench serve wants recordings: either --data FOLDER or --files FILE ...")
        return dataclasses.replace(self, files=tuple(self.files))


@dataclasses.dataclass
class Row:
    """One server: seconds of its starts, its loads, what it wrote when each recording was asked for by itself, and how
    long that took all together.
    """

    engine: Engine
    cache: Path | None
    why: str
    starts: list[float] = dataclasses.field(default_factory=list)
    loads: list[Load] = dataclasses.field(default_factory=list)
    alone: list[str] = dataclasses.field(default_factory=list)
    alone_seconds: float | None = None

    def best(self, wanted: int) -> tuple[Load | None, str]:
        """The median of the clean loads where there are enough, else of all of them with a note."""
        clean = [one for one in self.loads if one.clean]
        chosen = sorted(clean if len(clean) >= wanted else self.loads, key=lambda one: one.seconds)
        if not chosen:
            return None, ""
        busy = statistics.median(one.others or 0.0 for one in self.loads)
        note = "" if len(clean) >= wanted else f"others used {busy:.1f} cores"
        return chosen[(len(chosen) - 1) // 2], note


def report(settings: Settings) -> int:
    """Prints the table and writes the JSON file; 0 when anything of ours could be measured, else 1."""
    with tempfile.TemporaryDirectory(prefix="moejax-bench-") as folder:
        found = Bench(settings, Path(folder)).run()
    print(serving_table.text(found))
    if settings.json:
        table.write(Path(settings.json), found)
    return 0 if any(row["seconds"] is not None for row in found["rows"] if row["engine"] == OURS) else 1


def chosen(recordings: Sequence[workloads.Recording], clients: int, folder: Path) -> list[workloads.Recording]:
    """One recording for each client, in an order by chance: every one of them once before any comes again."""
    places = np.random.default_rng(SEED).permutation(len(recordings))[:clients]
    written = [workloads.copied(recordings[place], folder, number) for number, place in enumerate(places)]
    return [written[number % len(written)] for number in range(clients)]


class Bench:
    """One run of the benchmark in a folder of its own."""

    def __init__(self, settings: Settings, folder: Path):
        self.settings, self.started = settings, time.monotonic()
        self.models = Models(settings.model, find.model(settings.model), settings.language, folder)
        sounds = folder / "sounds"
        sounds.mkdir(parents=True)
        self.asked = chosen(workloads.found(settings.data, settings.files), settings.clients, sounds)
        engines = [engine for engine in SERVERS if engine.ours or settings.peers]
        caches = [folder / "programs" / str(i) if engine.ours else None for i, engine in enumerate(engines)]
        self.rows = [Row(engine, cache, engine.missing()) for engine, cache in zip(engines, caches, strict=True)]

    def run(self) -> dict[str, Any]:
        """The whole report as plain values. The servers take turns, the order turning round each time."""
        for turn in range(self.settings.calls):
            for row in self.rows if turn % 2 == 0 else reversed(self.rows):
                late = time.monotonic() - self.started > self.settings.limit
                if not (row.why or (late and row.loads)):
                    said(f"{row.engine.name} {row.engine.pipeline}, turn {turn + 1}")
                    self._turn(row)
        said(None)
        return {
            "settings": dataclasses.asdict(self.settings),
            "machine": table.machine(),
            "load": os.getloadavg(),
            "audio": sum(one.seconds for one in self.asked),
            "longest": max(one.seconds for one in self.asked),
            "shortest": min(one.seconds for one in self.asked),
            "rows": [self._plain(row) for row in self.rows],
            "seconds": round(time.monotonic() - self.started, 1),
        }

    def _turn(self, row: Row):
        """A start, a load, and once each recording by itself; what goes wrong is the row's reason, not the end of all.

        Our very first start compiles, which is a number of its own: it is started again before it is asked.
        """
        settings, files = self.settings, [one.path for one in self.asked]
        try:
            argv = row.engine.argv(self.models, [], Path())
            for _ in range(2 if row.engine.ours and not row.starts else 1):
                server = Served(argv, environment(row.cache), settings.row_limit)
                row.starts.append(server.started)
                if row.engine.ours and len(row.starts) == 1:
                    server.close()
            try:
                row.loads.append(server.load(files, settings.language, settings.clients))
                if not row.alone:
                    begun = time.perf_counter()
                    row.alone = [server.ask(file, settings.language)[0] for file in dict.fromkeys(files)]
                    row.alone_seconds = time.perf_counter() - begun
            finally:
                server.close()
        except (Refused, OSError) as error:
            row.why = str(error)

    def _plain(self, row: Row) -> dict:
        best, note = row.best(self.settings.calls)
        starts = row.starts[1:] if row.engine.ours else row.starts
        texts = best.texts if best else []
        files = [one.path for one in self.asked]
        known = dict(zip(dict.fromkeys(files), row.alone, strict=False))
        p50, p95 = np.percentile(best.waits, (50, 95)).tolist() if best else (None, None)
        return {
            "engine": row.engine.name,
            "pipeline": row.engine.pipeline,
            "first_start": row.starts[0] if row.engine.ours and row.starts else None,
            "start": statistics.median(starts) if starts else None,
            "seconds": best and best.seconds,
            "p50": p50,
            "p95": p95,
            "processor": best and best.processor,
            "alone_seconds": row.alone_seconds,
            "as_alone": sum(text == known.get(file) for text, file in zip(texts, files, strict=False)),
            "wer": error_rate(self.asked, texts, self.settings.language, self.models.folder) if texts else None,
            "texts": texts,
            "loads": [dataclasses.asdict(one) for one in row.loads],
            "note": note if best else "",
            "why": row.why,
        }
