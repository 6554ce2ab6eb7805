"""RIFF headers that lie: WAV files as pipes, streams and broken writers leave them.

libsndfile believes the header: it reads nothing where a pipe left 0, half where half is declared, and a truncated file
without a word. What the header promises is compared with what is there, and the header is put right on the way.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from moejax.audio.flaws import Flaws, Undecodable
from moejax.audio.spliced import Spliced, size, whole

_MAX_CHUNKS = 1000  # before the samples of a WAV; a file of zeros would be a million chunks of nothing
# Writers to a pipe leave 0, or some length near 2^31 or 2^32 less headers and a rounding: 0x7FFFF000, 0x80000000,
# 0x7FFFFFDB, 0xFFFFFFDB, 0xFFFFFFFF.
_UNKNOWN_SLACK = 8192
_SLACK_BYTES = 256  # a header that counts itself, a last block that was not filled: nothing that can be heard
# Chunks that stand behind the samples, whether or not their own lengths are right.
_BEHIND = (b"LIST", b"id3 ", b"ID3 ", b"bext", b"fact", b"cue ", b"smpl", b"inst", b"PEAK", b"JUNK", b"junk", b"PAD ")
_BEHIND += (b"iXML", b"axml", b"_PMX", b"FLLR", b"acid", b"DISP", b"afsp", b"chna", b"RIFF")


def known(head: bytes) -> bool:
    """Whether these first 12 bytes are those of a WAV."""
    return head[:4] in (b"RIFF", b"RIFX", b"RF64", b"FFIR") and head[8:12] == b"WAVE"


@dataclass(frozen=True)
class _Header:
    """`data`: where the samples begin; `declared` bytes, None where the writer did not know; `end` of the file.

    `size_at` is the place of the field that holds the length, `field` its format; `block` the bytes of one frame of
    all channels, `per_second` of a second, 0 where the header does not say.
    """

    data: int
    declared: int | None
    end: int
    size_at: int
    field: str
    block: int
    per_second: int

    @property
    def present(self) -> int:
        return self.end - self.data

    def said(self, count: int) -> str:
        """So many bytes of samples, for a person."""
        return f"{count / self.per_second:.2f} s" if self.per_second else f"{count} bytes of samples"


def mended(stream: BinaryIO, flaws: Flaws) -> tuple[Spliced, bool]:
    """(the file with a true header, whether it had to be put right). Errors: `Undecodable`; no samples at all."""
    header = _header(stream)
    declared, present = header.declared, header.present
    if declared is None:
        if not header.block or present < header.block:
            raise Undecodable("empty", "no samples")
        return _patched(stream, header, present), True
    if present < declared:
        if declared - present > _SLACK_BYTES:
            promised, there = header.said(declared), header.said(present)
            flaws.add("truncated", f"truncated: the header promises {promised}, {there} are there")
        return _patched(stream, header, present), True
    if not declared and not present:
        raise Undecodable("empty", "no samples")
    more = _undeclared(stream, header)
    if more > _SLACK_BYTES:
        flaws.add("wrong_length", f"the header declares {header.said(declared)}, {header.said(more)} more follow")
        return _patched(stream, header, present), True
    return whole(stream), False


def _header(stream) -> _Header:
    end = size(stream)
    stream.seek(0)
    order = ">" if stream.read(12)[:4] in (b"RIFX", b"FFIR") else "<"
    long_data, long_at, block, per_second = None, 0, 0, 0
    for _ in range(_MAX_CHUNKS):
        if len(chunk := stream.read(8)) < 8:
            break
        count, at = struct.unpack(order + "I", chunk[4:])[0], stream.tell()
        if chunk[:4] == b"ds64" and len(body := stream.read(16)) == 16:
            long_data, long_at = struct.unpack("<Q", body[8:])[0], at + 8
        elif chunk[:4] == b"fmt " and len(body := stream.read(16)) == 16:
            per_second, block = struct.unpack(order + "IH", body[8:14])
        elif chunk[:4] == b"data":
            field, size_at, declared = order + "I", at - 4, count
            if count == 0xFFFFFFFF and long_data is not None:
                field, size_at, declared = "<Q", long_at, long_data
            unknown = _unknown(declared, field, end - at) and not (count == 0 and _chunks_to(stream, order, at, end))
            return _Header(at, None if unknown else declared, end, size_at, field, block, per_second)
        stream.seek(at + count + (count & 1))
    raise Undecodable("unreadable", "a WAV header without samples behind it")


def _unknown(declared, field, present) -> bool:
    """Whether a length was written by somebody who did not know it."""
    if declared == 0:
        return present > 0
    if declared <= present or field == "<Q":
        return False
    return declared >= 2**32 - _UNKNOWN_SLACK or abs(declared - 2**31) <= _UNKNOWN_SLACK


def _undeclared(stream, header) -> int:
    """Bytes behind the declared end that are samples: all of them, unless chunks stand there, or only padding."""
    at = header.data + header.declared
    if header.end - at <= _SLACK_BYTES:
        return 0
    for start in (at + (at & 1), at):
        if _chunks_to(stream, header.field[0], start, header.end):
            return 0
    stream.seek(at)
    while block := stream.read(1 << 16):
        if block.strip(b"\0"):
            return header.end - at
    return 0


def _chunks_to(stream, order, at, end) -> bool:
    """Whether chunks stand from here to the end of the file; of those that everybody knows the first is enough."""
    for number in range(_MAX_CHUNKS):
        if end - at < 8:
            return number > 0
        stream.seek(at)
        chunk = stream.read(8)
        if chunk[:4] in _BEHIND:
            return True
        count = struct.unpack(order + "I", chunk[4:])[0]
        if not all(32 <= sign < 127 for sign in chunk[:4]) or at + 8 + count > end + 1:
            return False
        at += 8 + count + (count & 1)
    return False


def _patched(stream, header, present) -> Spliced:
    """The file with this many bytes of samples declared, whole frames, and nothing behind them."""
    present -= present % max(1, header.block)
    limit = 0xFFFFFFFF if header.field[1] == "I" else 1 << 63
    if present > limit:  # 4 GiB through a pipe: libsndfile reads to the end where all bits are set
        return whole(stream, {header.size_at: b"\xff" * 4})
    patch = {header.size_at: struct.pack(header.field, present)}
    return Spliced(stream, [(0, header.data + present)], patch)
