"""Connectors and the whole audio LLM: sizes as published, windows as torch cuts them, what is heard of whom."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_llama as tiny

from moejax.errors import BadValue
from moejax.nn import audio_llm, connectors, functional, inject
from moejax.nn.beats import BeatsConfig
from moejax.nn.llama import SIZES
from moejax.nn.variables import Init
from moejax.nn.whisper import SIZES as WHISPERS


@pytest.mark.parametrize(("size", "trained"), [("7b", 30_186_240), ("13b", 33_332_992)])
def test_what_learns_at_full_size_is_what_was_published(size, trained):
    made = []

    def build():
        init = Init(0)
        made.append(audio_llm.AudioLLM(audio_llm.AudioLLMConfig(WHISPERS["large-v2"], SIZES[size]), init=init))
        inject.add_experts(made[0], tiny.QV, num_experts=1, rank=8, alpha=32.0, init=init)
        return made[0]

    params = functional.abstract(build)[1]
    assert functional.count(params["head"]) + functional.count(params["expert"]) == trained
    assert functional.count(params["head"]["connector"]["qformer"]) == 22_838_016
    assert functional.count(params["backbone"]["sounds"]) == 90_311_664
    assert made[0].heard == 88 and BeatsConfig().tokens(480_000) == 1496


def test_windows_leave_the_ragged_tail_out_whatever_their_stride():
    x_BTD = np.random.default_rng(0).normal(size=(2, 11, 3)).astype(np.float32)
    for size, stride in ((4, 4), (4, 3), (11, 5)):
        want = np.stack([x_BTD[:, at : at + size] for at in range(0, 11 - size + 1, stride)], 1)
        np.testing.assert_array_equal(connectors.windows(jnp.asarray(x_BTD), size, stride), want)
    with pytest.raises(BadValue, match="3 states are shorter than a window of 4"):
        connectors.windows(jnp.zeros((1, 3, 2)), 4, 4)


def test_a_pooled_connector_is_the_mean_through_one_layer():
    config = connectors.ConnectorConfig(kind="pooled", pool=2)
    made = connectors.PooledLinear(config, 6, 0, 4, init=Init(0))
    graphdef, params = functional.split(made)
    params = tiny.drawn(params)
    x_BTD = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)
    found = functional.merge(graphdef, params)(x_BTD)
    kernel, bias = (np.asarray(params["head"]["project"][name]) for name in ("kernel", "bias"))
    np.testing.assert_allclose(found, (x_BTD[:, 0:4:2] + x_BTD[:, 1:4:2]) / 2 @ kernel + bias, atol=1e-5)
    assert made.count(1500) == 750
    with pytest.raises(BadValue, match="hears one encoder"):
        connectors.PooledLinear(config, 6, 3, 4, init=Init(0))
    with pytest.raises(BadValue, match="unknown kind of connector 'mlp'; known: qformer, pooled"):
        connectors.ConnectorConfig(kind="mlp")


@jax.jit
def heard(params, states_BTD, wave_BS, samples_B):
    model = functional.merge(tiny.audio()[0], params)
    return model.hear(model.beside(states_BTD, wave_BS, samples_B), samples_B)


def test_a_model_hears_both_encoders_in_windows_and_padding_only_as_padding():
    rng = np.random.default_rng(2)
    states_BTD = rng.normal(size=(2, 50, 24)).astype(np.float32)
    wave_BS = (0.1 * rng.normal(size=(2, 16000))).astype(np.float32)
    wave_BS[:, 8000:] = 0.0
    params, whole = tiny.audio()[1], np.asarray([16000, 16000])
    found = np.asarray(heard(params, states_BTD, wave_BS, whole))
    assert found.shape == (2, 2, 16) and np.isfinite(found).all()
    states = states_BTD.copy()
    states[:, 40:] = 0  # in no window: 2 x 17 = 34
    np.testing.assert_allclose(heard(params, states, wave_BS, whole), found, atol=1e-6)
    states[:, 20] = -states[:, 20]
    moved = np.abs(np.asarray(heard(params, states, wave_BS, whole)) - found).max((0, 2))
    assert moved[0] < 1e-6 and moved[1] > 1e-3  # the second window's state moves the second vector alone
    short = np.asarray([16000, 8000])
    masked = np.asarray(heard(params, states_BTD, wave_BS, short))
    assert np.abs(masked[0] - found[0]).max() < 1e-6 and np.abs(masked[1] - found[1]).max() > 1e-3
    noisy = wave_BS.copy()
    noisy[1, 12000:] = 0.3  # behind what is real, and behind every patch of it
    np.testing.assert_allclose(heard(params, states_BTD, noisy, short)[1], masked[1], atol=1e-5)
    alone = dataclasses.replace(tiny.AUDIO, sounds=None)
    assert audio_llm.AudioLLM(alone, init=Init(0)).sounds is None
