"""Whisper (Radford et al. 2022) as a Flax module.

The network of the reference implementation, with three additions that are off for published checkpoints: a coarser mel
hop and masked padding for the micro family, and an auxiliary CTC head for encoders trained from scratch.

Layers are a Python list, not a scan: parameter paths then are one to one with published checkpoints and any single
layer can carry experts by its path. The price is compile time on 32 layers, which the persistent cache pays once.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from moejax.errors import BadValue
from moejax.nn.layers import Block, Conv, LayerNorm, Linear, Noise, drop
from moejax.nn.variables import Backbone, Buffer, Head, Init
from moejax.types import Array, Route

_SIZES = {  # lowest and highest, where "at least 1" does not say enough
    "encoder_layers": (1, 1000),
    "decoder_layers": (1, 1000),
    "num_mel_bins": (1, 1000),
    "hop": (16, 3200),
    "d_model": (4, 1_000_000),
}


@dataclasses.dataclass(frozen=True)
class WhisperConfig:
    """Sizes of one network. `hop` is the mel hop in samples; encoder frames are twice that apart."""

    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_heads: int
    decoder_heads: int
    encoder_ffn: int
    decoder_ffn: int
    vocab_size: int
    num_mel_bins: int = 80
    max_source_positions: int = 1500
    max_target_positions: int = 448
    hop: int = 160
    # The published models see padding as silence and were trained so; the micro family does not
    mask_padding: bool = False
    dtype: str = "float32"  # activations and matrix products of the backbone

    def __post_init__(self):
        """ValueError naming the first size that no network can have: sizes come from files that anybody wrote."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is bool and not isinstance(value, bool):
                raise BadValue(f"{field.name} is {value!r}; it takes True or False")
            low, high = _SIZES.get(field.name, (1, 10_000_000))
            if field.type is int and not (type(value) is int and low <= value <= high):
                raise BadValue(f"{field.name} is {value!r}; it takes a whole number from {low} to {high}")
        for heads in ("encoder_heads", "decoder_heads"):
            if self.d_model % getattr(self, heads):
                raise BadValue(f"d_model = {self.d_model} does not divide by {heads} = {getattr(self, heads)}")
        if self.d_model % 2:
            raise BadValue(f"d_model = {self.d_model} is odd; positions are pairs of a sine and a cosine")


class Encoder(nnx.Module):
    """mel [B, N, M] -> states [B, T, D], T = ceil(N / 2)."""

    def __init__(self, config: WhisperConfig, *, init: Init):
        c = config
        self.mask_padding = c.mask_padding
        self.dtype = c.dtype
        self.conv1 = Conv(c.num_mel_bins, c.d_model, stride=1, init=init)
        self.conv2 = Conv(c.d_model, c.d_model, stride=2, init=init)
        self.positions = Buffer(jnp.asarray(sinusoids(c.max_source_positions, c.d_model)))
        self.layers = nnx.List(
            [Block(c.d_model, c.encoder_heads, c.encoder_ffn, cross=False, init=init) for _ in range(c.encoder_layers)]
        )
        self.norm = LayerNorm(c.d_model, init=init)

    def __call__(
        self,
        mel_BNM: Array,
        mask_BT: Array | None = None,
        route: Route | None = None,
        noise: Noise | None = None,
        layers: bool = False,
    ) -> Any:
        x = jax.nn.gelu(self.conv1(mel_BNM.astype(self.dtype)), approximate=False)
        x = jax.nn.gelu(self.conv2(x), approximate=False)
        T, limit = x.shape[1], self.positions.shape[0]
        if T > limit:
            raise BadValue(f"{T} encoder frames exceed the model's {limit}; cut the audio into chunks")
        x = drop(noise, x + self.positions[...][None, :T].astype(x.dtype))
        hidden = [x]
        for block in self.layers:
            x = block(x, mask_BT=mask_BT if self.mask_padding else None, route=route, noise=noise)
            hidden.append(x)
        x = self.norm(x)
        return (x, hidden) if layers else x


class Decoder(nnx.Module):
    """tokens [B, L] and encoder states -> logits [B, L, V]; the output matrix is the embedding, as in the reference."""

    def __init__(self, config: WhisperConfig, *, init: Init):
        c = config
        self.mask_padding = c.mask_padding
        self.dtype = c.dtype
        self.embed = Backbone(init.normal(c.vocab_size, c.d_model, std=c.d_model**-0.5))
        self.positions = Backbone(init.normal(c.max_target_positions, c.d_model, std=0.02))
        self.layers = nnx.List(
            [Block(c.d_model, c.decoder_heads, c.decoder_ffn, cross=True, init=init) for _ in range(c.decoder_layers)]
        )
        self.norm = LayerNorm(c.d_model, init=init)

    def logits(self, x_BLD: Array) -> Array:
        return jnp.einsum(
            "BLD,VD->BLV", self.norm(x_BLD), self.embed[...].astype(x_BLD.dtype), preferred_element_type=jnp.float32
        )

    def inputs(self, tokens_BL: Array, start: Array | int = 0) -> Array:
        length = tokens_BL.shape[1]
        if length > self.positions.shape[0]:
            raise BadValue(f"{length} tokens exceed the model's {self.positions.shape[0]}")
        at_LD = jax.lax.dynamic_slice_in_dim(self.positions[...], start, length)
        return (jnp.take(self.embed[...], tokens_BL, axis=0, mode="clip") + at_LD[None]).astype(self.dtype)

    def __call__(
        self,
        tokens_BL: Array,
        states_BTD: Array,
        mask_BT: Array | None = None,
        route: Route | None = None,
        noise: Noise | None = None,
        at_BK: Array | None = None,
    ) -> Array:
        """With `at_BK` the logits [B, K, V] of these positions only: a large vocabulary costs more than the layers."""
        x = self.hidden(tokens_BL, states_BTD, mask_BT, route, noise)
        if at_BK is not None:
            x = jnp.take_along_axis(x, at_BK[..., None], axis=1)
        return self.logits(x)

    def hidden(
        self,
        tokens_BL: Array,
        states_BTD: Array,
        mask_BT: Array | None = None,
        route: Route | None = None,
        noise: Noise | None = None,
    ) -> Array:
        """What `logits` makes logits of, [B, L, D]."""
        x = drop(noise, self.inputs(tokens_BL))
        seen = mask_BT if self.mask_padding else None
        for block in self.layers:
            x = block(x, states_BTD, states_mask_BS=seen, causal=True, route=route, noise=noise)
        return x


class Whisper(nnx.Module):
    """Encoder, decoder, and what moejax may hang on them: `gate` (nn.gates), `ctc` (Linear to vocabulary + blank)."""

    def __init__(self, config: WhisperConfig, *, init: Init):
        self.config = config
        self.encoder = Encoder(config, init=init)
        self.decoder = Decoder(config, init=init)
        self.gate: Any = nnx.data(None)
        self.ctc: Any = nnx.data(None)

    def encode(
        self,
        mel_BNM: Array,
        mask_BT: Array | None = None,
        route: Route | None = None,
        noise: Noise | None = None,
        layers: bool = False,
    ) -> Any:
        """States [B, T, D]; with `layers` also the list of hidden states h0 (after the convolutions) to h_n (before the
        norm).
        """
        return self.encoder(mel_BNM, mask_BT, route, noise, layers)

    def decode(
        self,
        tokens_BL: Array,
        states_BTD: Array,
        mask_BT: Array | None = None,
        route: Route | None = None,
        noise: Noise | None = None,
    ) -> Array:
        """Logits [B, L, V] in float32 of every next token (teacher forcing)."""
        return self.decoder(tokens_BL, states_BTD, mask_BT, route, noise)


def sinusoids(length: int, channels: int, max_timescale: float = 10000.0) -> np.ndarray:
    """Whisper's sinusoidal positions: sines in the first half of the channels, cosines in the second."""
    step = math.log(max_timescale) / (channels // 2 - 1)
    angle = np.arange(length)[:, None] * np.exp(-step * np.arange(channels // 2))[None]
    return np.concatenate([np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)


def add_ctc(model: Whisper, init: Init) -> None:
    """A CTC output layer on the encoder: vocabulary + 1 (the last is the blank)."""
    model.ctc = Linear(model.config.d_model, model.config.vocab_size + 1, init=init, group=Head)


def _size(width, layers, heads, *, decoder_layers=None, vocab=51865, mels=80):
    return WhisperConfig(
        width, layers, decoder_layers or layers, heads, heads, 4 * width, 4 * width, vocab_size=vocab, num_mel_bins=mels
    )


def _micro(width, encoder_layers, decoder_layers, heads):
    """A network for corpora of minutes; its vocabulary is replaced by that of the tokenizer trained on the corpus."""
    return WhisperConfig(
        width,
        encoder_layers,
        decoder_layers,
        heads,
        heads,
        4 * width,
        4 * width,
        vocab_size=512,
        hop=320,
        max_target_positions=64,
        mask_padding=True,
    )


SIZES = {
    "micro": _micro(96, 2, 2, 4),
    "micro-deep": _micro(128, 4, 2, 4),
    "micro-wide": _micro(192, 3, 2, 6),
    "tiny": _size(384, 4, 6),
    "tiny.en": _size(384, 4, 6, vocab=51864),
    "base": _size(512, 6, 8),
    "base.en": _size(512, 6, 8, vocab=51864),
    "small": _size(768, 12, 12),
    "small.en": _size(768, 12, 12, vocab=51864),
    "medium": _size(1024, 24, 16),
    "medium.en": _size(1024, 24, 16, vocab=51864),
    "large": _size(1280, 32, 20),
    "large-v2": _size(1280, 32, 20),
    "large-v3": _size(1280, 32, 20, vocab=51866, mels=128),
    "large-v3-turbo": _size(1280, 32, 20, decoder_layers=4, vocab=51866, mels=128),
}
