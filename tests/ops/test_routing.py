import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.ops import routing

LOGITS_BE = jnp.asarray(np.random.default_rng(0).normal(size=(6, 4)), jnp.float32)


def test_one_chosen_expert_keeps_its_probability_and_the_gate_its_gradient():
    route = routing.softmax_topk(LOGITS_BE, 1)
    prob_BE = jax.nn.softmax(LOGITS_BE)
    np.testing.assert_allclose(route.weight_BX[:, 0], prob_BE.max(-1), rtol=1e-6)
    assert route.index_BX[:, 0].tolist() == prob_BE.argmax(-1).tolist()
    grad_BE = jax.grad(lambda z: routing.softmax_topk(z, 1).weight_BX.sum())(LOGITS_BE)
    assert (np.abs(grad_BE).max(-1) > 1e-2).all()


@pytest.mark.parametrize("k", [2, 3])
def test_several_chosen_are_the_softmax_over_their_logits(k):
    route = routing.softmax_topk(LOGITS_BE, k)
    np.testing.assert_allclose(route.weight_BX.sum(-1), 1.0, rtol=1e-6)
    chosen = jnp.take_along_axis(LOGITS_BE, route.index_BX, axis=-1)
    np.testing.assert_allclose(route.weight_BX, jax.nn.softmax(chosen), rtol=1e-5)
    assert np.asarray(route.index_BX).tolist() == np.argsort(-np.asarray(LOGITS_BE))[:, :k].tolist()
    grad_BE = jax.grad(lambda z: routing.softmax_topk(z, k).weight_BX[:, 0].sum())(LOGITS_BE)
    assert (np.abs(grad_BE).max(-1) > 1e-3).all()


def test_as_many_as_there_are_is_dense_softmax():
    route = routing.softmax_topk(LOGITS_BE, 4)
    assert route.index_BX is None
    np.testing.assert_allclose(route.weight_BX, jax.nn.softmax(LOGITS_BE), rtol=1e-6)


def test_dense_weights_average_to_one():
    route = routing.dense(LOGITS_BE)
    np.testing.assert_allclose(route.weight_BX, 4 * jax.nn.softmax(LOGITS_BE), rtol=1e-6)
    np.testing.assert_allclose(routing.dense(LOGITS_BE, 1.0).weight_BX.sum(-1), 1.0, rtol=1e-6)


def test_half_precision_logits_are_weighed_in_float32():
    half_BE = LOGITS_BE.astype(jnp.bfloat16)
    for route in (routing.softmax_topk(half_BE, 2), routing.dense(half_BE)):
        assert route.weight_BX.dtype == jnp.float32


def test_known_label_is_one_expert_and_minus_one_is_none():
    weight_BE = routing.dense_weights(routing.one_hot(jnp.asarray([2, -1, 0])), 4)
    assert weight_BE.tolist() == [[0, 0, 1, 0], [0, 0, 0, 0], [1, 0, 0, 0]]


@pytest.mark.parametrize("kind", routing.KINDS)
def test_shares_sum_to_one_whatever_the_kind(kind):
    route = routing.make_route(LOGITS_BE, kind=kind, k=2)
    share_BE = routing.shares(routing.dense_weights(route, 4))
    np.testing.assert_allclose(share_BE.sum(-1), 1.0, rtol=1e-5)
    assert ((share_BE > 0).sum(-1) == (2 if kind == "topk" else 4)).all()


def test_share_of_no_expert_is_zero_not_nan():
    assert (routing.shares(jnp.zeros((2, 4))) == 0).all()


def test_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match="'sparse'; known: .*dense.*topk"):
        routing.make_route(LOGITS_BE, kind="sparse", k=2)
