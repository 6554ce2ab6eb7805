import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional, layers
from moejax.nn.variables import Draw, Init
from moejax.nn.whisper import SIZES, Whisper, add_ctc, sinusoids

MEL_BNM = jnp.asarray(np.random.default_rng(1).normal(size=(2, 32, 20)), jnp.float32)
TOKENS_BL = jnp.asarray(np.random.default_rng(0).integers(0, tiny.VOCAB, (2, 7)))
MASK_BT = jnp.arange(16)[None] < jnp.asarray([[9], [16]])


def call(config=tiny.CONFIG):
    """Jitted (params, mel, tokens, mask) -> (states, logits), and params."""
    graphdef, params = tiny.model(None, config=config)

    @jax.jit
    def run(params, mel_BNM, tokens_BL, mask_BT):
        model = functional.merge(graphdef, params)
        states_BTD = model.encode(mel_BNM, mask_BT)
        return states_BTD, model.decode(tokens_BL, states_BTD, mask_BT)

    return run, params


def test_a_token_sees_itself_and_the_past_only():
    graphdef, params = tiny.model(None)
    model = functional.merge(graphdef, params)
    states_BTD = jax.random.normal(jax.random.key(0), (1, 5, 32))

    def logits(inputs_BLD):
        x = inputs_BLD
        for block in model.decoder.layers:
            x = block(x, states_BTD, causal=True)
        return model.decoder.logits(x)[0].sum(-1)

    inputs_BLD = model.decoder.inputs(TOKENS_BL[:1])
    influence_LL = np.abs(np.asarray(jax.jit(jax.jacobian(logits))(inputs_BLD))[:, 0]).max(-1)
    assert (influence_LL[~np.tri(7, dtype=bool)] == 0).all()
    assert (influence_LL[np.tri(7, dtype=bool)] > 0).all()


def test_later_tokens_do_not_change_earlier_logits():
    run, params = call()
    _, before = run(params, MEL_BNM, TOKENS_BL, MASK_BT)
    _, after = run(params, MEL_BNM, TOKENS_BL.at[:, 4].add(1), MASK_BT)
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert (before[:, 4:] != after[:, 4:]).any(axis=(0, 2)).all()


@pytest.mark.parametrize("mask_padding", [True, False])
def test_padding_is_invisible_with_mask_padding_and_seen_without(mask_padding):
    run, params = call(dataclasses.replace(tiny.CONFIG, mask_padding=mask_padding))
    noisy = MEL_BNM.at[0, 20:].add(3.0)  # frame 9 of 16 sees mel frames up to 2 * 8 + 3 = 19
    (states, logits), (states_noisy, logits_noisy) = (run(params, mel, TOKENS_BL, MASK_BT) for mel in (MEL_BNM, noisy))
    if mask_padding:
        np.testing.assert_allclose(states[0, :9], states_noisy[0, :9], atol=1e-6)
        np.testing.assert_allclose(logits[0], logits_noisy[0], atol=1e-5)
    else:
        assert np.abs(states[0, :9] - states_noisy[0, :9]).max() > 1e-3
        assert np.abs(logits[0] - logits_noisy[0]).max() > 1e-3
    np.testing.assert_array_equal(logits[1], logits_noisy[1])  # the other utterance never notices


def test_batching_changes_nothing():
    run, params = call()
    together = run(params, MEL_BNM, TOKENS_BL, MASK_BT)[1]
    for row in range(2):
        one = slice(row, row + 1)
        alone = run(params, MEL_BNM[one], TOKENS_BL[one], MASK_BT[one])[1]
        np.testing.assert_allclose(together[one], alone, atol=1e-5)


def test_hidden_states_run_from_the_convolutions_to_the_last_block():
    graphdef, params = tiny.model(None)
    model = functional.merge(graphdef, params)
    states, hidden = model.encode(MEL_BNM, MASK_BT, layers=True)
    assert [h.shape for h in hidden] == [(2, 16, 32)] * 2
    np.testing.assert_array_equal(model.encoder.norm(hidden[-1]), states)
    np.testing.assert_allclose(model.encoder.layers[0](hidden[0], mask_BT=MASK_BT), hidden[1], atol=1e-6)


@pytest.mark.parametrize(("stride", "frames"), [(1, 9), (2, 9), (2, 10)])
def test_convolution_is_that_of_lax(stride, frames):
    graphdef, params = functional.split(layers.Conv(5, 6, stride=stride, init=Init(0)))
    params = functional.materialise(params)
    params["backbone"]["bias"] = jnp.arange(6.0)
    x_BNM = jax.random.normal(jax.random.key(1), (2, frames, 5))
    want = jax.lax.conv_general_dilated(
        x_BNM, params["backbone"]["kernel"], (stride,), [(1, 1)], dimension_numbers=("NWC", "WIO", "NWC")
    ) + params["backbone"]["bias"].reshape(1, 1, 6)
    np.testing.assert_allclose(functional.merge(graphdef, params)(x_BNM), want, rtol=1e-5, atol=1e-5)


def formula(c):
    """Scalars of a Whisper by arithmetic of its own: weights, biases (none on keys), norms, positions."""
    d = c.d_model

    def block(ffn, attentions):
        return attentions * (4 * d * d + 3 * d) + 2 * d * ffn + ffn + d + (attentions + 1) * 2 * d

    encoder = 3 * c.num_mel_bins * d + d + 3 * d * d + d + c.encoder_layers * block(c.encoder_ffn, 1) + 2 * d
    decoder = (c.vocab_size + c.max_target_positions) * d + c.decoder_layers * block(c.decoder_ffn, 2) + 2 * d
    return encoder + decoder


# Sizes of the released checkpoints, without the 1500 sinusoids of the encoder.
RELEASED = {"tiny": 37_184_640, "base": 71_825_920, "small": 240_582_912, "medium": 762_321_920}
RELEASED |= {"large-v2": 1_541_384_960, "large-v3": 1_541_570_560, "large-v3-turbo": 806_958_080}


@pytest.mark.parametrize("name", SIZES)
def test_every_size_has_its_number_of_parameters_and_draws_none(name):
    params = functional.split(Whisper(SIZES[name], init=Init(0)))[1]
    assert functional.count(params["backbone"]) == formula(SIZES[name]) == RELEASED.get(name, formula(SIZES[name]))
    assert all(isinstance(leaf, Draw) for leaf in jax.tree.leaves(params["backbone"]))


def test_sinusoids_are_those_of_the_reference():
    table = sinusoids(1500, 64)
    angle = 7 * 10000 ** -(np.arange(32) / 31)
    np.testing.assert_allclose(table[7], np.concatenate([np.sin(angle), np.cos(angle)]), atol=1e-5)


def test_too_long_audio_and_text_are_named():
    graphdef, params = tiny.model(None)
    model = functional.merge(graphdef, params)
    with pytest.raises(ValueError, match="33 encoder frames exceed the model's 32"):
        model.encode(jnp.zeros((1, 66, 20)))
    with pytest.raises(ValueError, match="17 tokens exceed the model's 16"):
        model.decode(jnp.zeros((1, 17), int), jnp.zeros((1, 4, 32)))
    with pytest.raises(ValueError, match="width 30 is not divisible by 4 heads"):
        layers.Attention(30, 4, init=Init(0))


def test_ctc_head_is_a_group_of_its_own():
    model = Whisper(tiny.CONFIG, init=Init(0))
    add_ctc(model, Init(1))
    params = functional.split(model)[1]
    assert {p: leaf.shape for p, leaf in functional.paths(params["head"]).items()} == {
        "ctc/bias": (tiny.VOCAB + 1,),
        "ctc/kernel": (32, tiny.VOCAB + 1),
    }
    assert not any(path.startswith("ctc") for path in functional.paths(params["backbone"]))


def test_dropout_is_a_function_of_the_key_and_keeps_the_mean():
    x = jnp.ones((64, 64))
    a, b, c = (layers.Noise(jax.random.key(k), 0.25).drop(x) for k in (0, 0, 1))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any() and abs(float(a.mean()) - 1) < 0.05 and abs(float((a == 0).mean()) - 0.25) < 0.04
    one = layers.Noise(jax.random.key(0), 0.25)
    assert (one.drop(x) != one.drop(x)).any()  # two uses in one pass differ
    assert layers.Noise(jax.random.key(0), 0.0).drop(x) is x
