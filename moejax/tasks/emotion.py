"""Emotions as tokens of Whisper: rows behind its vocabulary, and how they are learnt beside the text.

    <|startoftranscript|><|en|><|transcribe|><|emotion:happy|><|notimestamps|> what was said <|endoftext|>

The LoRA is there where the emotion is said, and nowhere else: the text is written by the decoder as it was published,
which finds one more token in its prefix.

As SenseVoice has it (An et al. 2024, "FunAudioLLM", arXiv 2407.04051), on a published model whose own ids stay where
they are. The output matrix is the embedding, so a new row is input and output alike. While they are learnt the rows are
a group of their own, `{"head": {"decoder": {"rows": [K, D]}}}`; a network that is used has them in its embedding.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from moejax.nn import functional
from moejax.nn.functional import GraphDef
from moejax.nn.whisper import WhisperConfig
from moejax.ops import pooling, routing
from moejax.tasks import asr
from moejax.types import Array, Batch, Params

FEW = 4  # of how many utterances one teaches the rows to leave its text alone: two passes over all of it
BEFORE = 4  # places that hold start, language and task, of which a vocabulary may have fewer
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
    """`loss_fn(params, batch, key)` of a network with `longer` sizes on kept encoder states. All rows have a token of
    an emotion in their prefix; a negative label of the batch says that nobody knows whether it is theirs.

    `weight` times the cross-entropy of the known emotions among the new ids, said with the LoRA from what stands before
    them; and the drift of the text: the divergence (Kullback and Leibler) of the published decoder's words behind the
    token from its own without it, which only rows can change.
    """

    def loss_fn(params, batch: Batch, key):
        del key
        drift_B, count_B = _drift(graphdef, params, jax.tree.map(lambda leaf: leaf[::FEW], batch))
        drift = drift_B.sum() / jnp.maximum(count_B.sum(), 1)
        felt_B, hit_B, has_B = _emotion(graphdef, params, batch)
        count = jnp.maximum(has_B.sum(), 1)
        emotion = felt_B.sum() / count
        return drift + weight * emotion, {
            "drift": drift,
            "emotion": emotion,
            "emotion_accuracy": hit_B.sum() / count,
        }

    return loss_fn


def make_each(graphdef: GraphDef) -> Callable[[Params, Batch], tuple[Array, Array, Array, Array]]:
    """Jitted `(params, batch)` to, of each utterance, the drift of its text, its tokens, -log p of its emotion (0 where
    nobody knows it), and whether it is known.
    """

    @jax.jit
    def each(params, batch):
        drift_B, count_B = _drift(graphdef, params, batch)
        felt_B, _, has_B = _emotion(graphdef, params, batch)
        return drift_B, count_B, felt_B, has_B

    return each


def _read(graphdef, params, batch, tokens_BL, route) -> Array:
    """Normed states of the decoder [B, L, D]."""
    model = functional.merge(graphdef, joined(params))
    mask_BT = pooling.valid_frames(batch.samples_B, batch.states_BTD.shape[1], model.config.hop)
    return model.decoder.norm(model.decoder.hidden(tokens_BL, batch.states_BTD, mask_BT, route))


def _place(params, batch) -> tuple[Array, Array]:
    """(where the emotion is the next token, whether there is one), each [B]."""
    is_BL = batch.targets_BL >= params["backbone"]["decoder"]["embed"].shape[0]
    return jnp.argmax(is_BL, axis=1), is_BL.any(1) & batch.real_B


def _emotion(graphdef, params, batch):
    """(-log p of the emotion, whether it is the likeliest, whether it is known), each [B]."""
    at_B, has_B = _place(params, batch)
    has_B = has_B & (batch.label_B >= 0)
    route = routing.one_hot(jnp.zeros_like(batch.label_B))
    x_BLD = _read(graphdef, params, batch, batch.tokens_BL[:, :BEFORE], route)
    x_BD = jnp.take_along_axis(x_BLD, at_B[:, None, None], axis=1)[:, 0].astype(jnp.float32)
    logp_BK = jax.nn.log_softmax(x_BD @ params["head"]["decoder"]["rows"].T, axis=-1)
    first = params["backbone"]["decoder"]["embed"].shape[0]
    target_B = jnp.take_along_axis(batch.targets_BL, at_B[:, None], axis=1)[:, 0] - first
    picked_B = jnp.take_along_axis(logp_BK, jnp.maximum(target_B, 0)[:, None], axis=1)[:, 0]
    return jnp.where(has_B, -picked_B, 0.0), (logp_BK.argmax(-1) == target_B) & has_B, has_B


def _drift(graphdef, params, batch):
    """(divergence of the text's tokens behind the emotion from those without it, summed; how many these are), [B]."""
    at_B, _ = _place(params, batch)
    silent = routing.one_hot(jnp.full_like(batch.label_B, -1))
    behind_BLD = _read(graphdef, params, batch, batch.tokens_BL, silent)
    place_L = jnp.arange(batch.tokens_BL.shape[1])
    without_BL = jnp.where(place_L[None] <= at_B[:, None], batch.tokens_BL, jnp.roll(batch.tokens_BL, -1, axis=1))
    own_BLD = jnp.roll(_read(graphdef, params, batch, without_BL, silent), 1, axis=1)  # one place earlier
    table_VD = params["backbone"]["decoder"]["embed"]

    @jax.checkpoint  # the words of one utterance at a time: a batch of them is gigabytes
    def one(its):
        behind_LD, own_LD, score_L = its
        logp_LV, own_LV = (
            jax.nn.log_softmax(
                jnp.einsum("LD,VD->LV", x_LD, table_VD.astype(x_LD.dtype), preferred_element_type=jnp.float32), axis=-1
            )
            for x_LD in (behind_LD, own_LD)
        )
        return jnp.where(score_L, (jnp.exp(own_LV) * (own_LV - logp_LV)).sum(-1), 0.0).sum()

    drift_B = jax.lax.map(one, (behind_BLD, jax.lax.stop_gradient(own_BLD), batch.score_BL))
    return drift_B, batch.score_BL.sum(1)


def init(config: WhisperConfig, mixture: asr.Mixture, params: Params, count: int, seed: int) -> tuple[GraphDef, Params]:
    """`(graphdef of the network with its rows, parameters with the rows apart)`, experts and rows fresh."""
    _, own = asr.init(asr.build(config, mixture=mixture, seed=seed), params)
    rows_KD = jnp.asarray(fresh_rows(own["backbone"]["decoder"]["embed"], count, seed))
    graphdef, _ = functional.split(asr.build(longer(config, count), mixture=mixture, seed=seed)())
    return graphdef, {**own, "head": {"decoder": {"rows": rows_KD}}}
