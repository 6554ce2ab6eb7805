"""Fundamental frequency by autocorrelation: how high a voice is, every 10 ms.

Each frame's autocorrelation is divided by that of its window (Boersma 1993, Accurate short-term analysis of the
fundamental frequency), and of several candidates a frame the path is taken that leaps least.
"""

from __future__ import annotations

import numpy as np

HOP = 0.010  # seconds
WINDOW = 0.045  # seconds: three periods of the lowest voice
LOWEST, HIGHEST = 65.0, 600.0  # Hz
VOICED = 0.45  # least normalised autocorrelation of a voiced frame
QUIET = 0.02  # of the recording's loudest frame: below it nothing is a voice
_CANDIDATES = 4
_OCTAVE = 0.02  # what an octave costs against a lower candidate
_LEAP = 0.35  # what a leap by an octave from frame to frame costs


def track(audio_S: np.ndarray, rate: int) -> np.ndarray:
    """Hz of frames `HOP` apart, the first centred on the first sample, [N] float32; 0 where there is no voice."""
    audio_S = np.asarray(audio_S, np.float64)
    hop, size = round(HOP * rate), round(WINDOW * rate)
    frames = -(-len(audio_S) // hop)
    if not frames:
        return np.zeros(0, np.float32)
    padded_S = np.pad(audio_S, (size // 2, size))
    cut_NS = np.lib.stride_tricks.sliding_window_view(padded_S, size)[::hop][:frames]
    cut_NS = cut_NS - cut_NS.mean(axis=1, keepdims=True)
    power_N = np.sqrt(np.square(cut_NS).mean(axis=1))
    likeness_NL = _autocorrelation(cut_NS)
    lags = slice(max(int(rate / HIGHEST), 2), min(int(rate / LOWEST) + 2, size - 1))
    hz_NK, score_NK = _candidates(likeness_NL, lags, rate)
    score_NK[power_N <= QUIET * power_N.max()] = 0.0
    return _path(hz_NK, score_NK).astype(np.float32)


def semitones(hz_N: np.ndarray, reference: float | None = None) -> np.ndarray:
    """Above the reference in Hz, the median of what is voiced unless given; NaN where there is no voice."""
    voiced_N = hz_N > 0
    if reference is None:
        reference = float(np.median(hz_N[voiced_N])) if voiced_N.any() else 1.0
    return np.where(voiced_N, 12 * np.log2(np.where(voiced_N, hz_N, 1.0) / reference), np.nan)


def _autocorrelation(cut_NS: np.ndarray) -> np.ndarray:
    """Of each windowed frame, divided by that of the window: 1 at lag 0 and about 1 at the period."""
    size = cut_NS.shape[1]
    window_S = np.hanning(size + 2)[1:-1]
    length = 1 << (2 * size - 1).bit_length()

    def own(x):
        spectrum = np.fft.rfft(x, length)
        return np.fft.irfft(spectrum * spectrum.conj(), length)[..., :size]

    found_NL, window_L = own(cut_NS * window_S), own(window_S)
    found_NL = found_NL / np.maximum(found_NL[:, :1], 1e-12)
    return found_NL / np.maximum(window_L / window_L[0], 0.05)


def _candidates(likeness_NL, lags, rate):
    """(Hz, score) [N, K] of the highest peaks; the score is 0 where there are fewer."""
    inner_NL = likeness_NL[:, lags]
    before_NL, behind_NL = (
        likeness_NL[:, lags.start - 1 : lags.stop - 1],
        likeness_NL[:, lags.start + 1 : lags.stop + 1],
    )
    peak_NL = (inner_NL > before_NL) & (inner_NL >= behind_NL)
    bend_NL = before_NL - 2 * inner_NL + behind_NL
    shift_NL = np.where(peak_NL, 0.5 * (before_NL - behind_NL) / np.minimum(bend_NL, -1e-12), 0.0)
    hz_NL = rate / (np.arange(lags.start, lags.stop) + np.clip(shift_NL, -0.5, 0.5))
    top_NL = inner_NL - 0.25 * (before_NL - behind_NL) * shift_NL
    score_NL = np.where(peak_NL, np.minimum(top_NL, 1.0) + _OCTAVE * np.log2(hz_NL / LOWEST), 0.0)
    best_NK = np.argsort(-score_NL, axis=1)[:, :_CANDIDATES]
    return np.take_along_axis(hz_NL, best_NK, 1), np.take_along_axis(score_NL, best_NK, 1)


def _path(hz_NK, score_NK) -> np.ndarray:
    """The candidates that score best together, less their leaps; no voice is one more candidate."""
    log_NK = np.concatenate([np.log2(hz_NK), np.zeros((len(hz_NK), 1))], axis=1)
    gain_NK = np.concatenate([score_NK, np.full((len(hz_NK), 1), VOICED)], axis=1)
    K = gain_NK.shape[1]
    voice_K = np.arange(K) < K - 1
    total_K, back_NK = gain_NK[0], np.zeros(gain_NK.shape, int)
    both_KK, one_KK = voice_K[:, None] & voice_K, voice_K[:, None] != voice_K
    for n in range(1, len(gain_NK)):
        leap_KK = np.abs(log_NK[n - 1][:, None] - log_NK[n])
        cost_KK = np.where(both_KK, _LEAP * np.minimum(leap_KK * 4, 2.0), np.where(one_KK, 0.1, 0.0))
        reached_KK = total_K[:, None] - cost_KK
        back_NK[n] = reached_KK.argmax(axis=0)
        total_K = reached_KK.max(axis=0) + gain_NK[n]
    place, found = int(total_K.argmax()), np.zeros(len(gain_NK))
    for n in range(len(gain_NK) - 1, -1, -1):
        found[n] = hz_NK[n, place] if place < K - 1 else 0.0
        place = back_NK[n, place]
    return found
