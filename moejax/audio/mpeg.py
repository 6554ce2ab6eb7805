"""MPEG audio (MP3 and its older layers) frame by frame, so that nothing of a file is lost.

A decoder stops where the first header says that the recording ends: of two files joined it reads one. It starts only
where a frame begins, and says on the terminal what else it meets. Walking the frames finds the files within a file,
what lies between them, and whether the last one was cut.
"""

import struct
from dataclasses import dataclass, field
from typing import BinaryIO

from moejax.audio.flaws import Flaws
from moejax.audio.spliced import Spliced, size

_SEARCH = 1 << 18  # bytes of junk before the first frame
_CHAIN = 4  # frames in a row that no junk has
_WINDOW = 1 << 20
_BITRATES = {  # kbit/s by (MPEG 1 or later, layer)
    (1, 1): (0, 32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (1, 2): (0, 32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (0, 32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # by the version's bits


@dataclass(frozen=True)
class _Frame:
    """One header: `same` is what all frames of a file share, `size` bytes, `samples` of each channel."""

    same: tuple[int, int, int]  # version, layer, rate
    size: int
    samples: int
    side: int  # bytes of side information, behind which an Xing header stands


def frame_of(head: bytes) -> _Frame | None:
    """What the four bytes of a header say; None if they are none."""
    if len(head) < 4 or head[0] != 0xFF or head[1] < 0xE0:
        return None
    version, layer = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3)
    bits, rate = head[2] >> 4, head[2] >> 2 & 3
    if version == 1 or layer == 4 or bits in (0, 15) or rate == 3:
        return None
    one, padding, mono = version == 3, head[2] >> 1 & 1, head[3] >> 6 == 3
    rate = _RATES[version][rate]
    kilobits = _BITRATES[(1, layer) if one else (2, min(layer, 2))][bits]
    samples = 384 if layer == 1 else 1152 if layer == 2 or one else 576
    if layer == 1:
        length = (12000 * kilobits // rate + padding) * 4
    else:
        length = samples // 8 * 1000 * kilobits // rate + padding
    side = (17 if mono else 32) if one else (9 if mono else 17)
    return _Frame((version, layer, rate), length, samples, side)


@dataclass
class Part:
    """One file within the file: where its frames lie, how many there are, how many its own header promises."""

    same: tuple[int, int, int]
    ranges: list[tuple[int, int]] = field(default_factory=list)
    frames: int = 0
    promised: int | None = None
    samples: int = 0  # of a frame
    counts: dict[int, str] = field(default_factory=dict)  # {place: "frames" or "bytes"} of the numbers in its header

    def stream(self, stream: BinaryIO) -> Spliced:
        """Its bytes, with a header that says what is there: else the decoder would speak of it on the terminal."""
        amount = {"frames": self.frames, "bytes": sum(stop - start for start, stop in self.ranges)}
        patches = {at: struct.pack(">I", amount[which]) for at, which in self.counts.items()}
        return Spliced(stream, self.ranges, patches, self._header(stream) if self.promised is None else b"")

    def _header(self, stream) -> bytes:
        """A frame that holds no sound but how many frames follow: without one the decoder guesses from the bitrate of
        the first, and stops there.
        """
        if self.same[1] != 3:  # the older layers keep to one bitrate
            return b""
        stream.seek(self.ranges[0][0])
        first = bytearray(stream.read(4))
        first[1] |= 1  # no checksum
        first[2] = 0x80 | first[2] & 0x0C  # 112 or 64 kbit/s: room enough; no padding
        frame = frame_of(bytes(first))
        assert frame is not None and frame.same == self.same
        tag = b"Xing" + struct.pack(">III", 3, self.frames, sum(stop - start for start, stop in self.ranges))
        return (bytes(first) + bytes(frame.side) + tag).ljust(frame.size, b"\0")


def parts(stream: BinaryIO, flaws: Flaws) -> list[Part]:
    """The files that a file of MPEG audio consists of; none where it is something else. Errors: `Undecodable`."""
    walk = _Walk(stream)
    if (at := walk.first()) is None:
        return []
    walk.go(at)
    for part in walk.parts:
        rate = part.same[2]
        if part.promised and part.frames < part.promised - 2:
            promised, there = (n * part.samples / rate for n in (part.promised, part.frames))
            flaws.add("truncated", f"truncated: the header promises {promised:.2f} s, {there:.2f} s are there")
        elif part.promised is None and part is walk.parts[-1] and walk.cut:
            flaws.add("truncated", "truncated: it ends within a frame; how much is missing nobody knows")
    return walk.parts


class _Walk:
    """Through a stream from frame to frame."""

    def __init__(self, stream):
        self._stream, self._end = stream, size(stream)
        self._begin, self._held = 0, b""
        self.parts: list[Part] = []
        self.cut = False

    def _bytes(self, at, count) -> bytes:
        within = at - self._begin
        if within < 0 or within + count > len(self._held):
            self._stream.seek(at)
            self._begin, self._held, within = at, self._stream.read(max(_WINDOW, count)), 0
        return self._held[within : within + count]

    def _frame(self, at) -> _Frame | None:
        return frame_of(self._bytes(at, 4))

    def _chained(self, at, count=_CHAIN) -> bool:
        """Whether frames of one kind follow on one another from here, so many or to the end of the file."""
        first = self._frame(at)
        for number in range(count):
            frame = self._frame(at)
            if first is None or frame is None or frame.same != first.same:
                return number > 1 and self._end - at < 4
            at += frame.size
        return True

    def first(self) -> int | None:
        """Where the first frame begins, behind tags and junk."""
        at = self._behind_tag(0)
        if at and self._bytes(at, 4) in (b"fLaC", b"OggS"):
            return None
        if self._chained(at):
            return at
        return self._search(at, min(self._end, at + _SEARCH))

    def _search(self, at, end) -> int | None:
        """The next place from which frames follow on one another."""
        while at < end:
            block = self._bytes(at, min(_WINDOW // 2, end - at))
            found = block.find(b"\xff")
            if found < 0:
                at += max(1, len(block))
                continue
            at += found
            if self._chained(at):
                return at
            at += 1
        return None

    def _behind_tag(self, at) -> int:
        """The place behind the tags that begin here."""
        while True:
            head = self._bytes(at, 32)
            if head[:3] == b"ID3" and len(head) >= 10:
                length = head[6] << 21 | head[7] << 14 | head[8] << 7 | head[9]
                at += 10 + length + (10 if head[5] & 16 else 0)
            elif head[:3] == b"TAG":
                at += 128
            elif head[:8] == b"APETAGEX" and len(head) == 32:
                length, _, flags = struct.unpack("<III", head[12:24])
                at += 32 + (length if flags >> 29 & 1 else 0)
            else:
                return at

    def go(self, at):
        """Collects the parts from the first frame on."""
        part = None
        while at < self._end:
            frame = self._frame(at)
            if frame is None or (part and frame.same != part.same and not self._chained(at)):
                behind = self._behind_tag(at)
                if behind != at and behind < self._end:
                    part, at = None, behind  # a tag in the middle: another file begins
                    continue
                if (found := self._search(at, self._end)) is None:
                    return
                at = found
                continue
            if at + frame.size > self._end:
                self.cut = True
                return
            counts, promised = self._header(at, frame)
            if part is None or frame.same != part.same or promised is not None:
                part = Part(frame.same, promised=promised, samples=frame.samples, counts=counts)
                self.parts.append(part)
            else:
                part.frames += 1
            if promised is None and part.frames == 0:
                part.frames = 1
            if part.ranges and part.ranges[-1][1] == at:
                part.ranges[-1] = part.ranges[-1][0], at + frame.size
            else:
                part.ranges.append((at, at + frame.size))
            at += frame.size

    def _header(self, at, frame) -> tuple[dict[int, str], int | None]:
        """({place: what is counted there}, frames promised) of a frame that holds no sound but a header; ({}, None)."""
        body = self._bytes(at, min(frame.size, 64))
        for place, marks in ((4 + frame.side, (b"Xing", b"Info")), (36, (b"VBRI",))):
            if body[place : place + 4] not in marks:
                continue
            if body[place : place + 4] == b"VBRI":
                counts = {at + place + 10: "bytes", at + place + 14: "frames"}
            else:
                flags = body[place + 7] if len(body) > place + 7 else 0
                counts, field = {}, at + place + 8
                for bit, which in ((1, "frames"), (2, "bytes")):
                    if flags & bit:
                        counts[field] = which
                        field += 4
            where = next((spot for spot, which in counts.items() if which == "frames"), None)
            return counts, struct.unpack(">I", self._bytes(where, 4))[0] if where else 0
        return {}, None
