"""Encoder states on disk by what was heard: whatever window a frozen encoder has heard once, no stage hears again.

A window is known by a digest of its content, so it does not matter who asks, for what, or in which order; and what a
killed run has written is there for the next. W/states/<base>.bin has the states, rows of frames one after the other,
and <base>.idx where each window's begin: written after them, so that what it names is whole.
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


class Heard:
    """States [T, D] by their keys. One process of a group writes; several runs in one workdir may."""

    def __init__(self, path: Path | str, width: int, dtype: str, limit: int):
        """`path` without its ending; `limit` bytes of states, from which on no more are kept."""
        self.path, self.width, self.dtype, self.limit = Path(path), int(width), jax.numpy.dtype(dtype), int(limit)
        self.row = self.width * self.dtype.itemsize
        self.at: dict[bytes, tuple[int, int]] = {}
        self._read = 0  # bytes of the index that are known
        self.refresh()

    def __contains__(self, key: bytes) -> bool:
        return key in self.at

    def __call__(self, key: bytes) -> np.ndarray:
        """The states of a window that is kept; maps the file for this one read, so it pickles and costs no memory."""
        first, frames = self.at[key]
        at = (frames, self.width)
        return np.array(np.memmap(self._file("bin"), self.dtype, "r", offset=first * self.row, shape=at))

    def refresh(self) -> None:
        """Takes in what others have written; an entry whose states are not whole is none."""
        index, states = self._file("idx"), self._file("bin")
        size = states.stat().st_size // self.row if states.exists() else 0
        if not index.exists() or index.stat().st_size < self._read:
            self.at, self._read = {}, 0
        if not index.exists():
            return
        with open(index, "rb") as file:
            file.seek(self._read)
            found = file.read()
        whole = np.frombuffer(found[: len(found) // _ENTRY.itemsize * _ENTRY.itemsize], _ENTRY)
        self._read += whole.nbytes
        ends = whole["first"] + whole["frames"]
        self.at |= {bytes(one["key"]): (int(one["first"]), int(one["frames"])) for one in whole[ends <= size]}
        self.at = {key: place for key, place in self.at.items() if sum(place) <= size}

    def room(self, frames: int) -> bool:
        """Whether so many frames more stay within the limit."""
        used = sum(frames for _, frames in self.at.values())
        return (used + frames) * self.row <= self.limit

    def add(self, new: Iterable[tuple[bytes, np.ndarray]]) -> None:
        """Keeps states, as many as there is room for; what is there already stays."""
        if not processes.first():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._file("idx"), "ab") as index, open(self._file("bin"), "ab") as states:
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
                    self.at[key] = (at, len(states_TD))
                    entries.append((key, at, len(states_TD)))
                    at += len(states_TD)
            states.flush()
            index.write(np.array(entries, _ENTRY).tobytes())
            index.flush()
            self._read = index.tell()

    def _file(self, ending: str) -> Path:
        return self.path.with_name(f"{self.path.name}.{ending}")
