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

    def loss_fn(params, batch, key):
        seen.update(params=params, batch=batch)
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
    loss_fn = asr.make_loss(graphdef, asr.Row())
    moved = windows.moved(loss_fn, share=1.0, hop=tiny.CONFIG.hop, timestamp_begin=BEGIN)
    key = jax.random.key(3)
    np.testing.assert_allclose(moved(full, batch, key)[0], loss_fn(params, batch, key)[0], rtol=1e-6)


def test_ordered_times_are_alike_when_near_and_leave_other_tokens_alone(model):
    params = model[1]
    before = np.asarray(params["backbone"]["decoder"]["embed"])
    after = np.asarray(windows.ordered_times(params, BEGIN)["backbone"]["decoder"]["embed"])
    np.testing.assert_array_equal(after[:BEGIN], before[:BEGIN])
    norms = np.linalg.norm(after[BEGIN:], axis=1)
    np.testing.assert_allclose(norms, np.linalg.norm(before[0]), rtol=1e-5)
    alike = after[BEGIN:] @ after[BEGIN] / norms**2
    assert alike[0] == pytest.approx(1.0) and (np.diff(alike[:4]) < 0).all()
