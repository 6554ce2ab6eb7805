"""Containers that libsndfile cannot open (m4a, mp4, webm, mkv, aac, wma, 3gp, amr), through PyAV, the extra `media`.

Recognised by their first bytes, not by the file's name: what comes from a pipe has none.
"""

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from moejax.errors import BadValue

# Enough slack for the padding of an encoder and for durations that are estimates.
_SLACK_SECONDS, _SLACK_SHARE = 0.5, 0.02


class Undecodable(BadValue):
    """`reason` as in `audio.REASONS` (unreadable, truncated), `detail` in one line."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def kind(head: bytes) -> str | None:
    """Name of the container that begins with these 16 bytes; None for all others."""
    if head[4:8] == b"ftyp":
        return "MP4"
    if head[:4] == b"\x1aE\xdf\xa3":
        return "WebM or Matroska"
    if head[:4] == b"\x30\x26\xb2\x75":
        return "WMA"
    if head[:5] == b"#!AMR":
        return "AMR"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF0:  # ADTS: sync word and layer 0, which no MP3 has
        return "AAC"
    return None


@contextlib.contextmanager
def opened(stream: BinaryIO, container: str) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """(rate, blocks [S, channels] float32) of the first audio track. Errors: `Undecodable`, the blocks' too."""
    try:
        import av
        from av.error import FFmpegError
    except ModuleNotFoundError as error:
        detail = f"{container} audio is read by PyAV, which is not installed; pip install 'moejax[media]'"
        raise Undecodable("unreadable", detail) from error
    try:
        with av.open(stream, mode="r", metadata_errors="replace") as file:  # titles may be in any encoding
            if not file.streams.audio:
                raise Undecodable("unreadable", f"{container} file without an audio track")
            track = file.streams.audio[0]
            # A track whose codec FFmpeg does not know has neither attribute
            if not getattr(track, "rate", 0) or not track.layout.nb_channels:
                raise Undecodable("unreadable", f"{container} file whose audio track names no rate or no channels")
            promised = float(file.duration or 0) / av.time_base
            yield track.rate, _whole(_frames(av, file, track), track.rate, promised, container)
    except FFmpegError as error:
        raise Undecodable("unreadable", f"{container} file: {error.strerror or error}") from error


def _whole(frames, rate, promised, container):
    """The frames' samples; at the end, raises if they fall short of what the header promises."""
    found = 0
    for frame in frames:
        block = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
        found += len(block)
        yield block
    if not found:
        raise Undecodable("unreadable", "an audio track without samples")
    seconds = found / rate
    if seconds < promised - max(_SLACK_SECONDS, _SLACK_SHARE * promised):
        detail = f"{container} file: its header promises {promised:.1f} s, {seconds:.1f} s are there"
        raise Undecodable("truncated", detail)


def _frames(av, file, track):
    """Every frame of the track as packed float32, at the track's own rate."""
    resampler = av.AudioResampler(format="flt", layout=track.layout.name, rate=track.rate)
    for frame in file.decode(track):
        frame.pts = None  # gaps in the clock are not filled: what was recorded is kept as it is
        yield from resampler.resample(frame)
    yield from resampler.resample(None)
