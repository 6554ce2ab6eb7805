"""Reading audio, and the gate that every recording passes before anything is computed from it.

Feature extractors take NaN, stereo as a batch and cut 40 s to 30: nobody else checks, so this module does. What can be
repaired is repaired and counted; the rest is refused under a named reason. Recordings pass in blocks: an hour of stereo
at 44.1 kHz is 1.3 GB, its speech 230 MB.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import soxr

from moejax.audio.constants import FRAME_SECONDS, SAMPLE_RATE
from moejax.audio.flaws import Flaws, Rejected
from moejax.audio.growing import Growing
from moejax.audio.opening import opened
from moejax.audio.soundfiles import MAX_CHANNELS, Found
from moejax.errors import BadValue

FIXES = ("scaled", "mixed", "clipped", "resampled", "decoded")
PAUSE_SECONDS = 0.2  # longer than the closure of a stop
SILENCE_BELOW_LOUD_DB = 35.0
SNR_RANGE = (-10.0, 96.0)  # dB; below it noise alone reads like speech in noise, above it 16 bits end
ANYTHING: dict[str, Any] = {"min_seconds": 0.0, "max_seconds": math.inf, "silence_db": -math.inf}  # limits of none
_RATES = (1000, 768000)  # what a recorder can have meant; resampling from 1 Hz or 2 GHz only takes time and memory
_SLICE = 1 << 17
# Lossy decoders and mastering overshoot full scale a little; 12 dB over it is a wrong unit, not a loud voice.
MAX_OVERSHOOT = 4.0
_MOST_NOT_FINITE = 0.01  # share of the samples; a recording with more of them is not one with a few bad spots
_ABSURD = 1e6  # beyond any unit: what is this large is counted and not computed with, or its square overflows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
    """What passed the gate: samples [S] float32 in [-1, 1] at the target rate, and what was done to them (of FIXES).

    `flaws`: one line for each thing that is wrong with it all the same; none where it was wanted whole. `direct`:
    libsndfile alone reads the same from the file as it lies. `snr`: `signal_to_noise` of its frames, in dB. `loud`:
    what `silence_db` is compared with, in dB of full scale at the recording's own rate.
    """

    samples: np.ndarray
    seconds: float
    silence_share: float
    snr: float
    fixes: tuple[str, ...]
    flaws: tuple[str, ...] = ()
    direct: bool = True
    loud: float = float("nan")


Source = str | Path | bytes | BinaryIO | Callable[[], tuple[np.ndarray, int]]


def load(source: Source, *, whole: bool = True, **limits) -> Checked:
    """What `gate` makes of a recording, read block by block: memory holds the samples at the target rate and no more.

    `source` as for `read`, `whole` and `limits` the keyword arguments of `gate`. With `whole` False a cut download, a
    header that lies and a few broken spots are flaws of what is read all the same. Raises `Rejected`.
    """
    if callable(source):
        return gate(*source(), whole=whole, **limits)
    try:
        return _pass(lambda flaws: opened(source, flaws), Flaws(whole), **limits)
    except Rejected as rejected:
        if rejected.name or not isinstance(source, str | Path):
            raise
        raise Rejected(rejected.reason, rejected.what, Path(source).name) from rejected


def read(source: Source) -> tuple[np.ndarray, int]:
    """(samples [S] or [S, channels], rate) of a file, of its bytes, of a seekable stream, or of a function's result.

    WAV, FLAC, MP3, OGG and what else libsndfile knows; what FFmpeg knows with the extra `media`. Integer formats
    arrive scaled to [-1, 1]. Raises `Rejected("unreadable" | "truncated" | "wrong_length" | "empty")` for files; a
    function may return anything (the gate looks at it) and its own `Rejected` passes through.
    """
    if callable(source):
        return source()
    with opened(source, Flaws()) as recording:
        found = list(recording.blocks)
    return np.concatenate(found) if found else np.zeros(0, np.float32), recording.rate


def gate(
    samples: np.ndarray,
    rate: int,
    *,
    whole: bool = True,
    target_rate: int = SAMPLE_RATE,
    min_seconds: float = 0.1,
    max_seconds: float = 30.0,
    silence_db: float = -60.0,
) -> Checked:
    """Checks a recording and brings it to float32 mono at `target_rate`; raises `Rejected` if that is impossible.

    samples: [S] or [S, channels], float in about [-1, 1] or uint8, int8, int16, int32 at their own full scale.
    silence_db: a recording whose third-loudest frame (20 ms, mean removed) stays below this is `silent`: one click does
    not make speech, and a short word in a long recording is still heard. Integers of other types are `wrong_scale`,
    as are floats above 4 or below silence by a wrong division (which end as `silent`): no unit is guessed.
    whole: values that are not finite are `nan`; with False a few of them become zero, which is told in `flaws`.
    """
    samples = np.asarray(samples)
    samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
    _check_array(samples)
    limits = {"target_rate": target_rate, "min_seconds": min_seconds, "max_seconds": max_seconds}
    rate = _whole_number(rate)
    again = lambda flaws: contextlib.nullcontext(Found(rate, _slices(samples), direct=True))  # noqa: E731
    return _pass(again, Flaws(whole), **limits, silence_db=silence_db)


def _whole_number(rate):
    """A rate as an int where it is a number without a fraction, of whatever type."""
    try:
        return int(rate) if int(rate) == rate else rate
    except (TypeError, ValueError, OverflowError):
        return rate


def _check_array(samples):
    if samples.ndim not in (1, 2) or (samples.ndim == 2 and not 1 <= samples.shape[1] <= MAX_CHANNELS):
        raise Rejected("wrong_shape", f"array of shape {samples.shape}; known: [samples] and [samples, channels]")
    if not samples.size:
        raise Rejected("empty", "no samples")
    if samples.dtype.kind != "f" and samples.dtype not in (np.uint8, np.int8, np.int16, np.int32):
        known = "known: float, uint8, int8, int16, int32"
        raise Rejected("wrong_scale", f"{samples.dtype} has no known full scale; {known}")


def _slices(samples) -> Iterator[np.ndarray]:
    for at in range(0, len(samples), _SLICE):
        yield samples[at : at + _SLICE]


def _pass(
    opening,
    flaws: Flaws,
    *,
    target_rate: int = SAMPLE_RATE,
    min_seconds: float = 0.1,
    max_seconds: float = 30.0,
    silence_db: float = -60.0,
) -> Checked:
    """The gate over blocks; `opening(flaws)` is a context of `Found`, entered again where channels cancel."""
    intake = _Intake(opening, flaws, target_rate, max_seconds)
    if intake.cancels():
        channel = int(intake.power_C.argmax())
        del intake  # its samples, before there are others
        intake = _Intake(opening, flaws, target_rate, max_seconds, channel)
    intake.check(min_seconds, silence_db)
    samples = intake.resampled.finished()
    levels = frame_levels(samples, target_rate)
    return Checked(
        samples=samples,
        seconds=intake.seconds,
        silence_share=_silent(levels),
        snr=signal_to_noise(levels),
        fixes=tuple(fix for fix in FIXES if fix in intake.fixes),
        flaws=tuple(flaws.lines),
        direct=intake.direct,
        loud=intake.loud,
    )


class _Intake:
    """One pass over a recording: each block is scaled, mixed, clipped and resampled, and measured for `check`."""

    def __init__(self, opening, flaws: Flaws, target_rate, max_seconds, channel: int | None = None):
        """`channel` is heard alone; None mixes all of them."""
        self.channel, self.flaws, self.fixes = channel, flaws, set()
        self.frames = self.values = self.not_finite = 0
        self.bad_at: list[int] = []  # the first and the last frame that is not finite
        self.peak = 0.0
        self.sums: Any = 0.0  # [channels, and their mean] from the first block on, as the squares
        self.squares: Any = 0.0
        self.resampled = Growing()
        with opening(flaws) as found:
            rate, self.direct = found.rate, found.direct
            if not isinstance(rate, int | np.integer) or not _RATES[0] <= rate <= _RATES[1]:
                raise Rejected("unreadable", f"sampling rate {rate!r}; known: {_RATES[0]} to {_RATES[1]} Hz")
            self.rate, self.levels = rate, _Levels(rate)
            resampler = None
            if rate != target_rate:
                resampler = soxr.ResampleStream(float(rate), target_rate, 1, dtype="float32")
            for block in found.blocks:
                self._take(block, max_seconds, resampler)
        if resampler is not None:
            self.fixes.add("resampled")
            self._keep(resampler, np.zeros(0, np.float32), last=True)

    @property
    def seconds(self) -> float:
        return self.frames / self.rate

    def cancels(self) -> bool:
        """Whether the channels' mean is next to nothing beside the loudest (a microphone wired in opposite phase)."""
        if self.channel is not None or "mixed" not in self.fixes or not self.frames:
            return False
        return bool(self.power_C[-1] < 0.01 * self.power_C[:-1].max())

    @property
    def power_C(self) -> np.ndarray:
        """Variance of each channel, and of their mean."""
        return self.squares / self.frames - (self.sums / self.frames) ** 2

    def check(self, min_seconds, silence_db):
        """Raises `Rejected` for what only the whole recording shows."""
        if not self.values:
            raise Rejected("empty", "no samples")
        if self.seconds < min_seconds:
            raise Rejected("too_short", f"{self.seconds:.3f} s, at least {min_seconds:g} s")
        if self.not_finite:
            first, last = (f"{frame / self.rate:.3f}" for frame in self.bad_at)
            where = f"at {first} s" if first == last else f"between {first} and {last} s"
            what = f"{self.not_finite} of {self.values} samples are not finite, {where}"
            if self.flaws.whole or self.not_finite > _MOST_NOT_FINITE * self.values:
                raise Rejected("nan", what)
            self.flaws.add("nan", f"{what}; they became zero")
        if self.peak > MAX_OVERSHOOT:
            raise Rejected("wrong_scale", f"float samples reach {self.peak:.6g}; full scale is 1")
        self.loud = loud_level(self.levels.decibels())
        check_limits(self.seconds, self.loud, min_seconds=min_seconds, silence_db=silence_db)

    def _take(self, block, max_seconds, resampler):
        _check_array(block)
        if block.dtype.kind != "f":
            self.fixes.add("scaled")
        block = as_float(block)
        self.frames, self.values = self.frames + len(block), self.values + block.size
        if self.seconds > max_seconds:
            raise Rejected("too_long", f"{self.seconds:.2f} s or more, at most {max_seconds:g} s")
        if not np.isfinite(block).all():
            block = self._finite(block)
        peak = float(np.abs(block).max())
        if peak > _ABSURD:
            self.peak = max(self.peak, peak)
            return
        mixed = self._mixed(block)
        peak = float(np.abs(mixed).max()) if block.ndim == 2 and block.shape[1] > 1 else peak
        self.peak = max(self.peak, peak)
        self.levels.take(mixed)
        if peak > 1.0:
            self.fixes.add("clipped")
            mixed = np.clip(mixed, -1.0, 1.0)
        self._keep(resampler, mixed)

    def _finite(self, block):
        """Zero where a value is not finite; how many there are, and where, is told at the end."""
        bad = ~np.isfinite(block)
        self.not_finite += int(bad.sum())
        where = self.frames - len(block) + np.flatnonzero(bad.reshape(len(block), -1).any(axis=1))
        self.bad_at = [*self.bad_at[:1], int(where[0]), int(where[-1])]
        self.bad_at = [self.bad_at[0], self.bad_at[-1]]
        return np.where(bad, np.float32(0), block)

    def _mixed(self, block):
        if block.ndim == 1 or block.shape[1] == 1:
            return block.reshape(-1)
        self.fixes.add("mixed")
        if self.channel is not None:
            return block[:, self.channel]
        mixed = block.mean(axis=1)
        wide = np.concatenate([block, mixed[:, None]], axis=1, dtype=np.float64)
        self.sums, self.squares = self.sums + wide.sum(axis=0), self.squares + np.square(wide).sum(axis=0)
        return mixed

    def _keep(self, resampler, mixed, last=False):
        if resampler is not None:
            mixed = np.clip(resampler.resample_chunk(np.ascontiguousarray(mixed), last=last), -1.0, 1.0)
        self.resampled.append(mixed)


def check_limits(seconds: float, loud: float, *, min_seconds=0.0, max_seconds=math.inf, silence_db=-math.inf) -> None:
    """The part of the gate that needs no samples. Errors: `Rejected("too_short" | "too_long" | "silent")`."""
    if seconds < min_seconds:
        raise Rejected("too_short", f"{seconds:.3f} s, at least {min_seconds:g} s")
    if seconds > max_seconds:
        raise Rejected("too_long", f"{seconds:.2f} s or more, at most {max_seconds:g} s")
    if loud < silence_db:
        raise Rejected("silent", f"loudest part at {loud:.1f} dB of full scale, at least {silence_db:g} dB")


def as_float(samples: np.ndarray) -> np.ndarray:
    if samples.dtype.kind == "f":
        return samples.astype(np.float32, copy=False)
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128.0) / 128.0
    full = float(np.iinfo(samples.dtype).max) + 1.0
    return (samples.astype(np.float64) / full).astype(np.float32)


def frame_levels(samples: np.ndarray, rate: int) -> np.ndarray:
    """Level of each 20 ms frame in dB of full scale, mean removed; a shorter rest is a frame of its own."""
    levels = _Levels(rate)
    for block in _slices(samples):
        levels.take(block)
    return levels.decibels()


class _Levels:
    """`frame_levels` of a recording that comes in blocks."""

    def __init__(self, rate):
        self.size = max(1, round(rate * FRAME_SECONDS))
        self.rest, self.spreads = np.zeros(0, np.float32), []

    def take(self, block):
        block = np.concatenate([self.rest, block], dtype=np.float32)
        whole = len(block) // self.size * self.size
        self.spreads.append(block[:whole].reshape(-1, self.size).std(axis=1))
        self.rest = block[whole:].copy()

    def decibels(self) -> np.ndarray:
        spreads = [*self.spreads, *([[self.rest.std()]] if len(self.rest) else [])]
        return 20.0 * np.log10(np.maximum(np.concatenate(spreads or [np.zeros(0)]), 1e-10))


def loud_level(levels: np.ndarray) -> float:
    """The third-loudest of `frame_levels`: one click is no sound."""
    third = min(3, len(levels))
    return float(np.partition(levels, -third)[-third])


def silence_share(samples: np.ndarray, rate: int) -> float:
    """Share of 20 ms frames more than 35 dB below the loud level; steady noise above that counts as sound."""
    return _silent(frame_levels(samples, rate))


def _silent(levels: np.ndarray) -> float:
    return float(np.mean(levels < loud_level(levels) - SILENCE_BELOW_LOUD_DB))


def signal_to_noise(levels: np.ndarray) -> float:
    """Signal-to-noise ratio in dB of `frame_levels` [N], within `SNR_RANGE`; NaN without frames.

    Noise: mean power of the quietest tenth of the frames. Speech: mean power, less that of the noise, of the frames
    above the middle (in dB) between the quietest tenth and the loudest twentieth: percentiles of frame energies, as in
    NIST's quick SNR. It needs pauses: without one, soft speech passes for noise; a steady sound reads the lowest value.
    Where speech hardly stands out (0 dB) it reads 2 dB high, 3 in noise of low frequencies, whose level sways.
    """
    if not len(levels):
        return float("nan")
    quiet, loud = np.quantile(levels, (0.1, 0.95))
    power = 10.0 ** (levels / 10.0)
    noise = power[levels <= quiet].mean()
    speech = power[levels >= (quiet + loud) / 2].mean() - noise
    low, high = (10.0 ** (bound / 10.0) for bound in SNR_RANGE)
    return float(10.0 * np.log10(np.clip(speech / noise, low, high)))


def chunks(samples: np.ndarray, max_seconds: float, *, rate: int = SAMPLE_RATE) -> list[tuple[int, int]]:
    """Cuts a long recording [S] into pieces of at most `max_seconds`, as (start, stop) that follow on one another.

    Each cut lies in the middle of the last pause (0.2 s or longer) of the second half of its piece, so that pieces are
    few; where there is none, in the middle of that half's quietest 100 ms.
    """
    limit = int(max_seconds * rate)
    size = max(1, round(rate * FRAME_SECONDS))
    if limit < 10 * size:
        raise BadValue(f"chunks: max_seconds={max_seconds:g} is too short to look for silence; at least 0.2")
    levels = frame_levels(samples, rate)
    smooth = np.convolve(np.pad(levels, 2, mode="edge"), np.full(5, 0.2), mode="valid")
    start, spans = 0, []
    while len(samples) - start > limit:
        first, last = -(-(start + limit // 2) // size), (start + limit) // size
        pause = _last_pause(levels[start // size : last], first - start // size)
        quiet = int(np.argmin(smooth[first:last])) if pause is None else pause - (first - start // size)
        cut = (first + quiet) * size + size // 2
        spans.append((start, cut))
        start = cut
    return [*spans, (start, len(samples))]


def _last_pause(levels, first):
    """Middle of the last pause after frame `first` of a piece's levels, or None."""
    quiet = np.pad(levels[first:] < loud_level(levels) - SILENCE_BELOW_LOUD_DB, 1).astype(int)
    begins, ends = np.flatnonzero(np.diff(quiet) == 1), np.flatnonzero(np.diff(quiet) == -1)
    long = np.flatnonzero(ends - begins >= round(PAUSE_SECONDS / FRAME_SECONDS))
    return first + int(begins[long[-1]] + ends[long[-1]]) // 2 if len(long) else None
