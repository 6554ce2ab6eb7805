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
    chosen_B = (share_BE > 0).sum(-1)
    least, most = {"topk": (2, 2), "threshold": (1, 2), "top_p": (1, 2)}.get(kind, (4, 4))
    assert (least <= chosen_B).all() and (chosen_B <= most).all()


THIN_BE = jnp.log(jnp.asarray([[0.6, 0.3, 0.07, 0.03], [0.05, 0.93, 0.01, 0.01], [0.28, 0.26, 0.24, 0.22]]))


@pytest.mark.parametrize(
    ("kind", "k", "chosen"),
    [
        ("threshold", 4, [{0, 1}, {1}, {0, 1, 2, 3}]),
        ("threshold", 2, [{0, 1}, {1}, {0, 1}]),
        ("top_p", 4, [{0, 1}, {1}, {0, 1, 2}]),
        ("top_p", 1, [{0}, {1}, {0}]),
    ],
)
def test_as_many_as_the_gate_is_unsure_of_up_to_k(kind, k, chosen):
    weight_BE = np.asarray(routing.dense_weights(routing.make_route(THIN_BE, kind=kind, k=k, least=0.2, mass=0.75), 4))
    assert [set(np.flatnonzero(row)) for row in weight_BE] == chosen
    for weight_E, logit_E, some in zip(weight_BE, THIN_BE, chosen, strict=True):
        at = sorted(some)
        prob_E = jax.nn.softmax(logit_E)
        want = jax.nn.softmax(logit_E[jnp.asarray(at)]) if len(at) > 1 else prob_E[at[0]][None]
        np.testing.assert_allclose(weight_E[at], want, rtol=1e-5)  # of one alone its probability, not 1


@pytest.mark.parametrize("kind", ["threshold", "top_p"])
def test_no_expert_above_the_threshold_leaves_the_likeliest_and_every_row_a_gradient(kind):
    def chosen(logits_BE):
        return routing.make_route(logits_BE, kind=kind, k=3, least=0.95, mass=0.01)

    route = chosen(LOGITS_BE)
    assert ((route.weight_BX > 0).sum(-1) == 1).all()
    assert route.index_BX[:, 0].tolist() == LOGITS_BE.argmax(-1).tolist()
    grad_BE = jax.grad(lambda z: chosen(z).weight_BX.sum())(LOGITS_BE)
    assert np.isfinite(grad_BE).all() and (np.abs(grad_BE).max(-1) > 1e-2).all()


def test_sigmoid_weighs_every_expert_on_its_own_and_zero_logits_are_the_single_lora():
    route = routing.make_route(LOGITS_BE, kind="sigmoid", k=1)
    np.testing.assert_allclose(route.weight_BX, 2 / (1 + np.exp(-np.asarray(LOGITS_BE))), rtol=1e-5)
    np.testing.assert_array_equal(routing.sigmoid(jnp.zeros((2, 4))).weight_BX, 1.0)
    moved = routing.sigmoid(LOGITS_BE.at[:, 0].add(5.0)).weight_BX
    np.testing.assert_array_equal(moved[:, 1:], route.weight_BX[:, 1:])


@pytest.mark.parametrize("kind", ["dense", "sigmoid"])
def test_logits_of_weights_give_the_weights_again(kind):
    weight_BE = routing.dense_weights(routing.make_route(LOGITS_BE, kind=kind, k=4), 4)
    asked = weight_BE if kind == "sigmoid" else routing.shares(weight_BE)
    again = routing.make_route(jnp.asarray(routing.logits_of(asked, kind)), kind=kind, k=4)
    np.testing.assert_allclose(again.weight_BX, weight_BE, rtol=1e-4)


def test_temperature_falls_to_one_within_its_steps_and_stays():
    found = [float(routing.temperature(step, 8.0, 3)) for step in range(6)]
    np.testing.assert_allclose(found, [8.0, 4.0, 2.0, 1.0, 1.0, 1.0], rtol=1e-5)


def test_share_of_no_expert_is_zero_not_nan():
    assert (routing.shares(jnp.zeros((2, 4))) == 0).all()


def test_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match="'sparse'; known: .*dense.*topk"):
        routing.make_route(LOGITS_BE, kind="sparse", k=2)
