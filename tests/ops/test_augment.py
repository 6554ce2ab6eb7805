import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops import augment

B, N, M = 4, 40, 16
MEL_BNM = jnp.asarray(np.random.default_rng(0).normal(size=(B, N, M)), jnp.float32)
FRAMES_B = jnp.asarray([40, 30, 20, 10])
MASKS = {"time_masks": 2, "time_width": 10, "freq_masks": 2, "freq_width": 4}
KEYS = [jax.random.key(k) for k in range(20)]


def hidden_in(out):
    """Which cells were replaced by their utterance's mean."""
    return np.asarray(out == MEL_BNM.mean((1, 2), keepdims=True))


def test_spec_augment_hides_whole_bands_of_limited_width():
    rows, columns = [], []
    for key in KEYS:
        out = augment.spec_augment(key, MEL_BNM, FRAMES_B, **MASKS)
        hidden = hidden_in(out)
        np.testing.assert_array_equal(np.asarray(out)[~hidden], np.asarray(MEL_BNM)[~hidden])
        whole_BN, whole_BM = hidden.all(2), hidden.all(1)
        np.testing.assert_array_equal(hidden, whole_BN[:, :, None] | whole_BM[:, None, :])
        rows.append(whole_BN)
        columns.append(whole_BM)
    rows, columns = np.stack(rows), np.stack(columns)
    limit_B = 2 * np.ceil(np.minimum(10, FRAMES_B / 5))
    assert rows.any() and (rows.sum(-1) <= limit_B[None]).all()
    assert columns.any() and (columns.sum(-1) <= 2 * 4).all()


def test_time_masks_stay_within_the_real_frames():
    beyond = np.arange(N)[None] >= np.asarray(FRAMES_B)[:, None]
    for key in KEYS:
        out = augment.spec_augment(key, MEL_BNM, FRAMES_B, **MASKS | {"freq_masks": 0})
        assert not hidden_in(out).all(2)[beyond].any()


def test_no_masks_and_no_warp_change_nothing():
    none = {"time_masks": 0, "time_width": 10, "freq_masks": 0, "freq_width": 4}
    np.testing.assert_array_equal(augment.spec_augment(KEYS[0], MEL_BNM, FRAMES_B, **none), MEL_BNM)
    mel_BNM, frames_B = augment.warp(KEYS[0], MEL_BNM, FRAMES_B, time=0.0, freq=0.0)
    np.testing.assert_allclose(mel_BNM, MEL_BNM, atol=1e-5)
    assert frames_B.tolist() == FRAMES_B.tolist()
    np.testing.assert_array_equal(augment.level(KEYS[0], MEL_BNM, shift=0.0), MEL_BNM)


def padded_ramp():
    """Each utterance rises by one per frame and is followed by padding of -100."""
    at = jnp.arange(N, dtype=jnp.float32)[None]
    ramp_BN = jnp.where(at < FRAMES_B[:, None], at, -100.0)
    return jnp.broadcast_to(ramp_BN[:, :, None], (B, N, M))


@pytest.mark.parametrize("number", range(6))
def test_warped_lengths_are_those_of_the_warped_utterance(number):
    mel_BNM, frames_B = augment.warp(KEYS[number], padded_ramp(), FRAMES_B, time=0.4, freq=0.0)
    assert frames_B.dtype == FRAMES_B.dtype and frames_B.shape == FRAMES_B.shape
    mel_BN = np.asarray(mel_BNM)[:, :, 0]
    for mel_N, frames, old in zip(mel_BN, frames_B.tolist(), FRAMES_B.tolist(), strict=True):
        assert 1 <= frames <= N and old / 1.4 - 1 <= frames <= old / 0.6 + 1
        # Frames before the new end are speech, those after it padding; interpolation blurs one frame of the border.
        # The row that fills its buffer has no padding of its own to continue: it gets its quietest value.
        assert (mel_N[: frames - 1] >= 0).all() and (mel_N[frames + 1 :] == (0 if old == N else -100)).all()
        speed = np.diff(mel_N[: frames - 1])
        np.testing.assert_allclose(speed, speed.mean(), atol=1e-3)
        assert abs(speed.mean() * frames - old) <= 1.5


def test_a_full_buffer_is_never_slowed_beyond_its_end():
    lengths = [augment.warp(key, MEL_BNM, FRAMES_B, time=0.4, freq=0.0)[1].tolist() for key in KEYS]
    assert max(row[0] for row in lengths) == N and min(row[0] for row in lengths) < N
    assert max(row[3] for row in lengths) > 10 > min(row[3] for row in lengths)


def test_vocal_tract_warp_moves_frequencies_and_not_time():
    tone = jnp.zeros((B, N, M)).at[:, 5:9, 8].set(1.0)
    moved = [np.asarray(augment.warp(key, tone, FRAMES_B, time=0.0, freq=0.3)[0]) for key in KEYS]
    assert all(not m[:, :5].any() and not m[:, 9:].any() for m in moved)
    centre = {int(m[b, 6].argmax()) for m in moved for b in range(B)}
    assert len(centre) > 2 and min(centre) >= 6 and max(centre) <= 12


def test_level_adds_a_gain_and_a_slope_of_limited_size():
    added = np.asarray(augment.level(KEYS[1], MEL_BNM, shift=0.3) - MEL_BNM)
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1], added.shape), atol=1e-6)
    np.testing.assert_allclose(np.diff(added[:, 0], n=2), 0, atol=1e-6)
    assert 0.01 < np.abs(added).max() <= 0.6 and len({round(float(v), 5) for v in added[:, 0, 0]}) == B


def test_a_key_gives_the_same_noise_and_rows_get_their_own():
    a, b, c = (augment.spec_augment(KEYS[k], MEL_BNM, FRAMES_B, **MASKS) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()
    same = jnp.broadcast_to(MEL_BNM[:1], MEL_BNM.shape)
    assert (np.ptp(np.asarray(augment.level(KEYS[0], same, shift=0.3)), axis=0) > 0).any()
