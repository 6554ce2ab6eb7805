"""What speaks for a class with a probe: through the encoder, cell by cell, and all of it together."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import tiny_whisper

from moejax.nn import functional
from moejax.tasks import classification

SIZES = dataclasses.replace(tiny_whisper.CONFIG, mask_padding=False)
FRAMES, SEGMENT, CLASSES = 24, 4, 3  # mel frames of a clip


def test_cells_add_up_to_what_the_class_gains_and_silence_adds_nothing():
    encoder, encoder_params = tiny_whisper.model(None, config=SIZES)
    shape = (SIZES.encoder_layers + 1, SIZES.d_model)
    graphdef, params = classification.init("probe", shape, CLASSES, 3, pooling="attention", hidden=8)
    rng = np.random.default_rng(0)
    mel_BNM = rng.normal(size=(2, FRAMES, SIZES.num_mel_bins)).astype(np.float32)
    mel_BNM[:, FRAMES // 2 :] = mel_BNM.min((1, 2))[:, None, None]  # the quietest, as behind a clip
    samples_B, label_B = jnp.full(2, FRAMES * SIZES.hop), jnp.asarray([0, 2])
    saliency = classification.make_probe_saliency(encoder, graphdef, SIZES.hop, SEGMENT, steps=64)
    found_BNM = np.asarray(saliency(encoder_params, params, mel_BNM, samples_B, label_B))

    @jax.jit
    def gain(mel_BNM, label_B):
        heard = classification._segments(
            functional.merge(encoder, encoder_params), mel_BNM, samples_B, SIZES.hop, SEGMENT
        )
        logits_BC = functional.merge(graphdef, params)(*heard)
        return jnp.take_along_axis(logits_BC, label_B[:, None], axis=1)[:, 0] - logits_BC.mean(1)

    low_BNM = np.broadcast_to(mel_BNM.min((1, 2))[:, None, None], mel_BNM.shape)
    gained_B = np.asarray(gain(mel_BNM, label_B) - gain(low_BNM, label_B))
    assert np.abs(gained_B).min() > 1e-3
    np.testing.assert_allclose(found_BNM.sum((1, 2)), gained_B, atol=2e-3)
    assert found_BNM.shape == mel_BNM.shape and not found_BNM[:, FRAMES // 2 :].any()
    # Of another class it is something else
    other = np.asarray(saliency(encoder_params, params, mel_BNM, samples_B, (label_B + 1) % CLASSES))
    assert np.abs(other.sum((1, 2)) - gained_B).min() > 1e-3
