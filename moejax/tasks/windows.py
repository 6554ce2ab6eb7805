"""What training on windows with times needs beside the loss of `tasks.asr`: attention that is told where a token is
heard, and tokens of time that know their order.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from moejax.audio.constants import SAMPLE_RATE, STRIDE, TIMESTAMP_STEP
from moejax.nn import functional, whisper
from moejax.nn.attention_scores import cross_scores
from moejax.nn.whisper import sinusoids
from moejax.ops import losses
from moejax.tasks import asr
from moejax.types import Array, Params

REACH = 8  # steps of 0.02 s around a time that count as looking at it, and the least around a word


def guided(
    graphdef: functional.GraphDef, row: asr.Row, *, weight: float, hop: int, timestamp_begin: int
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """Cross-entropy, and beside it what the first cross-attention head of every decoder layer looks at.

    The times in the targets say where each token is heard: a time at itself, the words between two times evenly spread
    from the one to the other. Penalty: -log of the head's attention within reach of that (`heard_at`). Cross-entropy
    alone has to find the words and their places at once (guided attention: Tachibana et al. 2018, for synthesis).
    A row without route.
    """
    frames = TIMESTAMP_STEP * SAMPLE_RATE / (STRIDE * hop)  # encoder frames in a step of time

    def loss_fn(params, batch, key):
        model = functional.merge(graphdef, params)
        key_augment, key_noise = jax.random.split(key)
        mel_BNM, mask_BT = asr.augmented(model, batch, key_augment, row)
        noise = whisper.Noise(key_noise, row.dropout, 0.0) if row.dropout else None
        states_BTD = model.encode(mel_BNM, mask_BT, None, noise)
        heads = [(layer, 0) for layer in range(len(model.decoder.layers))]
        score_BHLT, x_BLD = cross_scores(model, batch.tokens_BL, states_BTD, heads, mask_BT)
        at_BK, targets_BK, score_BK = asr.scored(batch, row.scored)
        if at_BK is not None:
            x_BLD = jnp.take_along_axis(x_BLD, at_BK[..., None], axis=1)
            score_BHLT = jnp.take_along_axis(score_BHLT, at_BK[:, None, :, None], axis=2)
        logits_BKV = model.decoder.logits(x_BLD)
        ce, _, count = losses.token_cross_entropy(logits_BKV, targets_BK, score_BK, row.smoothing)
        middle_BK, reach_BK, known_BK = heard_at(targets_BK, score_BK, timestamp_begin)
        away_BKT = jnp.abs(jnp.arange(score_BHLT.shape[-1])[None, None] - frames * middle_BK[..., None])
        near_BKT = away_BKT <= frames * reach_BK[..., None]
        known_BK &= near_BKT.any(-1)  # the end of what the window cuts lies beyond its frames
        log_BHKT = jnp.where(near_BKT[:, None], jax.nn.log_softmax(score_BHLT, axis=-1), -jnp.inf)
        mass_BHK = jax.nn.logsumexp(jnp.where(known_BK[:, None, :, None], log_BHKT, 0.0), axis=-1)
        guide = -(mass_BHK * known_BK[:, None]).sum() / jnp.maximum(len(heads) * known_BK.sum(), 1)
        hit_BK = (logits_BKV.argmax(-1) == targets_BK) & score_BK
        word_BK = known_BK & (targets_BK < timestamp_begin)
        metrics = {"ce": ce, "guide": guide, "accuracy": hit_BK.sum() / count}
        metrics["word_accuracy"] = (hit_BK & word_BK).sum() / jnp.maximum(word_BK.sum(), 1)
        return ce + weight * guide, metrics

    return loss_fn


def heard_at(targets_BL: Array, score_BL: Array, timestamp_begin: int) -> tuple[Array, Array, Array]:
    """(middle_BL, reach_BL, known_BL): where each target is heard, in steps of time, how far to either side that may
    be, and whether the targets say so: words need a time before and one after them.
    """
    L = targets_BL.shape[1]
    index_L = jnp.arange(L)
    time_BL = (targets_BL >= timestamp_begin) & score_BL
    before_BL = jax.lax.cummax(jnp.where(time_BL, index_L[None], -1), axis=1)
    after_BL = jax.lax.cummin(jnp.where(time_BL, index_L[None], L), axis=1, reverse=True)
    start_BL, stop_BL = (
        jnp.take_along_axis(targets_BL, jnp.clip(at_BL, 0, L - 1), axis=1) - timestamp_begin
        for at_BL in (before_BL, after_BL)
    )
    word_BL = (stop_BL - start_BL) / jnp.maximum(after_BL - before_BL - 1, 1)
    middle_BL = jnp.where(time_BL, start_BL, start_BL + word_BL * (index_L[None] - before_BL - 0.5))
    reach_BL = jnp.maximum(jnp.where(time_BL, 0.0, word_BL), REACH)
    return middle_BL, reach_BL, (before_BL >= 0) & (after_BL < L) & score_BL


def ordered_times(params: Params, timestamp_begin: int) -> Params:
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
