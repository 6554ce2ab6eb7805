"""Kaldi's filter banks, as BEATs hears them (torchaudio.compliance.kaldi.fbank with its defaults and no dither)."""

import functools

import jax.numpy as jnp
import numpy as np

from moejax.types import Array

RATE, WINDOW, HOP, N_FFT = 16000, 400, 160, 512
LOW = 20.0  # Hz, where the first filter begins; the last ends at half the rate
PREEMPHASIS = 0.97
FLOOR = float(np.finfo(np.float32).eps)  # of a band's energy
SCALE = 2.0**15  # Kaldi hears 16-bit numbers


def frames(samples: int) -> int:
    """Frames of so many samples: only whole windows."""
    return max(0, 1 + (samples - WINDOW) // HOP)


def fbank(wave_BS: Array, bands: int = 128) -> Array:
    """Log energies [B, N, bands] of float waves in -1..1 at 16 kHz, a frame every 10 ms, float32.

    Each frame of 25 ms loses its mean, gets preemphasis and Povey's window; power, triangles in mel, natural logarithm.
    """
    count = frames(wave_BS.shape[1])
    at_NF = np.arange(count)[:, None] * HOP + np.arange(WINDOW)[None]
    frame_BNF = jnp.asarray(wave_BS, jnp.float32)[:, at_NF] * SCALE
    frame_BNF = frame_BNF - frame_BNF.mean(-1, keepdims=True)
    before_BNF = jnp.concatenate([frame_BNF[..., :1], frame_BNF[..., :-1]], axis=-1)
    frame_BNF = (frame_BNF - PREEMPHASIS * before_BNF) * _povey()[None, None]
    spectrum_BNK = jnp.fft.rfft(frame_BNF, N_FFT, axis=-1)
    power_BNK = jnp.square(spectrum_BNK.real) + jnp.square(spectrum_BNK.imag)
    return jnp.log(jnp.maximum(jnp.einsum("BNK,KM->BNM", power_BNK, filters(bands), precision="highest"), FLOOR))


@functools.cache
def filters(bands: int) -> np.ndarray:
    """Triangles [K, bands] that are even in mel (1127 ln(1 + f / 700)); nothing of half the rate itself."""
    mel_K = _mel(np.arange(N_FFT // 2 + 1) * RATE / N_FFT)
    edge = np.linspace(_mel(LOW), _mel(RATE / 2), bands + 2)
    left, centre, right = edge[:-2], edge[1:-1], edge[2:]
    up_KM = (mel_K[:, None] - left[None]) / (centre - left)[None]
    down_KM = (right[None] - mel_K[:, None]) / (right - centre)[None]
    found_KM = np.maximum(0.0, np.minimum(up_KM, down_KM))
    found_KM[-1] = 0.0
    return found_KM.astype(np.float32)


def _mel(hertz):
    return 1127.0 * np.log1p(np.asarray(hertz) / 700.0)


@functools.cache
def _povey():
    """A symmetric Hann window to the power of 0.85."""
    turn_F = 2.0 * np.pi * np.arange(WINDOW) / (WINDOW - 1)
    return ((0.5 - 0.5 * np.cos(turn_F)) ** 0.85).astype(np.float32)
