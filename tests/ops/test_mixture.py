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


@pytest.mark.parametrize("kind", ["gathered", "side by side", "dense"])
def test_folded_for_many_steps_is_the_same_update(kind):
    """Layers that read the same input, one of them without experts, in one go; and as a change of the weights."""
    rng = np.random.default_rng(0)
    B, T, D, E, R = 3, 2, 7, 5, 2
    x_BTD = rng.normal(size=(B, T, D)).astype(np.float32)
    layers = [
        (rng.normal(size=(E, D, R)).astype(np.float32), rng.normal(size=(E, R, O)).astype(np.float32)) for O in (4, 6)
    ]
    weight_BX = jnp.asarray(rng.random((B, E if kind == "dense" else 2)), jnp.float32)
    route = Route(weight_BX, None if kind == "dense" else jnp.asarray([[0, 1], [4, 2], [3, 3]], jnp.int32))
    folded = [mixture.fold(A, B_, route, 0.5, gather=kind == "gathered") for A, B_ in layers]
    want = [mixture.apply(x_BTD, A, B_, route, 0.5) for A, B_ in layers]
    together = mixture.side_by_side([folded[0], None, folded[1]], [4, 3, 6])
    found_BTO = mixture.apply_folded(x_BTD, together)
    np.testing.assert_allclose(found_BTO, jnp.concatenate([want[0], np.zeros((B, T, 3)), want[1]], -1), atol=1e-5)
    for one, update_BTO in zip(folded, want, strict=True):
        np.testing.assert_allclose(x_BTD @ mixture.delta(one), update_BTO, atol=1e-5)
    doubled = mixture.join(folded[0], folded[0])
    np.testing.assert_allclose(mixture.apply_folded(x_BTD, doubled), 2 * want[0], atol=1e-5)
    assert mixture.side_by_side([None, None], [4, 4]) is None
