"""Emotions as tokens of Whisper: rows behind its vocabulary, of which the decoder says one before the text.

    <|startoftranscript|><|en|><|transcribe|> <|emotion:happy|>
    <|startoftranscript|><|en|><|transcribe|><|notimestamps|> what was said <|endoftext|>

As SenseVoice has it (An et al. 2024, "FunAudioLLM", arXiv 2407.04051), on a published model whose own ids stay where
they are. A LoRA of the decoder is there for the step that says the emotion, and nowhere else: the text is written by
the published decoder in the place that it always had, so that it stays what it was. The output matrix is the embedding.
While they are learnt the rows are a group of their own, `{"head": {"decoder": {"rows": [K, D]}}}`; a network that is
used has them in its embedding.
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


def make_loss(graphdef: GraphDef) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`loss_fn(params, batch, key)` of a network with `longer` sizes on kept encoder states: cross-entropy of the one
    token that a row of the batch scores, its emotion, among the new ids.
    """

    def loss_fn(params, batch: Batch, key):
        del key
        felt_B, hit_B = _emotion(graphdef, params, batch)
        count = jnp.maximum(batch.real_B.sum(), 1)
        emotion = jnp.where(batch.real_B, felt_B, 0.0).sum() / count
        return emotion, {"accuracy": (hit_B & batch.real_B).sum() / count}

    return loss_fn


def make_each(graphdef: GraphDef) -> Callable[[Params, Batch], tuple[Array, Array]]:
    """Jitted `(params, batch)` to (-log p of its emotion, whether it is the likeliest), each [B]."""
    return jax.jit(lambda params, batch: _emotion(graphdef, params, batch))


def _emotion(graphdef, params, batch) -> tuple[Array, Array]:
    model = functional.merge(graphdef, joined(params))
    mask_BT = pooling.valid_frames(batch.samples_B, batch.states_BTD.shape[1], model.config.hop)
    route = routing.one_hot(jnp.zeros_like(batch.label_B))
    x_BLD = model.decoder.norm(model.decoder.hidden(batch.tokens_BL, batch.states_BTD, mask_BT, route))
    at_B = jnp.argmax(batch.score_BL, axis=1)[:, None]
    x_BD = jnp.take_along_axis(x_BLD, at_B[..., None], axis=1)[:, 0].astype(jnp.float32)
    logp_BK = jax.nn.log_softmax(x_BD @ params["head"]["decoder"]["rows"].T, axis=-1)
    target_BL = batch.targets_BL - params["backbone"]["decoder"]["embed"].shape[0]
    target_B = jnp.maximum(jnp.take_along_axis(target_BL, at_B, axis=1)[:, 0], 0)
    picked_B = jnp.take_along_axis(logp_BK, target_B[:, None], axis=1)[:, 0]
    return -picked_B, logp_BK.argmax(-1) == target_B


def init(config: WhisperConfig, mixture: asr.Mixture, params: Params, count: int, seed: int) -> tuple[GraphDef, Params]:
    """`(graphdef of the network with its rows, parameters with the rows apart)`, experts and rows fresh."""
    _, own = asr.init(asr.build(config, mixture=mixture, seed=seed), params)
    rows_KD = jnp.asarray(fresh_rows(own["backbone"]["decoder"]["embed"], count, seed))
    graphdef, _ = functional.split(asr.build(longer(config, count), mixture=mixture, seed=seed)())
    return graphdef, {**own, "head": {"decoder": {"rows": rows_KD}}}
