"""A small text-to-text transformer for the offline translator: Whisper's decoder on top of an encoder of tokens."""

import jax.numpy as jnp
from flax import nnx

from moejax.nn.layers import Block, LayerNorm
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper, WhisperConfig
from moejax.types import Array


class TextEncoder(nnx.Module):
    """tokens [B, T] -> states [B, T, D]; shares the decoder's embedding and positions, which its caller adds."""

    def __init__(self, config: WhisperConfig, *, init: Init):
        c = config
        self.layers = nnx.List(
            [Block(c.d_model, c.encoder_heads, c.encoder_ffn, cross=False, init=init) for _ in range(c.encoder_layers)]
        )
        self.norm = LayerNorm(c.d_model, init=init)

    def __call__(self, x_BTD: Array, mask_BT: Array) -> Array:
        for block in self.layers:
            x_BTD = block(x_BTD, mask_BT=mask_BT)
        return self.norm(x_BTD)


class Translator(Whisper):
    """Source tokens in, target tokens out; decodes with the same search as recognition."""

    def __init__(self, config: WhisperConfig, *, init: Init):
        super().__init__(config, init=init)
        self.encoder = TextEncoder(config, init=init)

    def encode(self, source_BT: Array, mask_BT: Array) -> Array:
        """States of source tokens; padding is masked."""
        return self.encoder(self.decoder.inputs(jnp.asarray(source_BT)), mask_BT)
