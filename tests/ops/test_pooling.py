import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops.pooling import POOLINGS, STD_FLOOR, pool, speech_frames, valid_frames

HOP, STRIDE = 160, 2
STEP = HOP * STRIDE


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """Bursts of noise with quiet gaps between them."""
    random = np.random.default_rng(seed)
    samples = int(seconds * 16000)
    envelope = np.where(np.arange(samples) % 8000 < 5000, 0.3, 1e-4)
    return (envelope * random.normal(size=samples)).astype(np.float32)


def padded(audio: np.ndarray, samples: int) -> jax.Array:
    return jnp.asarray(np.pad(audio, (0, samples - len(audio)))[None])


def frame_states(audio_BS: jax.Array, T: int) -> jax.Array:
    """Stands in for an encoder that answers to padding: a bias plus simple features of each frame."""
    frames_BTS = audio_BS[:, : T * STEP].reshape(audio_BS.shape[0], T, STEP)
    return jnp.stack([1.0 + jnp.abs(frames_BTS).mean(-1), jnp.abs(frames_BTS[..., ::7]).max(-1)], axis=-1)


def test_valid_frames_round_up_and_stop_at_the_end():
    mask_BT = valid_frames(jnp.array([0, 1, STEP, STEP + 1, 100 * STEP]), 4, HOP)
    assert mask_BT.sum(axis=1).tolist() == [0, 1, 1, 2, 4]
    assert mask_BT[3].tolist() == [True, True, False, False]


@pytest.mark.parametrize("how", POOLINGS)
def test_pooling_ignores_padding_and_the_unmasked_variant_does_not(how):
    audio = speech(1.0)
    few_T, many_T = 50, 200
    short, long = padded(audio, few_T * STEP), padded(audio, many_T * STEP)
    samples_B = jnp.array([len(audio)])

    def embed(audio_BS, T, masked):
        mask_BT = valid_frames(samples_B, T, HOP) if masked else jnp.ones((1, T), bool)
        return pool(frame_states(audio_BS, T), mask_BT, how)

    np.testing.assert_allclose(embed(short, few_T, True), embed(long, many_T, True), rtol=1e-5)
    # the same property without the mask: must not hold, or the one above proves nothing
    assert float(jnp.abs(embed(short, few_T, False) - embed(long, many_T, False)).max()) > 1e-2


@pytest.mark.parametrize("extra", [1, 319, 16000, 16123])
def test_appended_digital_silence_does_not_change_what_is_speech(extra):
    audio = speech(1.03)
    T = 200
    audio_BS = padded(audio, T * STEP)
    before = speech_frames(audio_BS, jnp.array([len(audio)]), T, HOP)
    after = speech_frames(audio_BS, jnp.array([len(audio) + extra]), T, HOP)
    assert before.tolist() == after.tolist()
    states_BTD = frame_states(audio_BS, T)
    np.testing.assert_array_equal(pool(states_BTD, before, "mean_std"), pool(states_BTD, after, "mean_std"))
    # valid_frames alone does not have this property once a frame is added
    if extra > STEP:
        assert (
            valid_frames(jnp.array([len(audio) + extra]), T, HOP).sum()
            > valid_frames(jnp.array([len(audio)]), T, HOP).sum()
        )


def test_speech_frames_drop_pauses_whatever_the_volume_and_the_batch():
    audio = speech(1.0)
    T = 60
    audio_BS = jnp.concatenate([padded(audio, T * STEP), padded(audio * 1e-3, T * STEP), padded(audio * 0, T * STEP)])
    samples_B = jnp.full(3, len(audio))
    loud_T, quiet_T, empty_T = np.asarray(speech_frames(audio_BS, samples_B, T, HOP))
    # bursts are 5000 of every 8000 samples: frames 0..15 and 25..40
    assert loud_T[:15].all() and loud_T[26:40].all() and not loud_T[17:24].any() and not loud_T[42:].any()
    assert loud_T.tolist() == quiet_T.tolist()
    assert empty_T.tolist() == valid_frames(samples_B, T, HOP)[2].tolist()  # nothing to hear: all valid frames
    alone_T = np.asarray(speech_frames(audio_BS[:1], samples_B[:1], T, HOP))[0]
    assert alone_T.tolist() == loud_T.tolist()


def test_samples_beyond_the_length_are_not_looked_at():
    audio, T = speech(1.0), 60
    clean = padded(audio, T * STEP)
    dirty = clean.at[:, len(audio) :].set(5.0)
    samples_B = jnp.array([len(audio)])
    assert speech_frames(clean, samples_B, T, HOP).tolist() == speech_frames(dirty, samples_B, T, HOP).tolist()


@pytest.mark.parametrize("how", POOLINGS)
def test_an_empty_mask_and_nan_in_the_padding_give_numbers(how):
    states_BTD = jnp.ones((2, 3, 4)).at[1, 2].set(jnp.nan)
    mask_BT = jnp.array([[False] * 3, [True, True, False]])
    pooled = pool(states_BTD, mask_BT, how)
    assert bool(jnp.isfinite(pooled).all())
    np.testing.assert_array_equal(pooled[1, :4], 1.0)
    gradient = jax.grad(lambda x: pool(x, mask_BT, how).sum())(jnp.ones((2, 3, 4)))
    assert bool(jnp.isfinite(gradient).all())


def test_mean_std_are_the_mean_and_the_standard_deviation():
    states_BTD = jnp.asarray(np.random.default_rng(0).normal(5, 2, (1, 40, 3)), jnp.bfloat16)
    mask_BT = jnp.arange(40)[None] < 30
    wanted = np.asarray(states_BTD[0, :30], np.float64)
    pooled = pool(states_BTD, mask_BT, "mean_std")
    assert pooled.dtype == jnp.float32
    np.testing.assert_allclose(pooled[0], np.concatenate([wanted.mean(0), wanted.std(0)]), rtol=1e-5)
    assert pool(states_BTD, jnp.arange(40)[None] < 1, "mean_std")[0, 3:].tolist() == pytest.approx([STD_FLOOR] * 3)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="unknown pooling 'max'; known: mean, mean_std"):
        pool(jnp.ones((1, 2, 3)), jnp.ones((1, 2), bool), "max")
    with pytest.raises(ValueError, match="does not fit"):
        pool(jnp.ones((1, 2, 3)), jnp.ones((1, 3), bool))
    with pytest.raises(ValueError, match="negative"):
        speech_frames(jnp.ones((1, 640)), jnp.array([640]), 2, HOP, db=35.0)
