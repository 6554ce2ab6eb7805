"""Every kind of expert: fresh ones change nothing, decoding computes what training does, and what that is."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional, inject
from moejax.nn.experts import KINDS
from moejax.nn.incremental import Reader
from moejax.nn.layers import Linear
from moejax.nn.variables import Init
from moejax.ops import routing
from moejax.types import Route

D, O, E, B = 5, 7, 4, 3
X_BTD = jax.random.normal(jax.random.key(0), (B, 6, D))
ROUTES = {
    "dense": Route(jnp.asarray([[0.1, 0.2, 0.3, 0.4], [2.0, 1.0, 0.5, 0.5], [0.0, 0.0, 0.0, 1.0]])),
    "side by side": Route(jnp.asarray([[0.9, 0.1], [0.5, 0.5], [1.0, 0.0]]), jnp.asarray([[0, 3], [2, 1], [3, 0]])),
    "gathered": routing.one_hot(jnp.asarray([0, 3, -1])),
}
PATTERNS = ("encoder/layers/*/fc1", ("decoder/layers/*/self_attn/*", 3, 6.0), "decoder/layers/*/*")


def layer(kind, *, awake, shared_rank=3):
    """A linear layer with experts, and its parameters as arrays."""
    made = Linear(D, O, init=Init(0))
    made.experts = KINDS[kind](D, O, num_experts=E, rank=2, alpha=2.0, shared_rank=shared_rank, init=Init(1))
    graphdef, params = functional.split(made)
    params = functional.materialise(params)
    rng = np.random.default_rng(2)
    params["backbone"]["bias"] = jnp.asarray(rng.normal(size=O), jnp.float32)
    if awake:
        params["expert"] = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), jnp.float32), params["expert"])
    return functional.merge(graphdef, params), params


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("kind", KINDS)
def test_fresh_experts_change_nothing_bit_for_bit_and_weights_of_zero_never_do(kind, name):
    made, _ = layer(kind, awake=False)
    np.testing.assert_array_equal(made(X_BTD, ROUTES[name]), made(X_BTD))
    awake, _ = layer(kind, awake=True, shared_rank=0)
    nothing = Route(0.0 * ROUTES[name].weight_BX, ROUTES[name].index_BX)
    np.testing.assert_allclose(awake(X_BTD, nothing), awake(X_BTD), atol=1e-6)
    assert np.abs(awake(X_BTD, ROUTES[name])[0] - awake(X_BTD)[0]).max() > 0.1


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("shared_rank", [0, 3])
def test_dora_is_the_papers_formula_on_each_utterances_weights(name, shared_rank):
    made, params = layer("dora", awake=True, shared_rank=shared_rank)
    expert, route = {k: np.asarray(v, np.float64) for k, v in params["expert"]["experts"].items()}, ROUTES[name]
    kernel, bias = (np.asarray(params["backbone"][k], np.float64) for k in ("kernel", "bias"))
    weight_BE = np.asarray(routing.dense_weights(route, E), np.float64)
    found_BTO = np.asarray(made(X_BTD, route))
    for b in range(B):
        update = sum(weight_BE[b, e] * expert["A"][e] @ expert["B"][e] for e in range(E))
        if shared_rank:
            update = update + expert["shared_A"][0] @ expert["shared_B"][0]
        m_O = np.linalg.norm(kernel, axis=0) * (1 + weight_BE[b] @ expert["magnitude"])
        adapted = m_O * (kernel + update) / np.linalg.norm(kernel + update, axis=0)
        np.testing.assert_allclose(found_BTO[b], np.asarray(X_BTD[b]) @ adapted + bias, rtol=1e-4, atol=1e-4)


def test_low_rank_factors_alone_never_change_the_norms_that_doras_magnitude_holds():
    made, params = layer("dora", awake=True, shared_rank=0)
    flat = {**params["expert"]["experts"], "magnitude": jnp.zeros((E, O))}
    unit = jnp.eye(D)[None]

    def columns(times):
        expert = {"experts": {**flat, "B": times * flat["B"]}}
        again = functional.merge(functional.split(made)[0], {**params, "expert": expert})
        rows_DO = again(unit, Route(ROUTES["dense"].weight_BX[:1]))[0] - params["backbone"]["bias"][None]
        return np.linalg.norm(rows_DO, axis=0)

    np.testing.assert_allclose(columns(2.0), columns(0.0), rtol=1e-4)


def mixed(kind):
    return dataclasses.replace(tiny.MIXTURE, targets=PATTERNS, kind=kind, shared_rank=1)


@functools.cache
def reading(kind):
    """Jitted (params, states, tokens, route): logits token by token, by teacher forcing, and of the base."""
    graphdef, _ = tiny.model(mixed(kind))

    @jax.jit
    def run(params, states_BTD, tokens_BL, route):
        net = functional.merge(graphdef, params)
        return by_tokens(net, states_BTD, tokens_BL, route), *(
            net.decode(tokens_BL, states_BTD, route=r) for r in (route, None)
        )

    return run


def by_tokens(net, states_BTD, tokens_BL, route):
    """Logits of a prefix read at once, then of one token after another."""
    B, L = tokens_BL.shape
    reader = Reader(net, states_BTD, None, route)
    at_BL = jnp.broadcast_to(jnp.arange(L)[None], tokens_BL.shape)
    seen_BLL = jnp.broadcast_to(jnp.tril(jnp.ones((L, L), bool))[None], (B, L, L))
    first = L - 2
    x, cache = reader.read(tokens_BL[:, :first], at_BL[:, :first], reader.cache(first), 0, seen_BLL[:, :first, :first])
    parts, cache = [x], reader.grow(cache, 2)
    for i in (first, first + 1):
        x, cache = reader.read(tokens_BL[:, i : i + 1], at_BL[:, i : i + 1], cache, i, seen_BLL[:, i : i + 1])
        parts.append(x)
    return reader.logits(jnp.concatenate(parts, axis=1))


@pytest.mark.parametrize("name", ROUTES)
@pytest.mark.parametrize("kind", KINDS)
def test_logits_in_decoding_are_those_in_training(kind, name):
    _, params = tiny.model(mixed(kind))
    rng = np.random.default_rng(4)
    flat = functional.paths(params["expert"])
    flat |= {p: jnp.asarray(0.3 * rng.normal(size=x.shape), jnp.float32) for p, x in flat.items() if "magnitude" in p}
    params = {**params, "expert": functional.nest(flat)}
    states_BTD = jnp.asarray(rng.normal(size=(B, 8, 32)), jnp.float32)
    tokens_BL = rng.integers(0, tiny.VOCAB, (B, 6))
    found, want, base = reading(kind)(params, states_BTD, tokens_BL, ROUTES[name])
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=5e-5)
    assert np.abs(want - base).max() > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_trainable_leaves_are_the_targets_own_factors_at_the_targets_own_rank(kind):
    _, params = tiny.model(mixed(kind), awake=False)
    shapes = {path: leaf.shape for path, leaf in functional.paths(params["expert"]).items()}
    layers = {path.split("/experts/")[0] for path in shapes}
    parts = {"A", "B", "shared_A", "shared_B"} | ({"magnitude"} if kind == "dora" else set())
    assert {path.split("/experts/")[1] for path in shapes} == parts and len(shapes) == len(layers) * len(parts)
    assert layers == {"encoder/layers/0/fc1"} | {
        f"decoder/layers/0/{a}_attn/{x}" for a in ("self", "cross") for x in ("q", "k", "v", "out")
    } | {"decoder/layers/0/fc1", "decoder/layers/0/fc2"}
    for name in layers:
        rank = 3 if "/self_attn/" in name else 2
        assert shapes[f"{name}/experts/A"][2] == shapes[f"{name}/experts/B"][1] == rank
        assert shapes[f"{name}/experts/shared_A"][2] == 1


def test_each_layer_is_scaled_by_its_own_alpha_over_its_own_rank():
    assert inject.sizes("decoder/layers/0/self_attn/q", PATTERNS, 2, 4.0) == (3, 6.0)
    assert inject.sizes("decoder/layers/0/fc1", PATTERNS, 2, 4.0) == (2, 4.0)
    graphdef, params = tiny.model(mixed("lora"))
    net = functional.merge(graphdef, params)
    block = net.decoder.layers[0]
    assert (block.self_attn.q.experts.scale, block.fc1.experts.scale) == (2.0, 2.0)
    other = tiny.model(dataclasses.replace(mixed("lora"), targets=(("decoder/layers/*/fc?", 4, 2.0),)))
    assert functional.merge(*other).decoder.layers[0].fc2.experts.scale == 0.5


def test_unknown_kind_lists_the_known():
    with pytest.raises(ValueError, match="unknown kind of experts 'loha'; known: lora, dora"):
        tiny.model(dataclasses.replace(tiny.MIXTURE, kind="loha"))
