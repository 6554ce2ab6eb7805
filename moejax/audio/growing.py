"""Samples that are still arriving, in memory that holds them once."""

import mmap

import numpy as np

_FIRST_BYTES = 1 << 20
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_ANONYMOUS") else {}


class Growing:
    """An array [S] of float32 that grows at its end.

    The kernel moves a mapping of its own to a larger place without copying it (Linux), and pages that nobody has
    written to cost nothing: however long a recording turns out to be, its samples stand in memory once. A list of
    blocks would stand there twice while it is joined. The mapping goes back to the kernel with the last array on it,
    whatever `allocator.keep_pages` says.
    """

    def __init__(self):
        self._map = mmap.mmap(-1, _FIRST_BYTES, **_PRIVATE)

    def append(self, block_S: np.ndarray):
        block_S = np.ascontiguousarray(block_S, np.float32)
        needed = self._map.tell() + block_S.nbytes
        if needed > len(self._map):
            self._resize(2 * needed)
        self._map.write(block_S.data)

    def finished(self) -> np.ndarray:
        """What was appended, [S] float32, without a copy; nothing can be appended any more."""
        used = self._map.tell()
        return np.frombuffer(self._map, np.float32, used // 4) if used else np.zeros(0, np.float32)

    def _resize(self, size):
        try:
            self._map.resize(size)
        except SystemError:  # no mremap on this system
            used = self._map.tell()
            old, self._map = self._map, mmap.mmap(-1, size, **_PRIVATE)
            self._map.write(memoryview(old)[:used])
