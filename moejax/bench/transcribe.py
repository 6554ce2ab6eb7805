"""`moejax bench transcribe`: whole commands on real recordings, start of the process included, beside other engines."""

import dataclasses
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moejax.bench import command, load, table, whole_table, workloads
from moejax.bench.command import CommandError, Run
from moejax.bench.engines import ENGINES, OURS, Engine, Models, environment, spelling
from moejax.convert import find
from moejax.errors import BadValue, Refused
from moejax.score import wer
from moejax.text import normalize

WAIT = 0.5  # seconds between processes: the disk writes what the last one left
MORE = 2  # turns beyond the clean runs that are wanted, for what is disturbed


@dataclasses.dataclass
class Settings:
    """What is asked for; see `moejax bench --help`."""

    groups: tuple[str, ...] = ("transcribe",)
    peers: bool = False
    json: str | None = None
    model: str = "tiny.en"
    language: str = "en"
    data: str | None = None
    files: tuple[str, ...] = ()
    workloads: str = "short,clips,talk"
    hour: bool = False
    calls: int = 2
    row_limit: float = 1800.0
    limit: float = 7200.0

    @property
    def names(self) -> tuple[str, ...]:
        """Of the workloads."""
        return tuple(filter(None, self.workloads.split(","))) + (("hour",) if self.hour else ())

    def checked(self) -> "Settings":
        """The same. Errors: BadValue for numbers that measure nothing, unknown workloads, no recordings."""
        if unknown := [name for name in self.names if name not in workloads.NAMES]:
            raise BadValue(f"unknown workload {unknown[0]!r}; known: {', '.join(workloads.NAMES)}")
        for name in ("calls", "row_limit", "limit"):
            if getattr(self, name) <= 0:
                raise BadValue(f"--{name} must be positive, got {getattr(self, name)}")
        if (self.data is None) == (not self.files):
            raise BadValue("bench transcribe wants recordings: either --data FOLDER or --files FILE ...")
        return dataclasses.replace(self, files=tuple(self.files))


@dataclasses.dataclass
class Row:
    """One engine on one workload: its runs so far, what it wrote, or why it cannot run."""

    workload: workloads.Workload
    engine: Engine
    output: Path
    cache: Path | None = None
    runs: list[Run] = dataclasses.field(default_factory=list)
    first: Run | None = None
    why: str = ""

    def clean(self) -> list[Run]:
        return [run for run in self.runs if run.clean]

    def best(self, wanted: int) -> tuple[Run | None, str]:
        """The run that stands for the row (the median clean one, else the quickest), and a note when it was not
        clean.
        """
        if not self.runs:
            return None, ""
        clean = sorted(self.clean(), key=lambda run: run.seconds)
        if len(clean) >= wanted:
            middle = clean[(len(clean) - 1) // 2]
            return dataclasses.replace(middle, seconds=statistics.median(run.seconds for run in clean)), ""
        busy = statistics.median(run.others or 0.0 for run in self.runs)
        return min(self.runs, key=lambda run: run.seconds), f"best of {len(self.runs)}, others used {busy:.1f} cores"


def report(settings: Settings) -> int:
    """Prints the table and writes the JSON file; 0 when anything of ours could be measured, else 1."""
    with tempfile.TemporaryDirectory(prefix="moejax-bench-") as folder:
        found = Bench(settings, Path(folder)).run()
    print(whole_table.text(found))
    if settings.json:
        table.write(Path(settings.json), found)
    return 0 if any(row["seconds"] is not None for row in found["rows"] if row["engine"] == OURS) else 1


class Bench:
    """One run of the benchmark in a folder of its own."""

    def __init__(self, settings: Settings, folder: Path, say=None):
        self.settings, self.folder, self.started = settings, folder, time.monotonic()
        self.engines = [engine for engine in ENGINES if engine.ours or settings.peers]
        self.models = Models(settings.model, find.model(settings.model), settings.language, folder)
        self.meter = load.available()
        self.begun: list[Engine] = []
        self.say = say or said

    def run(self) -> dict[str, Any]:
        """The whole report as plain values."""
        settings = self.settings
        chosen = workloads.made(workloads.found(settings.data, settings.files), settings.names, self.folder / "sounds")
        rows, calls = [], []
        for workload in chosen:
            some = self._rows(workload)
            self._first_starts(some)
            self._take_turns(some)
            rows += some
            if workload.name in ("short", "talk"):
                calls.append(self._calls(workload, some[0]))
        self.say(None)
        plain = [self._plain(row) for row in rows]
        return {
            "settings": dataclasses.asdict(settings),
            "machine": table.machine(),
            "load": os.getloadavg(),
            "model_bytes": self.models.bytes(),
            "workloads": [{"name": one.name, "about": one.about, "seconds": one.seconds} for one in chosen],
            "rows": plain,
            "calls": calls,
            "verdicts": whole_table.verdicts(plain, calls),
            "seconds": round(time.monotonic() - self.started, 1),
        }

    def _rows(self, workload) -> list[Row]:
        found = []
        for engine in self.engines:
            name = f"{engine.name} {engine.pipeline}".replace(" ", "-")
            output = self.folder / "texts" / workload.name / name
            output.mkdir(parents=True)
            cache = self.folder / "programs" / workload.name / name if engine.ours else None
            found.append(Row(workload, engine, output, cache, why=engine.missing()))
        return found

    def _argv(self, row: Row) -> list[str]:
        files = [str(one.path) for one in row.workload.recordings]
        return row.engine.argv(self.models, files, row.output)

    def _start(self, row: Row) -> Run | None:
        """One run of a row; what goes wrong is the row's reason, not the end of all."""
        try:
            argv = self._argv(row)
            time.sleep(WAIT)
            settings = self.settings
            return command.timed(argv, environment(row.cache), limit=settings.row_limit, meter=self.meter)
        except (CommandError, Refused, OSError) as error:
            row.why = str(error)
            return None

    def _first_starts(self, rows: list[Row]):
        """Ours with nothing compiled yet; a peer's very first run, with cold disk caches, is not counted."""
        for row in rows:
            if row.why or (not row.engine.ours and row.engine in self.begun):
                continue
            self.begun.append(row.engine)
            self.say(f"{row.workload.name}: {row.engine.name} {row.engine.pipeline}, first start")
            row.first = self._start(row)

    def _take_turns(self, rows: list[Row]):
        """All in turn, the order turning round each time, until each has its clean runs; a machine on which none was
        clean by then will not become quiet. An hour is run once.
        """
        wanted, turns = self.settings.calls, self.settings.calls + MORE
        if rows[0].workload.name == "hour":
            wanted, turns = 1, 1
        for turn in range(turns):
            if turn >= wanted and not any(row.clean() for row in rows):
                return
            for row in rows if turn % 2 == 0 else reversed(rows):
                late = time.monotonic() - self.started > self.settings.limit
                if row.why or len(row.clean()) >= wanted or (late and row.runs):
                    continue
                self.say(f"{row.workload.name}: {row.engine.name} {row.engine.pipeline}, run {turn + 1}")
                if (run := self._start(row)) is not None:
                    row.runs.append(run)

    def _calls(self, workload, row: Row) -> dict:
        """First call beside later ones in one process of ours, programs compiled before."""
        self.say(f"{workload.name}: calls of one process")
        output, file = self.folder / f"calls-{workload.name}.json", str(workload.recordings[0].path)
        argv = [sys.executable, "-m", "moejax.bench.first_call", self.settings.model, file, self.settings.language]
        try:
            for _ in range(2):  # the first process compiles what a command did not need
                command.timed([*argv, str(output)], environment(row.cache), limit=self.settings.row_limit, meter=False)
        except CommandError as error:
            return {"workload": workload.name, "why": str(error)}
        found = json.loads(output.read_text(encoding="utf-8"))
        later = statistics.median(found["calls"][1:])
        return {"workload": workload.name, "why": "", **found, "later": later, "ratio": found["calls"][0] / later}

    def _plain(self, row: Row) -> dict:
        wanted = 1 if row.workload.name == "hour" else self.settings.calls
        run, note = row.best(wanted)
        texts = self._texts(row) if run else None
        return {
            "workload": row.workload.name,
            "engine": row.engine.name,
            "pipeline": row.engine.pipeline,
            "seconds": run and run.seconds,
            "processor": run and run.processor,
            "note": note,
            "first": row.first and dataclasses.asdict(row.first) if row.engine.ours else None,
            "runs": [dataclasses.asdict(one) for one in row.runs],
            "texts": texts,
            "wer": error_rate(row.workload.recordings, texts, self.settings.language, self.models.folder)
            if texts
            else None,
            "why": row.why,
        }

    def _texts(self, row: Row) -> list[str]:
        files = [row.output / f"{one.path.stem}.txt" for one in row.workload.recordings]
        return [" ".join(file.read_text(encoding="utf-8").split()) if file.is_file() else "" for file in files]


def error_rate(
    recordings: Sequence[workloads.Recording], texts: Sequence[str], language: str, folder: Path
) -> float | None:
    """Words wrong of those said, under Whisper's English rule (the language-independent one for others); None where
    nobody wrote down what is said.
    """
    pairs = [(one.text, text) for one, text in zip(recordings, texts, strict=True) if one.text]
    if not pairs:
        return None
    spelled = spelling(folder)
    rule = (lambda text: normalize.english(text, spelled)) if language == "en" else normalize.basic
    references, heard = ([rule(text) for text in side] for side in zip(*pairs, strict=True))
    return wer.rate(wer.count(references, heard))


def said(message) -> None:
    """The progress line on a terminal."""
    if sys.stderr.isatty():
        print(f"\r\033[K{'' if message is None else 'bench: ' + message}", end="", file=sys.stderr, flush=True)
