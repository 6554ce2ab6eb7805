"""How high a voice is."""

import numpy as np
import pytest

from moejax.audio import pitch

RATE = 16000


def voice(hz_S: np.ndarray) -> np.ndarray:
    """A buzz with this course: harmonics up to 4 kHz that fall by 6 dB an octave."""
    phase_S = 2 * np.pi * np.cumsum(hz_S) / RATE
    return sum(np.where(k * hz_S < 4000, np.sin(k * phase_S) / k, 0.0) for k in range(1, 25))


@pytest.mark.parametrize("low", [80, 150, 290])
def test_a_glide_is_followed(low):
    hz_S = low * 2 ** np.linspace(0, 0.9, RATE)
    found_N = pitch.track(voice(hz_S) + 0.05 * np.random.default_rng(0).standard_normal(RATE), RATE)
    true_N = hz_S[:: round(pitch.HOP * RATE)]
    assert len(found_N) == len(true_N) == 100
    off_N = 12 * np.abs(np.log2(np.maximum(found_N, 1) / true_N))[3:-3]
    assert off_N.max() < 0.5 and off_N.mean() < 0.05


def test_where_there_is_no_voice():
    rng = np.random.default_rng(0)
    assert (pitch.track(rng.standard_normal(RATE), RATE) == 0).mean() > 0.95
    assert not pitch.track(np.zeros(RATE), RATE).any() and not len(pitch.track(np.zeros(0), RATE))
    half = np.concatenate([voice(np.full(RATE // 2, 200.0)), 0.001 * rng.standard_normal(RATE // 2)])
    found_N = pitch.track(half, RATE)
    assert (found_N[2:47] > 0).all() and not found_N[54:].any()


def test_semitones_are_over_the_median():
    found_N = pitch.semitones(np.array([100.0, 200.0, 0.0, 200.0, 400.0]))
    np.testing.assert_allclose(found_N, [-12, 0, np.nan, 0, 12])
    assert np.isnan(pitch.semitones(np.zeros(2))).all()
