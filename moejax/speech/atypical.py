"""What a voice, an illness and a microphone do to speech, as signal processing on one utterance (16 kHz, float32).

Every function is deterministic: noise comes from the generator that is passed in. Plain numpy and scipy on one array;
an utterance of 2 s costs 2 to 6 ms in all.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import numpy as np
import scipy.fft
import scipy.ndimage
import scipy.signal

from moejax.audio.constants import SAMPLE_RATE

_fft: Any = scipy.fft  # its functions are dispatched, which a type checker takes for tuples
_WINDOW, _HOP = 512, 128
_HANN = np.hanning(_WINDOW + 1)[:-1].astype(np.float32)


def trim(samples_S: np.ndarray, floor_db: float = -40.0) -> np.ndarray:
    """Cut the silence before and after the speech: 10 ms blocks more than `floor_db` under the loudest."""
    blocks = len(samples_S) // 160
    if not blocks:
        return samples_S
    energy = np.square(samples_S[: blocks * 160].reshape(blocks, 160)).mean(1)
    loud = np.flatnonzero(energy > energy.max() * 10 ** (floor_db / 10))
    return samples_S[loud[0] * 160 : (loud[-1] + 1) * 160]


def _stft(samples_S: np.ndarray) -> np.ndarray:
    padded = np.pad(samples_S, (_WINDOW, _WINDOW + (-len(samples_S)) % _HOP)).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_HOP]
    return _fft.rfft(frames * _HANN, axis=1)


def _istft(spectrum_NF: np.ndarray, length: int) -> np.ndarray:
    frames = _fft.irfft(spectrum_NF, axis=1).astype(np.float32) * (_HANN / 1.5)  # sum of squared windows is 1.5
    overlap = _WINDOW // _HOP
    out = np.zeros((len(frames) + overlap - 1, _HOP), np.float32)
    for k in range(overlap):
        out[k : k + len(frames)] += frames[:, k * _HOP : (k + 1) * _HOP]
    return out.reshape(-1)[_WINDOW : _WINDOW + length]


def breathe(samples_S: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    """Replace a share `amount` (0 to 1) of the voicing by breath: noise under the same spectral envelope (dysphonia).

    Breath has little energy at the bottom of the spectrum, so the noise is high-passed: a fully breathy voice is a
    whisper.
    """
    spectrum_NF = _stft(samples_S)
    envelope_NF = scipy.ndimage.uniform_filter1d(np.abs(spectrum_NF), 13, axis=1)  # 400 Hz: wider than a harmonic
    noise_NF = _stft(rng.standard_normal(len(samples_S), np.float32))
    noise_NF /= np.sqrt(np.square(np.abs(noise_NF)).mean())
    hertz_F = np.arange(spectrum_NF.shape[1]) * (SAMPLE_RATE / _WINDOW)
    tilt_F = (hertz_F / (hertz_F + 500.0)).astype(np.float32)
    mixed_NF = (1 - amount) * spectrum_NF + amount * tilt_F * envelope_NF * noise_NF
    return _istft(mixed_NF, len(samples_S))


def slur(samples_S: np.ndarray, seconds: float) -> np.ndarray:
    """Smear articulation: each frequency's log envelope is smoothed over `seconds` (hypokinetic dysarthria).

    The fine structure (pitch) stays; plosives and quick transitions soften.
    """
    spectrum_NF = _stft(samples_S)
    log_NF = np.log(np.abs(spectrum_NF) + 1e-4)
    envelope_NF = scipy.ndimage.uniform_filter1d(log_NF, 9, axis=1)
    slow_NF = scipy.ndimage.gaussian_filter1d(
        envelope_NF.T.copy(), seconds * SAMPLE_RATE / _HOP, axis=1, truncate=2.5
    ).T
    gain_NF = np.exp(np.clip(slow_NF - envelope_NF, -3.0, 3.0))
    return _istft(spectrum_NF * gain_NF, len(samples_S))


def tremble(samples_S: np.ndarray, hertz: float, depth: float, rng: np.random.Generator) -> np.ndarray:
    """Vocal tremor: loudness and pitch swing together at `hertz` (4 to 7), loudness by the share `depth`.

    Pitch swings by a quarter of `depth` (depth 0.8: 20 %), made by reading the samples at an uneven speed, which
    moves the formants as well. Rate and phase wander, as they do in people.
    """
    time_S = np.arange(len(samples_S), dtype=np.float32) / SAMPLE_RATE
    wander = 1 + 0.1 * np.sin(2 * np.pi * 0.7 * time_S + rng.uniform(0, 2 * np.pi))
    phase_S = 2 * np.pi * hertz * np.cumsum(wander) / SAMPLE_RATE + rng.uniform(0, 2 * np.pi)
    delay_S = 0.25 * depth / (2 * np.pi * hertz) * np.sin(phase_S) * SAMPLE_RATE
    warped_S = scipy.ndimage.map_coordinates(samples_S, [np.arange(len(samples_S)) + delay_S], order=3, mode="nearest")
    return (warped_S * (1 - depth * (0.5 + 0.5 * np.cos(phase_S)))).astype(np.float32)


@functools.lru_cache(maxsize=256)
def room(seed: int, low_hz: float, high_hz: float, reverb_s: float) -> np.ndarray:
    """Impulse response of a microphone in a room: colour (+-6 dB), band, decaying tail; unit energy."""
    rng = np.random.default_rng([seed, 11])
    hertz = np.linspace(0, SAMPLE_RATE / 2, 257)
    points = np.array([0, 300, 800, 1800, 3200, 5000, 8000])
    gain_db = np.interp(hertz, points, rng.uniform(-6, 6, len(points)))
    gain = 10 ** (gain_db / 20) / np.sqrt((1 + (low_hz / (hertz + 1e-3)) ** 4) * (1 + (hertz / high_hz) ** 8))
    response_S = cast(np.ndarray, scipy.signal.firwin2(257, hertz / (SAMPLE_RATE / 2), gain))  # dispatched too
    if reverb_s > 0:  # 60 dB down after reverb_s; the tail carries a fifth of the direct sound's energy
        time_S = np.arange(int(reverb_s * SAMPLE_RATE)) / SAMPLE_RATE
        tail_S = rng.standard_normal(len(time_S)) * np.exp(-6.9 * time_S / reverb_s)
        tail_S *= np.sqrt(0.2 / np.square(tail_S).sum())
        tail_S[0] += 1.0
        response_S = cast(np.ndarray, scipy.signal.fftconvolve(response_S, tail_S))  # as above
    return (response_S / np.sqrt(np.square(response_S).sum())).astype(np.float32)


def record(
    samples_S: np.ndarray, response: np.ndarray, level_db: float, snr_db: float, color: float, rng: np.random.Generator
) -> np.ndarray:
    """The samples as a microphone hears them: `response` applied, loudness set, background noise added, never clipped.

    level_db: root mean square in dB of full scale; snr_db: speech over noise; color: 0 (white) to 0.98 (rumble).
    """
    size = scipy.fft.next_fast_len(len(samples_S) + len(response) - 1, real=True)
    spectrum_F = _fft.rfft(samples_S, size) * _fft.rfft(response, size)
    heard_S = _fft.irfft(spectrum_F, size)[: len(samples_S)]
    heard_S *= 10 ** (level_db / 20) / np.sqrt(np.square(heard_S).mean() + 1e-12)
    white_S = rng.standard_normal(len(heard_S), np.float32)
    noise_S = scipy.signal.lfilter(np.ones(1, np.float32), np.array([1, -color], np.float32), white_S)
    noise_S *= 10 ** ((level_db - snr_db) / 20) / np.sqrt(np.square(noise_S).mean() + 1e-12)
    out_S = heard_S + noise_S
    return out_S / max(1.0, float(np.abs(out_S).max()) / 0.99)
