"""Which language is spoken, or which emotion: the decoder's next step, looked at for these tokens only."""

import jax
import jax.numpy as jnp

from moejax.nn.incremental import Reader


def detect(model, states_BTD, before, token_C, *, mask_BT=None, route=None):
    """Probabilities [B, C] of the tokens `token_C` among themselves after `before`: one token for all rows, such as the
    start token for languages (the reference's `detect_language`), or int [B, P].
    """
    reader = Reader(model, states_BTD, mask_BT, route)
    B, before = states_BTD.shape[0], jnp.asarray(before, jnp.int32)
    tokens_BP = before if before.ndim == 2 else jnp.full((B, 1), before)
    P = tokens_BP.shape[1]
    position_BP = jnp.broadcast_to(jnp.arange(P)[None], (B, P))
    visible_BPP = jnp.broadcast_to(jnp.tril(jnp.ones((P, P), bool))[None], (B, P, P))
    x_BPD, _ = reader.read(tokens_BP, position_BP, reader.cache(P), 0, visible_BPP)
    return jax.nn.softmax(jnp.take(reader.logits(x_BPD[:, -1:])[:, 0], token_C, axis=1), axis=-1)
