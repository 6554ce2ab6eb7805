"""Kept encoder states: the same training from less work."""

import jax
import numpy as np
import pytest
import tiny_job

from moejax.job.opening import open_context
from moejax.tasks import asr
from moejax.training import encoder_states, network

pytestmark = pytest.mark.job

DECODER = ("decoder/layers/*/fc?",)


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    return open_context(tiny_job.shared(tmp_path_factory) / "W")


def mixture(*targets, **options):
    return asr.Mixture(targets, num_experts=2, rank=2, alpha=4.0, **options)


def test_states_are_kept_only_where_the_encoder_and_its_input_stay_as_they_are():
    assert encoder_states.why_not(asr.Row(route="gate"), mixture(*DECODER)) is None
    assert "encoder" in encoder_states.why_not(asr.Row(), mixture(*DECODER, "encoder/layers/0/fc1"))
    assert "encoder" in encoder_states.why_not(asr.Row(), mixture("*/fc1"))
    for noise in ({"dropout": 0.1}, {"spec": True}, {"warp_time": 0.1}, {"warp_freq": 0.1}, {"level": 0.1}):
        assert encoder_states.why_not(asr.Row(**noise), mixture(*DECODER)).startswith(next(iter(noise)))


def test_a_batch_with_kept_states_has_the_loss_and_gradient_of_its_audio(context):
    rows, chosen = context.corpus.rows("train"), mixture(*DECODER)
    row = asr.Row(route="label")
    labels = np.arange(len(rows)) % 2
    kept = context.collator(rows, labels, states=encoder_states.opened(context))
    heard = context.collator(rows, labels)
    bucket = context.buckets[-1]
    fits = np.flatnonzero(
        (context.corpus.samples[rows] <= bucket) & (context.corpus.samples[rows] > (0, *context.buckets)[-2])
    )
    index = np.concatenate([fits[:5], [-1]])
    graphdef, params = network.with_experts(context, chosen)
    loss = asr.make_loss(graphdef, row, mixture=chosen)
    fast, slow = kept(bucket, index), heard(bucket, index)
    assert fast.audio_BS.shape == (6, 0) and fast.states_BTD.shape[0] == 6 and slow.states_BTD is None
    np.testing.assert_array_equal(fast.samples_B, slow.samples_B)
    (one, _), (other, _) = (loss(params, batch, jax.random.key(0)) for batch in (fast, slow))
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_states_are_computed_once_and_again_when_the_file_is_cut(context):
    found = encoder_states.opened(context)
    row = int(context.corpus.rows("train")[3])
    whole, file = found(row), found.heard.path.with_name(f"{found.heard.path.name}.bin")
    stamp = file.stat().st_mtime_ns
    assert encoder_states.opened(context)(row).tobytes() == whole.tobytes()
    assert file.stat().st_mtime_ns == stamp
    with open(file, "r+b") as opened:
        opened.truncate(100)
    del context.heard  # as the next process sees it
    assert encoder_states.opened(context)(row).tobytes() == whole.tobytes()


def test_no_states_over_the_limit(context):
    with context.cfg.unlocked():
        before, context.cfg.runtime.encoder_cache_bytes = context.cfg.runtime.encoder_cache_bytes, 10
    del context.heard
    try:
        assert encoder_states.opened(context) is None
    finally:
        with context.cfg.unlocked():
            context.cfg.runtime.encoder_cache_bytes = before
        del context.heard
