import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops.alignment import dtw, median_filter, token_frame_weights


def naive_cost(cost_LT):
    """Cheapest monotonic path by the textbook recurrence."""
    total = np.full((cost_LT.shape[0] + 1, cost_LT.shape[1] + 1), np.inf)
    total[0, 0] = 0
    for i, j in itertools.product(range(cost_LT.shape[0]), range(cost_LT.shape[1])):
        total[i + 1, j + 1] = cost_LT[i, j] + min(total[i, j], total[i, j + 1], total[i + 1, j])
    return total[-1, -1]


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (5, 5), (4, 31), (31, 4)])
def test_warping_path_is_monotonic_whole_and_cheapest(shape):
    for seed in range(5):
        cost_LT = np.random.default_rng(seed).normal(size=shape)
        rows, columns = dtw(cost_LT)
        assert (rows[0], columns[0]) == (0, 0) and (rows[-1], columns[-1]) == (shape[0] - 1, shape[1] - 1)
        steps = np.stack([np.diff(rows), np.diff(columns)], axis=1)
        assert ((steps >= 0) & (steps <= 1)).all() and (steps.sum(1) >= 1).all()
        np.testing.assert_allclose(cost_LT[rows, columns].sum(), naive_cost(cost_LT), rtol=1e-5)


def test_warping_follows_the_ridge_and_breaks_ties_sideways():
    at = [0, 0, 2, 3, 3, 4]
    cost_LT = -np.eye(5)[at].T
    rows, columns = dtw(cost_LT)
    assert all(row == at[column] for row, column in zip(rows, columns, strict=True) if cost_LT[row, column] < 0)
    assert dtw(np.zeros((2, 3)))[1].tolist()[-3:] == [0, 1, 2]
    with pytest.raises(ValueError, match="empty, 0 x 3"):
        dtw(np.zeros((0, 3)))


@pytest.mark.parametrize("width", [1, 3, 7, 9])
def test_median_is_that_of_mirrored_neighbours(width):
    x = np.random.default_rng(width).normal(size=(2, 3, 20)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (0, 0), (width // 2, width // 2)), mode="reflect")
    expected = np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)
    np.testing.assert_array_equal(np.asarray(median_filter(jnp.asarray(x), width)), expected)


def test_median_ends_where_the_real_part_ends():
    x = np.random.default_rng(0).normal(size=(2, 30)).astype(np.float32)
    for length in (1, 3, 4, 5, 17, 30):
        alone = median_filter(jnp.asarray(x[:, :length]), 7)
        np.testing.assert_array_equal(np.asarray(median_filter(jnp.asarray(x), 7, length))[:, :length], alone)
    np.testing.assert_array_equal(np.asarray(median_filter(jnp.asarray(x[:, :3]), 7)), x[:, :3])
    with pytest.raises(ValueError, match="width is 4"):
        median_filter(jnp.asarray(x), 4)


def test_weights_are_normalised_over_tokens_and_padding_changes_nothing():
    rng = np.random.default_rng(1)
    scores = rng.normal(size=(3, 2, 12, 40)).astype(np.float32) * 3
    tokens, frames = [12, 5, 7], [40, 23, 2]
    whole = np.asarray(token_frame_weights(jnp.asarray(scores), jnp.asarray(tokens), jnp.asarray(frames)))
    for b, (count, length) in enumerate(zip(tokens, frames, strict=True)):
        alone = jnp.asarray(scores[b : b + 1, :, :count, :length])
        found = token_frame_weights(alone, jnp.asarray([count]), jnp.asarray([length]))
        np.testing.assert_allclose(whole[b, :count, :length], found[0], atol=1e-5)
    plain = token_frame_weights(jnp.asarray(scores), jnp.asarray(tokens), jnp.asarray(frames), width=1)[0]
    weight = np.exp(scores[0]) / np.exp(scores[0]).sum(-1, keepdims=True)
    expected = ((weight - weight.mean(1, keepdims=True)) / weight.std(1, keepdims=True)).mean(0)
    np.testing.assert_allclose(plain, expected, atol=1e-4)


def test_a_head_that_tells_no_tokens_apart_weighs_nothing():
    scores = np.zeros((1, 2, 6, 20), np.float32)
    scores[:, 1] = np.random.default_rng(2).normal(size=(6, 20))
    found = token_frame_weights(jnp.asarray(scores), jnp.asarray([6]), jnp.asarray([20]))
    alone = token_frame_weights(jnp.asarray(scores[:, 1:]), jnp.asarray([6]), jnp.asarray([20]))
    np.testing.assert_allclose(found, alone / 2, atol=1e-6)
