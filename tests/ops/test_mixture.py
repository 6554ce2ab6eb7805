import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops import mixture, routing
from moejax.types import Route

B, T, D, E, R, O = 3, 4, 6, 5, 2, 7
SCALE = 1.5
RNG = np.random.default_rng(0)
X_BTD, A_EDR, B_ERO = (jnp.asarray(RNG.normal(size=s), jnp.float32) for s in ((B, T, D), (E, D, R), (E, R, O)))
LOGITS_BE = jnp.asarray(RNG.normal(size=(B, E)), jnp.float32)


def by_loops(weight_BE):
    """The definition, one utterance and one expert at a time."""
    x, A, B_, g = (np.asarray(a, np.float64) for a in (X_BTD, A_EDR, B_ERO, weight_BE))
    return np.stack([sum(g[b, e] * SCALE * x[b] @ A[e] @ B_[e] for e in range(E)) for b in range(B)])


@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_gathered_and_dense_are_the_same_sum(k):
    route = routing.softmax_topk(LOGITS_BE, k)
    weight_BE = routing.dense_weights(route, E)
    want = by_loops(weight_BE)
    np.testing.assert_allclose(mixture.apply(X_BTD, A_EDR, B_ERO, route, SCALE), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(mixture.apply(X_BTD, A_EDR, B_ERO, Route(weight_BE), SCALE), want, rtol=1e-4, atol=1e-5)
    assert np.abs(want).max() > 0.5


@pytest.mark.parametrize("k", [2, 5])
def test_both_forms_have_the_same_gradients(k):
    route = routing.softmax_topk(LOGITS_BE, k)
    padded = Route(routing.dense_weights(route, E))

    def total(arrays, route):
        return jnp.sin(mixture.apply(*arrays, route, SCALE)).sum()

    one, other = (jax.grad(total)((X_BTD, A_EDR, B_ERO), r) for r in (route, padded))
    for a, b in zip(one, other, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
        assert np.abs(a).max() > 0.1


def test_an_expert_that_no_utterance_chose_gets_no_gradient():
    route = Route(jnp.ones((B, 1)), jnp.asarray([[0], [2], [0]]))
    grad_EDR = jax.grad(lambda A: mixture.apply(X_BTD, A, B_ERO, route, SCALE).sum())(A_EDR)
    assert (np.abs(grad_EDR).max((1, 2)) > 0).tolist() == [True, False, True, False, False]


def test_constant_logits_and_dense_routing_are_one_lora_of_all_ranks():
    route = routing.dense(jnp.full((B, E), 0.3))
    np.testing.assert_allclose(route.weight_BX, 1.0, rtol=1e-6)
    big_A, big_B = A_EDR.transpose(1, 0, 2).reshape(D, E * R), B_ERO.reshape(E * R, O)
    want = SCALE * X_BTD @ big_A @ big_B
    np.testing.assert_allclose(mixture.apply(X_BTD, A_EDR, B_ERO, route, SCALE), want, rtol=1e-4, atol=1e-5)


def test_update_is_float32_on_a_bfloat16_backbone():
    for route in (routing.softmax_topk(LOGITS_BE, 2), routing.dense(LOGITS_BE)):
        assert mixture.apply(X_BTD.astype(jnp.bfloat16), A_EDR, B_ERO, route, SCALE).dtype == jnp.float32
