"""EEND's features against the formula written out, and where an impulse lands."""

import numpy as np
import pytest

from moejax.diarize import features, labels
from moejax.diarize.turns import Turn
from moejax.errors import BadValue


def slaney(hz):
    return np.where(hz < 1000, hz * 3 / 200, 15 + 27 * np.log(np.maximum(hz, 1) / 1000) / np.log(6.4))


def by_the_formula(wave):
    """Frame by frame, bin by bin, in float64."""
    signal = np.concatenate([wave[128:0:-1], wave, wave[-2:-130:-1]]).astype(np.float64)
    window = np.zeros(256)
    window[28:228] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(200) / 200)
    count = 1 + len(wave) // 80 - (len(wave) % 80 == 0)
    basis = np.exp(-2j * np.pi * np.outer(np.arange(129), np.arange(256)) / 256)
    power = np.array([np.abs(basis @ (signal[80 * n : 80 * n + 256] * window)) ** 2 for n in range(count)])
    grid = np.linspace(0, 4000, 200001)
    edges = np.interp(np.linspace(0, slaney(np.array(4000.0)), 25), slaney(grid), grid)
    bins = np.arange(129) * 8000 / 256
    mel = np.zeros((count, 23))
    for m in range(23):
        low, peak, high = edges[m : m + 3]
        rising, falling = (bins - low) / (peak - low), (high - bins) / (high - peak)
        mel[:, m] = power @ (np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low))
    logs = np.log10(np.maximum(mel, 1e-10))
    return logs - logs.mean(0)


@pytest.mark.parametrize("samples", [16000, 16001, 7960])
def test_the_formula(samples):
    wave = (0.1 * np.random.default_rng(0).standard_normal(samples)).astype(np.float32)
    mel_NM = by_the_formula(wave)
    padded_NM = np.vstack([np.zeros((7, 23)), mel_NM, np.zeros((7, 23))])
    wide = np.array([padded_NM[n : n + 15].ravel() for n in range(len(mel_NM))])[::10]
    found = features.features(wave)
    assert found.dtype == np.float32 and found.shape == wide.shape
    np.testing.assert_allclose(found, wide, atol=1e-4)
    np.testing.assert_allclose(features.log_mel(wave) - features.log_mel(wave).mean(0), mel_NM, atol=1e-5)


def test_sizes_and_the_place_of_an_impulse():
    assert features.features(np.ones(16000, np.float32)).shape == (20, 345)
    mel_NM = np.zeros((200, 23), np.float32)
    mel_NM[50] = 1
    wide_TF = features.spliced(mel_NM)
    assert np.flatnonzero(wide_TF[5]).tolist() == list(range(161, 184))
    # 70 ms on either side and no more: of subsampled frames that are spliced, seven neighbours would see it
    assert np.flatnonzero(wide_TF.any(1)).tolist() == [5]
    assert np.flatnonzero(features.spliced(np.roll(mel_NM, 7, 0))[5]).tolist() == list(range(322, 345))
    assert not features.spliced(np.ones((200, 23), np.float32))[0, :161].any()
    found = labels.activity([Turn(1.0, 2.0, "a")], 40, fine=features.EVERY)[0][0]
    assert np.flatnonzero(found).tolist() == list(range(10, 20))


def test_transforms():
    rng = np.random.default_rng(1)
    mel_NM = np.vstack([rng.normal(-5, 0.1, (60, 23)), rng.normal(2, 0.1, (40, 23))]).astype(np.float32)
    by = {name: transform(mel_NM) for name, transform in features.TRANSFORMS.items()}
    assert by["logmel23"] is mel_NM
    np.testing.assert_allclose(by["logmel23_mn"].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(by["logmel23_mvn"].std(0), 1, atol=1e-5)
    np.testing.assert_allclose(by["logmel23_swn"][60:].mean(0), 0, atol=1e-5)
    assert np.isfinite(features.TRANSFORMS["logmel23_swn"](np.ones((5, 23), np.float32))).all()
    with pytest.raises(BadValue, match="unknown features 'mfcc'; known: logmel23, "):
        features.features(np.ones(16000), "mfcc")
    with pytest.raises(BadValue, match="128 samples at 8 kHz are too few"):
        features.features(np.ones(128))
