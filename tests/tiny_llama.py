"""A LLaMA and an audio LLM small enough for tests, drawn so that every term matters."""

import dataclasses
import functools

import jax.numpy as jnp
import numpy as np

from moejax.nn import audio_llm, functional, inject
from moejax.nn.beats import BeatsConfig
from moejax.nn.connectors import ConnectorConfig
from moejax.nn.llama import Llama, LlamaConfig
from moejax.nn.variables import Init
from moejax.nn.whisper import WhisperConfig

VOCAB, EOT = 40, 2
LLAMA = LlamaConfig(16, 2, 4, 2, 24, VOCAB, theta=100.0)
TIED = LlamaConfig(16, 1, 2, 1, 24, VOCAB, head_width=6, tied=True, stretch=2.0)
BEATS = BeatsConfig(
    patch_width=12, width=16, layers=2, heads=2, ffn=24, conv=6, conv_groups=4, buckets=16, max_distance=20
)
WHISPER = WhisperConfig(24, 1, 1, 2, 2, 32, 32, 50, num_mel_bins=20, max_source_positions=50)
CONNECTOR = ConnectorConfig(width=8, layers=2, heads=1, ffn=12)
AUDIO = audio_llm.AudioLLMConfig(WHISPER, LLAMA, BEATS, CONNECTOR)
# One layer of each: programs of a training compile in a third of the time.
SMALL = audio_llm.AudioLLMConfig(
    WHISPER,
    LlamaConfig(16, 1, 4, 2, 24, VOCAB, theta=100.0),
    dataclasses.replace(BEATS, layers=1),
    dataclasses.replace(CONNECTOR, layers=1),
)
QV = ("decoder/layers/*/self_attn/[qv]",)
EXPERTS = {"num_experts": 3, "rank": 2, "alpha": 4.0}


def drawn(params, seed=0, width=0.4):
    """The same shapes, every number drawn: matrices around 0, vectors around 1, so that biases and norms count."""
    rng = np.random.default_rng(seed)
    flat = functional.paths(params)
    made = {p: jnp.asarray((x.ndim < 2) + width * rng.normal(size=x.shape), jnp.float32) for p, x in flat.items()}
    return functional.nest(made)


@functools.cache
def llama(config=LLAMA):
    """`(graphdef, params)` of a language model alone."""
    graphdef, params = functional.split(Llama(config, init=Init(0)))
    return graphdef, drawn(params)


@functools.cache
def audio(experts=True, config=AUDIO):
    """`(graphdef, params)` of an audio LLM, with a mixture of experts on q and v of its language model."""
    init = Init(0)
    model = audio_llm.AudioLLM(config, init=init)
    if experts:
        inject.add_experts(model, QV, **EXPERTS, init=init)
    graphdef, params = functional.split(model)
    return graphdef, drawn(functional.materialise(params))
