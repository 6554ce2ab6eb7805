"""Performer layers: each kind against its formula, what causal layers must not see, how features are redrawn."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.errors import BadValue
from moejax.nn import functional, performer
from moejax.nn.ego import EgoNet, EgoSizes
from moejax.nn.performer import ACTIVATIONS, FeedForward, Kind, PerformerLayer, ScaleNorm
from moejax.nn.variables import Init

KIND = Kind(8, 2, 6)
X = np.asarray(jax.random.normal(jax.random.key(0), (2, 9, 8)))


def made(module):
    graphdef, params = functional.split(module)
    params = functional.materialise(params)
    return graphdef, params, jax.jit(lambda params, *x: functional.merge(graphdef, params)(*x))


def linear(weights, x):
    return x @ np.asarray(weights["kernel"]) + np.asarray(weights.get("bias", 0))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


NUMPY = {
    "relu": lambda x: np.maximum(x, 0),
    "gelu": lambda x: x * 0.5 * (1 + np.vectorize(__import__("math").erf)(x / np.sqrt(2))),
    "silu": lambda x: x * sigmoid(x),
    "glu": sigmoid,
}
NUMPY |= {"reglu": NUMPY["relu"], "geglu": NUMPY["gelu"], "swiglu": NUMPY["silu"]}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_feed_forward_kinds(name):
    _, params, run = made(FeedForward(dataclasses.replace(KIND, activation=name), init=Init(0)))
    own = params["backbone"]
    h = linear(own["fc1"], X)
    h = NUMPY[name](h[..., :6]) * h[..., 6:] if ACTIVATIONS[name][1] else NUMPY[name](h)
    np.testing.assert_allclose(run(params, X), linear(own["fc2"], h), atol=1e-5)


def test_scale_norm_and_rezero():
    _, params, run = made(ScaleNorm(init=Init(0)))
    np.testing.assert_allclose(run(params, X), X / np.linalg.norm(X, axis=-1, keepdims=True), atol=1e-6)
    np.testing.assert_allclose(run(params, 0 * X), 0)
    _, params, run = made(PerformerLayer(dataclasses.replace(KIND, norm="rezero"), init=Init(0)))
    gains = [path for path in functional.paths(params["backbone"]) if path.endswith("gain")]
    assert len(gains) == 2
    # begins as the identity but for a thousandth
    assert 0 < np.abs(run(params, X) - X).max() < 0.01


def test_rotary_positions_turn_pairs_and_only_distances_count():
    turned = np.asarray(performer.rotated(X[:, :, None]))[:, :, 0]
    t, pair = 5, 1
    angle = t * 1e4 ** (-2 * pair / 8)
    one, two = X[0, t, 2], X[0, t, 3]
    wanted = [one * np.cos(angle) - two * np.sin(angle), one * np.sin(angle) + two * np.cos(angle)]
    np.testing.assert_allclose(turned[0, t, 2:4], wanted, atol=1e-5)
    q, k = (np.broadcast_to(X[0, n], (1, 9, 1, 8)) for n in (0, 1))
    score = np.einsum("thk,shk->ts", *(np.asarray(performer.rotated(x))[0] for x in (q, k)))
    for offset in (-3, 2):
        np.testing.assert_allclose(np.diag(score, offset), np.diag(score, offset)[0], atol=1e-4)
    assert np.ptp(score[0]) > 0.01
    odd = np.concatenate([X, X[..., :1]], axis=-1)[:, :, None]  # heads of 345 / 5 have one number without a pair
    found = np.asarray(performer.rotated(odd))[:, :, 0]
    np.testing.assert_allclose(found, np.concatenate([turned, X[..., :1]], axis=-1), atol=1e-6)


@pytest.mark.parametrize("attention", ["causal", "causal_linear"])
def test_causal_layers_see_no_future_and_others_do(attention):
    later = X.copy()
    later[:, 6:] += 1.0
    kind = dataclasses.replace(KIND, attention=attention, rotary=True)
    _, params, run = made(PerformerLayer(kind, init=Init(0)))
    np.testing.assert_allclose(run(params, X)[:, :6], run(params, later)[:, :6], atol=1e-5)
    kind = dataclasses.replace(kind, attention=attention.replace("causal_", "").replace("causal", "softmax"))
    _, params, run = made(PerformerLayer(kind, init=Init(0)))
    assert np.abs(run(params, X)[:, :6] - run(params, later)[:, :6]).max() > 1e-3


def test_random_features_are_redrawn_by_the_step_and_seed_alone():
    graphdef, params = functional.split(PerformerLayer(dataclasses.replace(KIND, attention="linear"), init=Init(3)))
    params = functional.materialise(params)

    @jax.jit
    def drawn(step):
        model = functional.merge(graphdef, params)
        performer.redraw(model, 3, step, 10)
        return functional.split(model)[1]["buffer"]["attention"]["projection"]

    first, same, other = (np.asarray(drawn(jnp.array(step))) for step in (0, 9, 10))
    assert (first == same).all() and not np.allclose(first, other)
    assert first.shape == params["buffer"]["attention"]["projection"].shape


def test_the_ego_network_hears_its_enrolment_and_no_padding():
    sizes = EgoSizes(hears=(8,), width=8, heads=2, layers=1, ffn=6, decoder="linear")
    _, params, run = made(EgoNet(sizes, init=Init(0)))
    mask = np.arange(9)[None] < np.array([[9], [6]])
    enrolled = np.arange(4)[None] < np.array([[4], [3]])
    found = run(params, X, mask, X[:, :4], enrolled)
    assert found.shape == (2, 9, 5)
    noisy, other = X.copy(), X[:, :4].copy()
    noisy[1, 6:] += 3
    other[1, 3:] += 3
    np.testing.assert_allclose(run(params, noisy, mask, other, enrolled)[1, :6], found[1, :6], atol=1e-5)
    someone = run(params, X, mask, X[:, 4:8], enrolled)
    nobody = run(params, X, mask, X[:, :4], enrolled & False)
    assert np.abs(someone - found).max() > 1e-3 and np.abs(nobody - found).max() > 1e-3
    np.testing.assert_allclose(run(params, X, mask, X[:, 4:8], enrolled & False), nobody)


@pytest.mark.parametrize("attention", ["softmax", "linear"])
def test_the_notes_sizes_build(attention):
    """Shapes alone: 345 wide, 8 + 8 layers of 5 heads, feed-forwards four times as wide."""
    sizes = EgoSizes(hears=(345,), attention=attention, decoder=attention)
    _, params = functional.abstract(lambda: EgoNet(sizes, init=Init(0)))
    own = functional.paths(params["backbone"])
    assert own["decoder/7/cross/out/kernel"].shape == (345, 345)
    assert own["encoder/0/ffn/fc1/kernel"].shape == (345, 2 * 1380)
    assert ("encoder/0/attention/projection" in functional.paths(params["buffer"])) == (attention == "linear")


def test_kinds_that_there_are_not_are_refused():
    for change, words in (
        (dict(attention="local"), "unknown attention 'local'; known: softmax, linear, causal, causal_linear"),
        (dict(norm="batch"), "unknown norm 'batch'; known: layer, scale, rezero"),
        (dict(activation="tanh"), "unknown activation 'tanh'; known: relu, gelu"),
        (dict(heads=3), r"width 8 does not divide by 3 heads; it does by \[1, 2, 4, 8\]"),
    ):
        with pytest.raises(BadValue, match=words):
            dataclasses.replace(KIND, **change)
