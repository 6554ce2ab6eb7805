"""Beam search, batched over utterances, with the rules of openai-whisper or of transformers' `generate`.

Both keep W hypotheses and, in each step, look at the 2 W best continuations of an utterance: at most W of them end, so
W go on. They differ in what may finish, how finished ones are scored, and when the search stops; `_finish_*` and the
first lines of `choose` are these differences. An utterance that is done is frozen, so that the others' length does not
change it. A reordered beam moves ancestry bits, never keys or values (see `nn.incremental`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moejax.decode import rules as ruling
from moejax.decode.prefix import Start
from moejax.decode.rules import Rules
from moejax.decode.search import Decoded, SearchPlan, pick, prefill, read_next, score, visible_prefix, visit
from moejax.nn.incremental import Reader

FLOOR = -1e9  # "not there", as in transformers: finite, so that sums and differences stay numbers


class _Finished(NamedTuple):
    """Hypotheses that ended, at most C per utterance; free places have score FLOOR."""

    tokens_BCL: Any
    lengths_BC: Any  # before the end token
    sum_BC: Any
    score_BC: Any  # what transformers ranks by, at the length they ended with
    count_B: Any


class _Beam(NamedTuple):
    count: Any
    tokens_BWL: Any
    sum_BW: Any
    visible_BWS: Any
    finished: _Finished
    done_B: Any
    steps_B: Any  # tokens of the running hypotheses when the utterance was done


def beam_search(
    model,
    states_BTD,
    start: Start,
    rules: Rules,
    *,
    plan: SearchPlan,
    mask_BT=None,
    route=None,
    reader: type[Reader] = Reader,
) -> Decoded:
    """The best hypothesis of each utterance; arguments as in `search.sample`.

    "openai": `BeamSearchDecoder` and `MaximumLikelihoodRanker` of the reference. "transformers": `_beam_search` of its
    generation code. `sum_logprob` includes the end token's only where the hypothesis has ended, as in both.
    """
    reading = reader(model, states_BTD, mask_BT, route)
    prefixed = prefill(reading, start, plan)
    B, W, L = states_BTD.shape[0], plan.width, plan.max_tokens
    places = W if plan.ranking == "transformers" else round(W * (plan.patience or 1.0))
    limit_B = jnp.asarray(start.limit_B)

    def choose(x_BWD, now: _Beam):
        logits_RV = reading.logits(x_BWD).reshape(B * W, -1)
        ruled_RV = ruling.apply(rules, logits_RV, now.tokens_BWL.reshape(B * W, L), now.count)
        # transformers normalises before the rules, openai-whisper after.
        norm_R = jax.nn.logsumexp(logits_RV if plan.ranking == "transformers" else ruled_RV, axis=-1)
        sum_BWV = (ruled_RV - norm_R[:, None]).reshape(B, W, -1) + now.sum_BW[..., None]
        # One utterance at a time gives at most one more ending per hypothesis, so W + 1 of each are enough.
        value_BWK, token_BWK = jax.lax.top_k(sum_BWV, min(W + 1, sum_BWV.shape[-1]))
        sum_BK, at_BK = jax.lax.top_k(value_BWK.reshape(B, -1), min(2 * W, value_BWK[0].size))
        source_BK = at_BK // token_BWK.shape[-1]
        token_BK = jnp.take_along_axis(token_BWK.reshape(B, -1), at_BK, axis=1)
        ends_BK = token_BK == plan.eot
        tokens_BKL = jax.lax.dynamic_update_slice_in_dim(
            pick_many(now.tokens_BWL, source_BK), token_BK[..., None], now.count, axis=2
        )
        full_B = now.count + 1 >= limit_B
        finish = _finish_transformers if plan.ranking == "transformers" else _finish_openai
        finished = finish(now, tokens_BKL, sum_BK, ends_BK, full_B, plan)
        # The W best that go on, in order.
        rank_BK = jnp.where(ends_BK, 2 * W, 0) + jnp.arange(ends_BK.shape[1])[None]
        _, on_BW = jax.lax.top_k(-rank_BK, W)
        running = (
            pick_many(tokens_BKL, on_BW),
            jnp.take_along_axis(sum_BK, on_BW, axis=1),
            pick_many(now.visible_BWS, jnp.take_along_axis(source_BK, on_BW, axis=1)),
        )
        old = (now.tokens_BWL, now.sum_BW, now.visible_BWS)
        tokens_BWL, sum_BW, visible_BWS = _where(now.done_B, old, running)
        finished = _where(now.done_B, now.finished, finished)
        done_B = now.done_B | full_B | _satisfied(finished, sum_BW, now.count + 1, limit_B, plan)
        steps_B = jnp.where(now.done_B, now.steps_B, now.count + 1)
        return _Beam(now.count + 1, tokens_BWL, sum_BW, visible_BWS, finished, done_B, steps_B)

    def going(carry):
        return (carry[0].count < L) & ~jnp.all(carry[0].done_B)

    def step(carry):
        now, cache = carry
        last_BW = jax.lax.dynamic_index_in_dim(now.tokens_BWL, now.count - 1, axis=2, keepdims=False)
        now = now._replace(visible_BWS=visit(now.visible_BWS, start, plan, now.count - 1))
        x_BWD, cache = read_next(reading, start, plan, last_BW, now.count - 1, cache, now.visible_BWS)
        return choose(x_BWD, now), cache

    # All hypotheses begin alike: only the first counts, or the beam would hold W copies of it.
    sum_BW = jnp.where(jnp.arange(W) == 0, 0.0, FLOOR)[None].repeat(B, 0)
    now = _Beam(
        jnp.int32(0),
        jnp.full((B, W, L), plan.eot, jnp.int32),
        sum_BW,
        visible_prefix(start, plan),
        _nothing(B, places, L, plan.eot),
        limit_B < 1,
        jnp.zeros((B,), jnp.int32),
    )
    now = choose(jnp.broadcast_to(prefixed.x_BD[:, None], (B, W, prefixed.x_BD.shape[-1])), now)
    now, _ = jax.lax.while_loop(going, step, (now, prefixed.cache))
    tokens_BL, lengths_B, sum_B = _best(now, plan, ruling.said_by_force(rules))
    return Decoded(tokens_BL, lengths_B, sum_B, prefixed.no_speech_B)


def _finish_openai(now, tokens_BKL, sum_BK, ends_BK, full_B, plan):
    """Endings that rank before the W-th continuation join, best first, while there is a free place."""
    del full_B
    goes_on_BK = jnp.cumsum(~ends_BK, axis=1)
    joins_BK = ends_BK & (goes_on_BK < plan.width)
    place_BK = now.finished.count_B[:, None] + jnp.cumsum(joins_BK, axis=1) - 1
    places = now.finished.sum_BC.shape[1]
    place_BK = jnp.where(joins_BK & (place_BK < places), place_BK, places)  # one past the end: dropped
    length = jnp.full(sum_BK.shape, now.count, jnp.int32)
    return _Finished(
        _put(now.finished.tokens_BCL, place_BK, tokens_BKL),
        _put(now.finished.lengths_BC, place_BK, length),
        _put(now.finished.sum_BC, place_BK, sum_BK),
        _put(now.finished.score_BC, place_BK, sum_BK),
        jnp.minimum(now.finished.count_B + joins_BK.sum(1), places),
    )


def _finish_transformers(now, tokens_BKL, sum_BK, ends_BK, full_B, plan):
    """Endings among the W best (all of them at the limit) and the finished ones compete for the W places by score."""
    stops_BK = ends_BK | full_B[:, None]
    joins_BK = stops_BK & (jnp.arange(ends_BK.shape[1]) < plan.width)[None]
    power = 1.0 if plan.length_penalty is None else plan.length_penalty
    score_BK = jnp.where(joins_BK, sum_BK / (now.count + 1.0) ** power, FLOOR)
    if plan.early_stopping is True:
        score_BK = jnp.where((now.finished.count_B >= plan.width)[:, None], FLOOR, score_BK)
    length_BK = now.count + 1 - ends_BK.astype(jnp.int32)
    old = now.finished
    merged = (
        jnp.concatenate([old.tokens_BCL, tokens_BKL], axis=1),
        jnp.concatenate([old.lengths_BC, length_BK], axis=1),
        jnp.concatenate([old.sum_BC, sum_BK], axis=1),
    )
    score_BC, kept_BC = jax.lax.top_k(jnp.concatenate([old.score_BC, score_BK], axis=1), plan.width)
    tokens_BCL, lengths_BC, sum_BC = (pick_many(x, kept_BC) for x in merged)
    return _Finished(tokens_BCL, lengths_BC, sum_BC, score_BC, (score_BC > FLOOR).sum(1, dtype=jnp.int32))


def _satisfied(finished, sum_BW, count, limit_B, plan):
    """Whether an utterance needs no more steps."""
    if plan.ranking == "openai":
        return finished.count_B >= finished.sum_BC.shape[1]
    power = 1.0 if plan.length_penalty is None else plan.length_penalty
    length_B = limit_B if plan.early_stopping == "never" and power > 0 else jnp.full(limit_B.shape, count)
    possible_B = sum_BW[:, 0] / jnp.maximum(length_B, 1).astype(jnp.float32) ** power
    hopeless_B = possible_B <= finished.score_BC.min(1)
    if plan.early_stopping is True:
        return hopeless_B | (finished.count_B >= plan.width)
    return hopeless_B


def _best(now, plan, forced):
    """(tokens, length, sum) of the best hypothesis; the running ones fill up where too few have finished. `forced`
    tokens do not count in its length.
    """
    finished, W = now.finished, plan.width
    if plan.ranking == "transformers":
        return pick((finished.tokens_BCL, finished.lengths_BC, finished.sum_BC), jnp.argmax(finished.score_BC, axis=1))
    there_BC = jnp.arange(finished.sum_BC.shape[1])[None] < finished.count_B[:, None]
    # Running hypotheses are sorted: the first W - count of them fill up.
    fills_BW = jnp.arange(W)[None] < (W - finished.count_B)[:, None]
    lengths_BW = jnp.broadcast_to(now.steps_B[:, None], now.sum_BW.shape)
    every = (
        jnp.concatenate([finished.tokens_BCL, now.tokens_BWL], axis=1),
        jnp.concatenate([finished.lengths_BC, lengths_BW], axis=1),
        jnp.concatenate([finished.sum_BC, now.sum_BW], axis=1),
    )
    there = jnp.concatenate([there_BC, fills_BW], axis=1)
    return pick(every, jnp.argmax(jnp.where(there, score(every[2], every[1] - forced, plan), -jnp.inf), axis=1))


def pick_many(x, index_BK):
    """Rows `index_BK` of the second axis of x [B, W, ...]."""
    return jax.vmap(lambda row, index: row[index])(x, index_BK)


def _nothing(B, C, L, eot):
    floor_BC, zero_BC = jnp.full((B, C), FLOOR, jnp.float32), jnp.zeros((B, C), jnp.int32)
    return _Finished(jnp.full((B, C, L), eot, jnp.int32), zero_BC, floor_BC, floor_BC, zero_BC[:, 0])


def _put(x, place_BK, new):
    """x [B, C, ...] with rows `new` at their places; a place past the end is dropped."""
    return jax.vmap(lambda row, place, one: row.at[place].set(one, mode="drop"))(x, place_BK, new)


def _where(done_B, old, new):
    """`old` where an utterance is done."""
    return jax.tree.map(lambda a, b: jnp.where(done_B.reshape(-1, *[1] * (a.ndim - 1)), a, b), old, new)
