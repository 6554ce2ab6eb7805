"""Attention to encoder states without keys and values: the same numbers, with experts of every kind on all matrices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional, layers
from moejax.ops import routing

RNG = np.random.default_rng(2)
STATES_BTD = jnp.asarray(RNG.normal(size=(3, 32, 32)), jnp.float32)
TOKENS_BL = jnp.asarray(RNG.integers(0, 20, (3, 5)))
ROUTES = {
    "one of several": routing.one_hot(jnp.asarray([0, 3, -1])),
    "all": routing.dense(jnp.asarray(RNG.normal(size=(3, tiny.E)), jnp.float32)),
}


@pytest.mark.parametrize("kind", ["lora", "dora"])
@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("padded", [False, True])
def test_logits_and_gradients_are_those_of_keys_and_values(monkeypatch, kind, route, padded):
    mixture = dataclasses.replace(tiny.MIXTURE, targets=("decoder/layers/*/*",), kind=kind)
    config = dataclasses.replace(tiny.CONFIG, mask_padding=padded)
    graphdef, params = tiny.model(mixture, config=config)
    mask_BT = jnp.arange(32)[None] < jnp.asarray([[32], [20], [7]])
    used = []

    def loss(expert, states_BTD):
        model = functional.merge(graphdef, {**params, "expert": expert})
        logits_BLV = model.decode(TOKENS_BL, states_BTD, mask_BT, ROUTES[route])
        return jnp.square(logits_BLV).mean(), logits_BLV

    def found(few):
        monkeypatch.setattr(layers, "_few", lambda *_: used.append(few) or few)
        return jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(params["expert"], STATES_BTD)

    (_, one), gradient = found(False)
    (_, other), gradient_too = found(True)
    assert used == [False, True]
    np.testing.assert_allclose(other, one, rtol=2e-4, atol=2e-5)
    own, theirs = functional.paths(gradient[0]), functional.paths(gradient_too[0])
    assert any("cross_attn/k" in path and np.abs(leaf).max() > 1e-5 for path, leaf in own.items())
    for path, leaf in own.items():
        np.testing.assert_allclose(theirs[path], leaf, rtol=2e-3, atol=2e-6, err_msg=path)
    np.testing.assert_allclose(gradient_too[1], gradient[1], rtol=2e-3, atol=2e-6)


def test_it_is_taken_where_tokens_are_few_and_states_many():
    def taken(tokens, states, width=384, heads=6):
        shape = jax.ShapeDtypeStruct
        return layers._few(shape((1, tokens, width), jnp.float32), shape((1, states, width), jnp.float32), heads)

    assert jax.default_backend() != "cpu" or (taken(16, 1500) and taken(120, 1500) and not taken(448, 1500))
    assert not taken(16, 30)
