"""Losses of windows: scoring some positions changes no loss, moving a window moves its times and nothing else."""

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


def seen_by(params, batch, share, key):
    """What the wrapped loss is given."""
    seen = {}

    def loss_fn(params, batch, key, origin):
        seen.update(params=params, batch=batch, origin=origin)
        return 0.0, {}

    windows.moved(loss_fn, share=share, hop=tiny.CONFIG.hop, timestamp_begin=BEGIN)(params, batch, key)
    return seen["params"], seen["batch"]


def test_a_share_of_zero_moves_nothing(model):
    params, batch = model[1], tiny.batch(4)
    shown, same = seen_by(params, batch, 0.0, jax.random.key(0))
    np.testing.assert_array_equal(same.tokens_BL, batch.tokens_BL)
    T, L = tiny.BUCKET // (2 * tiny.CONFIG.hop), batch.tokens_BL.shape[1]
    whole = params["buffer"]["encoder"]["positions"], params["backbone"]["decoder"]["positions"]
    np.testing.assert_array_equal(shown["buffer"]["encoder"]["positions"], whole[0][:T])
    np.testing.assert_array_equal(shown["backbone"]["decoder"]["positions"], whole[1][:L])


def test_a_moved_window_has_later_positions_and_later_times(model):
    params, batch = model[1], tiny.batch(4)
    positions_TD = np.asarray(params["buffer"]["encoder"]["positions"])
    frames = set()
    for number in range(8):
        shown, later = seen_by(params, batch, 1.0, jax.random.key(number))
        moved_TD = np.asarray(shown["buffer"]["encoder"]["positions"])
        frame = int(np.argmin(np.abs(positions_TD - moved_TD[0]).sum(1)))
        np.testing.assert_array_equal(moved_TD, positions_TD[frame : frame + len(moved_TD)])
        for before, after in ((batch.tokens_BL, later.tokens_BL), (batch.targets_BL, later.targets_BL)):
            np.testing.assert_array_equal(after, np.where(before >= BEGIN, before + frame, before))
        np.testing.assert_array_equal(later.score_BL, batch.score_BL)
        frames.add(frame)
    assert len(frames) > 3 and max(frames) <= len(positions_TD) - len(moved_TD)


def test_a_window_as_long_as_the_model_hears_stays_where_it_is(model):
    graphdef, params = model
    batch = tiny.batch(4)
    T, L = tiny.BUCKET // (2 * tiny.CONFIG.hop), batch.tokens_BL.shape[1]
    encoder = {**params["buffer"]["encoder"], "positions": params["buffer"]["encoder"]["positions"][:T]}
    decoder = {**params["backbone"]["decoder"], "positions": params["backbone"]["decoder"]["positions"][:L]}
    full = {**params, "buffer": {"encoder": encoder}, "backbone": {**params["backbone"], "decoder": decoder}}
    options = dict(guide=0.0, hop=tiny.CONFIG.hop, timestamp_begin=BEGIN)
    loss_fn, moved = (windows.make_loss(graphdef, asr.Row(), move=move, **options) for move in (0.0, 1.0))
    # The key is split by the move; without dropout and augmentation nothing else reads it
    key = jax.random.key(3)
    np.testing.assert_allclose(moved(full, batch, key)[0], loss_fn(params, batch, key)[0], rtol=1e-6)


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
    options = dict(move=0.0, hop=tiny.CONFIG.hop, timestamp_begin=BEGIN)
    key = jax.random.key(0)
    plain, guided = (windows.make_loss(graphdef, asr.Row(), guide=guide, **options) for guide in (0.0, 2.0))
    loss, metrics = guided(params, batch, key)
    np.testing.assert_allclose(metrics["ce"], plain(params, batch, key)[0], rtol=1e-5)
    np.testing.assert_allclose(loss, metrics["ce"] + 2.0 * metrics["guide"], rtol=1e-6)
    step = jax.jit(jax.grad(lambda p: guided(p, batch, key)[1]["guide"]))
    # Windows that begin later are heard as much later
    later = dataclasses.replace(batch, targets_BL=windows.later(targets_BL, 40, BEGIN))
    np.testing.assert_allclose(guided(params, later, key, 40)[1]["guide"], metrics["guide"], rtol=1e-5)
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
