import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional, inject
from moejax.nn.experts import LowRankExperts
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper
from moejax.ops import mixture as mixing
from moejax.ops import routing
from moejax.types import Route

TOKENS_BL = jnp.asarray(np.random.default_rng(0).integers(0, tiny.VOCAB, (3, 6)))
MEL_BNM = jnp.asarray(np.random.default_rng(1).normal(size=(3, 32, 20)), jnp.float32)


def logits(graphdef, params, route):
    # Not jitted: fused differently, two equal computations may differ in the last bit.
    model = functional.merge(graphdef, params)
    return np.asarray(model.decode(TOKENS_BL, model.encode(MEL_BNM, route=route), route=route))


ROUTES = {
    "dense": Route(jnp.asarray([[0.1, 0.2, 0.3, 0.4], [2.0, 1.0, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]])),
    "gathered": Route(jnp.asarray([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]]), jnp.asarray([[0, 3], [2, 1], [3, 0]])),
    "one": routing.one_hot(jnp.asarray([0, 3, -1])),
}


@pytest.mark.parametrize("name", ROUTES)
def test_fresh_experts_change_nothing_bit_for_bit(name):
    shared = tiny.asr.Mixture(tiny.EVERYWHERE, num_experts=4, rank=2, alpha=4.0, shared_rank=3)
    graphdef, params = tiny.model(shared, awake=False)
    np.testing.assert_array_equal(logits(graphdef, params, ROUTES[name]), logits(graphdef, params, None))
    assert (logits(graphdef, tiny.wake(params), ROUTES[name]) != logits(graphdef, params, None)).any()


def test_building_with_experts_does_not_move_the_base():
    bare, mixed = tiny.model(None)[1], tiny.model(awake=False)[1]
    assert not any(tiny.changed(bare["backbone"], mixed["backbone"]).values())


def test_label_minus_one_is_the_base_and_the_other_rows_are_not():
    graphdef, params = tiny.model()
    routed, base = logits(graphdef, params, ROUTES["one"]), logits(graphdef, params, None)
    np.testing.assert_array_equal(routed[2], base[2])
    assert np.abs(routed[:2] - base[:2]).max(axis=(1, 2)).min() > 1e-2


def test_route_merged_into_the_base_weights_gives_the_same_logits():
    graphdef, params = tiny.model()
    weight_E = jnp.asarray([0.7, 0.0, 1.1, -0.2])
    scale = tiny.MIXTURE.alpha / tiny.MIXTURE.rank
    experts, base = functional.paths(params["expert"]), functional.paths(params["backbone"])
    layers = [path.removesuffix("/experts/A") for path in experts if path.endswith("/experts/A")]
    assert len(layers) == 6 + 10
    for layer in layers:
        A_EDR, B_ERO = experts[f"{layer}/experts/A"], experts[f"{layer}/experts/B"]
        base[f"{layer}/kernel"] = base[f"{layer}/kernel"] + mixing.merged_delta(A_EDR, B_ERO, weight_E, scale)
    folded = {**params, "backbone": functional.nest(base)}
    route = Route(jnp.broadcast_to(weight_E, (3, 4)))
    want = logits(graphdef, params, route)
    np.testing.assert_allclose(logits(graphdef, folded, None), want, rtol=1e-4, atol=2e-5)
    assert np.abs(want - logits(graphdef, params, None)).max() > 0.1


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
        "decoder/layers/0/cross_attn/q", "decoder/layers/0/cross_attn/v", "decoder/layers/0/self_attn/q",
        "decoder/layers/0/self_attn/v", "encoder/layers/0/fc1", "encoder/layers/0/fc2",
    ]  # fmt: skip
    params = functional.split(model)[1]["expert"]
    assert {path.split("/experts/")[0] for path in functional.paths(params)} == set(chosen)
    with pytest.raises(ValueError, match=r"'decoder/layers/\*/attention/q'.*decoder/layers/0/cross_attn/k") as error:
        inject.add_experts(model, ["decoder/layers/*/attention/q"], **options)
    assert "16 in all" in str(error.value) and "\n" not in str(error.value)
