import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops import audio

log_mel = jax.jit(audio.log_mel, static_argnames=("n_mels", "hop"))


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(0, 0.1, shape).astype(np.float32)


def reference(audio_S, *, n_mels, hop):
    """The definition in float64, frame by frame."""
    padded = np.pad(audio_S.astype(np.float64), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    starts = range(0, len(audio_S) // hop * hop, hop)
    power = np.stack([np.abs(np.fft.rfft(padded[s : s + 400] * window)) ** 2 for s in starts])
    log = np.log10(np.maximum(power @ audio.mel_filters(n_mels).astype(np.float64).T, 1e-10))
    return (np.maximum(log, log.max() - 8) + 4) / 4


@pytest.mark.parametrize("hop", [160, 200, 320, 400, 480])
@pytest.mark.parametrize("n_mels", [80, 128])
def test_matches_the_definition_in_float64(hop, n_mels):
    audio_BS = noise(3, hop * 20)
    mel_BNM = log_mel(audio_BS, n_mels=n_mels, hop=hop)
    assert mel_BNM.shape == (3, 20, n_mels) and mel_BNM.dtype == jnp.float32
    want = np.stack([reference(one, n_mels=n_mels, hop=hop) for one in audio_BS])
    np.testing.assert_allclose(mel_BNM, want, atol=2e-5)


def test_padding_holds_the_reference_values():
    padded = np.zeros((2, 4800), np.float32)
    padded[0, :1700] = noise(1700)
    padded[1] = noise(4800, seed=1)
    want = np.stack([reference(one, n_mels=80, hop=160) for one in padded])
    np.testing.assert_allclose(log_mel(padded), want, atol=2e-5)
    assert np.ptp(want[0, 15:]) == 0 and want[0, 15, 0] != 0  # the floor of the utterance, not zero


def test_digital_silence_is_finite_and_constant():
    np.testing.assert_array_equal(log_mel(np.zeros((1, 1600), np.float32)), np.full((1, 10, 80), -1.5, np.float32))


@pytest.mark.parametrize("batch,seconds", [(7, 3), (2, 21), (5, 1)])
def test_batching_changes_nothing(batch, seconds):
    audio_BS = noise(batch, seconds * 16000) * np.logspace(-3, 0, batch, dtype=np.float32)[:, None]
    alone = np.concatenate([log_mel(one[None]) for one in audio_BS])
    np.testing.assert_allclose(log_mel(audio_BS), alone, atol=2e-6)


def test_a_tone_lights_the_filter_at_its_frequency():
    time = np.arange(16000) / 16000
    mel_NM = np.asarray(log_mel(np.sin(2 * np.pi * 3000 * time).astype(np.float32)[None]))[0]
    peak_hz = np.linspace(0, 8000, 201)[audio.mel_filters(80)[mel_NM[50].argmax()].argmax()]
    assert abs(peak_hz - 3000) < 100


@pytest.mark.parametrize("n_mels", [20, 80, 128])
def test_filters_have_unit_area_and_rising_centres(n_mels):
    filters_MF = audio.mel_filters(n_mels)
    assert filters_MF.shape == (n_mels, 201) and filters_MF.dtype == np.float32 and filters_MF.min() == 0
    assert (np.diff((filters_MF * np.arange(201)).sum(1) / filters_MF.sum(1)) >= 0).all()  # equal where bins are coarse
    wide = filters_MF[-n_mels // 4 :]  # 40 Hz bins are too coarse for the area of the narrow low ones
    np.testing.assert_allclose(wide.sum(1) * 40.0, 1.0, atol=0.1)


@pytest.mark.parametrize(
    "n_mels,peaks",
    [
        (80, {(0, 1): 0.024862595, (1, 2): 0.022871772, (40, 43): 0.014735566, (79, 192): 0.003164712}),
        (128, {(0, 1): 0.012373987, (1, 1): 0.030392565, (40, 24): 0.040376365, (127, 195): 0.0050416016}),
    ],
)
def test_filters_equal_the_published_values(n_mels, peaks):
    # Peaks of four rows of whisper/assets/mel_filters.npz.
    filters_MF = audio.mel_filters(n_mels)
    for (row, column), value in peaks.items():
        assert filters_MF[row].argmax() == column
        np.testing.assert_allclose(filters_MF[row, column], value, rtol=2e-6)


def test_frames_counts_every_started_frame():
    assert [audio.frames(n) for n in (0, 1, 320, 321, 480000)] == [0, 1, 1, 2, 1500]
    np.testing.assert_array_equal(audio.frames(np.array([640, 641]), hop=320), [1, 2])


@pytest.mark.parametrize("samples", [1601, 160])
def test_impossible_lengths_are_named(samples):
    with pytest.raises(ValueError, match=f"{samples} samples"):
        log_mel(np.zeros((1, samples), np.float32))
