"""Connectionist temporal classification (Graves et al. 2006): how likely a text is, and when each of its labels sounds.

A path goes through `S = 2 L + 1` places, a blank before, between and after the labels; from one frame to the next it
stays, moves on, or passes over a blank that stands between two different labels. All is in logarithms, and rows are
padded: frames past `frames_B` and labels past `count_B` mean nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from moejax.types import Array

NEVER = -1e30  # a probability of zero that can be subtracted from itself; its gradient is zero, not NaN
BLANK = 0


class Spans(NamedTuple):
    """When each label of a text sounds, by its likeliest path."""

    first_BL: Array  # its first frame, int32
    last_BL: Array  # its last frame, int32; both 0 past the count
    score_BL: Array  # mean log probability over its frames
    total_B: Array  # log probability of the whole path; below `NEVER / 2` where the text has more labels than frames


def needed(labels: list[int]) -> int:
    """Frames that a text takes at least: one for each label, and a blank between two equal ones."""
    return len(labels) + sum(one == other for one, other in zip(labels, labels[1:], strict=False))


def log_likelihood(logp_BTC: Array, frames_B: Array, labels_BL: Array, count_B: Array) -> Array:
    """Log of the summed probability of all paths of each text, `[B]` float32; far below zero where there is none.

    logp_BTC: log probability of each class in each frame (or anything to be added up: a score need not sum to one);
    class 0 is the blank. Equal to `-optax.ctc_loss` on log probabilities.
    """
    return jax.vmap(_sum_of_row)(logp_BTC.astype(jnp.float32), frames_B, labels_BL, count_B)


def align(logp_BTC: Array, frames_B: Array, labels_BL: Array, count_B: Array) -> Spans:
    """The likeliest path of each text (Viterbi), as the first and last frame of its labels. Arguments as above."""
    return Spans(*jax.vmap(_best_of_row)(logp_BTC.astype(jnp.float32), frames_B, labels_BL, count_B))


def _places(labels_L):
    """(class of each place [S], whether it may be reached over the blank before it [S])."""
    S = 2 * labels_L.shape[0] + 1
    class_S = jnp.full(S, BLANK, labels_L.dtype).at[1::2].set(labels_L)
    before_S = jnp.concatenate([jnp.full(2, BLANK, labels_L.dtype), class_S[:-2]])
    return class_S, (class_S != BLANK) & (class_S != before_S)


def _arrivals(score_S, skip_S):
    """Scores [3, S] of the place itself, of the one before it, and of the one before that where a blank is skipped."""
    never = jnp.full(2, NEVER)
    two = jnp.concatenate([never, score_S[:-2]])
    return jnp.stack([score_S, jnp.concatenate([never[:1], score_S[:-1]]), jnp.where(skip_S, two, NEVER)])


def _begin(logp_TC, class_S):
    return jnp.where(jnp.arange(class_S.shape[0]) < 2, logp_TC[0, class_S], NEVER)


def _end(score_S, count):
    """Scores of the two places where a text may end: its last label, and the blank behind it."""
    last = jnp.where(count > 0, score_S[jnp.maximum(2 * count - 1, 0)], NEVER)
    return jnp.stack([last, score_S[2 * count]])


def _sum_of_row(logp_TC, frames, labels_L, count):
    class_S, skip_S = _places(labels_L)

    def step(score_S, now):
        t, logp_C = now
        new_S = jax.nn.logsumexp(_arrivals(score_S, skip_S), axis=0) + logp_C[class_S]
        return jnp.where(t < frames, jnp.maximum(new_S, NEVER), score_S), None

    T = logp_TC.shape[0]
    score_S, _ = jax.lax.scan(step, _begin(logp_TC, class_S), (jnp.arange(1, T), logp_TC[1:]))
    return jax.nn.logsumexp(_end(score_S, count))


def _best_of_row(logp_TC, frames, labels_L, count):
    class_S, skip_S = _places(labels_L)
    T, L = logp_TC.shape[0], labels_L.shape[0]

    def forward(score_S, now):
        t, logp_C = now
        from_3S = _arrivals(score_S, skip_S)
        step_S = jnp.argmax(from_3S, axis=0)  # of equals the one that stays
        new_S = jnp.max(from_3S, axis=0) + logp_C[class_S]
        real = t < frames
        return jnp.where(real, jnp.maximum(new_S, NEVER), score_S), jnp.where(real, step_S, 0).astype(jnp.int8)

    score_S, step_TS = jax.lax.scan(forward, _begin(logp_TC, class_S), (jnp.arange(1, T), logp_TC[1:]))
    end_2 = _end(score_S, count)
    place = 2 * count - 1 + jnp.argmax(end_2)

    def backward(place, step_S):
        before = place - step_S[place]
        return before, before

    _, before_T = jax.lax.scan(backward, place, step_TS, reverse=True)
    place_T = jnp.concatenate([before_T, place[None]])  # of frames past the real ones: the last place
    sounds_LT = (place_T[None] == 2 * jnp.arange(L)[:, None] + 1) & (jnp.arange(T) < frames)[None]
    sounds_LT &= (jnp.arange(L) < count)[:, None]
    any_L = sounds_LT.any(axis=1)
    first_L = jnp.argmax(sounds_LT, axis=1)
    last_L = jnp.where(any_L, T - 1 - jnp.argmax(sounds_LT[:, ::-1], axis=1), 0)
    logp_LT = logp_TC[:, labels_L].T
    score_L = jnp.where(sounds_LT, logp_LT, 0.0).sum(axis=1) / jnp.maximum(sounds_LT.sum(axis=1), 1)
    return first_L.astype(jnp.int32), last_L.astype(jnp.int32), score_L, jnp.max(end_2)
