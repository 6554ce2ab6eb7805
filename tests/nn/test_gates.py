"""Every kind of gate begins as the utterance gate, learns what it adds, and decodes as it trains."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_kinds
import tiny_whisper as tiny

from moejax.decode import prefix as prefixes
from moejax.decode.rules import Rules
from moejax.decode.search import SearchPlan
from moejax.nn import functional, gates
from moejax.tasks import asr, recognition

B, E, U = 3, tiny.E, tiny.U
PATTERNS = ("encoder/layers/*/fc1", "decoder/layers/*/self_attn/[qv]", "decoder/layers/*/*/k", "decoder/layers/*/fc2")
ADDED = {"layer": (U, 6, E), "rank": (U, E, 2), "token": (32, E)}  # shapes of what these add
RNG = np.random.default_rng(8)
GATE_IN_BU = jnp.asarray(RNG.normal(size=(B, U)), jnp.float32)
STATES_BTD = jnp.asarray(RNG.normal(size=(B, 8, 32)), jnp.float32)
TOKENS_BL = RNG.integers(0, tiny.VOCAB, (B, 6))
ONES = jnp.ones((B, 1))


def mixture(kind, routing="dense"):
    share = {"label": 1.0, "mixed": 0.25}.get(kind, 0.0)
    return dataclasses.replace(
        tiny.MIXTURE, targets=PATTERNS, gate=kind, routing=routing, known_share=share, shared_rank=1
    )


def added(params, drawn=True):
    """The parameters with what the gate adds drawn, and its paths."""
    flat = functional.paths(params["gate"])
    extra = [path for path in flat if path.endswith(("gate/extra", "router/kernel"))]
    rng = np.random.default_rng(3)
    for path in extra if drawn else ():
        flat[path] = jnp.asarray(2.0 * rng.normal(size=flat[path].shape), jnp.float32)
    return {**params, "gate": functional.nest(flat)}, extra


@functools.cache
def program(kind, routing):
    """Jitted (params, heard_B1, label_B) -> (token by token, teacher forced, base, weights of the route)."""
    made = mixture(kind, routing)
    graphdef, _ = tiny.model(made)

    @jax.jit
    def run(params, heard_B1, label_B):
        net = functional.merge(graphdef, params)
        route = made.whole_route(net.gate(GATE_IN_BU), net.gate, GATE_IN_BU, heard_B1, label_B)
        forced, base = (net.decode(TOKENS_BL, STATES_BTD, route=r) for r in (route, None))
        return test_kinds.by_tokens(net, STATES_BTD, TOKENS_BL, route), forced, base, route.weight_BX

    return run


@pytest.mark.parametrize("routing", ["dense", "topk"])
@pytest.mark.parametrize("kind", ADDED)
def test_logits_in_decoding_are_those_in_training_and_every_kind_begins_as_the_utterance_gate(kind, routing):
    fresh = tiny.model(mixture(kind, routing))[1]
    params, extra = added(fresh)
    assert [params["gate"]["gate"]["extra"].shape] == [ADDED[kind]] if kind != "token" else len(extra) == 1
    unknown_B = jnp.full((B,), -1)
    found, want, base, _ = program(kind, routing)(params, ONES, unknown_B)
    np.testing.assert_allclose(found, want, rtol=1e-4, atol=5e-5)
    plain = program("utterance", routing)(tiny.model(mixture("utterance", routing))[1], ONES, unknown_B)[1]
    assert np.abs(want - base).max() > 0.05 and np.abs(want - plain).max() > 0.01
    begun = program(kind, routing)(fresh, ONES, unknown_B)[1]
    np.testing.assert_allclose(begun, plain, rtol=1e-4, atol=5e-5)
    unheard = program(kind, routing)(params, 0 * ONES, unknown_B)[1]  # as controls want it
    np.testing.assert_allclose(unheard, plain, rtol=1e-4, atol=5e-5)
    asleep = {**params, "expert": tiny.model(mixture(kind, routing), awake=False)[1]["expert"]}
    step0 = program(kind, routing)(asleep, ONES, unknown_B)
    np.testing.assert_allclose(step0[1], step0[2], atol=1e-6)


def test_known_cluster_decides_alone_or_by_its_share_and_only_where_it_is_known():
    label_B = jnp.asarray([2, 0, -1])
    weights = {}
    for kind in ("utterance", "label", "mixed"):
        made = mixture(kind)
        net = functional.merge(*tiny.model(made))
        weights[kind] = made.whole_route(net.gate(GATE_IN_BU), net.gate, GATE_IN_BU, ONES, label_B).weight_BX
        unheard = made.whole_route(net.gate(GATE_IN_BU), net.gate, GATE_IN_BU, 0 * ONES, label_B).weight_BX
        np.testing.assert_allclose(unheard, weights["utterance"], rtol=1e-5)
    known_BE = E * np.eye(E)[[2, 0]]
    np.testing.assert_allclose(weights["label"][:2], known_BE, rtol=1e-6)
    np.testing.assert_allclose(weights["mixed"][:2], 0.75 * weights["utterance"][:2] + 0.25 * known_BE, rtol=1e-5)
    for kind in ("label", "mixed"):
        np.testing.assert_allclose(weights[kind][2], weights["utterance"][2], rtol=1e-6)


def test_constant_gate_hears_nothing_and_starts_even():
    graphdef, params = tiny.model(mixture("constant"))
    net = functional.merge(graphdef, tiny.with_gate_bias(params, [0.5, 0.0, 0.0, -1.0]))
    np.testing.assert_array_equal(net.gate(GATE_IN_BU), np.tile(np.float32([0.5, 0.0, 0.0, -1.0]), (B, 1)))
    assert (np.asarray(params["gate"]["gate"]["bias"]) == 0).all()


@pytest.mark.parametrize("kind", gates.KINDS)
def test_trainable_leaves_of_every_kind_and_softening_divides_its_logits(kind):
    graphdef, params = tiny.model(mixture(kind))
    names = {"gate/bias"} if kind == "constant" else {"gate/bias", "gate/kernel"}
    own = {"layer": "gate/extra", "rank": "gate/extra", "token": "decoder/layers/0/router/kernel"}
    names |= {own[kind]} if kind in own else set()
    assert set(functional.paths(params["gate"])) == names
    soft = asr.soften(params, 4.0)
    assert set(functional.paths(soft["gate"])) == names
    logits_BE, quarter_BE = (functional.merge(graphdef, p).gate(GATE_IN_BU) for p in (params, soft))
    np.testing.assert_allclose(quarter_BE, logits_BE / 4, atol=1e-6)


@pytest.mark.parametrize("kind", ADDED)
def test_the_recognition_loss_teaches_what_the_gate_adds(kind):
    graphdef, params = tiny.model(mixture(kind))
    loss_fn = asr.make_loss(graphdef, asr.Row(route="gate"), mixture=mixture(kind), num_cohorts=3)
    _, extra = added(params)

    def loss(gate):
        return loss_fn({**params, "gate": gate}, tiny.batch(4), jax.random.key(0))[0]

    found = functional.paths(jax.jit(jax.grad(loss))(params["gate"]))
    assert extra and all(np.abs(found[path]).max() > 1e-6 for path in extra)


@pytest.mark.parametrize("beam", [False, True])
def test_search_with_a_gate_for_every_token_says_what_teacher_forcing_says(beam):
    made = mixture("token")
    graphdef, params = tiny.model(made)
    params, _ = added(params)
    net = functional.merge(graphdef, params)
    route = made.whole_route(net.gate(GATE_IN_BU), net.gate, GATE_IN_BU, ONES)
    steps, width = 4, 2 if beam else 1
    plan = SearchPlan(eot=tiny.EOT, max_tokens=steps, beam=beam, width=width)
    start = prefixes.shared(tiny.PREFIX, B, steps)
    mask_BT = np.ones(STATES_BTD.shape[:2], bool)
    found = recognition.make_search(graphdef)(
        params, STATES_BTD, mask_BT, route, start, Rules(eot=tiny.EOT), np.float32(0), None, plan=plan
    )
    said_BL = np.concatenate([np.tile(tiny.PREFIX, (B, 1)), found.tokens_BL], axis=1)
    logits_BLV = net.decode(said_BL[:, :-1], STATES_BTD, mask_BT, route)[:, len(tiny.PREFIX) - 1 :]
    logprob_BLV = np.asarray(jax.nn.log_softmax(logits_BLV))
    for b in range(B):
        length = int(found.lengths_B[b])
        chosen = found.tokens_BL[b, : min(length + 1, steps)]
        total = sum(logprob_BLV[b, at, token] for at, token in enumerate(chosen))
        np.testing.assert_allclose(found.sum_logprob_B[b], total, atol=1e-3)
        if not beam:
            assert np.asarray(chosen).tolist() == logprob_BLV[b, : len(chosen)].argmax(-1).tolist()
