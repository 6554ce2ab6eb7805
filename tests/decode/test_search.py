import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoder import EOT, MIXTURE, ROWS, SOT, STEPS, TIMES, VOCAB, model, next_logprobs, run, start, states

from moejax.decode.rules import Rules, mask
from moejax.decode.search import Draws, SearchPlan
from moejax.nn import functional
from moejax.nn.incremental import Reader
from moejax.types import Route

GREEDY = SearchPlan(eot=EOT, max_tokens=STEPS, no_speech=35)
BEAM = SearchPlan(eot=EOT, max_tokens=STEPS, no_speech=35, beam=True, width=3)
RULES = Rules(mask([3, SOT], VOCAB), mask([EOT, 5], VOCAB), eot=EOT, timestamps=TIMES, max_initial=6)


def prefix_of(begin, b):
    return begin.tokens_BP[b, begin.pad_B[b] :].tolist()


def naive_beam(prefix, states_TD, width, places, alpha):
    """The reference's `BeamSearchDecoder` and ranker, read from its code, on dictionaries."""
    running, finished = {(): 0.0}, {}
    for _ in range(STEPS):
        scores = {}
        for tokens, total in running.items():
            logprob_V = next_logprobs([*prefix, *tokens], states_TD)
            for token in np.argsort(-logprob_V)[: width + 1]:
                scores[*tokens, int(token)] = total + logprob_V[token]
        running, ended = {}, {}
        for tokens in sorted(scores, key=scores.get, reverse=True):
            (ended if tokens[-1] == EOT else running)[tokens] = scores[tokens]
            if len(running) == width:
                break
        for tokens in ended:
            if len(finished) < places:
                finished[tokens] = ended[tokens]
        if len(finished) >= places:
            break
    for tokens in running:
        if len(finished) < width:
            finished[(*tokens, EOT)] = running[tokens]
    lengths = {tokens: max(len(tokens) - 1, 1) for tokens in finished}
    penalty = {t: n if alpha is None else ((5 + n) / 6) ** alpha for t, n in lengths.items()}
    best = max(finished, key=lambda tokens: finished[tokens] / penalty[tokens])
    return list(best[:-1]), finished[best]


@pytest.mark.parametrize(
    "options", [{}, {"patience": 2.0, "length_penalty": 0.4}, {"patience": 0.4}], ids=["plain", "patient", "hasty"]
)
def test_beam_equals_the_reference_on_dictionaries(options):
    begin, states_BTD = start(range(ROWS)), states()
    found = run(dataclasses.replace(BEAM, **options), begin, states_BTD)
    for b in range(ROWS):
        tokens, total = naive_beam(
            prefix_of(begin, b), states_BTD[b], 3, round(3 * options.get("patience", 1)), options.get("length_penalty")
        )
        assert found.tokens_BL[b, : found.lengths_B[b]].tolist() == tokens
        np.testing.assert_allclose(found.sum_logprob_B[b], total, atol=1e-4)
    assert len(set(found.lengths_B.tolist())) > 1


@pytest.mark.parametrize("plan", [GREEDY, BEAM], ids=["greedy", "beam"])
def test_neighbours_padding_and_order_change_nothing(plan):
    """Prefixes of different lengths in one batch: each row as alone, and as with more padding to its left."""
    states_BTD = states()
    whole = run(plan, start(range(ROWS)), states_BTD, rules=RULES)
    assert len(set(whole.lengths_B.tolist())) > 1 and len(np.unique(whole.tokens_BL[:, 0])) > 1
    padded = run(plan, start(range(ROWS), pad=2), states_BTD, rules=RULES)
    order = [2, 0, 3, 1]
    turned = run(plan, start(order), states_BTD[order], rules=RULES)
    alone = [run(plan, start([b], pad=4 - b), states_BTD[b : b + 1], rules=RULES) for b in range(ROWS)]
    for other in (padded, jax.tree.map(lambda x: x[np.argsort(order)], turned), _stack(alone)):
        np.testing.assert_array_equal(whole.tokens_BL, other.tokens_BL)
        np.testing.assert_allclose(whole.sum_logprob_B, other.sum_logprob_B, atol=1e-5)
        np.testing.assert_allclose(whole.no_speech_B, other.no_speech_B, atol=1e-6)


def _stack(found):
    return jax.tree.map(lambda *rows: np.concatenate(rows), *found)


def test_no_speech_is_that_after_the_start_token():
    begin, states_BTD = start(range(ROWS)), states()
    found = run(GREEDY, begin, states_BTD, rules=RULES)
    for b in range(ROWS):
        tokens = prefix_of(begin, b)
        logprob_V = next_logprobs(tokens[: tokens.index(SOT) + 1], states_BTD[b])
        np.testing.assert_allclose(found.no_speech_B[b], np.exp(logprob_V[35]), atol=1e-5)


@pytest.mark.parametrize("plan", [GREEDY, BEAM], ids=["greedy", "beam"])
def test_rows_keep_to_their_own_limit(plan):
    begin, states_BTD = start(range(ROWS)), states()
    ban = Rules(mask([EOT], VOCAB), eot=EOT)  # so that only the limit ends a row
    limit_B = np.asarray([0, 1, 4, STEPS], np.int32)
    found = run(plan, begin._replace(limit_B=limit_B), states_BTD, rules=ban)
    np.testing.assert_array_equal(found.lengths_B, limit_B)
    whole = run(plan, begin, states_BTD, rules=ban)
    np.testing.assert_array_equal(found.tokens_BL[3], whole.tokens_BL[3])
    assert found.sum_logprob_B[0] == 0
    if plan is GREEDY:
        np.testing.assert_array_equal(found.tokens_BL[2, :4], whole.tokens_BL[2, :4])


def test_draws_follow_the_tempered_distribution():
    """The first token of 4000 rows with one key each, against the exact probabilities; seeds give other draws."""
    rows, temperature = 4000, 0.7
    states_BTD = np.repeat(states(1), rows, axis=0)
    plan, begin = dataclasses.replace(GREEDY, max_tokens=1), start([0] * rows)._replace(limit_B=np.ones(rows, np.int32))
    draws = Draws(np.uint32(0), np.uint32(700), np.arange(rows, dtype=np.uint32))
    found = run(plan, begin, states_BTD, temperature=temperature, draws=draws)
    logprob_V = next_logprobs(prefix_of(begin, 0), states_BTD[0])
    prob_V = np.exp(logprob_V / temperature) / np.exp(logprob_V / temperature).sum()
    count_V = np.bincount(found.tokens_BL[:, 0], minlength=VOCAB)
    error_V = np.sqrt(rows * prob_V * (1 - prob_V)) + 1e-9
    assert (np.abs(count_V - rows * prob_V) < 5 * error_V + 1).all() and (count_V > 0).sum() > 5
    np.testing.assert_allclose(found.sum_logprob_B, logprob_V[found.tokens_BL[:, 0]], atol=1e-4)


def test_draws_do_not_depend_on_neighbours_and_the_best_of_several_stays():
    states_BTD, draws = states(), Draws(np.uint32(1), np.uint32(800), np.arange(ROWS, dtype=np.uint32))
    plan = dataclasses.replace(GREEDY, width=3)
    whole = run(plan, start(range(ROWS)), states_BTD, temperature=0.8, draws=draws)
    alone = [
        run(plan, start([b], pad=4 - b), states_BTD[b : b + 1], temperature=0.8, draws=mine)
        for b, mine in enumerate(draws._replace(content_B=draws.content_B[b : b + 1]) for b in range(ROWS))
    ]
    np.testing.assert_array_equal(whole.tokens_BL, _stack(alone).tokens_BL)
    for b in range(ROWS):  # what it says of its draws is what the network says of them
        tokens, length = whole.tokens_BL[b].tolist(), whole.lengths_B[b]
        prefix, total = prefix_of(start(range(ROWS)), b), 0.0
        for i in range(min(length + 1, STEPS)):
            total += next_logprobs([*prefix, *tokens[:i]], states_BTD[b])[tokens[i]]
        np.testing.assert_allclose(whole.sum_logprob_B[b], total, atol=1e-4)
    cold = run(plan, start(range(ROWS)), states_BTD, temperature=0.0, draws=draws)
    np.testing.assert_array_equal(cold.tokens_BL, run(GREEDY, start(range(ROWS)), states_BTD).tokens_BL)
    assert (cold.tokens_BL != whole.tokens_BL).any()


ROUTES = {
    "gathered": Route(jnp.asarray([[0.7, 0.3], [0.1, 0.9]]), jnp.asarray([[0, 1], [4, 2]], jnp.int32)),
    "side by side": Route(
        jnp.asarray([[0.7, 0.3], [0.1, 0.9], [0.5, 0.5]]), jnp.asarray([[0, 1], [4, 2], [3, 0]], jnp.int32)
    ),
    "dense": Route(jax.nn.softmax(jnp.arange(10.0).reshape(2, 5))),
}


@pytest.mark.parametrize("kind", ROUTES)
def test_reading_with_a_route_equals_training(kind):
    """A prefix at once, then token by token, with every row's own mixture: the logits of teacher forcing."""
    graphdef, params = model(True)
    route = ROUTES[kind]
    rows = route.weight_BX.shape[0]
    assert (kind == "gathered") == (route.index_BX is not None and route.index_BX.size < MIXTURE.num_experts)
    states_BTD = states(rows)
    tokens_BL = np.random.default_rng(0).integers(0, VOCAB, (rows, 6))

    @jax.jit
    def both(params, states_BTD, tokens_BL, route):
        net = functional.merge(graphdef, params)
        reader = Reader(net, states_BTD, None, route)
        at_BL = jnp.broadcast_to(jnp.arange(6)[None], tokens_BL.shape)
        seen_BLL = jnp.broadcast_to(jnp.tril(jnp.ones((6, 6), bool))[None], (rows, 6, 6))
        x, cache = reader.read(tokens_BL[:, :4], at_BL[:, :4], reader.cache(4), 0, seen_BLL[:, :4, :4])
        parts, cache = [x], reader.grow(cache, 2)
        for i in (4, 5):
            x, cache = reader.read(tokens_BL[:, i : i + 1], at_BL[:, i : i + 1], cache, i, seen_BLL[:, i : i + 1])
            parts.append(x)
        found = reader.logits(jnp.concatenate(parts, axis=1))
        return found, net.decode(tokens_BL, states_BTD, route=route), net.decode(tokens_BL, states_BTD)

    found, want, without = both(params, states_BTD, tokens_BL, route)
    np.testing.assert_allclose(found, want, atol=2e-5)
    assert np.abs(want - without).max() > 0.1


def test_a_beam_carries_its_route():
    route = ROUTES["side by side"]
    found = run(BEAM, start(range(3)), states(3), rules=RULES, route=route)
    for b in range(3):
        one = jax.tree.map(lambda x, b=b: x[b : b + 1], route)
        alone = run(BEAM, start([b], pad=3 - b), states(3)[b : b + 1], rules=RULES, route=one)
        np.testing.assert_array_equal(found.tokens_BL[b], alone.tokens_BL[0])
    other = jax.tree.map(lambda x: x[::-1], route)
    assert (run(BEAM, start(range(3)), states(3), rules=RULES, route=other).tokens_BL != found.tokens_BL).any()
