"""Reading audio, and the gate that every recording passes before anything is computed from it.

libsndfile reads a truncated WAV without a word, feature extractors take NaN, stereo as a batch and cut 40 s to 30:
nobody else checks, so this module does. What can be repaired is repaired and counted; the rest is refused under a named
reason.
"""

import dataclasses
import io
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
import soxr

from moejax.data import media

REASONS = (
    *("unreadable", "truncated", "empty", "wrong_shape", "wrong_scale", "nan", "silent", "too_short", "too_long"),
    "no_text",
)
FIXES = ("scaled", "mixed", "clipped", "resampled", "decoded")
FRAME_SECONDS = 0.02
SILENCE_BELOW_LOUD_DB = 35.0
_MAX_CHANNELS = 32
# Lossy decoders and mastering overshoot full scale a little; 12 dB over it is a wrong unit, not a loud voice.
_MAX_OVERSHOOT = 4.0


class Rejected(ValueError):
    """A recording that cannot be used: `reason` is one of REASONS, `detail` one line for a person."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """What passed the gate: samples [S] float32 in [-1, 1] at the target rate, and what was done to them (of FIXES)."""

    samples: np.ndarray
    seconds: float
    silence_share: float
    fixes: tuple[str, ...]


def read(source: str | Path | bytes | Callable[[], tuple[np.ndarray, int]]) -> tuple[np.ndarray, int]:
    """(samples [S] or [S, channels], rate) of a file, of a file's bytes, or of a function that gives them.

    WAV, FLAC, MP3, OGG and what else libsndfile knows; MP4 (m4a), WebM and the like with the extra `media`. Integer
    formats arrive scaled to [-1, 1]. Raises `Rejected("unreadable" | "truncated")` for files; a function may
    return anything (the gate looks at it) and its own `Rejected` passes through.
    """
    if callable(source):
        return source()
    if isinstance(source, bytes):
        return _decode(io.BytesIO(source), f"{len(source)} bytes")
    try:
        with open(source, "rb") as stream:
            return _decode(stream, os.path.basename(source))
    except OSError as error:
        raise Rejected("unreadable", f"{source}: {error.strerror or error}") from error


def _decode(stream: BinaryIO, name: str) -> tuple[np.ndarray, int]:
    promised, present = _wav_data_bytes(stream)
    if present < promised:
        raise Rejected("truncated", f"{name}: the header promises {promised} bytes of samples, the file has {present}")
    stream.seek(0)
    container = media.kind(stream.read(16))
    stream.seek(0)
    if container is not None:
        try:
            return media.decode(stream, container)
        except media.Undecodable as error:
            raise Rejected(error.reason, f"{name}: {error.detail}") from error
    try:
        file = soundfile.SoundFile(stream)
    except soundfile.SoundFileError as error:
        raise Rejected("unreadable", f"{name}: {_first_line(error)}") from error
    with file:
        frames = file.frames
        try:
            samples = file.read(dtype="float32")
        except soundfile.SoundFileError as error:
            detail = f"{name}: not decodable up to the {frames} samples its header promises ({_first_line(error)})"
            raise Rejected("truncated", detail) from error
        # The length of an MP3 is an estimate that includes the encoder's padding.
        slack = max(4800, frames // 100) if file.format == "MP3" else 0
        if len(samples) < frames - slack:
            raise Rejected("truncated", f"{name}: the header promises {frames} samples, {len(samples)} are there")
        return samples, file.samplerate


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]


def _wav_data_bytes(stream: BinaryIO) -> tuple[int, int]:
    """(bytes the `data` chunk promises, bytes that follow its header) of a RIFF, RIFX or RF64 file; (0, 0) if none.

    Writers to a pipe leave 0 or 0xFFFFFFFF as the length: that promises nothing.
    """
    stream.seek(0, io.SEEK_END)
    end = stream.tell()
    stream.seek(0)
    head = stream.read(12)
    if len(head) < 12 or head[:4] not in (b"RIFF", b"RIFX", b"RF64") or head[8:] != b"WAVE":
        return 0, 0
    order = ">" if head[:4] == b"RIFX" else "<"
    long_data = None
    while len(chunk := stream.read(8)) == 8:
        size = struct.unpack(order + "I", chunk[4:])[0]
        if chunk[:4] == b"ds64":
            body = stream.read(size)
            if len(body) >= 16:
                long_data = struct.unpack("<Q", body[8:16])[0]
            stream.seek(size & 1, io.SEEK_CUR)
            continue
        if chunk[:4] == b"data":
            if size == 0xFFFFFFFF:
                size = long_data or 0
            return size, end - stream.tell()
        stream.seek(size + (size & 1), io.SEEK_CUR)
    return 0, 0


def gate(
    samples: np.ndarray,
    rate: int,
    *,
    target_rate: int = 16000,
    min_seconds: float = 0.1,
    max_seconds: float = 30.0,
    silence_db: float = -60.0,
) -> Checked:
    """Checks a recording and brings it to float32 mono at `target_rate`; raises `Rejected` if that is impossible.

    samples: [S] or [S, channels], float in about [-1, 1] or uint8, int8, int16, int32 at their own full scale.
    silence_db: a recording whose third-loudest frame (20 ms, mean removed) stays below this is `silent`: one click does
    not make speech, and a short word in a long recording is still heard. Integers of other types are `wrong_scale`,
    as are floats above 4 or below silence by a wrong division (which end as `silent`): no unit is guessed.
    """
    fixes = []
    if not isinstance(rate, int | np.integer) or rate <= 0:
        raise Rejected("unreadable", f"sampling rate {rate!r} is not a positive number")
    samples, scaled = _as_float(np.asarray(samples))
    if scaled:
        fixes.append("scaled")
    seconds = len(samples) / rate
    if seconds > max_seconds:
        raise Rejected("too_long", f"{seconds:.2f} s, at most {max_seconds:g} s")
    if seconds < min_seconds:
        raise Rejected("too_short", f"{seconds:.3f} s, at least {min_seconds:g} s")
    if not np.isfinite(samples).all():
        raise Rejected("nan", f"{int((~np.isfinite(samples)).sum())} of {samples.size} samples are not finite")
    if samples.ndim == 2:
        if samples.shape[1] > 1:
            fixes.append("mixed")
        samples = _mix(samples)
    peak = float(np.abs(samples).max())
    if peak > _MAX_OVERSHOOT:
        raise Rejected("wrong_scale", f"float samples reach {peak:.6g}; full scale is 1")
    loud = _loud_level(frame_levels(samples, rate))
    if loud < silence_db:
        raise Rejected("silent", f"loudest part at {loud:.1f} dB of full scale, at least {silence_db:g} dB")
    if peak > 1.0:
        fixes.append("clipped")
        samples = np.clip(samples, -1.0, 1.0)
    if rate != target_rate:
        fixes.append("resampled")
        samples = np.clip(soxr.resample(samples, rate, target_rate), -1.0, 1.0)
    samples = np.ascontiguousarray(samples, dtype=np.float32)
    return Checked(
        samples=samples, seconds=seconds, silence_share=silence_share(samples, target_rate), fixes=tuple(fixes)
    )


def _as_float(samples: np.ndarray) -> tuple[np.ndarray, bool]:
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= _MAX_CHANNELS):
        raise Rejected("wrong_shape", f"array of shape {samples.shape}; known: [samples] and [samples, channels]")
    if not samples.size:
        raise Rejected("empty", "no samples")
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False), False
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0, True
    if samples.dtype in (np.int8, np.int16, np.int32):
        full = float(np.iinfo(samples.dtype).max) + 1.0
        return (samples.astype(np.float64) / full).astype(np.float32), True
    raise Rejected("wrong_scale", f"{samples.dtype} has no known full scale; known: float, uint8, int8, int16, int32")


def _mix(samples: np.ndarray) -> np.ndarray:
    """The mean over channels, or the loudest channel where they cancel (one microphone wired in opposite phase)."""
    mixed = samples.mean(axis=1)
    power = samples.var(axis=0)
    return samples[:, int(power.argmax())] if mixed.var() < 0.01 * power.max() else mixed


def frame_levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level of each 20 ms frame in dB of full scale, mean removed; a shorter rest is a frame of its own."""
    size = max(1, round(rate * FRAME_SECONDS))
    whole = len(samples) // size * size
    spread = np.asarray(samples[:whole], np.float32).reshape(-1, size).std(axis=1)
    if whole < len(samples):
        spread = np.append(spread, samples[whole:].std())
    return 20.0 * np.log10(np.maximum(spread, 1e-10))


def _loud_level(levels: np.ndarray) -> float:
    third = min(3, len(levels))
    return float(np.partition(levels, -third)[-third])


def silence_share(samples: np.ndarray, rate: int) -> float:
    """Share of 20 ms frames more than 35 dB below the loud level; steady noise above that counts as sound."""
    levels = frame_levels(samples, rate)
    return float(np.mean(levels < _loud_level(levels) - SILENCE_BELOW_LOUD_DB))


def chunks(samples: np.ndarray, max_seconds: float, *, rate: int = 16000) -> list[tuple[int, int]]:
    """Cuts a long recording [S] into pieces of at most `max_seconds`, as (start, stop) that follow on one another.

    Each cut lies in the middle of the quietest 100 ms of the second half of its piece.
    """
    limit = int(max_seconds * rate)
    size = max(1, round(rate * FRAME_SECONDS))
    if limit < 10 * size:
        raise ValueError(f"chunks: max_seconds={max_seconds:g} is too short to look for silence; at least 0.2")
    levels = frame_levels(samples, rate)
    smooth = np.convolve(np.pad(levels, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    start, spans = 0, []
    while len(samples) - start > limit:
        first, last = -(-(start + limit // 2) // size), (start + limit) // size
        cut = (first + int(np.argmin(smooth[first:last]))) * size + size // 2
        spans.append((start, cut))
        start = cut
    return [*spans, (start, len(samples))]
