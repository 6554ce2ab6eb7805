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
    def samples(self) -> int:
        """Of a window at 16 kHz, which is what is heard, always."""
        return 2 * self.whisper.max_source_positions * self.whisper.hop

    @property
    def frames(self) -> int:
        """States of a window, of both encoders beside each other."""
        return max(self.whisper.max_source_positions, self.sounds.tokens(self.samples) if self.sounds else 0)

    @property
    def width(self) -> int:
        """Of these states."""
        return self.whisper.d_model + (self.sounds.width if self.sounds else 0)

    @property
    def num_mel_bins(self) -> int:
        return self.whisper.num_mel_bins


class Ears(nnx.Module):
    """The two frozen encoders alone: what they say of a recording changes with no training, so it may be kept."""

    def __init__(self, config: AudioLLMConfig, *, init: Init):
        self.config = config
        self.encoder = Encoder(config.whisper, init=init)
        self.sounds: Any = nnx.data(None) if config.sounds is None else Beats(config.sounds, init=init)

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

    def beside(self, states_BTD: Array, wave_BS: Array | None = None, samples_B: Array | None = None) -> Array:
        """States of Whisper's encoder and, where there is a second encoder, of that beside them, of the waves: [B,
        longest, D + D'], the shorter filled up with zeros.
        """
        if self.sounds is None:
            return states_BTD
        if wave_BS is None:
            raise ValueError("a model with a second encoder hears waves besides the first one's states")
        sounds_BSD, _ = self.sounds(jnp.asarray(wave_BS), samples_B)
        longest = max(states_BTD.shape[1], sounds_BSD.shape[1])
        both = [jnp.pad(x, ((0, 0), (0, longest - x.shape[1]), (0, 0))) for x in (states_BTD, sounds_BSD)]
        return jnp.concatenate(both, axis=-1)


class AudioLLM(Ears):
    """Encoders, connector, language model, and `gate` (nn.gates), which moejax may hang on it."""

    def __init__(self, config: AudioLLMConfig, *, init: Init):
        super().__init__(config, init=init)
        d_sounds = 0 if config.sounds is None else config.sounds.width
        kind = KINDS[config.connector.kind]
        self.connector = kind(config.connector, config.whisper.d_model, d_sounds, config.llama.d_model, init=init)
        self.decoder = Llama(config.llama, init=init)
        self.gate: Any = nnx.data(None)

    @property
    def heard(self) -> int:
        """Vectors that a recording becomes: 88 of 30 s in SALMONN."""
        return self.connector.count(self.config.whisper.max_source_positions)

    def hear(self, states_BTD: Array, samples_B: Array | None = None, noise: Noise | None = None) -> Array:
        """Vectors [B, A, D] for the language model, of what `beside` gives of whole windows with so many samples."""
        if self.sounds is None:
            return self.connector(states_BTD, noise=noise)
        config, width = self.config.whisper, self.config.whisper.d_model
        real_BS = self.sounds.real(samples_B, states_BTD.shape[0], self.config.samples)
        T, S = config.max_source_positions, real_BS.shape[1]
        return self.connector(states_BTD[:, :T, :width], states_BTD[:, :S, width:], real_BS, noise)
