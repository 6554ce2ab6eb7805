"""The real decoder and aligner on random weights: a recording says the same alone and beside others."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.audio.read import chunks
from moejax.decode.alignment import Aligner
from moejax.decode.chunked import transcribe_chunked
from moejax.decode.guards import Guards
from moejax.decode.longform import LongformOptions, Reading, transcribe_sequential
from moejax.decode.options import DecodingOptions
from moejax.nn import functional
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper, WhisperConfig
from moejax.tasks import recognition
from moejax.text.tokenizer import Tokenizer

CONFIG = WhisperConfig(16, 1, 1, 2, 2, 32, 32, 2200)
ENGLISH = DecodingOptions(language="en")
OFF = Guards.reference()


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(
        ["one two three four five six seven eight"] * 3, 2200, languages=("en", "de"), timestamps_seconds=30
    )


def ramp(seconds):
    """Noise in bursts like syllables; a click each half second tells by its height where it stands."""
    rng = np.random.default_rng(0)
    audio_S = (0.01 * rng.normal(size=int(16000 * seconds))).clip(-0.05, 0.05).astype(np.float32)
    audio_S *= np.where(np.arange(len(audio_S)) // 4000 % 2, 0.1, 1.0).astype(np.float32)
    audio_S[::8000] = 0.1 + np.arange(len(audio_S[::8000])) / 2000
    return audio_S


def spans(transcript):
    return [(segment.text, round(segment.start, 2), round(segment.end, 2)) for segment in transcript.segments]


def test_a_real_network_says_the_same_alone_and_in_company(tokenizer):
    """Random weights, the real decoder and aligner, both ways through long audio."""
    config = dataclasses.replace(
        CONFIG, vocab_size=tokenizer.vocab_size, max_source_positions=100, max_target_positions=48
    )
    graphdef, abstract = functional.abstract(lambda: Whisper(config, init=Init(0)))
    rng = np.random.default_rng(4)
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.normal(size=leaf.shape), jnp.float32), abstract)
    decoder = recognition.make_decoder(graphdef, params, config, tokenizer, samples=(32000,), batch_size=2)
    align = Aligner(graphdef, params, config, tokenizer)
    audios = [ramp(seconds) for seconds in (5.3, 1.0, 2.5)]
    options = LongformOptions(guards=OFF, word_timestamps=True, condition_on_previous_text=False)
    settings = {"decoding": dataclasses.replace(ENGLISH, sample_len=8), "options": options, "align": align}

    def ways(audios):
        yield dict(
            transcribe_sequential(audios, Reading(model=decoder, tokenizer=tokenizer, config=config, **settings))
        )
        yield dict(
            transcribe_chunked(
                audios,
                Reading(model=decoder, tokenizer=tokenizer, config=config, **settings),
                lambda a, s: chunks(a, s),
            )
        )

    for how, together in enumerate(ways(audios)):
        assert any(transcript.text.strip() for transcript in together.values())
        alone = list(ways(audios[:1]))[how][0]
        assert alone.text == together[0].text and spans(alone) == spans(together[0])
