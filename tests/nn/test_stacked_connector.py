"""The connector that sets neighbouring states side by side."""

import numpy as np
import pytest
import tiny_llama as tiny

from moejax.errors import BadValue
from moejax.nn import connectors, functional
from moejax.nn.connectors import ConnectorConfig
from moejax.nn.variables import Init


def test_a_stacked_connector_is_two_layers_on_states_side_by_side():
    config = ConnectorConfig(kind="stacked", stack=2, hidden=5)
    made = connectors.KINDS["stacked"](config, 6, 0, 4, init=Init(0))
    graphdef, params = functional.split(made)
    params = tiny.drawn(params)
    x_BTD = np.random.default_rng(1).normal(size=(2, 5, 6)).astype(np.float32)
    found = functional.merge(graphdef, params)(x_BTD)
    (w1, b1), (w2, b2) = (
        [np.asarray(params["head"][layer][name]) for name in ("kernel", "bias")] for layer in ("fc1", "fc2")
    )
    for at in range(2):
        side_by_side = np.concatenate([x_BTD[:, 2 * at], x_BTD[:, 2 * at + 1]], axis=-1)
        np.testing.assert_allclose(found[:, at], np.maximum(side_by_side @ w1 + b1, 0) @ w2 + b2, atol=1e-5)
    assert found.shape == (2, 2, 4) and made.count(1500) == 750
    assert set(params) == {"head"}


def test_its_sizes_are_those_of_half_a_minute_and_one_encoder():
    config = ConnectorConfig(kind="stacked")
    _, params = functional.abstract(lambda: connectors.StackedMlp(config, 384, 0, 192, init=Init(0)))
    assert functional.count(params) == 3840 * 512 + 512 + 512 * 192 + 192
    with pytest.raises(BadValue, match="the stacked connector hears one encoder; take kind qformer for two"):
        connectors.StackedMlp(config, 6, 3, 4, init=Init(0))
    with pytest.raises(BadValue, match="pool and stack of a connector must cover at least one state"):
        ConnectorConfig(kind="stacked", stack=0)
    with pytest.raises(BadValue, match="unknown kind of connector 'mlp'; known: qformer, pooled, stacked"):
        ConnectorConfig(kind="mlp")
