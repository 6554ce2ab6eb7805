"""Linear attention: what it approximates, what it must not see, and what streaming gives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops import favor
from moejax.ops.attention import attend

linear = jax.jit(favor.attend_linear)
projection = jax.jit(favor.projection, static_argnums=(1, 2))


def drawn(T=60, H=2, K=16, std=0.25, seed=0):
    return [
        std**place * jax.random.normal(key, (2, T, H, K))
        for key, place in zip(jax.random.split(jax.random.key(seed), 3), (1, 1, 0), strict=True)
    ]


def relative(found, wanted):
    return float(jnp.linalg.norm(found - wanted) / jnp.linalg.norm(wanted))


def test_the_projection_is_orthogonal_in_blocks_and_as_long_as_gaussian_rows():
    p = np.asarray(projection(jax.random.key(0), 40, 16))
    assert p.shape == (40, 16) and favor.features_of(64) == 266 and favor.features_of(69) == 292
    for at in (0, 16):
        block = p[at : at + 16]
        gram = block @ block.T
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=1e-4)
    lengths = np.linalg.norm(np.asarray(projection(jax.random.key(1), 512, 16)), axis=1)
    assert abs(np.square(lengths).mean() - 16) < 1.5 and lengths.std() > 0.4


def test_features_are_those_of_the_formula():
    """performer-pytorch's softmax_kernel, written out."""
    x = np.asarray(jax.random.normal(jax.random.key(2), (2, 5, 3, 8)), np.float64)
    p = np.asarray(projection(jax.random.key(3), 20, 8), np.float64)
    for query in (True, False):
        scaled = x * 8**-0.25
        dash, half = scaled @ p.T, (scaled**2).sum(-1, keepdims=True) / 2
        top = dash.max(-1, keepdims=True) if query else dash.max((1, 3), keepdims=True)
        wanted = (np.exp(dash - half - top) + 1e-4) / np.sqrt(20)
        np.testing.assert_allclose(favor.phi(x, p, query=query), wanted, rtol=2e-5, atol=1e-7)


def test_it_is_near_softmax_attention_for_small_numbers_only():
    errors = []
    for std in (0.25, 1.0):
        q, k, v = drawn(K=64, std=std)
        p = projection(jax.random.key(1), 1024, 64)
        errors.append(relative(linear(q, k, v, p), attend(q, k, v)))
    assert errors[0] < 0.06 and errors[1] > 0.3
    few = linear(*drawn(K=64), projection(jax.random.key(1), 25, 64))
    assert relative(few, attend(*drawn(K=64))) > 2 * errors[0]


def test_masked_keys_do_not_count():
    q, k, v = drawn()
    p = projection(jax.random.key(1), 44, 16)
    mask = jnp.arange(60)[None] < jnp.array([[60], [37]])
    found = linear(q, k, v, p, key_mask_BS=mask)
    alone = linear(q[1:, :, :], k[1:, :37], v[1:, :37], p)
    np.testing.assert_allclose(found[1], alone[0], atol=1e-5)
    loud = linear(q, k + 5.0 * ~mask[..., None, None], v, p, key_mask_BS=mask)
    np.testing.assert_allclose(loud, found, atol=1e-5)


@pytest.mark.parametrize("chunk", [16, 128])
def test_causal_attention_sees_no_future_and_is_what_streaming_gives(chunk):
    q, k, v = drawn()
    p = projection(jax.random.key(1), 44, 16)
    found = favor.attend_linear_causal(q, k, v, p, chunk=chunk)
    cut = favor.attend_linear_causal(q[:, :25], k[:, :25], v[:, :25], p, chunk=chunk)
    np.testing.assert_allclose(found[:, :25], cut, atol=1e-5)
    state, streamed = (jnp.zeros((2, 44)), jnp.zeros((2, 44, 16))), []
    step = jax.jit(favor.recurrent_step)
    for t in range(60):
        state, out = step(*state, q[0, t], k[0, t], v[0, t], p)
        streamed.append(out)
    np.testing.assert_allclose(found[0], jnp.stack(streamed), atol=1e-5)
    # the last frame sees all, as in the attention that is not causal; the first sees itself
    np.testing.assert_allclose(found[:, 0], v[:, 0], atol=1e-4)
    assert relative(found[:, -1], linear(q, k, v, p)[:, -1]) < 0.02
