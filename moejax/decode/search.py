"""Greedy search and sampling: one traced function with a static cache, batched, ending early.

The prefix is read in one parallel pass; then a `while_loop`, layers unrolled in its body, reads one token per
hypothesis and chooses the next until every row has ended.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from moejax.decode import rules as ruling
from moejax.decode.prefix import Start
from moejax.decode.rules import Rules
from moejax.nn.incremental import Reader


@dataclasses.dataclass(frozen=True)
class SearchPlan:
    """What a search compiles to; see `DecodingOptions` for the meanings. `width`: beams, or samples per row."""

    eot: int
    max_tokens: int
    no_speech: int | None = None
    beam: bool = False
    width: int = 1
    patience: float | None = None
    length_penalty: float | None = None
    ranking: str = "openai"
    early_stopping: bool | str = False


class Draws(NamedTuple):
    """Where a search's random numbers come from: the same for the same window, whatever shares its batch."""

    seed: Any  # uint32
    rung: Any  # uint32, the temperature in thousandths
    content_B: Any  # uint32, from what each row's window holds

    def keys(self) -> jax.Array:
        """A random key for each row."""
        key = jax.random.key(self.seed)
        keys_B = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.asarray(self.content_B))
        return jax.vmap(jax.random.fold_in, (0, None))(keys_B, self.rung)


class Decoded(NamedTuple):
    """What a search found; the prefix is not repeated in it."""

    tokens_BL: jax.Array  # int32, padded with the end token
    lengths_B: jax.Array  # int32, tokens before the end token; equals L where the limit came first
    sum_logprob_B: jax.Array  # float32, of the chosen tokens and the end token, under the rules
    no_speech_B: jax.Array  # float32, probability of the no-speech token after the start token (0 where not asked)


class Prefixed(NamedTuple):
    """A prefix that was read."""

    x_BD: jax.Array  # hidden state of its last token
    cache: list  # room for the prefix, then `max_tokens` times one column per hypothesis
    no_speech_B: jax.Array


def prefill(reader: Reader, start: Start, plan: SearchPlan) -> Prefixed:
    """Reads all prefixes in one pass. Padding on the left is seen by nobody."""
    tokens_BP, pad_B = jnp.asarray(start.tokens_BP), jnp.asarray(start.pad_B)
    B, P = tokens_BP.shape
    column_P = jnp.arange(P)
    real_BP = column_P[None] >= pad_B[:, None]
    visible_BPP = real_BP[:, None] & (column_P[None] <= column_P[:, None])[None]
    position_BP = jnp.maximum(column_P[None] - pad_B[:, None], 0)
    x_BPD, cache = reader.read(tokens_BP, position_BP, reader.cache(P), 0, visible_BPP)
    cache = reader.grow(cache, plan.max_tokens * plan.width)
    no_speech_B = jnp.zeros((B,), jnp.float32)
    if plan.no_speech is not None:
        x_B1D = jnp.take_along_axis(x_BPD, jnp.asarray(start.sot_B)[:, None, None], axis=1)
        no_speech_B = jax.nn.softmax(reader.logits(x_B1D)[:, 0], axis=-1)[:, plan.no_speech]
    return Prefixed(x_BPD[:, -1], cache, no_speech_B)


def visible_prefix(start: Start, plan: SearchPlan):
    """visible_BWS with the prefix's columns true for every hypothesis, those of generated tokens still false."""
    (B, P), W = start.tokens_BP.shape, plan.width
    real_BP = jnp.arange(P)[None] >= jnp.asarray(start.pad_B)[:, None]
    real_BWP = jnp.broadcast_to(real_BP[:, None], (B, W, P))
    return jnp.pad(real_BWP, ((0, 0), (0, 0), (0, plan.max_tokens * W)))


def visit(visible_BWS, start: Start, plan: SearchPlan, count):
    """Hypotheses see the column that they write in step `count`."""
    first = start.tokens_BP.shape[1] + count * plan.width
    own_WS = jnp.arange(visible_BWS.shape[2])[None] == first + jnp.arange(plan.width)[:, None]
    return visible_BWS | own_WS[None]


def read_next(reader: Reader, start: Start, plan: SearchPlan, tokens_BW, count, cache, visible_BWS):
    """Hidden states [B, W, D] after the token chosen in step `count` (from 0)."""
    P = start.tokens_BP.shape[1]
    position_B1 = (P - jnp.asarray(start.pad_B) + count)[:, None]
    position_BW = jnp.broadcast_to(position_B1, tokens_BW.shape)
    return reader.read(tokens_BW, position_BW, cache, P + count * plan.width, visible_BWS)


class _Samples(NamedTuple):
    count: jax.Array
    tokens_BWL: jax.Array
    ended_BW: jax.Array
    sum_BW: jax.Array


def sample(
    model,
    states_BTD,
    start: Start,
    rules: Rules,
    *,
    plan: SearchPlan,
    temperature=0.0,
    keys_B=None,
    mask_BT=None,
    route=None,
    reader: type[Reader] = Reader,
):
    """Likeliest next token each time at temperature 0 (traced), a draw from the tempered distribution above.

    Args:
      model: `nn.whisper.Whisper`, merged inside the caller's trace.
      states_BTD, mask_BT: encoder states, and which are of real audio (only models with `mask_padding` look at it).
      start: prefixes; a row generates at most `limit_B` tokens, the end token included.
      temperature: scalar; keys_B: one random key per row, so that a row's draws do not depend on its neighbours.
        None: greedy, and no random numbers in the program.
      route: `types.Route` of the experts, fixed for the whole search.
      reader: what reads tokens of this kind of model.

    With `plan.width` above 1 that many samples are drawn per row and the likeliest (by `length_penalty`) is kept.
    Returns `Decoded`: rows do not see each other, a batch gives what its rows give alone. Log-probabilities are those
    of the reference: under the rules, not divided by the temperature, the end token's among them.
    """
    reading = reader(model, states_BTD, mask_BT, route)
    prefixed = prefill(reading, start, plan)
    B, W, L = states_BTD.shape[0], plan.width, plan.max_tokens
    limit_B1 = jnp.asarray(start.limit_B)[:, None]

    def choose(x_BWD, now: _Samples):
        logits_RV = reading.logits(x_BWD).reshape(B * W, -1)
        logits_RV = ruling.apply(rules, logits_RV, now.tokens_BWL.reshape(B * W, L), now.count)
        next_R, best_R = argmax(logits_RV)
        norm_R = jax.nn.logsumexp(logits_RV, axis=-1)
        if keys_B is not None:
            next_R = jax.lax.cond(
                temperature > 0, lambda: _draw(logits_RV / temperature, keys_B, now.count, W), lambda: next_R
            )
            best_R = jnp.take_along_axis(logits_RV, next_R[:, None], axis=1)[:, 0]
        next_BW = jnp.where(now.ended_BW, plan.eot, next_R.reshape(B, W))
        sum_BW = jnp.where(now.ended_BW, now.sum_BW, now.sum_BW + (best_R - norm_R).reshape(B, W))
        tokens_BWL = jax.lax.dynamic_update_slice_in_dim(now.tokens_BWL, next_BW[..., None], now.count, axis=2)
        ended_BW = now.ended_BW | (next_BW == plan.eot) | (now.count + 1 >= limit_B1)
        return _Samples(now.count + 1, tokens_BWL, ended_BW, sum_BW)

    def going(carry):
        now, _, _ = carry
        return (now.count < L) & ~jnp.all(now.ended_BW)

    def step(carry):
        now, cache, visible_BWS = carry
        last_BW = jax.lax.dynamic_index_in_dim(now.tokens_BWL, now.count - 1, axis=2, keepdims=False)
        visible_BWS = visit(visible_BWS, start, plan, now.count - 1)
        x_BWD, cache = read_next(reading, start, plan, last_BW, now.count - 1, cache, visible_BWS)
        return choose(x_BWD, now), cache, visible_BWS

    now = _Samples(
        jnp.int32(0),
        jnp.full((B, W, L), plan.eot, jnp.int32),
        jnp.broadcast_to(limit_B1 < 1, (B, W)),
        jnp.zeros((B, W), jnp.float32),
    )
    now = choose(jnp.broadcast_to(prefixed.x_BD[:, None], (B, W, prefixed.x_BD.shape[-1])), now)
    now, _, _ = jax.lax.while_loop(going, step, (now, prefixed.cache, visible_prefix(start, plan)))
    lengths_BW = jnp.sum(now.tokens_BWL != plan.eot, axis=2, dtype=jnp.int32)
    best_B = (
        jnp.argmax(score(now.sum_BW, lengths_BW - ruling.said_by_force(rules), plan), axis=1)
        if W > 1
        else jnp.zeros((B,), jnp.int32)
    )
    tokens_BL, lengths_B, sum_B = pick((now.tokens_BWL, lengths_BW, now.sum_BW), best_B)
    return Decoded(tokens_BL, lengths_B, sum_B, prefixed.no_speech_B)


def score(sum_BW, length_BW, plan: SearchPlan):
    """The reference's `MaximumLikelihoodRanker`: by length before the end token, or the penalty of Wu et al. 2016.

    An empty hypothesis counts as one token long (the reference divides by zero there).
    """
    if plan.length_penalty is None:
        return sum_BW / jnp.maximum(length_BW, 1)
    return sum_BW / ((5 + length_BW) / 6) ** plan.length_penalty


def pick(tree, index_B):
    """Hypothesis `index_B` of every row, of arrays [B, W, ...]."""
    return jax.tree.map(lambda x: jax.vmap(lambda row, i: row[i])(x, index_B), tree)


def argmax(logits_BV):
    """Index and value of each row's maximum, the first of equals.

    Two plain reductions: XLA's own argmax carries (value, index) pairs, which a CPU does not vectorise.
    """
    best_B = logits_BV.max(axis=-1)
    index_V = jnp.arange(logits_BV.shape[-1], dtype=jnp.int32)
    hit_BV = jnp.where(logits_BV == best_B[:, None], index_V[None], logits_BV.shape[-1] - 1)
    return hit_BV.min(axis=-1), best_B


def _draw(logits_RV, keys_B, count, width):
    """One draw per hypothesis (Gumbel's trick), each with a key from its row's, the step and its number."""
    step_B = jax.vmap(jax.random.fold_in, (0, None))(keys_B, count)
    key_BW = jax.vmap(lambda key: jax.random.split(key, width))(step_B)
    noise_RV = jax.vmap(lambda key: jax.random.gumbel(key, logits_RV.shape[1:]))(key_BW.reshape(-1))
    return argmax(logits_RV + noise_RV)[0]
