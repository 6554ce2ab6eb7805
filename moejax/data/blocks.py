"""Rows of arrays on disk in files of a few rows each: written whole or not at all, so that a killed run goes on."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import numpy as np

from moejax.runtime import faults
from moejax.runtime.files import replacing

ROWS = 32  # of a block


@dataclasses.dataclass(frozen=True)
class Blocks:
    """`blocks[row]` is a row; pickles for loader processes, and maps files, so that it costs no memory."""

    folder: Path

    def __getitem__(self, row: int) -> np.ndarray:
        return _mapped(self._file(row // ROWS))[row % ROWS]

    def missing(self, rows: range) -> bool:
        """Whether the block of these rows (one of `blocks_of`) is not there."""
        return not self._file(rows[0] // ROWS).exists()

    def rows(self, rows: range) -> int:
        """How many rows the block of these holds."""
        return len(np.load(self._file(rows[0] // ROWS), mmap_mode="r"))

    def remove(self, rows: range) -> None:
        """The block of these rows."""
        self._file(rows[0] // ROWS).unlink()
        _mapped.cache_clear()

    def write(self, rows: range, array: np.ndarray) -> None:
        """The rows of one block, stacked."""
        with replacing(self._file(rows[0] // ROWS)) as partial, open(partial, "wb") as out:
            np.save(out, array)
        faults.point("clips.block")

    def _file(self, block: int) -> Path:
        return self.folder / f"{block:05d}.npy"


def blocks_of(count: int) -> list[range]:
    """The rows of every block."""
    return [range(at, min(at + ROWS, count)) for at in range(0, count, ROWS)]


def fill(
    work, desc: str, count: int, parts: tuple[Blocks, ...], make: Callable[[range], tuple[np.ndarray, ...]]
) -> None:
    """Writes the blocks of `count` rows that are not in all `parts`, with progress; `make(rows)` gives each part's."""
    absent = [rows for rows in blocks_of(count) if any(part.missing(rows) for part in parts)]
    for rows in work.progress(absent, len(absent), desc):
        for part, array in zip(parts, make(rows), strict=True):
            part.write(rows, array)


@functools.lru_cache(maxsize=4096)
def _mapped(file: Path) -> np.ndarray:
    return np.load(file, mmap_mode="r")
