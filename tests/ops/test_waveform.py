"""Each augmentation by what can be measured of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops import sound_mel, waveform
from moejax.ops.audio import mel_filters

RATE, SIZE = 8000, 16000
TIME = np.arange(SIZE) / RATE
TONE = jnp.asarray(0.3 * np.sin(2 * np.pi * 500 * TIME), jnp.float32)


def dominant(wave_S):
    """Frequency of the strongest bin of the middle of a clip, to a tenth of a hertz or so."""
    middle = np.asarray(wave_S)[SIZE // 4 : 3 * SIZE // 4]
    size = 1 << 17
    return np.abs(np.fft.rfft(middle * np.hanning(len(middle)), size)).argmax() * RATE / size


def decibels(wave_S):
    return 10 * np.log10(np.mean(np.square(np.asarray(wave_S, np.float64))))


pitched, stretched = jax.jit(functools.partial(waveform.pitched, most=7.0)), jax.jit(waveform.stretched)


@pytest.mark.parametrize("semitones", [-7.0, -1.0, 0.0, 4.0])
def test_pitch_moves_the_dominant_frequency_and_not_the_tempo(semitones):
    found = pitched(TONE, semitones)
    assert abs(dominant(found) / (500 * 2 ** (semitones / 12)) - 1) < 0.01
    assert abs(decibels(found[SIZE // 4 : -SIZE // 4]) - decibels(TONE)) < 1.5
    assert found.shape == TONE.shape


@pytest.mark.parametrize("tempo", [0.8, 1.25])
def test_tempo_moves_what_happens_and_not_the_pitch(tempo):
    burst_S = TONE * ((TIME > 0.5) & (TIME < 0.75))
    energy_S = np.square(np.asarray(stretched(burst_S, tempo), np.float64))
    assert (
        abs((energy_S * TIME).sum() / energy_S.sum() * tempo - 0.625) < 0.03
    )  # half a window, 64 ms, is its sharpness
    assert abs(dominant(stretched(TONE, tempo)) - 500) < 5


def test_noise_lies_as_far_under_the_clip_as_was_drawn():
    for ratio in (-5.0, 0.0, 20.0):
        noise_S = jax.random.normal(jax.random.key(int(ratio) + 9), (SIZE,))
        added_S = waveform.with_noise(TONE, noise_S, ratio) - TONE
        assert abs(decibels(TONE) - decibels(added_S) - ratio) < 0.1
    assert not np.asarray(waveform.with_noise(jnp.zeros(SIZE), noise_S, 10.0)).any()


def test_shift_and_gain_are_what_they_say():
    click_S = jnp.zeros(SIZE).at[100].set(1.0)
    assert (
        int(waveform.shifted(click_S, 250).argmax()) == 350
        and int(waveform.shifted(click_S, -101).argmax()) == SIZE - 1
    )
    assert abs(decibels(waveform.gained(TONE, 6.0)) - decibels(TONE) - 6.0) < 1e-3


def test_each_clip_draws_by_its_own_key_and_nothing_happens_without_strengths():
    keys, waves = jax.random.split(jax.random.key(0), 3), jnp.stack([TONE, TONE, 0.5 * TONE])
    strengths = waveform.Strengths(shift=0.5, gain=6.0, noise=(0.0, 20.0), chance=0.9)
    many = jax.jit(jax.vmap(lambda key, wave: waveform.augmented(key, wave, strengths)))
    both = np.asarray(many(keys, waves))
    assert np.abs(both[0] - both[1]).max() > 1e-3
    np.testing.assert_array_equal(np.asarray(many(keys[::-1], waves[::-1]))[::-1], both)
    np.testing.assert_array_equal(waveform.augmented(keys[0], TONE, waveform.Strengths()), TONE)
    with pytest.raises(ValueError, match="noise is"):
        waveform.Strengths(noise=(20.0, 0.0))


def test_mixup_mixes_real_rows_with_one_another_and_labels_as_images():
    image_BMN = jnp.arange(6.0)[:, None, None] * jnp.ones((6, 2, 2))
    target_BC = jnp.eye(6)
    real_B = jnp.arange(6) < 4
    seen, mixup = [], jax.jit(waveform.mixup, static_argnums=4)
    for key in range(5):
        mixed, target = mixup(jax.random.key(key), image_BMN, target_BC, real_B, 1.0)
        np.testing.assert_allclose(target @ jnp.arange(6.0), mixed[:, 0, 0], atol=1e-5)
        np.testing.assert_array_equal(target[4:], target_BC[4:])
        assert not np.asarray(target[:4, 4:]).any()
        seen.append(np.asarray(target[:4]).max(1))
    assert 0.3 < np.mean(seen) < 1.0


def test_images_are_mel_power_in_decibels_with_a_floor():
    """Against the formula, frame by frame in NumPy."""
    mel = sound_mel.Mel(rate=RATE, samples=4000, n_fft=512, hop=125, mels=20)
    wave_S = np.asarray(TONE[:4000]) + 0.01 * np.random.default_rng(0).normal(size=4000).astype(np.float32)
    padded = np.pad(wave_S.astype(np.float64), 256)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    frames = np.stack([padded[at : at + 512] * window for at in range(0, 4001, 125)])
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2 @ mel_filters(20, RATE, 512).T.astype(np.float64)
    wanted = 10 * np.log10(np.maximum(power, 1e-10)).T
    found = np.asarray(mel(wave_S[None]))[0]
    assert found.shape == (20, mel.frames) == (20, 33)
    np.testing.assert_allclose(found, np.maximum(wanted, wanted.max() - 80), atol=2e-3)
    assert sound_mel.Mel().frames == 173  # 4 s at 22.05 kHz, as the notes' networks hear them
    with pytest.raises(ValueError, match="shorter than a window"):
        sound_mel.Mel(samples=1000)
