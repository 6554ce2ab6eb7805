"""Ogg page by page: which recordings follow on one another in a file (a chain), and whether the last was cut."""

from typing import BinaryIO

from moejax.audio.flaws import Flaws
from moejax.audio.spliced import Spliced, size

_FIRST, _LAST = 2, 4  # flags of a page: the stream begins, ends
_HEADER = 27


def links(stream: BinaryIO, flaws: Flaws) -> list[Spliced]:
    """The recordings of an Ogg file, each as a stream of its own. Errors: `Undecodable` where the last has no end."""
    end, at = size(stream), 0
    starts: list[int] = []
    began, opened = False, set()  # whether the last page was one that begins, and the streams that have not ended
    while at + _HEADER <= end:
        stream.seek(at)
        head = stream.read(_HEADER + 255)
        if head[:4] != b"OggS":
            at = _next(stream, at, end)
            continue
        table = head[_HEADER : _HEADER + head[26]]
        behind = at + _HEADER + head[26] + sum(table)
        if behind > end:
            break
        flags, serial = head[5], head[14:18]
        if flags & _FIRST:
            if not began:
                starts.append(at)
                opened = set()
            opened.add(serial)
        began = bool(flags & _FIRST)
        if flags & _LAST:
            opened.discard(serial)
        at = behind
    if opened or at < end and not starts:
        flaws.add("truncated", "truncated: it ends before its last page; how much is missing nobody knows")
    if not starts:
        return []
    return [Spliced(stream, [(start, stop)]) for start, stop in zip(starts, [*starts[1:], at], strict=True)]


def _next(stream, at, end) -> int:
    """Where the next page begins; the end of the file if none does."""
    at += 1
    while at < end:
        stream.seek(at)
        block = stream.read(1 << 16)
        if (found := block.find(b"OggS")) >= 0:
            return at + found
        at += max(1, len(block) - 3) if len(block) > 3 else len(block)
    return end
