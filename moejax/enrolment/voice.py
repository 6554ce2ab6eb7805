"""Enrolment by voice: what a gate or a hypernetwork makes of a speaker, whatever is said."""

import functools
from collections.abc import Sequence

import numpy as np

from moejax.decode.features import Features
from moejax.nn.whisper import WhisperConfig
from moejax.systems.system import Network
from moejax.tasks import asr


def logits(network: Network, pieces: Sequence[np.ndarray], samples: Sequence[int]) -> np.ndarray:
    """The gate's logits [1, E] for the mean embedding of audio [S] of one speaker.

    `samples`: window lengths; every piece fits the longest. Each piece is heard in the shortest that holds it.
    """
    assert network.embedding is not None  # what every gate hears
    (embed, gate), found = _programs(network.graphdef, network.embedding), []
    config = network.config
    for piece in pieces:
        found.append(np.asarray(embed(network.params, *shown(piece, config, samples)))[0])
    return np.asarray(gate(network.params, np.mean(found, axis=0)[None]))


def shown(piece: np.ndarray, config: WhisperConfig, samples: Sequence[int]):
    """(audio_BS, samples_B, mel_BNM or None) of audio [S] as `tasks.asr.make_embed` takes them."""
    window = next(size for size in samples if size >= len(piece))
    audio_BS, mel_BNM = np.pad(piece, (0, window - len(piece)))[None], None
    if not config.mask_padding:  # such models are shown zeros behind a recording's features (decode.longform)
        heard = Features(piece, n_mels=config.num_mel_bins, hop=config.hop)
        mel_BNM = np.zeros((1, window // config.hop, config.num_mel_bins), np.float32)
        mel_BNM[0, : heard.frames] = heard.slice(0, heard.frames)
    return audio_BS, np.array([len(piece)], np.int32), mel_BNM


@functools.lru_cache(maxsize=4)
def _programs(graphdef, embedding):
    """Compiled once for all speakers."""
    return asr.make_embed(graphdef, embedding), asr.make_gate(graphdef)
