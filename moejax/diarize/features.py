"""Log-mel features as EEND has them: 23 bands at 8 kHz, fifteen frames side by side (345), ten frames a second.

hitachi-speech/EEND, eend/feature.py: splice first, then take every tenth frame, so that one row covers 70 ms on either
side; zeros beyond both ends.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moejax.errors import BadValue
from moejax.ops.audio import mel_filters
from moejax.ops.sound_mel import hann

RATE, WINDOW, N_FFT, HOP, BANDS = 8000, 200, 256, 80, 23
CONTEXT, EVERY = 7, 10
WIDTH = BANDS * (2 * CONTEXT + 1)
FRAMES = RATE / HOP / EVERY  # a second


def log_mel(wave_S: np.ndarray) -> np.ndarray:
    """log10 of the power in mel bands [frames, 23] of float samples at 8 kHz, a frame every 10 ms.

    Hann window of 200 in the middle of 256, centred frames over a reflected signal; the last one is dropped where the
    length is a multiple of 80.
    """
    wave_S = np.asarray(wave_S, np.float32)
    if len(wave_S) <= N_FFT // 2:
        raise BadValue(f"{len(wave_S)} samples at 8 kHz are too few for features; it takes more than {N_FFT // 2}")
    padded_S = np.pad(wave_S, N_FFT // 2, mode="reflect")
    window_F = np.pad(hann(WINDOW), (N_FFT - WINDOW) // 2)
    frames_NF = np.lib.stride_tricks.sliding_window_view(padded_S, N_FFT)[::HOP]
    if len(wave_S) % HOP == 0:
        frames_NF = frames_NF[:-1]
    power_NF = np.abs(np.fft.rfft(frames_NF * window_F[None], axis=1)) ** 2
    mel_NM = power_NF @ mel_filters(BANDS, RATE, N_FFT).T.astype(np.float64)
    return np.log10(np.maximum(mel_NM, 1e-10)).astype(np.float32)


def _plain(mel_NM):
    return mel_NM


def _centred(mel_NM):
    return mel_NM - mel_NM.mean(0, keepdims=True)


def _standardised(mel_NM):
    return _centred(mel_NM) / np.maximum(mel_NM.std(0, keepdims=True), 1e-10)


def _centred_by_speech(mel_NM):
    """By the mean of the louder frames, which two means of their sums part from the others."""
    loud_N = mel_NM.sum(1)
    border = (loud_N.max() + loud_N.min()) / 2
    for _ in range(10):
        above_N = loud_N >= border
        if above_N.all() or not above_N.any():
            break
        border = (loud_N[above_N].mean() + loud_N[~above_N].mean()) / 2
    chosen_N = loud_N >= border
    return mel_NM - mel_NM[chosen_N].mean(0, keepdims=True)


TRANSFORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "logmel23": _plain,
    "logmel23_mn": _centred,
    "logmel23_mvn": _standardised,
    "logmel23_swn": _centred_by_speech,
}


def spliced(mel_NM: np.ndarray, context: int = CONTEXT, every: int = EVERY) -> np.ndarray:
    """[ceil(frames / every), bands * (2 context + 1)]: each frame with its neighbours, the earliest first, then every
    so-many-th. Zeros beyond both ends.
    """
    padded_NM = np.pad(mel_NM, ((context, context), (0, 0)))
    wide = np.lib.stride_tricks.sliding_window_view(padded_NM, 2 * context + 1, axis=0)[::every]
    return wide.swapaxes(1, 2).reshape(len(wide), -1)


def features(wave_S: np.ndarray, transform: str = "logmel23_mn") -> np.ndarray:
    """float32 [T, 345] of samples at 8 kHz, ten frames a second. Errors: BadValue for an unknown transform."""
    if transform not in TRANSFORMS:
        raise BadValue(f"unknown features {transform!r}; known: {', '.join(TRANSFORMS)}")
    return np.ascontiguousarray(spliced(TRANSFORMS[transform](log_mel(wave_S))), np.float32)
