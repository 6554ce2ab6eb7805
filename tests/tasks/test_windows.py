"""Losses of windows: scoring some positions changes no loss; times in the targets say where to look."""

import dataclasses

import jax
import numpy as np
import pytest
import tiny_whisper as tiny

from moejax.nn import functional
from moejax.tasks import asr, windows

BEGIN = 12  # ids from here on are times in these tests


@pytest.fixture(scope="module")
def model():
    config = dataclasses.replace(tiny.CONFIG, mask_padding=False)
    return tiny.model(None, config=config)


def test_scoring_only_what_counts_changes_neither_loss_nor_gradient(model):
    graphdef, params = model
    batch = tiny.batch(4)
    most = int(batch.score_BL.sum(1).max())
    assert most < batch.score_BL.shape[1]
    found = []
    for scored in (0, most):
        loss_fn = asr.make_loss(graphdef, asr.Row(scored=scored))
        found.append(jax.value_and_grad(lambda p, f=loss_fn: f(p, batch, jax.random.key(0)), has_aux=True)(params))
    (loss, metrics), grads = found[0]
    (loss_some, metrics_some), grads_some = found[1]
    np.testing.assert_allclose(loss, loss_some, rtol=1e-6)
    np.testing.assert_allclose(metrics["accuracy"], metrics_some["accuracy"])
    for path, grad in functional.paths(grads).items():
        np.testing.assert_allclose(grad, functional.paths(grads_some)[path], atol=2e-6, err_msg=path)


def test_targets_say_where_they_are_heard():
    t = 12  # BEGIN: the time 0.00
    targets_BL = np.array([[3, t + 10, 5, 6, t + 50, t + 90, 7, t + 100, t + 120, 4, 4]])
    score_BL = np.array([[False] + [True] * 9 + [False]])
    middle, reach, known = (np.asarray(x)[0] for x in windows.heard_at(targets_BL, score_BL, t))
    np.testing.assert_array_equal(known, [False] + [True] * 8 + [False, False])  # the end token has no time after it
    np.testing.assert_allclose(middle[1:9], [10, 20, 40, 50, 90, 95, 100, 120])
    np.testing.assert_allclose(reach[1:9], [8, 20, 20, 8, 8, 10, 8, 8])
    assert not np.asarray(windows.heard_at(np.array([[3, 5, 4]]), np.ones((1, 3), bool), t)[2]).any()


def test_guided_training_is_plain_training_and_a_penalty_that_teaches_where_to_look(model):
    graphdef, params = model
    batch = tiny.batch(4)
    T = tiny.BUCKET // (2 * tiny.CONFIG.hop)
    targets_BL = np.asarray(batch.targets_BL).copy()
    first_B = np.asarray(batch.score_BL).argmax(1)
    for b, at in enumerate(first_B):  # every row begins with a time, a word, a time
        targets_BL[b, at], targets_BL[b, at + 2] = BEGIN + 2, BEGIN + T - 2
    batch = dataclasses.replace(batch, targets_BL=targets_BL)
    plain = asr.make_loss(graphdef, asr.Row())
    guided = windows.guided(graphdef, asr.Row(), weight=2.0, hop=tiny.CONFIG.hop, timestamp_begin=BEGIN)
    key = jax.random.key(0)
    loss, metrics = guided(params, batch, key)
    np.testing.assert_allclose(metrics["ce"], plain(params, batch, key)[0], rtol=1e-5)
    np.testing.assert_allclose(loss, metrics["ce"] + 2.0 * metrics["guide"], rtol=1e-6)
    step = jax.jit(jax.grad(lambda p: guided(p, batch, key)[1]["guide"]))
    for _ in range(20):
        params = jax.tree.map(lambda p, g: p - 1.0 * g, params, step(params))
    assert guided(params, batch, key)[1]["guide"] < 0.8 * metrics["guide"]


def test_ordered_times_are_alike_when_near_and_leave_other_tokens_alone(model):
    params = model[1]
    before = np.asarray(params["backbone"]["decoder"]["embed"])
    after = np.asarray(windows.ordered_times(params, BEGIN)["backbone"]["decoder"]["embed"])
    np.testing.assert_array_equal(after[:BEGIN], before[:BEGIN])
    norms = np.linalg.norm(after[BEGIN:], axis=1)
    np.testing.assert_allclose(norms, np.linalg.norm(before[0]), rtol=1e-5)
    alike = after[BEGIN:] @ after[BEGIN] / norms**2
    assert alike[0] == pytest.approx(1.0) and (np.diff(alike[:4]) < 0).all()
