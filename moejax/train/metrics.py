"""Metrics of a run: `metrics.jsonl` (one object per logged step, exact) and TensorBoard events (to look at)."""

import contextlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moejax.errors import BadValue
from moejax.runtime import faults
from moejax.runtime.files import replacing

FILE = "metrics.jsonl"


def exact(value: Any) -> Any:
    """JSON form of a number or array that reads back as the same bits.

    float32 is written with the fewest digits that identify it; infinities and nan, which JSON lacks, as "inf", "-inf",
    "nan"; arrays as nested lists. A string or None passes through.
    """
    if value is None or isinstance(value, (str, bool, int)):
        return value
    array = np.asarray(value)
    if array.ndim:
        return [exact(item) for item in array]
    if array.dtype.kind in "bi" or array.dtype.kind == "u":
        return array.item()
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        number = array.astype(np.float32) if array.dtype.itemsize < 4 else array
        return float(str(number)) if math.isfinite(number) else str(float(number))
    raise ValueError(f"a metric of dtype {array.dtype} cannot be logged")


def read(path: Path | str) -> list[dict]:
    """Records of a metrics.jsonl; a last line cut off by a kill is left out, any other bad line is a ValueError."""
    lines = Path(path).read_text().split("\n")
    records = []
    for number, line in enumerate(lines[:-1], 1):  # what follows the last newline is empty, or a line cut off
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise BadValue(f"{path} line {number} is not JSON: {error}") from error
    return records


class MetricLog:
    """Appends to `directory`/metrics.jsonl, flushed per record, and to TensorBoard events in the same directory.

    `start` is the step restored from (0: none): records of later steps, written by a run that was killed before it
    saved them, are removed first, so that every step stands once. Wall time is the one field `seconds`, and the only
    one that differs between a resumed and an uninterrupted run.
    """

    def __init__(self, directory: Path | str, start: int = 0):
        self.path = Path(directory) / FILE
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.truncate(start)
        # imported here because it imports torch wherever torch is installed: seconds, for a process that logs nothing
        from tensorboardX import SummaryWriter

        # Any: `close` looks into it
        self._events: Any = SummaryWriter(str(self.path.parent), purge_step=start + 1, flush_secs=30)

    def truncate(self, step: int) -> None:
        """Remove the records of steps after `step`; the file is replaced whole."""
        if getattr(self, "_file", None):
            self._file.close()
        if self.path.exists():
            kept = [record for record in read(self.path) if record["step"] <= step]
            with replacing(self.path) as partial:
                partial.write_text("".join(json.dumps(record) + "\n" for record in kept))
                faults.point("metrics.truncated")
        self._file = self.path.open("a")

    def write(self, step: int, metrics: Mapping[str, Any], seconds: float) -> None:
        """One record {"step", metrics.., "seconds"}. Scalars go to TensorBoard too; arrays stand in the file only."""
        if reserved := {"step", "seconds"} & set(metrics):
            raise ValueError(f"a metric may not be named {sorted(reserved)[0]!r}")
        values = {name: exact(value) for name, value in metrics.items()}
        record = {"step": int(step), **values, "seconds": round(seconds, 3)}
        with self._named():
            self._file.write(json.dumps(record) + "\n")
            faults.point("metrics.record")
            self._file.flush()
        for name, value in record.items():
            if isinstance(value, (int, float)) and name not in ("step", "seconds"):
                self._events.add_scalar(name, value, int(step))

    def close(self) -> None:
        """Flush and close both. Events that a full disk does not take are lost: they are for looking at only."""
        try:
            self._events.close()
        except OSError:
            writer = self._events.file_writer.event_writer
            writer.close = lambda: None  # which the end of the process would try again, and show the stack
            writer._worker.stop()
        with self._named():
            self._file.close()

    @contextlib.contextmanager
    def _named(self):
        """A disk that refuses is said with the file."""
        try:
            yield
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
