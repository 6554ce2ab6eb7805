"""Experts as plain low-rank updates: the same sums as `ops.mixture`, whatever the route."""

import jax.numpy as jnp
import numpy as np
import pytest

from moejax.convert import low_rank
from moejax.convert.low_rank import LowRank
from moejax.ops import mixture
from moejax.types import Route

D, R, O, E, SCALE = 6, 2, 5, 3, 1.5
rng = np.random.default_rng(0)


def normal(*shape):
    return rng.normal(size=shape).astype(np.float32)


FIRST = {"A": normal(E, D, R), "B": normal(E, R, O), "shared_A": normal(1, D, 4), "shared_B": normal(1, 4, O)}
SECOND = {"A": normal(E, O, R), "B": normal(E, R, D)}
EXPERT = {"decoder": {"layers": {"0": {"fc1": {"experts": FIRST}, "fc2": {"experts": SECOND}}}}}
PARAMS = {
    "backbone": {"decoder": {"layers": {"0": {"fc1": {"kernel": normal(D, O)}, "fc2": {"kernel": normal(O, D)}}}}},
    "buffer": {},
    "expert": EXPERT,
}


def applied(parts, x_BTD, weight_E):
    """What the network computes for this route, by the product's own mixture."""
    route = Route(jnp.broadcast_to(jnp.asarray(weight_E, jnp.float32), (len(x_BTD), E)))
    y = mixture.apply(x_BTD, parts["A"], parts["B"], route, SCALE)
    if "shared_A" in parts:
        always = Route(jnp.ones((len(x_BTD), 1), jnp.float32))
        y = y + mixture.apply(x_BTD, parts["shared_A"], parts["shared_B"], always, SCALE)
    return np.asarray(y)


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 0, 1), (0.2, 0.5, 0.3), (0, 0, 0), (2, -1, 0)])
def test_a_route_merged_is_that_route(weights):
    merged = low_rank.merged(PARAMS, low_rank.one_route(EXPERT, weights, SCALE))
    for layer, parts in (("fc1", FIRST), ("fc2", SECOND)):
        x = normal(2, 4, parts["A"].shape[1])
        kernel = PARAMS["backbone"]["decoder"]["layers"]["0"][layer]["kernel"]
        found = x @ merged["backbone"]["decoder"]["layers"]["0"][layer]["kernel"]
        np.testing.assert_allclose(found, x @ kernel + applied(parts, x, weights), atol=2e-5)


def test_experts_of_weight_zero_cost_no_rank():
    route = low_rank.one_route(EXPERT, (0, 1, 0), SCALE)
    assert [update.rank for update in route.values()] == [R + 4, R]
    assert low_rank.one_route({"fc2": {"experts": SECOND}}, (0, 0, 0), SCALE) == {}


def test_one_expert_and_the_shared_one_add_up_to_the_one_hot_route():
    one, shared = low_rank.one_expert(EXPERT, 1, SCALE), low_rank.shared_expert(EXPERT, SCALE)
    route = low_rank.one_route(EXPERT, (0, 1, 0), SCALE)
    for layer, update in route.items():
        total = one[layer].delta() + (shared[layer].delta() if layer in shared else 0)
        np.testing.assert_allclose(update.delta(), total, atol=1e-6)


def test_merging_leaves_the_rest_and_the_original_alone():
    before = PARAMS["backbone"]["decoder"]["layers"]["0"]["fc1"]["kernel"].copy()
    merged = low_rank.merged(PARAMS, {})
    low_rank.merged(PARAMS, low_rank.one_expert(EXPERT, 0, SCALE))
    np.testing.assert_array_equal(PARAMS["backbone"]["decoder"]["layers"]["0"]["fc1"]["kernel"], before)
    np.testing.assert_array_equal(merged["backbone"]["decoder"]["layers"]["0"]["fc1"]["kernel"], before)
    assert "expert" not in merged


def test_stacking_pads_ranks_and_folds_scales():
    adapters = [
        {"a": LowRank(normal(D, 2), normal(2, O), 2.0), "b": LowRank(normal(D, 2), normal(2, O), 2.0)},
        {"a": LowRank(normal(D, 5), normal(5, O), 0.5)},
    ]
    expert, rank, scale = low_rank.stacked(adapters)
    assert (rank, scale, low_rank.num_experts(expert)) == (5, 1.0, 2)
    for e, adapter in enumerate(adapters):
        for layer, update in low_rank.one_expert(expert, e, scale).items():
            want = adapter[layer].delta() if layer in adapter else np.zeros((D, O))
            np.testing.assert_allclose(update.delta(), want, atol=1e-6)


def test_stacking_equals_changes_no_bit():
    adapters = [{"a": LowRank(normal(D, 2), normal(2, O), 2.0)} for _ in range(3)]
    expert, rank, scale = low_rank.stacked(adapters)
    assert (rank, scale) == (2, 2.0)
    for e, adapter in enumerate(adapters):
        np.testing.assert_array_equal(expert["a"]["experts"]["A"][e], adapter["a"].A_DR)
        np.testing.assert_array_equal(expert["a"]["experts"]["B"][e], adapter["a"].B_RO)


def test_errors_name_the_thing():
    with pytest.raises(ValueError, match="no expert 3; the experts are 0 to 2"):
        low_rank.one_expert(EXPERT, 3, SCALE)
    with pytest.raises(ValueError, match="3 finite weights"):
        low_rank.one_route(EXPERT, (1, 0), SCALE)
    with pytest.raises(ValueError, match="3 finite weights"):
        low_rank.one_route(EXPERT, (1, 0, np.nan), SCALE)
    with pytest.raises(ValueError, match="no shared expert"):
        low_rank.shared_expert({"fc2": {"experts": SECOND}}, SCALE)
    with pytest.raises(ValueError, match="no experts"):
        low_rank.layers({})
    with pytest.raises(ValueError, match="decoder/layers/9/fc1"):
        low_rank.merged(PARAMS, {"decoder/layers/9/fc1": LowRank(normal(D, 2), normal(2, O), 1.0)})
    with pytest.raises(ValueError, match="decoder/layers/0/fc1 is"):
        low_rank.merged(PARAMS, {"decoder/layers/0/fc1": LowRank(normal(D, 2), normal(2, D), 1.0)})
