"""A language model that hears: SALMONN's system (Tang et al. 2024, arXiv 2310.13289) of parts that are there.

    wave -> Whisper's encoder --\\
                                 connector -> vectors among the tokens -> LLaMA -> text
    wave -> BEATs (or none) ----/

The two encoders and the language model are frozen, the connector learns, and so does what hangs on the language model
as `decoder`: one LoRA as published, or a mixture of experts with the gate, both by `nn.inject` and its patterns.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
from flax import nnx

from moejax.nn.beats import Beats, BeatsConfig
from moejax.nn.connectors import KINDS, ConnectorConfig
from moejax.nn.layers import Noise
from moejax.nn.llama import Llama, LlamaConfig
from moejax.nn.variables import Init
from moejax.nn.whisper import Encoder, WhisperConfig
from moejax.types import Array, Route


@dataclasses.dataclass(frozen=True)
class AudioLLMConfig:
    """Sizes of all parts; of `whisper` only the encoder's. `sounds` None: there is no second encoder."""

    whisper: WhisperConfig
    llama: LlamaConfig
    sounds: BeatsConfig | None = BeatsConfig()
    connector: ConnectorConfig = ConnectorConfig()

    @property
    def d_model(self) -> int:
        """Of the part that has experts."""
        return self.llama.d_model

    @property
    def vocab_size(self) -> int:
        return self.llama.vocab_size

    @property
    def hop(self) -> int:
        return self.whisper.hop

    @property
    def num_mel_bins(self) -> int:
        return self.whisper.num_mel_bins


class AudioLLM(nnx.Module):
    """Encoders, connector, language model, and `gate` (nn.gates), which moejax may hang on it."""

    def __init__(self, config: AudioLLMConfig, *, init: Init):
        self.config = config
        self.encoder = Encoder(config.whisper, init=init)
        self.sounds: Any = nnx.data(None) if config.sounds is None else Beats(config.sounds, init=init)
        d_sounds = 0 if config.sounds is None else config.sounds.width
        kind = KINDS[config.connector.kind]
        self.connector = kind(config.connector, config.whisper.d_model, d_sounds, config.llama.d_model, init=init)
        self.decoder = Llama(config.llama, init=init)
        self.gate: Any = nnx.data(None)

    @property
    def heard(self) -> int:
        """Vectors that a recording becomes: 88 of 30 s in SALMONN."""
        return self.connector.count(self.config.whisper.max_source_positions)

    def encode(
        self,
        mel_BNM: Array,
        mask_BT: Array | None = None,
        route: Route | None = None,
        noise: Noise | None = None,
        layers: bool = False,
    ) -> Any:
        """States [B, T, D] of Whisper's encoder, as `nn.whisper.Whisper.encode`."""
        return self.encoder(mel_BNM, mask_BT, route, noise, layers)

    def hear(
        self,
        states_BTD: Array,
        wave_BS: Array | None = None,
        samples_B: Array | None = None,
        noise: Noise | None = None,
    ) -> Array:
        """Vectors [B, A, D] for the language model, of the encoder's states and, for a second encoder, the waves."""
        if self.sounds is None:
            return self.connector(states_BTD, noise=noise)
        if wave_BS is None:
            raise ValueError("a model with a second encoder hears waves besides the first one's states")
        sounds_BSD, mask_BS = self.sounds(jnp.asarray(wave_BS), samples_B)
        return self.connector(states_BTD, sounds_BSD, mask_BS, noise)
