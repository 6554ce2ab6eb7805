"""`moejax bench`: measures the rows asked for, prints one table, keeps everything in a JSON file."""

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

from moejax.bench import floor, load, measure, rows, table
from moejax.bench.side import Side, SideError
from moejax.errors import BadValue

PREPARE = 900.0  # seconds that building and compiling a job may take


@dataclasses.dataclass
class Settings:
    """What is asked for; `groups`, `peers` and `json` aside it is also what every job gets as options."""

    groups: tuple[str, ...] = ()  # of `rows.GROUPS`; none means all
    peers: bool = False
    json: str | None = None
    size: str = "tiny"
    batch: int = 8
    seconds: float = 30.0
    tokens: int = 64
    dtype: str = "float32"
    weights: str = ""
    devices: int = 1
    calls: int = measure.CALLS
    row_limit: float = 120.0
    limit: float = 3600.0
    check: bool = False

    def checked(self) -> "Settings":
        """The same with its groups named. Errors: a group that there is not, numbers that measure nothing."""
        groups = tuple(self.groups) or rows.GROUPS
        if unknown := [group for group in groups if group not in rows.GROUPS]:
            raise BadValue(f"unknown bench {unknown[0]!r}; known: {', '.join(rows.GROUPS)}, transcribe")
        for name in ("batch", "tokens", "devices", "seconds", "row_limit", "limit"):
            if getattr(self, name) <= 0:
                raise BadValue(f"--{name} must be positive, got {getattr(self, name)}")
        if self.calls < measure.CALLS:
            raise BadValue(f"--calls must be at least {measure.CALLS}: a median of fewer says nothing")
        if self.batch % self.devices:
            raise BadValue(f"--batch {self.batch} does not divide by --devices {self.devices}")
        return dataclasses.replace(self, groups=groups)


def report(settings: Settings) -> int:
    """Prints the table and writes the JSON file; 0 when anything could be measured or compared, else 1."""
    with tempfile.TemporaryDirectory(prefix="moejax-bench-") as folder:
        found = Bench(settings, Path(folder)).run()
    print(table.text(found))
    if settings.json:
        table.write(Path(settings.json), found)
    return 0 if any(row["status"] == "measured" for row in (*found["rows"], *found["differences"])) else 1


class Bench:
    """One run: the sides that it started, the weights, and the rows found so far."""

    def __init__(self, settings: Settings, folder: Path, say=None):
        self.settings, self.folder = settings, folder
        self.sides: dict[str, Side] = {}
        self.dead: dict[str, str] = {}
        self.hello: dict[str, dict] = {}
        self.started = time.monotonic()
        self.say = say or _say
        self.common: dict = {}
        self.meter = None

    def run(self) -> dict:
        """The whole report as plain values."""
        try:
            self._prepare()
            chosen = [d for d in rows.differences() if d.group in self.settings.groups and self.settings.peers]
            differences = [self._compare(difference) for difference in chosen]
            self._end_sides()
            found, peaks = [], None
            if not self.settings.check:
                peaks = self._peaks()
                found = [self._measure(row, peaks) for row in self._rows()]
            return self._report(found, differences, peaks)
        finally:
            self._end_sides()
            self.say(None)

    def _rows(self):
        s = self.settings
        item = 2 if s.dtype == "bfloat16" else 4
        all_rows = rows.rows(_sizes(s), s.batch, s.seconds, s.tokens, len(self.common["prefix"]), item)
        chosen, alone = [], []
        for row in all_rows:
            if row.group not in s.groups:
                continue
            if row.needs_peers and not s.peers:
                if row.ours in alone:  # timed once, however many peers it has
                    continue
                alone.append(row.ours)
                row = dataclasses.replace(row, name=row.name.split(" / ")[0], theirs=(), must=None, aim=None)
            chosen.append(row)
        return chosen

    def _prepare(self):
        s = self.settings
        self.common = {
            "folder": str(self.folder / "model"),
            "batch": s.batch,
            "seconds": s.seconds,
            "tokens": s.tokens,
            "dtype": s.dtype,
            "weights": s.weights,
            "devices": s.devices,
        }
        self.say("random weights")
        ours = self._side(rows.OURS)
        ours.ask(PREPARE, do="prepare", name="folder", job="folder", options={**self.common, "size": s.size})
        self.common |= ours.ask(60.0, do="value", name="folder")["value"]
        if self.hello[rows.OURS]["device"] == "cpu" and load.available():
            self.meter = load.Meter()

    def _side(self, name) -> Side:
        """The living process of that name. Errors: SideError, also for one that died before."""
        if name in self.dead:
            raise SideError(self.dead[name])
        if name not in self.sides:
            module = name.split("#")[0]
            try:
                devices = {"JAX_NUM_CPU_DEVICES": str(self.settings.devices)} if self.settings.devices > 1 else {}
                self.sides[name] = Side(module, devices)
                self.hello[name] = self.sides[name].ask(PREPARE, do="hello")
            except SideError as error:
                self.sides.pop(name).close()
                extra = ' (pip install "moejax[peers]")' if "No module named" in str(error) else ""
                self.dead[name] = f"{error}{extra}"
                raise SideError(self.dead[name]) from error
        return self.sides[name]

    def _ready(self, task: rows.Task) -> measure.Contestant:
        """The task built and run once in its process."""
        name = f"{task.job} {sorted(task.options.items())}"
        side = self._side(task.side)
        options = {**self.common, **task.options}
        single = side.ask(PREPARE, do="prepare", name=name, job=task.job, options=options)["single"]
        return measure.Contestant(side, name, repeat=1 if single else 0)

    def _free(self, contestants):
        for contestant in contestants:
            if contestant.side in self.sides.values():
                contestant.side.ask(60.0, do="drop", name=contestant.name)

    def _peaks(self) -> dict:
        """{"flops_per_s", "bytes_per_s", "why"}: medians of clean calls; None where there are too few."""
        found = {"flops_per_s": None, "bytes_per_s": None, "why": ""}
        jobs = ["peak_sgemm", "peak_copy"] + (["peak_blas"] if self.hello[rows.OURS]["device"] == "cpu" else [])
        contestants = [self._ready(rows.Task(rows.OURS, job)) for job in jobs]
        self._alternate(contestants, "peaks")
        medians = {job: c.median() for job, c in zip(jobs, contestants, strict=True)}
        products = [median for job, median in medians.items() if job != "peak_copy" and median]
        if products:
            found["flops_per_s"] = 2.0 * floor.product_size(self.hello[rows.OURS]["device"]) ** 3 / min(products)
        if medians["peak_copy"]:
            found["bytes_per_s"] = 2.0 * 256 * 2**20 / medians["peak_copy"]
        if not (products and medians["peak_copy"]):
            found["why"] = next(c.why_not() for c in contestants if c.median() is None)
        self._free(contestants)
        return found

    def _alternate(self, contestants, what):
        s = self.settings
        for contestant in contestants:
            measure.settle(contestant, PREPARE)
        left = s.limit - (time.monotonic() - self.started)
        measure.alternate(
            contestants,
            meter=self.meter,
            wanted=s.calls,
            limit=max(0.0, min(s.row_limit, left)),
            report=lambda them: self.say(f"{what}: " + ", ".join(f"{len(c.clean)}/{len(c.calls)}" for c in them)),
        )

    def _measure(self, row: rows.Row, peaks) -> dict:
        """One row of the report; whatever goes wrong is its status, not the end of the run."""
        found = {"group": row.group, "name": row.name, "must": row.must, "aim": row.aim, "status": "not measured"}
        contestants = []
        if time.monotonic() - self.started > self.settings.limit:
            return {**found, "why": "the time limit was reached before"}
        try:
            self.say(f"{row.name}: preparing")
            for task in (row.ours, *row.theirs):
                contestants.append(self._ready(task))
            self._alternate(contestants, row.name)
            self._free(contestants)
        except SideError as error:
            self._end_sides()  # one of them may be stuck or gone: the next row starts fresh ones
            return {**found, "why": str(error)}
        ours, theirs = contestants[0], contestants[1:]
        found |= table.times(ours, theirs, [task.job for task in row.theirs])
        return found | table.floors(found["ours_seconds"], row.works, peaks)

    def _compare(self, difference: rows.Difference) -> dict:
        found = {"group": difference.group, "name": difference.name, "must": difference.must, "aim": difference.aim}
        try:
            self.say(f"{difference.name}: comparing")
            files = []
            for task in (difference.ours, difference.theirs):
                contestant = self._ready(task)
                files.append(self.folder / f"{len(files)}.npy")
                contestant.side.ask(60.0, do="save", name=contestant.name, path=str(files[-1]))
                self._free([contestant])
            return found | table.difference(*files, tokens=difference.tokens)
        except SideError as error:
            self._end_sides()
            return {**found, "status": "not measured", "why": str(error)}

    def _end_sides(self):
        for side in self.sides.values():
            side.close()
        self.sides.clear()

    def _report(self, found, differences, peaks) -> dict:
        device = self.hello[rows.OURS]
        how = f"only calls with less than {load.LIMIT} cores used by others" if self.meter else "all calls"
        if self.meter is None:
            how += f" ({device['kind']}: /proc/stat says nothing about a call there)"
        settings = dataclasses.asdict(self.settings)
        return {
            "settings": settings,
            "machine": table.machine(),
            "sides": self.hello,
            "counted": how,
            "peaks": peaks,
            "rows": found,
            "differences": differences,
            "seconds": round(time.monotonic() - self.started, 1),
        }


def _sizes(settings):
    from moejax.bench.weights import sized

    return sized(settings.size, settings.seconds)


def _say(message) -> None:
    """The progress line on a terminal; one line per change of row elsewhere would only fill a log."""
    if sys.stderr.isatty():
        print(f"\r\033[K{'' if message is None else 'bench: ' + message}", end="", file=sys.stderr, flush=True)
