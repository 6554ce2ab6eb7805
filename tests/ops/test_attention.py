import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops import attention

B, T, H, K = 2, 12, 3, 4
Q, KEYS, VALUES = (jax.random.normal(key, (B, T, H, K)) for key in jax.random.split(jax.random.key(0), 3))
MASK_BT = jnp.arange(T)[None] < jnp.asarray([[7], [T]])


def by_loops(mask_BT, causal):
    out = np.zeros((B, T, H, K))
    for b, t, h in np.ndindex(B, T, H):
        seen = [s for s in range(T) if mask_BT[b, s] and (not causal or s <= t)]
        score = np.array([float(Q[b, t, h] @ KEYS[b, s, h]) for s in seen]) / np.sqrt(K)
        weight = np.exp(score - score.max())
        out[b, t, h] = (weight / weight.sum()) @ np.asarray(VALUES)[b, seen, h]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_softmax_of_scaled_products(masked, causal):
    got = attention.attend(Q, KEYS, VALUES, key_mask_BS=MASK_BT if masked else None, causal=causal)
    want = by_loops(np.asarray(MASK_BT) if masked else np.ones((B, T), bool), causal)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("limit", [1, 600, 1200])
def test_blocks_equal_the_plain_form(monkeypatch, masked, limit):
    mask_BT = MASK_BT if masked else None
    plain = attention.attend(Q, KEYS, VALUES, key_mask_BS=mask_BT)
    monkeypatch.setattr(attention, "BLOCK_BYTES", limit)
    assert attention._blocks(B * H * T * T * 4, T) > 1
    np.testing.assert_allclose(attention.attend(Q, KEYS, VALUES, key_mask_BS=mask_BT), plain, atol=1e-6)


def test_gradients_flow_through_blocks(monkeypatch):
    def total(q):
        return jnp.sin(attention.attend(q, KEYS, VALUES, key_mask_BS=MASK_BT)).sum()

    plain = jax.grad(total)(Q)
    monkeypatch.setattr(attention, "BLOCK_BYTES", 600)
    np.testing.assert_allclose(jax.grad(total)(Q), plain, atol=1e-5)


def test_number_of_blocks_divides_the_length_and_is_no_larger_than_needed():
    limit = attention.BLOCK_BYTES
    assert attention._blocks(limit, 1500) == 1
    assert attention._blocks(2 * limit + 1, 1500) == 3
    assert attention._blocks(7 * limit, 1500) == 10
    assert attention._blocks(7 * limit, 13) == 13


def test_softmax_is_float32_on_half_precision():
    half = [x.astype(jnp.bfloat16) for x in (Q, KEYS, VALUES)]
    out = attention.attend(*half)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(jnp.float32), attention.attend(Q, KEYS, VALUES), atol=0.05)
