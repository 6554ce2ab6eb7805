"""Containers that libsndfile cannot open (m4a, mp4, webm, mkv, aac, wma, 3gp, amr), through PyAV, the extra `media`.

Recognised by their first bytes, not by the file's name: what comes from a pipe has none.
"""

from typing import BinaryIO

import numpy as np

# Enough slack for the padding of an encoder and for durations that are estimates.
_SLACK_SECONDS, _SLACK_SHARE = 0.5, 0.02


class Undecodable(ValueError):
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


def decode(stream: BinaryIO, container: str) -> tuple[np.ndarray, int]:
    """(samples [S, channels] float32, rate) of the first audio track. Errors: `Undecodable`."""
    try:
        import av
    except ModuleNotFoundError as error:
        detail = f"{container} audio is read by PyAV, which is not installed; pip install 'moejax[media]'"
        raise Undecodable("unreadable", detail) from error
    try:
        with av.open(stream, mode="r") as opened:
            if not opened.streams.audio:
                raise Undecodable("unreadable", f"{container} file without an audio track")
            track = opened.streams.audio[0]
            promised = float(opened.duration or 0) / av.time_base
            samples, rate = _samples(av, opened, track)
    except av.FFmpegError as error:
        raise Undecodable("unreadable", f"{container} file: {error.strerror or error}") from error
    seconds = len(samples) / rate
    if seconds < promised - max(_SLACK_SECONDS, _SLACK_SHARE * promised):
        detail = f"{container} file: its header promises {promised:.1f} s, {seconds:.1f} s are there"
        raise Undecodable("truncated", detail)
    return samples, rate


def _samples(av, opened, track):
    """Every frame of the track as packed float32 [S, channels], at the track's own rate."""
    rate, layout = track.rate, track.layout.name
    resampler = av.AudioResampler(format="flt", layout=layout, rate=rate)
    blocks = []
    for frame in opened.decode(track):
        frame.pts = None  # gaps in the clock are not filled: what was recorded is kept as it is
        blocks += [_block(piece) for piece in resampler.resample(frame)]
    blocks += [_block(piece) for piece in resampler.resample(None)]
    if not blocks:
        raise Undecodable("unreadable", "an audio track without samples")
    return np.concatenate(blocks), rate


def _block(frame) -> np.ndarray:
    return frame.to_ndarray().reshape(-1, len(frame.layout.channels))
