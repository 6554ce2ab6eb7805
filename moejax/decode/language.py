"""Which language is spoken: the decoder's first step, looked at for language tokens only."""

import jax
import jax.numpy as jnp

from moejax.nn.incremental import Reader


def detect(model, states_BTD, sot, language_C, *, mask_BT=None, route=None):
    """Probabilities [B, C] of the language tokens `language_C` after the start token `sot` (the reference's
    `detect_language`).
    """
    reader = Reader(model, states_BTD, mask_BT, route)
    B = states_BTD.shape[0]
    tokens_B1 = jnp.full((B, 1), sot, jnp.int32)
    x_B1D, _ = reader.read(tokens_B1, jnp.zeros_like(tokens_B1), reader.cache(1), 0, jnp.ones((B, 1, 1), bool))
    return jax.nn.softmax(jnp.take(reader.logits(x_B1D)[:, 0], language_C, axis=1), axis=-1)
