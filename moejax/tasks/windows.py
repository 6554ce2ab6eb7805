"""What training on windows with times needs beside the loss of `tasks.asr`: moved windows, and tokens of time that know
their order.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from moejax.nn.whisper import sinusoids
from moejax.ops.audio import STRIDE


def moved(loss_fn, *, share: float, hop: int, timestamp_begin: int):
    """`loss_fn` with a share of the batches standing anywhere in the model's context instead of at its beginning.

    A window of 3 s is heard as if it began at a random frame of the 30 s, its times moved along, and its tokens as if a
    prompt of random length came before: a short window teaches all positions at the price of its own. One draw per
    batch. Needs encoder frames as long as a step of time (0.02 s: hop 160). Exact but for the window's edges, where
    the convolutions see zeros.
    """

    def loss(params, batch, key):
        key, key_moves, key_frame, key_token = jax.random.split(key, 4)
        moves = jax.random.uniform(key_moves) < share
        positions_TD = params["buffer"]["encoder"]["positions"]
        text_PD = params["backbone"]["decoder"]["positions"]
        T, L = -(-batch.audio_BS.shape[1] // (hop * STRIDE)), batch.tokens_BL.shape[1]
        frame = moves * jax.random.randint(key_frame, (), 0, positions_TD.shape[0] - T + 1)
        token = moves * jax.random.randint(key_token, (), 0, text_PD.shape[0] - L + 1)
        encoder = {**params["buffer"]["encoder"], "positions": jax.lax.dynamic_slice_in_dim(positions_TD, frame, T)}
        decoder = {**params["backbone"]["decoder"], "positions": jax.lax.dynamic_slice_in_dim(text_PD, token, L)}
        params = {
            **params,
            "buffer": {**params["buffer"], "encoder": encoder},
            "backbone": {**params["backbone"], "decoder": decoder},
        }
        tokens_BL, targets_BL = (
            later(ids_BL, frame, timestamp_begin) for ids_BL in (batch.tokens_BL, batch.targets_BL)
        )
        return loss_fn(params, dataclasses.replace(batch, tokens_BL=tokens_BL, targets_BL=targets_BL), key)

    return loss


def later(tokens_BL, frames, timestamp_begin: int):
    """Ids with every time moved by `frames` steps of 0.02 s; all others as they are."""
    return jnp.where(tokens_BL >= timestamp_begin, tokens_BL + frames, tokens_BL)


def ordered_times(params, timestamp_begin: int):
    """Params whose embeddings of times are the encoder's positions, at the length that other embeddings have.

    Drawn at random, 1501 tokens of time would each be learnt from the few examples that hit it. As sinusoids,
    neighbouring times are alike from the start, and linear in the positions that the attended frames carry.
    """
    embed_VD = np.array(params["backbone"]["decoder"]["embed"])
    count, width = embed_VD.shape[0] - timestamp_begin, embed_VD.shape[1]
    times = sinusoids(count, width)
    embed_VD[timestamp_begin:] = times * (np.linalg.norm(embed_VD[0]) / np.linalg.norm(times[0]))
    decoder = {**params["backbone"]["decoder"], "embed": jnp.asarray(embed_VD)}
    return {**params, "backbone": {**params["backbone"], "decoder": decoder}}
