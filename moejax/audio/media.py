"""Containers that libsndfile cannot open (m4a, mp4, webm, mkv, avi, flv, ts, aac, wma, amr ...), through PyAV, which is
the extra `media`.

Recognised by their first bytes, not by the file's name: what comes from a pipe has none. What nobody recognises may be
known by its name.
"""

import contextlib
import io
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from moejax.audio.conform import conform
from moejax.audio.flaws import Flaws, Undecodable
from moejax.audio.soundfiles import MAX_CHANNELS, Found
from moejax.errors import NotInstalled

# Enough slack for the padding of an encoder and for durations that are estimates.
_SLACK_SECONDS, _SLACK_SHARE = 0.5, 0.02
_GAP_SECONDS = 0.05  # by which a clock may run ahead of the sound before silence is put between
_MOST_SILENCE = 3600.0  # a clock that leaps further is broken
_SILENCE_BLOCK = 1 << 17
_FEW_BROKEN = 2  # packets at the seams of a broadcast; more are damage
# Formats without a clock: FFmpeg guesses their duration from the bitrate of the beginning
_GUESSED = ("aac", "mp3", "ac3", "eac3", "dts", "loas", "amr", "amrnb", "amrwb", "gsm")
_HEADS = (
    ("AVI", ((0, b"RIFF"), (8, b"AVI "))),
    ("MP4", ((4, b"ftyp"),)),
    ("WebM or Matroska", ((0, b"\x1aE\xdf\xa3"),)),
    ("FLV", ((0, b"FLV\x01"),)),
    ("WMA", ((0, b"\x30\x26\xb2\x75"),)),
    ("AMR", ((0, b"#!AMR"),)),
    ("MPEG", ((0, b"\0\0\1\xba"),)),
    ("RealMedia", ((0, b".RMF"),)),
    ("RealAudio", ((0, b".ra\xfd"),)),
    ("Monkey's Audio", ((0, b"MAC "),)),
    ("WavPack", ((0, b"wvpk"),)),
    ("TTA", ((0, b"TTA1"),)),
    ("Musepack", ((0, b"MPCK"),)),
    ("Musepack", ((0, b"MP+"),)),
    ("AC-3", ((0, b"\x0bw"),)),
    ("DTS", ((0, b"\x7f\xfe\x80\x01"),)),
    ("DSD", ((0, b"DSD "),)),
    ("MXF", ((0, b"\x06\x0e\x2b\x34\x02\x05\x01\x01"),)),
    ("NUT", ((0, b"nut/multimedia"),)),
)
PACKET = 188  # bytes of an MPEG transport stream; each begins with a G


def kind(head: bytes) -> str | None:
    """Name of the container that begins with these bytes (200 tell all of them); None for all others."""
    for name, marks in _HEADS:
        if all(head[at : at + len(mark)] == mark for at, mark in marks):
            return name
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # ADTS: sync word and layer 0, which no MP3 has
        return "AAC"
    if any(head[at : at + 1] == b"G" == head[at + PACKET : at + PACKET + 1] for at in (0, 4)):
        return "MPEG-TS"
    return None


def library(container: str):
    """PyAV. Errors: NotInstalled, which says what to install."""
    try:
        import av

        return av
    except ModuleNotFoundError as error:
        detail = f"{container} audio is read by PyAV, which is not installed; pip install 'moejax[media]'"
        raise NotInstalled(detail) from error


@contextlib.contextmanager
def opened(stream: BinaryIO, container: str, flaws: Flaws, name: str = "") -> Iterator[Found]:
    """The first audio track, on the file's clock. `name`: the file's, where FFmpeg may go by it.

    Errors: `Undecodable`, the blocks' too.
    """
    try:
        av = library(container)
        from av.error import FFmpegError
    except NotInstalled as error:
        raise Undecodable("unreadable", str(error)) from error
    try:
        # Titles may be in any encoding; a playlist may not open what it names, on this machine or another
        options = {"protocol_whitelist": "none"}
        with av.open(_Quiet(stream, name), mode="r", metadata_errors="replace", options=options) as file:
            if not file.streams.audio:
                raise Undecodable("unreadable", f"{container} file without an audio track")
            track = _Track(av, file, container, flaws)
            yield Found(track.rate, conform(track.blocks(), track.rate, track.channels))
    except FFmpegError as error:
        raise Undecodable("unreadable", f"{container} file: {error.strerror or error}") from error


class _Quiet:
    """A stream for FFmpeg's callbacks: where a broken index leads before the beginning is told by -1, because PyAV
    prints exceptions. `name` is what FFmpeg goes by where the content says nothing (raw G.722, a broken header).
    """

    def __init__(self, stream: BinaryIO, name: str):
        stream.seek(0)
        self.read, self.tell, self._stream, self.name = stream.read, stream.tell, stream, name

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._stream.seek(offset, whence)
        except (OSError, ValueError, OverflowError):
            return -1


class _Track:
    """The sound of an open file: frames are decoded until nothing comes, silence stands where the clock has a gap."""

    def __init__(self, av, file, container, flaws):
        self.av, self.file, self.container, self.flaws = av, file, container, flaws
        self.track = file.streams.audio[0]
        self.start = float(file.start_time or 0) / av.time_base
        self.promised = 0.0 if file.format.name in _GUESSED else float(file.duration or 0) / av.time_base
        self.reach = 0.0  # seconds to which any of the tracks goes
        self.broken: list[float] = []  # seconds of packets that cannot be decoded
        self.emitted = 0
        self.frames = self._frames()
        self.first = next(self.frames, None)
        if self.first is None:
            raise Undecodable("unreadable", f"{container} file: an audio track without samples that can be decoded")
        self.rate, self.channels = self.first.sample_rate, len(self.first.layout.channels)
        if not self.rate or not 1 <= self.channels <= MAX_CHANNELS:
            raise Undecodable("unreadable", f"{container} file whose audio track names no rate or no channels")

    def _frames(self):
        """Every frame of the track; other tracks are walked along, to see how far the file goes."""
        packets = self.file.demux([stream for stream in self.file.streams if _counts(stream)])
        while True:
            try:
                packet = next(packets, None)
            except self.av.error.FFmpegError:  # the file ends within one
                packet = None
            if packet is None:
                break
            base = packet.time_base
            if packet.pts is not None and base:
                self.reach = max(self.reach, float((packet.pts + (packet.duration or 0)) * base) - self.start)
            if packet.stream.index == self.track.index:
                yield from self._decoded(packet)

    def _decoded(self, packet):
        try:
            yield from packet.decode()
        except self.av.error.EOFError:
            return
        except self.av.error.FFmpegError:
            self.broken.append(self.emitted / self.rate if self.emitted else 0.0)

    def blocks(self) -> Iterator[tuple[np.ndarray, int]]:
        """(block [S, channels], its rate); at the end the flaws are told."""
        frame = self.first
        while frame is not None:
            yield from self._silence_before(frame)
            block, own = _samples(frame), frame.sample_rate
            self.emitted += round(len(block) * self.rate / own)
            yield block, own
            frame = next(self.frames, None)
        self._check()

    def _silence_before(self, frame):
        if frame.pts is None or not frame.time_base:
            return
        at = float(frame.pts * frame.time_base) - self.start
        gap = at - self.emitted / self.rate
        if gap <= _GAP_SECONDS:
            return
        if gap > _MOST_SILENCE or (self.promised and at > self.promised + 1):
            self.start += gap  # a leap of the clock, not a silence
            return
        missing = round(gap * self.rate)
        self.emitted += missing
        for left in range(missing, 0, -_SILENCE_BLOCK):
            yield np.zeros((min(left, _SILENCE_BLOCK), self.channels), np.float32), self.rate

    def _check(self):
        there = self.emitted / self.rate
        if len(self.broken) > _FEW_BROKEN:
            where = f"{len(self.broken)} pieces cannot be decoded, the first at {self.broken[0]:.1f} s"
            self.flaws.add("unreadable", f"{self.container} file: {where}")
        own = self._own_end()
        for promised, found in ((own, there), (self.promised, max(there, self.reach))):
            if promised and found < promised - max(_SLACK_SECONDS, _SLACK_SHARE * promised):
                detail = f"its header promises {own or promised:.1f} s, {there:.1f} s are there"
                self.flaws.add("truncated", f"truncated: {self.container} file: {detail}")
                return

    def _own_end(self) -> float:
        """Where the sound ends by the header, on the file's clock; 0 where it says nothing of the track alone."""
        track = self.track
        if not self.promised:
            return 0.0
        if said := {name.upper(): value for name, value in track.metadata.items()}.get("DURATION"):  # Matroska
            with contextlib.suppress(ValueError):
                hours, minutes, seconds = said.split(":")
                return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - self.start
        if self.file.format.name == "avi" and track.frames and track.time_base:  # its duration is made of what is there
            return float((track.frames + (track.start_time or 0)) * track.time_base) - self.start
        if track.duration and track.time_base:
            return float((track.duration + (track.start_time or 0)) * track.time_base) - self.start
        return self.promised if len(self.file.streams) == 1 else 0.0


def _counts(stream) -> bool:
    """Whether a track's packets can be asked for, and are sound or picture."""
    return stream.type in ("audio", "video")


def _samples(frame) -> np.ndarray:
    """A frame as [S, channels] float32 in [-1, 1]."""
    array, channels = frame.to_ndarray(), len(frame.layout.channels)
    array = array.T if frame.format.is_planar else array.reshape(-1, channels)
    if array.dtype.kind == "f":
        return np.ascontiguousarray(array, np.float32)
    if array.dtype == np.uint8:
        return (array.astype(np.float32) - 128.0) / 128.0
    return (array.astype(np.float64) / (float(np.iinfo(array.dtype).max) + 1.0)).astype(np.float32)
