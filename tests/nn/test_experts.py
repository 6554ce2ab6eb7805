import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional, inject
from moejax.nn.experts import LowRankExperts
from moejax.nn.layers import Linear
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper
from moejax.ops import routing
from moejax.types import Route

TOKENS_BL = jnp.asarray(np.random.default_rng(0).integers(0, tiny.VOCAB, (3, 6)))
MEL_BNM = jnp.asarray(np.random.default_rng(1).normal(size=(3, 32, 20)), jnp.float32)


@functools.cache
def program(mixture):
    """Jitted (params, route) -> logits of this mixture's model."""
    graphdef = tiny.model(mixture)[0]

    @jax.jit
    def run(params, route):
        model = functional.merge(graphdef, params)
        return model.decode(TOKENS_BL, model.encode(MEL_BNM, route=route), route=route)

    return run


def logits(params, route, mixture=tiny.MIXTURE):
    return np.asarray(program(mixture)(params, route))


def silenced(route):
    """The same route with every weight zero: the same program, so that equal means equal in every bit."""
    return Route(0.0 * route.weight_BX, route.index_BX)


ROUTES = {
    "dense": Route(jnp.asarray([[0.1, 0.2, 0.3, 0.4], [2.0, 1.0, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]])),
    "gathered": Route(jnp.asarray([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]]), jnp.asarray([[0, 3], [2, 1], [3, 0]])),
    "one": routing.one_hot(jnp.asarray([0, 3, -1])),
}


SHARED = dataclasses.replace(tiny.MIXTURE, targets=("encoder/layers/*/fc1", "decoder/layers/*/*attn/v"), shared_rank=3)


@pytest.mark.parametrize("name", ROUTES)
def test_fresh_experts_change_nothing_bit_for_bit(name):
    params, route = tiny.model(SHARED, awake=False)[1], ROUTES[name]
    fresh = logits(params, route, SHARED)
    np.testing.assert_array_equal(fresh, logits(params, silenced(route), SHARED))
    np.testing.assert_allclose(fresh, logits(params, None, SHARED), atol=1e-5)  # another program: rounding differs
    assert np.abs(logits(tiny.wake(params), route, SHARED) - fresh).max() > 1e-2


@pytest.mark.parametrize("name", ROUTES)
def test_layer_with_fresh_experts_is_the_layer_without_bit_for_bit(name):
    layer = Linear(5, 7, init=Init(0))
    layer.experts = LowRankExperts(5, 7, num_experts=4, rank=2, alpha=2.0, shared_rank=3, init=Init(1))
    graphdef, params = functional.split(layer)
    made = functional.merge(graphdef, functional.materialise(params))
    x_BTD = jax.random.normal(jax.random.key(0), (3, 4, 5))
    np.testing.assert_array_equal(made(x_BTD, ROUTES[name]), made(x_BTD))
    assert np.abs(made(x_BTD)).max() > 0.1


def test_building_with_experts_does_not_move_the_base():
    bare, mixed = tiny.model(None)[1], tiny.model(awake=False)[1]
    assert not any(tiny.changed(bare["backbone"], mixed["backbone"]).values())


def test_label_minus_one_is_the_base_and_the_other_rows_are_not():
    params = tiny.model()[1]
    routed, base = logits(params, ROUTES["one"]), logits(params, silenced(ROUTES["one"]))
    np.testing.assert_array_equal(routed[2], base[2])
    assert np.abs(routed[:2] - base[:2]).max(axis=(1, 2)).min() > 1e-2


def test_route_merged_into_the_base_weights_gives_the_same_logits():
    params = tiny.model()[1]
    weight_E = jnp.asarray([0.7, 0.0, 1.1, -0.2])
    scale = tiny.MIXTURE.alpha / tiny.MIXTURE.rank
    experts, base = functional.paths(params["expert"]), functional.paths(params["backbone"])
    layers = [path.removesuffix("/experts/A") for path in experts if path.endswith("/experts/A")]
    assert len(layers) == 6 + 10
    for layer in layers:
        A_EDR, B_ERO = experts[f"{layer}/experts/A"], experts[f"{layer}/experts/B"]
        delta_DO = scale * jnp.einsum("E,EDR,ERO->DO", weight_E, A_EDR, B_ERO)  # products are averaged, not factors
        base[f"{layer}/kernel"] = base[f"{layer}/kernel"] + delta_DO
    folded = {**params, "backbone": functional.nest(base)}
    route = Route(jnp.broadcast_to(weight_E, (3, 4)))
    want = logits(params, route)
    np.testing.assert_allclose(logits(folded, None), want, rtol=1e-4, atol=2e-5)
    assert np.abs(want - logits(params, None)).max() > 0.1


def test_shared_expert_is_always_on_whatever_the_route_weighs():
    experts = LowRankExperts(5, 7, num_experts=3, rank=2, alpha=2.0, shared_rank=4, init=Init(0))
    graphdef, params = functional.split(experts)
    flat = functional.materialise(params)["expert"]
    flat = {k: v if k.endswith("A") else jax.random.normal(jax.random.key(1), v.shape) for k, v in flat.items()}
    made = functional.merge(graphdef, {"expert": flat})
    x_BTD = jax.random.normal(jax.random.key(0), (2, 4, 5))
    nothing = made(x_BTD, Route(jnp.zeros((2, 3))))
    want = x_BTD @ flat["shared_A"][0] @ flat["shared_B"][0]  # alpha / rank = 1
    np.testing.assert_allclose(nothing, want, rtol=1e-5, atol=1e-6)
    assert np.abs(want).max() > 0.1


def test_stabilised_scale_and_kaiming_bound():
    plain, stable = (
        LowRankExperts(64, 8, num_experts=2, rank=4, alpha=8.0, stabilised=s, init=Init(0)) for s in (False, True)
    )
    assert (plain.scale, stable.scale) == (2.0, 4.0)
    drawn = functional.materialise(functional.split(plain)[1])["expert"]
    bound = 64**-0.5  # kaiming uniform with a = sqrt(5) over a fan-in of 64
    assert 0.95 * bound < np.abs(drawn["A"]).max() <= bound and (drawn["B"] == 0).all()


def test_patterns_choose_layers_and_one_that_matches_nothing_lists_them():
    model = Whisper(tiny.CONFIG, init=Init(0))
    options = {"num_experts": 2, "rank": 2, "alpha": 2.0, "init": Init(0)}
    chosen = inject.add_experts(model, ["decoder/layers/*/*attn/[qv]", "encoder/layers/0/fc?"], **options)
    assert chosen == [
        "decoder/layers/0/cross_attn/q",
        "decoder/layers/0/cross_attn/v",
        "decoder/layers/0/self_attn/q",
        "decoder/layers/0/self_attn/v",
        "encoder/layers/0/fc1",
        "encoder/layers/0/fc2",
    ]
    params = functional.split(model)[1]["expert"]
    assert {path.split("/experts/")[0] for path in functional.paths(params)} == set(chosen)
    with pytest.raises(ValueError, match=r"'decoder/layers/\*/attention/q'.*decoder/layers/0/cross_attn/k") as error:
        inject.add_experts(model, ["decoder/layers/*/attention/q"], **options)
    assert "16 in all" in str(error.value) and "\n" not in str(error.value)
