"""Emotions as tokens of Whisper: rows behind its vocabulary, and how they are learnt beside the text.

    <|startoftranscript|><|en|><|transcribe|><|emotion:happy|><|notimestamps|> what was said <|endoftext|>

As SenseVoice has it (An et al. 2024, "FunAudioLLM", arXiv 2407.04051), on a published model whose own ids stay where
they are. The output matrix is the embedding, so a new row is input and output alike. While they are learnt the rows are
a group of their own, `{"head": {"decoder": {"rows": [K, D]}}}`; a network that is used has them in its embedding.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax.nn import functional
from moejax.nn.functional import GraphDef
from moejax.nn.whisper import WhisperConfig
from moejax.ops import losses, pooling, routing
from moejax.tasks import asr
from moejax.types import Array, Batch, Params

NOISE = 0.1  # of fresh rows around the embedding's mean, as a share of its deviation


def longer(config: WhisperConfig, count: int) -> WhisperConfig:
    """Sizes of the network with so many rows more."""
    return dataclasses.replace(config, vocab_size=config.vocab_size + count)


def fresh_rows(embed_VD: Array, count: int, seed: int) -> np.ndarray:
    """Rows [count, D], float32: the embedding's mean and a little noise, so that they are likely nowhere."""
    table_VD = np.asarray(embed_VD, np.float32)
    noise_KD = np.random.default_rng([seed, count]).standard_normal((count, table_VD.shape[1]), np.float32)
    return table_VD.mean(0) + np.float32(NOISE * table_VD.std()) * noise_KD


def joined(params: Params) -> Params:
    """The parameters with their rows in the embedding, as the network with `longer` sizes has them."""
    rows_KD, decoder = params["head"]["decoder"]["rows"], params["backbone"]["decoder"]
    table_VD = jnp.concatenate([decoder["embed"], jnp.asarray(rows_KD, decoder["embed"].dtype)])
    backbone = {**params["backbone"], "decoder": {**decoder, "embed": table_VD}}
    return {**{group: tree for group, tree in params.items() if group != "head"}, "backbone": backbone}


def make_loss(graphdef: GraphDef, weight: float) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`loss_fn(params, batch, key)` of a network with `longer` sizes on kept encoder states: cross-entropy of the text
    among the ids that there were, and `weight` times that of the emotion among the new ones.

    A row's emotion is the target with such an id. One without it, as nobody has labelled it, is not scored for it.
    """

    def loss_fn(params, batch: Batch, key):
        del key
        x_BLD, table_VD = _read(graphdef, params, batch)
        if jax.default_backend() == "cpu" and jax.device_count() == 1:
            ce, accuracy = losses.frozen_cross_entropy(x_BLD, table_VD, batch.targets_BL, batch.score_BL)
        else:
            logits_BLV = _logits(x_BLD, table_VD)
            ce, _, count = losses.token_cross_entropy(logits_BLV, batch.targets_BL, batch.score_BL)
            accuracy = ((logits_BLV.argmax(-1) == batch.targets_BL) & batch.score_BL).sum() / count
        felt_B, hit_B, has_B = _emotion(params, x_BLD, batch, len(table_VD))
        count = jnp.maximum(has_B.sum(), 1)
        emotion = felt_B.sum() / count
        metrics = {"ce": ce, "accuracy": accuracy, "emotion": emotion, "emotion_accuracy": hit_B.sum() / count}
        return ce + weight * emotion, metrics

    return loss_fn


def make_each(graphdef: GraphDef) -> Callable[[Params, Batch], tuple[Array, Array, Array, Array]]:
    """Jitted `(params, batch)` to, of each utterance, -log p of its text, its tokens, -log p of its emotion (0 where it
    has none), and whether it has one.
    """

    @jax.jit
    def each(params, batch):
        def one(its):
            x_BLD, table_VD = _read(graphdef, params, its)
            ce, _ = losses.frozen_cross_entropy(x_BLD, table_VD, its.targets_BL, its.score_BL)
            felt_B, _, has_B = _emotion(params, x_BLD, its, len(table_VD))
            count = its.score_BL.sum()
            return ce * count, count, felt_B[0], has_B[0]

        return jax.lax.map(lambda its: one(jax.tree.map(lambda leaf: leaf[None], its)), batch)

    return each


def _read(graphdef, params, batch) -> tuple[Array, Any]:
    """(normed states of the decoder [B, L, D], the embedding without the new rows)."""
    model = functional.merge(graphdef, joined(params))
    mask_BT = pooling.valid_frames(batch.samples_B, batch.states_BTD.shape[1], model.config.hop)
    route = routing.one_hot(batch.label_B)
    x_BLD = model.decoder.norm(model.decoder.hidden(batch.tokens_BL, batch.states_BTD, mask_BT, route))
    return x_BLD, params["backbone"]["decoder"]["embed"]


def _logits(x_BLD, table_VD):
    return jnp.einsum("BLD,VD->BLV", x_BLD, table_VD.astype(x_BLD.dtype), preferred_element_type=jnp.float32)


def _emotion(params, x_BLD, batch, first: int):
    """(-log p of the emotion, whether it is the likeliest, whether there is one), each [B]."""
    is_BL = batch.targets_BL >= first
    has_B, at_B11 = is_BL.any(1) & batch.real_B, jnp.argmax(is_BL, axis=1)[:, None, None]
    x_BD = jnp.take_along_axis(x_BLD, at_B11, axis=1)[:, 0].astype(jnp.float32)
    logp_BK = jax.nn.log_softmax(x_BD @ params["head"]["decoder"]["rows"].T, axis=-1)
    target_B = jnp.take_along_axis(batch.targets_BL, at_B11[..., 0], axis=1)[:, 0] - first
    picked_B = jnp.take_along_axis(logp_BK, jnp.maximum(target_B, 0)[:, None], axis=1)[:, 0]
    return jnp.where(has_B, -picked_B, 0.0), (logp_BK.argmax(-1) == target_B) & has_B, has_B


def init(config: WhisperConfig, mixture: asr.Mixture, params: Params, count: int, seed: int) -> tuple[GraphDef, Params]:
    """`(graphdef of the network with its rows, parameters with the rows apart)`, experts and rows fresh."""
    _, own = asr.init(asr.build(config, mixture=mixture, seed=seed), params)
    rows_KD = jnp.asarray(fresh_rows(own["backbone"]["decoder"]["embed"], count, seed))
    graphdef, _ = functional.split(asr.build(longer(config, count), mixture=mixture, seed=seed)())
    return graphdef, {**own, "head": {"decoder": {"rows": rows_KD}}}
