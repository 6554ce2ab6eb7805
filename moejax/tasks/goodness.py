"""Goodness of pronunciation: how well each unit of a known text is what a CTC head hears where it should be.

Alignment-free (Cao, Fan, Svendsen and Salvi 2024, A Framework for Phoneme-Level Pronunciation Assessment Using CTC):
the log probability of the text, less that of the text in which one unit may be any other, or none. So CTC's peaks and
the frames between them do not matter, and a sound that was left out counts like one that was another.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import numpy as np

from moejax.ops import ctc
from moejax.tasks.forced import FRAMES, LABELS

_ROWS = 32  # texts at once
FLOOR = -60.0  # below it all is alike: the sound is another


def goodness(
    logp_TC: np.ndarray, labels: Sequence[int], others: Sequence[int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(goodness of each unit, goodness of the units `others` in their places), [L] float32 each, 0 at best:
    log P(text) - log(P(text with any unit there) + P(text without it)).

    `logp_TC`: log probabilities of blank (class 0) and units in each frame. A text of more units than frames can hold
    has `FLOOR` everywhere. `others` tell what a sound gets that is not the one asked for; None: no second part.
    """
    T, L, labels = len(logp_TC), len(labels), list(labels)
    if not L or ctc.needed(labels) > T:
        return np.full(L, FLOOR, np.float32), np.full(L if others is not None else 0, FLOOR, np.float32)
    any_T = np.logaddexp.reduce(logp_TC[:, 1:], axis=1)
    # The last class is any unit; frames behind the end mean nothing
    wide_TC = np.pad(np.concatenate([logp_TC, any_T[:, None]], axis=1), ((0, -T % FRAMES), (0, 0)))
    texts = [labels]
    texts += [_with(labels, place, logp_TC.shape[1]) for place in range(L)]
    texts += [[*labels[:place], *labels[place + 1 :]] for place in range(L)]
    texts += [] if others is None else [_with(labels, place, int(other)) for place, other in enumerate(others)]
    found = _likelihoods(wide_TC.astype(np.float32), T, texts)
    free_L = np.logaddexp(found[1 : L + 1], found[L + 1 : 2 * L + 1])

    def share(asked):
        return np.maximum(np.minimum(asked - free_L, 0.0), FLOOR).astype(np.float32)

    return share(found[0]), share(found[2 * L + 1 :]) if others is not None else np.zeros(0, np.float32)


def _with(labels: list[int], place: int, unit: int) -> list[int]:
    return [*labels[:place], unit, *labels[place + 1 :]]


def _likelihoods(wide_TC: np.ndarray, frames: int, texts: list[list[int]]) -> np.ndarray:
    width = max(map(len, texts))
    width += -width % LABELS
    label_NL = np.zeros((len(texts) + (-len(texts) % _ROWS), width), np.int32)
    count_N = np.zeros(len(label_NL), np.int32)
    for row, text in enumerate(texts):
        label_NL[row, : len(text)], count_N[row] = text, len(text)
    run = _program()
    parts = [
        np.asarray(run(wide_TC, np.int32(frames), label_NL[at : at + _ROWS], count_N[at : at + _ROWS]))
        for at in range(0, len(label_NL), _ROWS)
    ]
    return np.concatenate(parts)[: len(texts)].astype(np.float64)


@functools.cache
def _program():
    @jax.jit
    def run(logp_TC, frames, label_BL, count_B):
        def one(label_L, count):
            return ctc.log_likelihood(logp_TC[None], frames[None], label_L[None], count[None])[0]

        return jax.vmap(one)(label_BL, count_B)

    return run
