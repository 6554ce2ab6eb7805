"""Networks that say who speaks when: what must not change their answer, and EEND's own order of a layer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.errors import BadValue
from moejax.nn import functional
from moejax.nn.diarizers import LSTM, EendLayer, Sizes
from moejax.nn.variables import Init
from moejax.tasks import diarization as task

SIZES = Sizes(hears=(3, 8), most=3, width=16, heads=2, layers=2, ffn=32)
T = 20


def batch_of(seed=0, frames=(T, 14)):
    keys = jax.random.split(jax.random.key(seed), 2)
    active = jax.random.bernoulli(keys[1], 0.4, (2, T, 3)) * jnp.array([[1, 1, 1], [1, 1, 0]])[:, None]
    batch = {"states_BTLD": jax.random.normal(keys[0], (2, T, 3, 8)), "active_BTS": active > 0}
    return batch | {"frames_B": jnp.array(frames), "count_B": jnp.array([3, 2]), "real_B": jnp.array([True, True])}


@pytest.fixture(scope="module")
def nets():
    """{(head, attention): (graphdef, params)}"""
    kinds = (("attractors", "softmax"), ("fixed", "linear"), ("aed", "softmax"), ("tsvad", "linear"))
    return {kind: task.init(dataclasses.replace(SIZES, head=kind[0], attention=kind[1]), 0) for kind in kinds}


def linear(weights, x):
    return x @ np.asarray(weights["kernel"]) + np.asarray(weights["bias"])


def norm(weights, x):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * np.asarray(weights["scale"]) + np.asarray(weights["bias"])


def test_a_layer_goes_on_from_the_normalised_stream():
    """EEND's transformer.py, written out: e = LN1(e); e += MHA(e); e = LN2(e); e += W2 relu(W1 e)."""
    graphdef, params = functional.split(EendLayer(8, 2, 12, init=Init(0)))
    params = functional.materialise(params)
    own, x = params["backbone"], np.asarray(jax.random.normal(jax.random.key(1), (1, 6, 8)))
    found = functional.merge(graphdef, params)(x)
    e = norm(own["norm1"], x[0])
    q, k, v = (linear(own["attention"][name], e).reshape(6, 2, 4) for name in "qkv")
    score = np.einsum("thk,shk->hts", q, k) / 2
    weight = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
    e = e + linear(own["attention"]["out"], np.einsum("hts,shk->thk", weight, v).reshape(6, 8))
    e = norm(own["norm2"], e)
    e = e + linear(own["fc2"], np.maximum(linear(own["fc1"], e), 0))
    np.testing.assert_allclose(found[0], e, atol=1e-5)


def test_the_lstm_is_torch_s_and_masked_frames_change_nothing():
    graphdef, params = functional.split(LSTM(3, 4, init=Init(0)))
    params = functional.materialise(params)
    own, x = params["backbone"], np.asarray(jax.random.normal(jax.random.key(1), (2, 5, 3)))
    mask = jnp.arange(5)[None] < jnp.array([[5], [3]])
    found, (h, c) = functional.merge(graphdef, params)(x, mask_BT=mask)
    state, cell = np.zeros(4), np.zeros(4)
    for t in range(5):
        i, f, g, o = np.split(x[0, t] @ own["kernel"] + state @ own["own_kernel"] + own["bias"], 4)
        i, f, o = (1 / (1 + np.exp(-gate)) for gate in (i, f, o))
        cell = f * cell + i * np.tanh(g)
        state = o * np.tanh(cell)
    np.testing.assert_allclose(h[0], state, atol=1e-5)
    np.testing.assert_allclose(h[1], found[1, 2], atol=1e-6)


@pytest.mark.parametrize(
    "kind", [("attractors", "softmax"), ("fixed", "linear"), ("aed", "softmax"), ("tsvad", "linear")]
)
def test_padding_and_neighbours_change_nothing(nets, kind):
    graphdef, params = nets[kind]
    hear, batch = task.make_hear(graphdef), batch_of()
    prob, exists, frames = hear(params, batch)
    assert prob.shape == (2, T, 3) and exists.shape == (2, 3) and frames.shape == (2, T, 16)
    loud = (
        batch["states_BTLD"] + 9.0 * (jnp.arange(T) >= 14)[None, :, None, None] * jnp.array([0, 1])[:, None, None, None]
    )
    others = loud.at[0].set(0.0)
    for changed, row in ((loud, 1), (others, 1)):
        again, still, _ = hear(params, batch | {"states_BTLD": changed})
        np.testing.assert_allclose(again[row, :14], prob[row, :14], atol=1e-5)
        np.testing.assert_allclose(still[row], exists[row], atol=1e-5)
    assert (np.asarray(exists) == 1).all() == (kind[0] == "fixed")


def test_the_loss_does_not_mind_names_and_learns_both_parts(nets):
    graphdef, params = nets["attractors", "softmax"]
    loss, batch = jax.jit(task.make_loss(graphdef)), batch_of()
    value, metrics = loss(params, batch, jax.random.key(0))
    order = jnp.array([1, 0, 2])
    renamed = loss(params, batch | {"active_BTS": batch["active_BTS"][..., order]}, jax.random.key(0))[0]
    assert float(renamed) == pytest.approx(float(value), abs=1e-5)
    assert float(value) == pytest.approx(float(metrics["activity"] + metrics["existence"]), abs=1e-6)
    filler = loss(params, batch | {"real_B": jnp.array([True, False])}, jax.random.key(0))[1]
    assert float(filler["activity"]) != pytest.approx(float(metrics["activity"]), abs=1e-4)
    grads = jax.jit(jax.grad(lambda p: loss(p, batch, jax.random.key(0))[0], allow_int=True))(params)
    silent = [path for path, leaf in functional.paths(grads["backbone"]).items() if not np.abs(leaf).max() > 0]
    # a bias that all keys share moves no softmax, and the writer is fed zeros
    assert all(path.endswith(("k/bias", "writer/kernel")) for path in silent), silent


def test_existence_asks_the_speakers_and_the_next_one():
    logits = jnp.array([[5.0, 5.0, -5.0, 5.0]])
    assert float(task.existence_loss(logits, jnp.array([2]))[0]) == pytest.approx(np.log1p(np.exp(-5)), abs=1e-6)
    assert float(task.existence_loss(logits, jnp.array([3]))[0]) > 2


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(
        BadValue, match=r"width 345 does not divide by 8 heads; it does by \[1, 3, 5, 15, 23, 69, 115, 345"
    ):
        Sizes(hears=(345,), width=345, heads=8)
    with pytest.raises(BadValue, match="head is one of attractors, fixed, aed, tsvad"):
        Sizes(hears=(345,), head="clustering")
    with pytest.raises(BadValue, match="enhance is of the head aed, not of fixed"):
        Sizes(hears=(345,), head="fixed", enhance=True)
