"""Bytes of a file as they ought to stand: some stretches of it in a row, some bytes replaced. Nothing is copied."""

import bisect
import io
from collections.abc import Mapping, Sequence
from typing import BinaryIO


class Spliced:
    """A readable, seekable stream of the `ranges` (start, stop) of another one, as if nothing lay between them.

    `patches` are {place in the other stream: bytes that stand there instead}, `head` bytes before all others. For
    libsndfile's callbacks, in which an exception is printed and lost: a place that a broken header names and the file
    does not have is not gone to.
    """

    def __init__(
        self,
        stream: BinaryIO,
        ranges: Sequence[tuple[int, int]],
        patches: Mapping[int, bytes] | None = None,
        head: bytes = b"",
    ):
        self._stream, self._ranges, self._patches, self._head = stream, list(ranges), dict(patches or {}), head
        self._begins = [len(head)]
        for start, stop in self._ranges:
            self._begins.append(self._begins[-1] + stop - start)
        self._at = 0

    def __repr__(self):  # soundfile's messages say what they opened
        return "the recording"

    def __len__(self):
        return self._begins[-1]

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self)}[whence]
        if place >= 0:
            self._at = place
        return self._at

    def read(self, count: int = -1) -> bytes:
        left = max(0, len(self) - self._at)
        left = left if count < 0 else min(count, left)
        found = []
        while left > 0:
            if self._at < len(self._head):
                found.append(self._head[self._at : self._at + left])
                self._at, left = self._at + len(found[-1]), left - len(found[-1])
                continue
            number = bisect.bisect_right(self._begins, self._at) - 1
            start, stop = self._ranges[number]
            place = start + self._at - self._begins[number]
            self._stream.seek(place)
            block = self._stream.read(min(left, stop - place))
            if not block:
                break
            found.append(self._patched(block, place))
            self._at, left = self._at + len(block), left - len(block)
        return b"".join(found)

    def _patched(self, block, place):
        for at, content in self._patches.items():
            for i, byte in enumerate(content):
                if 0 <= (where := at + i - place) < len(block):
                    block = block[:where] + bytes((byte,)) + block[where + 1 :]
        return block


def whole(stream: BinaryIO, patches: Mapping[int, bytes] | None = None) -> Spliced:
    """All of a stream."""
    return Spliced(stream, [(0, size(stream))], patches)


def size(stream: BinaryIO) -> int:
    """Bytes of a stream; where it stands does not stay."""
    return stream.seek(0, io.SEEK_END)
