"""The least work of each row, counted: arithmetic and bytes, and what they cost at the peaks of this machine.

A multiplication with addition is two operations. Bytes are those that must cross memory at least once: weights, inputs
and outputs, no temporaries. Exact for the network, not for a compiler: XLA's own count takes the body of a loop once.
"""

import dataclasses
import math

from moejax.audio.constants import SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Work:
    """Floating-point operations and bytes; works add, and n * work is n of them after each other."""

    flops: float = 0.0
    bytes: float = 0.0

    def __add__(self, other):
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __rmul__(self, count):
        return Work(count * self.flops, count * self.bytes)

    def seconds(self, flops_per_s: float, bytes_per_s: float) -> float:
        """The longer of the two: arithmetic and memory overlap at best."""
        return max(self.flops / flops_per_s, self.bytes / bytes_per_s)


def product_size(device: str) -> int:
    """Side of the square matrices whose product is the measure of arithmetic: on an accelerator 2048 would measure the
    launch of a kernel of 17 microseconds.
    """
    return 2048 if device == "cpu" else 8192


def product(rows, d_in, d_out) -> Work:
    """A linear layer on `rows` vectors: the weights are read once."""
    return Work(2.0 * rows * d_in * d_out, 0.0)


def mel(batch, seconds, bins) -> Work:
    """Real FFT of 400 (5/2 n log2 n), its power, the filters; waveforms read, features written."""
    frames = batch * seconds * 100
    fft = 2.5 * 400 * math.log2(400) + 400 + 3 * 201
    return Work(frames * (fft + 2 * 201 * bins), 4 * (batch * seconds * SAMPLE_RATE + frames * bins))


def encoder(c, batch, seconds, item=4) -> Work:
    """Forward pass from features to states."""
    T, D, F = seconds * 50, c.d_model, c.encoder_ffn
    rows = batch * T
    convolutions = product(2 * rows, 3 * c.num_mel_bins, D) + product(rows, 3 * D, D)
    layer = 4 * product(rows, D, D) + 2 * product(rows, D, F) + attention(batch, T, T, D)
    weights = 3 * c.num_mel_bins * D + 3 * D * D + c.encoder_layers * (4 * D * D + 2 * D * F)
    moved = item * weights + 4 * 2 * rows * c.num_mel_bins + item * rows * D
    return convolutions + c.encoder_layers * layer + Work(0.0, moved)


def attention(batch, queries, keys, width) -> Work:
    """Scores and weighted sum over all heads."""
    return Work(4.0 * batch * queries * keys * width, 0.0)


def decoder_step(c, batch, seconds, tokens, rank=0, chosen=0, item=4) -> Work:
    """A training step of adapters from encoder states: forward, and backward without gradients of the base's weights.

    Backward doubles each product of activations (its input's gradient only), attention costs twice its forward, and
    nothing flows into the states, so that cross keys and values cost their forward alone. Adapters cost three times
    their forward (theirs, and the gradients of both factors and of the input).
    """
    T, D, F = seconds * 50, c.d_model, c.decoder_ffn
    rows, states = batch * tokens, batch * T
    flowing = 6 * product(rows, D, D) + 2 * product(rows, D, F)
    # causal: half of the scores
    seen = 0.5 * attention(batch, tokens, tokens, D) + attention(batch, tokens, T, D)
    layer = 2 * flowing + 3 * seen + 2 * product(states, D, D)
    wide = 6 * (D + D) * rows + 2 * (D + F) * rows + 2 * (D + D) * states
    adapters = Work(3 * 2.0 * rank * chosen * wide, 0.0)
    weights = c.decoder_layers * (8 * D * D + 2 * D * F) + c.vocab_size * D
    output = 2 * product(rows, D, c.vocab_size)
    moved = Work(0.0, 2 * item * weights + item * states * D)
    return c.decoder_layers * (layer + adapters) + output + moved


def greedy(c, batch, seconds, tokens, prefix, rank=0, chosen=0, item=4) -> list[Work]:
    """Features to tokens: the encoder, the cross keys and values, then one work for each token, bound by memory.

    Each token reads every weight of the decoder and the output matrix, and each utterance's keys and values. The steps
    cannot overlap: their floors add. The prefix needs no logits and no step of its own.
    """
    T, D, F, layers = seconds * 50, c.d_model, c.decoder_ffn, c.decoder_layers
    cross = layers * 2 * product(batch * T, D, D)
    weights = layers * (6 * D * D + 2 * D * F) + c.vocab_size * D
    works = [encoder(c, batch, seconds, item), cross]
    for position in range(prefix - 1, prefix - 1 + tokens):
        flops = layers * (6 * product(batch, D, D) + 2 * product(batch, D, F)) + product(batch, D, c.vocab_size)
        flops = flops + layers * (attention(batch, 1, T, D) + attention(batch, 1, position + 1, D))
        adapters = 2.0 * rank * chosen * batch * layers * (6 * (D + D) + 2 * (D + F))
        read = item * (weights + layers * batch * 2 * D * (T + position + 1))
        works.append(flops + Work(adapters, read + 4 * adapters / 2))
    return works
