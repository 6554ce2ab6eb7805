"""A hypernetwork changes nothing when fresh, then what its condition says; decoding does what training did."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional
from moejax.tasks import asr, hypernetwork, recognition
from moejax.types import Route

PROJECTION = np.zeros(tiny.U, np.float32), np.eye(tiny.U, dtype=np.float32)
COMMON = {"targets": tiny.EVERYWHERE, "atoms": 3, "rank": 2, "alpha": 4.0, "code": 4, "hidden": 8}
KINDS = {
    "bank": hypernetwork.Hyper(form="bank", routed=0, **COMMON),
    "bank and routed experts": hypernetwork.Hyper(form="bank", routed=2, **COMMON),
    "trunk": hypernetwork.Hyper(form="trunk", routed=0, **COMMON),
}
ROW = asr.Row()


@functools.cache
def fresh(kind):
    return asr.init(hypernetwork.build(tiny.CONFIG, KINDS[kind], *PROJECTION))


@functools.cache
def awake(kind):
    """Trained for some steps on utterances whose text the condition says more of than chance."""
    graphdef, params = fresh(kind)
    loss_fn = hypernetwork.make_loss(graphdef, ROW, KINDS[kind])
    state, frozen, step = tiny.trainer(loss_fn, params, ("expert", "gate"), learning_rate=0.03)
    for _ in range(12):
        state, metrics = step(state, frozen, tiny.batch(8))
    return {**frozen, **state.params}, metrics


@functools.cache
def loss_program(kind):
    return jax.jit(hypernetwork.make_loss(fresh(kind)[0], ROW, KINDS[kind]))


def loss(kind, params, batch):
    return float(loss_program(kind)(params, batch, jax.random.key(0))[0])


@functools.cache
def program(kind):
    """Jitted (params, mel, tokens, condition) -> logits with teacher forcing, and the same without a route."""
    graphdef = fresh(kind)[0]

    def run(on, params, mel_BNM, tokens_BL, condition_BU):
        model = functional.merge(graphdef, params)
        route = Route(model.gate(condition_BU)) if on else None
        return model.decode(tokens_BL, model.encode(mel_BNM, route=route), route=route)

    return jax.jit(functools.partial(run, True)), jax.jit(functools.partial(run, False))


MEL_BNM = jnp.asarray(np.random.default_rng(1).normal(size=(4, 32, 20)), jnp.float32)
TOKENS_BL = jnp.asarray(np.random.default_rng(0).integers(0, tiny.VOCAB, (4, 6)))
CONDITION_BU = jnp.asarray(np.random.default_rng(2).normal(size=(4, tiny.U)), jnp.float32)


@pytest.mark.parametrize("kind", KINDS)
def test_step_0_is_the_base_bit_for_bit(kind):
    graphdef, params = fresh(kind)
    model = functional.merge(graphdef, params)
    route = Route(model.gate(CONDITION_BU))
    assert np.abs(route.weight_BX).min(0).max() > 0  # it has something to say, and the zero factors keep it
    states = model.encode(MEL_BNM, route=route)
    np.testing.assert_array_equal(states, model.encode(MEL_BNM))
    np.testing.assert_array_equal(
        model.decode(TOKENS_BL, states, route=route), model.decode(TOKENS_BL, model.encode(MEL_BNM))
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_base_is_the_same_under_a_hypernetwork_and_every_leaf_of_it_learns(kind):
    params, _ = awake(kind)
    bare = tiny.model(None)[1]
    assert not any(tiny.changed(bare["backbone"], params["backbone"]).values())
    for group in ("expert", "gate"):
        still = [path for path, moved in tiny.changed(fresh(kind)[1][group], params[group]).items() if not moved]
        assert not still
    assert recognition.encoder_adapted(params)


@pytest.mark.parametrize("kind", KINDS)
def test_conditions_matter_after_training_and_batches_do_not(kind):
    params, metrics = awake(kind)
    assert not set(metrics) & set(hypernetwork.LOADS)
    run, base = program(kind)
    together = np.asarray(run(params, MEL_BNM, TOKENS_BL, CONDITION_BU))
    assert np.abs(together - run(params, MEL_BNM, TOKENS_BL, CONDITION_BU[::-1])).max() > 1e-2
    assert np.abs(together - base(params, MEL_BNM, TOKENS_BL, CONDITION_BU)).max() > 1e-2
    order = np.array([2, 0, 3, 1])
    shuffled = run(params, MEL_BNM[order], TOKENS_BL[order], CONDITION_BU[order])
    np.testing.assert_array_equal(shuffled, together[order])
    alone = run(params, MEL_BNM[:1], TOKENS_BL[:1], CONDITION_BU[:1])
    np.testing.assert_allclose(alone[0], together[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_training_fits_and_shuffled_conditions_fit_worse(kind):
    params, batch = awake(kind)[0], tiny.batch(8)
    fitted = loss(kind, params, batch)
    assert fitted < loss(kind, fresh(kind)[1], batch) - 0.3
    others = tiny.replace(batch, gate_in_BU=np.roll(batch.gate_in_BU, 3, axis=0))
    assert loss(kind, params, others) > fitted + 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_decoding_with_folded_weights_is_the_training_forward_pass(kind):
    """Greedy tokens are the argmax of teacher forcing on themselves."""
    graphdef, params = fresh(kind)
    rng, hear = np.random.default_rng(5), tiny.CONFIG.d_model
    experts = {  # what was zero drawn, so that the texts differ
        path: leaf if np.any(leaf) else jnp.asarray(0.5 * rng.normal(size=leaf.shape), jnp.float32)
        for path, leaf in functional.paths(params["expert"]).items()
    }
    buffer = {"mean": jnp.zeros(hear), "matrix": jnp.asarray(3 * rng.normal(size=(hear, tiny.U)), jnp.float32)}
    params = {**params, "expert": functional.nest(experts), "buffer": {**params["buffer"], "gate": buffer}}
    options = {"route": "gate", "mixture": KINDS[kind], "embedding": asr.Embedding()}
    predict = recognition.make_predict(graphdef, prefix=tiny.PREFIX, eot=tiny.EOT, max_tokens=6, **options)
    batch = tiny.batch(8)
    heard = (params, batch.audio_BS, batch.samples_B, batch.label_B)
    decoded, code_BQ = predict(*heard)
    tokens_BL = np.asarray(decoded.tokens_BL)
    assert code_BQ.shape == (8, KINDS[kind].num_experts) and np.ptp(code_BQ, axis=0).max() > 0.01
    states, mask, route, _ = recognition.make_encode(graphdef, **options)(*heard)
    ids_BL = np.concatenate([np.tile(tiny.PREFIX, (8, 1)), tokens_BL], axis=1)
    forced = jax.jit(lambda params: functional.merge(graphdef, params).decoder(ids_BL[:, :-1], states, mask, route))
    best_BL = np.asarray(forced(params).argmax(-1))[:, len(tiny.PREFIX) - 1 :]
    for row in range(8):
        length = int(decoded.lengths_B[row])
        np.testing.assert_array_equal(best_BL[row, :length], tokens_BL[row, :length])
    assert len({tuple(row) for row in tokens_BL}) > 1


def test_a_trunk_costs_less_than_a_head_for_every_layer_and_a_bank_as_much_as_one_lora_and_its_coefficients():
    trunk, bank = (functional.paths(fresh(kind)[1]["expert"]) for kind in ("trunk", "bank"))
    heads = {path for path in trunk if "/in_" in path or "/out_" in path}
    assert len(heads) == 4 and len([p for p in trunk if p.endswith("experts/layer")]) == 16
    lora = tiny.model(asr.Mixture(tiny.EVERYWHERE, num_experts=1, rank=6, alpha=12.0))[1]["expert"]
    assert functional.count(functional.nest(bank)) == functional.count(lora) + 16 * 4 * 3


def test_what_cannot_be_is_refused_in_one_line():
    with pytest.raises(ValueError, match="unknown form 'tree'.*bank, trunk"):
        hypernetwork.build(tiny.CONFIG, hypernetwork.Hyper(form="tree", routed=0, **COMMON), *PROJECTION)()
    with pytest.raises(ValueError, match="form must be bank"):
        hypernetwork.build(tiny.CONFIG, hypernetwork.Hyper(form="trunk", routed=2, **COMMON), *PROJECTION)()
