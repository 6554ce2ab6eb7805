"""Encoder states on disk by what was heard: whatever window a frozen encoder has heard once, no stage hears again.

A window is known by a digest of its content, so it does not matter who asks, for what, or in which order; and what a
killed run has written is there for the next. W/states/<base>.bin has the states, rows of frames one after the other,
and <base>.idx where each window's begin: written after them, so that what it names is whole. Of several processes each
writes files of its own, <base>.1.bin and so on, as no lock is worth much between hosts; all read all of them.
"""

import fcntl
import os
from collections.abc import Iterable
from pathlib import Path

import jax
import numpy as np

from moejax.runtime import processes

KEY = 16  # bytes of a digest
_ENTRY = np.dtype([("key", f"V{KEY}"), ("first", "<i8"), ("frames", "<i8")])
Place = tuple[str, int, int]  # the part's name, its first row of these states, their number of frames


class Heard:
    """States [T, D] by their keys. All processes of a group write, a part each; several runs in one workdir may."""

    def __init__(self, path: Path | str, width: int, dtype: str, limit: int):
        """`path` without its ending; `limit` bytes of states, from which on no more are kept."""
        self.path, self.width, self.dtype, self.limit = Path(path), int(width), jax.numpy.dtype(dtype), int(limit)
        self.row = self.width * self.dtype.itemsize
        self.at: dict[bytes, Place] = {}
        self._own = f"{self.path.name}.{processes.index()}" if processes.index() else self.path.name
        self._read: dict[str, int] = {}  # bytes of each part's index that are known
        self.refresh()

    def __contains__(self, key: bytes) -> bool:
        return key in self.at

    def __call__(self, key: bytes) -> np.ndarray:
        """The states of a window that is kept; maps the file for this one read, so it pickles and costs no memory."""
        part, first, frames = self.at[key]
        at = (frames, self.width)
        return np.array(np.memmap(self._file(part, "bin"), self.dtype, "r", offset=first * self.row, shape=at))

    def refresh(self) -> None:
        """Takes in what others have written; an entry whose states are not whole is none."""
        parts = [self.path.name, *(file.stem for file in sorted(self.path.parent.glob(f"{self.path.name}.*.idx")))]
        for part in parts:
            self._refresh(part)

    def _refresh(self, part: str) -> None:
        index, states = self._file(part, "idx"), self._file(part, "bin")
        size = states.stat().st_size // self.row if states.exists() else 0
        read = self._read.get(part, 0)
        if not index.exists() or index.stat().st_size < read:
            self.at = {key: place for key, place in self.at.items() if place[0] != part}
            read = self._read[part] = 0
        if not index.exists():
            return
        with open(index, "rb") as file:
            file.seek(read)
            found = file.read()
        whole = np.frombuffer(found[: len(found) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY)
        self._read[part] = read + whole.nbytes
        ends = whole["first"] + whole["frames"]
        self.at |= {bytes(one["key"]): (part, int(one["first"]), int(one["frames"])) for one in whole[ends <= size]}
        lost = [key for key, (name, first, frames) in self.at.items() if name == part and first + frames > size]
        for key in lost:
            del self.at[key]

    def room(self, frames: int) -> bool:
        """Whether so many frames more stay within the limit."""
        used = sum(frames for _, _, frames in self.at.values())
        return (used + frames) * self.row <= self.limit

    def add(self, new: Iterable[tuple[bytes, np.ndarray]]) -> None:
        """Keeps states, as many as there is room for; what is there already stays."""
        own = self._own
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._file(own, "idx"), "ab") as index, open(self._file(own, "bin"), "ab") as states:
            fcntl.flock(index, fcntl.LOCK_EX)
            os.ftruncate(index.fileno(), os.fstat(index.fileno()).st_size // _ENTRY.itemsize * _ENTRY.itemsize)
            self.refresh()
            entries = []
            at = -(-os.fstat(states.fileno()).st_size // self.row)
            os.ftruncate(states.fileno(), at * self.row)  # a killed run may have left a part of a row
            states.seek(0, os.SEEK_END)
            for key, states_TD in new:
                if key not in self.at and self.room(len(states_TD)):
                    states.write(np.ascontiguousarray(states_TD, self.dtype).data)
                    self.at[key] = (own, at, len(states_TD))
                    entries.append((key, at, len(states_TD)))
                    at += len(states_TD)
            states.flush()
            index.write(np.array(entries, _ENTRY).tobytes())
            index.flush()
            self._read[own] = index.tell()

    def _file(self, part: str, ending: str) -> Path:
        return self.path.with_name(f"{part}.{ending}")
