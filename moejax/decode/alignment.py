"""Word times: the decoder reads its own text again, and the heads that follow the audio say where each token was heard.

The encoder's states are those of the window's decoding, so only the decoder runs a second time, and each row keeps its
own mixture of experts.
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from moejax.audio.constants import SAMPLE_RATE, STRIDE
from moejax.decode.words import Timing, timings
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.nn.attention_scores import cross_scores
from moejax.ops.alignment import token_frame_weights
from moejax.runtime import programs

LENGTHS = (32, 64, 128, 256)  # static numbers of tokens; the longest is the decoder's context


class Asked(NamedTuple):
    """What one window's words are asked for: its text tokens, its language, its real length in mel frames."""

    tokens: list[int]
    language: str
    frames: int


# (batch that was encoded, one question per real row, None for rows without one) -> words per row, none without question
Align = Callable[[object, Sequence[Asked | None]], list[list[Timing]]]


def upper_heads(config) -> list[tuple[int, int]]:
    """All heads of the upper half of the decoder: the reference's choice for networks without a published list."""
    layers = range(config.decoder_layers // 2, config.decoder_layers)
    return [(layer, head) for layer in layers for head in range(config.decoder_heads)]


class Aligner:
    """Finds the words' times of encoded windows; an `Align`."""

    def __init__(self, graphdef, params, config, tokenizer, *, heads=None, task: str = "transcribe"):
        """`heads`: (layer, head) pairs, such as `alignment_heads.PUBLISHED[...]`; None: `upper_heads(config)`."""
        self.params, self.config, self.tokenizer, self.task = params, config, tokenizer, task
        self.heads = tuple((int(layer), int(head)) for layer, head in heads or upper_heads(config))
        self._run = make_align(graphdef, self.heads, eot=tokenizer.eot)

    def __call__(self, encoded, asked: Sequence[Asked | None]) -> list[list[Timing]]:
        """Words of each row of a `decoder.Encoded` batch. Errors: ValueError for text longer than the context."""
        real = {row: one for row, one in enumerate(asked) if one is not None and one.tokens}
        if not real:
            return [[] for _ in asked]
        prefixes = {row: self.tokenizer.prefix(one.language, self.task) for row, one in real.items()}
        start = len(next(iter(prefixes.values()))) - 1  # the no-timestamps token is the first whose place counts
        full = {row: [*prefixes[row], *one.tokens, self.tokenizer.eot] for row, one in real.items()}
        longest = max(map(len, full.values()))
        context = self.config.max_target_positions
        if longest > context:
            raise BadValue(f"aligning {longest} tokens, the decoder has room for {context}")
        length = min((size for size in (*LENGTHS, context) if size >= longest), default=context)
        batch = encoded.states_BTD.shape[0]
        tokens_BL = np.full((batch, length), self.tokenizer.eot, np.int32)
        count_B, frames_B = np.ones(batch, np.int32), np.ones(batch, np.int32)
        for row, ids in full.items():
            tokens_BL[row, : len(ids)] = ids
            count_B[row], frames_B[row] = len(ids), max(1, real[row].frames // STRIDE)
        found = self._run(self.params, encoded.states_BTD, encoded.mask_BT, encoded.route, tokens_BL, count_B, frames_B)
        weight_BLT, prob_BL = (np.asarray(part) for part in found)
        results = [[] for _ in asked]
        for row, one in real.items():
            stop = int(count_B[row]) - 1
            results[row] = timings(
                weight_BLT[row, start:stop, : frames_B[row]],
                prob_BL[row, start + 1 : stop],
                one.tokens,
                self.tokenizer,
                self.tokenizer.target if self.task == "translate" and self.tokenizer.target else one.language,
                seconds_per_frame=STRIDE * self.config.hop / SAMPLE_RATE,
            )
        return results


def make_align(graphdef, heads, *, eot: int):
    """Jitted `(params, states_BTD, mask_BT, route, tokens_BL, count_B, frames_B) -> (weight_BLT, prob_BL)`.

    `weight_BLT` as `ops.alignment.token_frame_weights`; `prob_BL` the probability of each token after those before it,
    among text tokens only (0 for the first and for special tokens).
    """

    @jax.jit
    def run(params, states_BTD, mask_BT, route, tokens_BL, count_B, frames_B):
        model = functional.merge(graphdef, params)
        score_BHLT, x_BLD = cross_scores(model, tokens_BL, states_BTD, heads, mask_BT, route)
        weight_BLT = token_frame_weights(score_BHLT, count_B, frames_B)
        # One row at a time: the logits of a batch are the largest array of the whole computation.
        prob_BL = jax.lax.map(functools.partial(_probabilities, model.decoder, eot), (x_BLD, tokens_BL))
        return weight_BLT, prob_BL

    return programs.kept(run, graphdef, tuple(heads), eot)


def _probabilities(decoder, eot, row):
    x_LD, tokens_L = row
    logits_LV = decoder.logits(x_LD[None])[0, :-1, :eot]
    prob_LV = jax.nn.softmax(logits_LV, axis=-1)
    next_L = tokens_L[1:]
    prob_L = jnp.take_along_axis(prob_LV, jnp.minimum(next_L, eot - 1)[:, None], axis=1)[:, 0]
    return jnp.pad(jnp.where(next_L < eot, prob_L, 0.0), (1, 0))
