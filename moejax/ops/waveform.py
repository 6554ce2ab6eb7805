"""Augmentation of sounds as waveforms and of their labels: pure functions of a key, one sample each (vmap for batches).

Strengths are maxima; 0 turns each off. `augmented` puts them together; `ops.augment.spec_augment` masks the image that
comes of it, and `mixup` mixes images and labels of a batch.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from moejax.errors import BadValue
from moejax.ops.sound_mel import cut, hann

SIZE, HOP = 1024, 256  # of the phase vocoder


@dataclasses.dataclass(frozen=True)
class Strengths:
    """shift: share of the clip; gain: dB either way; noise: (lowest, highest) signal-to-noise ratio in dB, () for none;
    pitch: semitones either way; stretch: tempo within 1 +- this; chance: of noise, and of pitch and tempo together.
    """

    shift: float = 0.0
    gain: float = 0.0
    noise: tuple[float, ...] = ()
    pitch: float = 0.0
    stretch: float = 0.0
    chance: float = 1.0

    def __post_init__(self):
        if self.noise and not (len(self.noise) == 2 and self.noise[0] <= self.noise[1]):
            raise BadValue(f"noise is {self.noise}; it takes the lowest and the highest ratio in dB, or ()")


def augmented(key, wave_S, strengths: Strengths):
    """A clip [S] with everything that `strengths` asks for, drawn by this key."""
    s = strengths
    keys = jax.random.split(key, 6)
    happens = jax.random.uniform(keys[5], (2,)) < s.chance
    if s.pitch or s.stretch:
        warp, tempo = jax.random.uniform(keys[0], (2,), minval=-1.0, maxval=1.0)
        factor = 2.0 ** (s.pitch * warp / 12.0)
        most = 2.0 ** (s.pitch / 12.0)
        changed_S = warped(wave_S, factor, 1.0 + s.stretch * tempo, most=most)
        wave_S = jnp.where(happens[0], changed_S, wave_S)
    if s.shift:
        most = round(s.shift * wave_S.shape[0])
        wave_S = shifted(wave_S, jax.random.randint(keys[1], (), -most, most + 1))
    if s.noise:
        ratio = jax.random.uniform(keys[2], (), minval=s.noise[0], maxval=s.noise[1])
        noisy_S = with_noise(wave_S, jax.random.normal(keys[3], wave_S.shape), ratio)
        wave_S = jnp.where(happens[1], noisy_S, wave_S)
    if s.gain:
        wave_S = gained(wave_S, s.gain * jax.random.uniform(keys[4], (), minval=-1.0, maxval=1.0))
    return wave_S


def shifted(wave_S, samples):
    """The clip `samples` later (earlier, if negative), round its end."""
    return jnp.roll(wave_S, samples)


def gained(wave_S, decibels):
    return wave_S * 10.0 ** (decibels / 20.0)


def with_noise(wave_S, noise_S, ratio):
    """The clip with noise `ratio` dB under its own power; digital silence stays silent."""
    power, heard = jnp.mean(jnp.square(wave_S)), jnp.mean(jnp.square(noise_S))
    return wave_S + noise_S * jnp.sqrt(power / jnp.maximum(heard, 1e-20) * 10.0 ** (-ratio / 10.0))


def pitched(wave_S, semitones, most: float = 12.0):
    """The clip higher by `semitones` (at most `most`), as long and as fast as before."""
    return warped(wave_S, 2.0 ** (semitones / 12.0), 1.0, most=2.0 ** (most / 12.0))


def stretched(wave_S, tempo):
    """The clip `tempo` times as fast at the same pitch; what is missing at its end is silence, what is over is cut."""
    return warped(wave_S, 1.0, tempo, most=1.0)


def warped(wave_S, pitch, tempo, *, most: float):
    """Pitch times `pitch` (at most the static `most`), tempo times `tempo`, both traced numbers.

    A phase vocoder slows the clip by pitch / tempo, then it is read `pitch` times as fast (linear interpolation, which
    loses little under a quarter of the rate).
    """
    size = wave_S.shape[0]
    frames = 2 + int(np.ceil(most * size / HOP)) + SIZE // HOP
    slow_S = _vocoder(wave_S, tempo / pitch, frames)
    at_S = jnp.arange(size) * pitch
    low_S = jnp.floor(at_S).astype(jnp.int32)
    part_S = at_S - low_S
    read = jnp.take(slow_S, low_S, mode="clip") * (1 - part_S) + jnp.take(slow_S, low_S + 1, mode="clip") * part_S
    return jnp.where(jnp.arange(size) * tempo <= size - 1, read, 0.0)


def _vocoder(wave_S, rate, frames: int):
    """The clip at `rate` times its tempo, in `frames` frames (Flanagan and Golden 1966; Laroche and Dolson 1999)."""
    half = SIZE // 2
    count = 1 + wave_S.shape[0] // HOP
    padded_1S = jnp.pad(wave_S.astype(jnp.float32), (half, half + HOP))[None]
    spectrum_NF = jnp.fft.rfft(cut(padded_1S, SIZE, HOP, count)[0], axis=-1)
    size_NF, phase_NF = jnp.abs(spectrum_NF), jnp.angle(spectrum_NF)
    at_N = jnp.arange(frames) * rate
    low_N = jnp.clip(jnp.floor(at_N).astype(jnp.int32), 0, count - 2)
    part_N1 = jnp.clip(at_N - low_N, 0.0, 1.0)[:, None]
    loud_NF = size_NF[low_N] * (1 - part_N1) + size_NF[low_N + 1] * part_N1
    expected_F = jnp.asarray(2.0 * np.pi * HOP * np.arange(half + 1) / SIZE, jnp.float32)
    step_NF = phase_NF[low_N + 1] - phase_NF[low_N] - expected_F[None]
    step_NF = step_NF - 2.0 * np.pi * jnp.round(step_NF / (2.0 * np.pi)) + expected_F[None]
    turned_NF = phase_NF[:1] + jnp.cumsum(step_NF, axis=0) - step_NF  # the first frame keeps its phase
    turned = jax.lax.complex(loud_NF * jnp.cos(turned_NF), loud_NF * jnp.sin(turned_NF))
    frames_NF = jnp.fft.irfft(turned, n=SIZE, axis=-1) * hann(SIZE)[None]
    parts = SIZE // HOP
    hops_NPS = frames_NF.reshape(frames, parts, HOP)
    late = [jnp.pad(hops_NPS[:, p], ((p, parts - 1 - p), (0, 0))) for p in range(parts)]
    out_NS = functools.reduce(jnp.add, late)
    weight = float(np.square(hann(SIZE)).reshape(parts, HOP).sum(0).mean())  # squared windows add up to this everywhere
    return out_NS.reshape(-1)[half:] / weight


def mixup(key, x_BMN, target_BC, real_B, alpha: float):
    """(images, targets): each real row mixed with another by a share from Beta(alpha, alpha) (Zhang et al. 2018).

    Real rows come first in a batch, and are mixed among themselves alone.
    """
    key_share, key_turn = jax.random.split(key)
    B = real_B.shape[0]
    count = jnp.maximum(real_B.sum(), 1)
    turn = jax.random.randint(key_turn, (), 0, count)
    other_B = jnp.where(real_B, (jnp.arange(B) + turn) % count, jnp.arange(B))
    share_B = jax.random.beta(key_share, alpha, alpha, (B,))
    share_B1, share_B11 = share_B[:, None], share_B[:, None, None]
    x_BMN = share_B11 * x_BMN + (1 - share_B11) * x_BMN[other_B]
    return x_BMN, share_B1 * target_BC + (1 - share_B1) * target_BC[other_B]
