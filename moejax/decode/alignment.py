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
        """Words of each row of a `decoder.Encoded` batch.

        A text that the decoder has no room for is read in parts, each behind as much of the text before it as fits; one
        path goes through all of it, so that no word is lost and times never run backwards.
        """
        real = {row: one for row, one in enumerate(asked) if one is not None and one.tokens}
        results: list[list[Timing]] = [[] for _ in asked]
        if not real:
            return results
        prefixes = {row: self.tokenizer.prefix(one.language, self.task) for row, one in real.items()}
        room = max(
            1, self.config.max_target_positions - len(next(iter(prefixes.values()))) - 1
        )  # the end token follows
        parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {row: [] for row in real}
        done = dict.fromkeys(real, 0)
        while left := {row: one for row, one in real.items() if done[row] < len(one.tokens)}:
            spans = {row: _span(done[row], len(one.tokens), room) for row, one in left.items()}
            texts = {row: [*prefixes[row], *one.tokens[slice(*spans[row])]] for row, one in left.items()}
            weight_BLT, prob_BL = self._read(encoded, texts, {row: _frames(one) for row, one in left.items()})
            for row, one in left.items():
                start, stop = len(prefixes[row]) + done[row] - spans[row][0], len(texts[row])
                # The no-timestamps token, the last of the prefix, is the first whose place counts.
                seen_LT = weight_BLT[row, start - (done[row] == 0) : stop, : _frames(one)]
                parts[row].append((seen_LT, prob_BL[row, start:stop]))
                done[row] = spans[row][1]
        for row, one in real.items():
            weights, probs = zip(*parts[row], strict=True)
            results[row] = timings(
                np.concatenate(weights),
                np.concatenate(probs),
                one.tokens,
                self.tokenizer,
                self.tokenizer.target if self.task == "translate" and self.tokenizer.target else one.language,
                seconds_per_frame=STRIDE * self.config.hop / SAMPLE_RATE,
            )
        return results

    def _read(self, encoded, texts: dict[int, list[int]], frames: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """`make_align` of some rows' ids, the end token put behind each, numpy."""
        context, longest = self.config.max_target_positions, 1 + max(map(len, texts.values()))
        length = min((size for size in (*LENGTHS, context) if size >= longest), default=context)
        batch = encoded.states_BTD.shape[0]
        tokens_BL = np.full((batch, length), self.tokenizer.eot, np.int32)
        count_B, frames_B = np.ones(batch, np.int32), np.ones(batch, np.int32)
        for row, ids in texts.items():
            tokens_BL[row, : len(ids)] = ids
            count_B[row], frames_B[row] = len(ids) + 1, frames[row]
        found = self._run(self.params, encoded.states_BTD, encoded.mask_BT, encoded.route, tokens_BL, count_B, frames_B)
        return np.asarray(found[0]), np.asarray(found[1])


def _span(done: int, length: int, room: int) -> tuple[int, int]:
    """Of `length` tokens, `done` of them read, those that are read next: the text before fills at least half of it."""
    stop = min(length, room if done == 0 else done - (-room // 2))
    return max(0, stop - room), stop


def _frames(one: Asked) -> int:
    return max(1, one.frames // STRIDE)


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
