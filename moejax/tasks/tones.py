"""Tones of Mandarin from the course of the voice: a contour of each syllable's final, and what tone it is.

The contour is the fundamental frequency in semitones over the recording's median, 40 points over the final
(the 40-D vector of Siamese tone networks); its neighbours' ends and its length stand beside it, because tones lean on
one another.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.audio import pitch
from moejax.audio.constants import SAMPLE_RATE
from moejax.text.pinyin import TONES
from moejax.types import Params

POINTS = 40
LEAST = 4  # voiced frames of a contour
WIDTH = POINTS + 3
Span = tuple[float, float]  # start and end in seconds


def contours(audio_S: np.ndarray, spans: Sequence[Span]) -> np.ndarray:
    """Semitones [L, 40] of each span, unvoiced parts bridged; NaN rows where hardly anything is voiced."""
    hz_N = pitch.track(audio_S, SAMPLE_RATE)
    height_N = pitch.semitones(hz_N)
    time_N = np.arange(len(hz_N)) * pitch.HOP
    found = np.full((len(spans), POINTS), np.nan)
    for row, (start, end) in enumerate(spans):
        inside = (time_N >= start) & (time_N <= end) & np.isfinite(height_N)
        if inside.sum() >= LEAST:
            found[row] = np.interp(np.linspace(start, end, POINTS), time_N[inside], height_N[inside])
    return found


def features(contour_LP: np.ndarray, spans: Sequence[Span]) -> np.ndarray:
    """What the classifier hears of each syllable of a recording, [L, WIDTH]: contour, the end of the one before, the
    beginning of the one behind (0 where there is none), log of its seconds.
    """
    known_LP = np.nan_to_num(contour_LP)
    before_L = np.concatenate([[0.0], known_LP[:-1, -1]]) if len(spans) else np.zeros(0)
    behind_L = np.concatenate([known_LP[1:, 0], [0.0]]) if len(spans) else np.zeros(0)
    long_L = np.array([np.log(max(end - start, 0.02)) for start, end in spans])
    return np.concatenate([contour_LP, before_L[:, None], behind_L[:, None], long_L[:, None]], axis=1)


@dataclasses.dataclass(frozen=True)
class ToneClassifier:
    """A network of one hidden layer, as scikit-learn trains it, without scikit-learn."""

    params: Params  # mean, scale [WIDTH]; inner [WIDTH, H], inner_bias, outer [H, 5], outer_bias
    tones: tuple[int, ...] = TONES

    def __call__(self, feature_LF: np.ndarray) -> np.ndarray:
        """Log probabilities [L, tones]; those of a row with NaN, of which nothing can be heard, are alike."""
        p = self.params
        known_LF = np.nan_to_num((feature_LF - p["mean"]) / p["scale"])
        hidden_LH = np.maximum(known_LF @ p["inner"] + p["inner_bias"], 0.0)
        logit_LC = hidden_LH @ p["outer"] + p["outer_bias"]
        logp_LC = logit_LC - np.logaddexp.reduce(logit_LC, axis=1, keepdims=True)
        heard_L1 = np.isfinite(feature_LF).all(axis=1, keepdims=True)
        return np.where(~heard_L1, -np.log(len(self.tones)), logp_LC)
