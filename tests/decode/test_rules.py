import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_decoder import EOT, STEPS, TIMES, VOCAB, run, start, states

from moejax.decode import rules
from moejax.decode.rules import Rules
from moejax.decode.search import SearchPlan

L = 5


@functools.partial(jax.jit, static_argnames="max_initial")
def timestamps(logits_BV, tokens_BL, count, max_initial=None):
    return rules.timestamps(logits_BV, tokens_BL, count, eot=EOT, begin=TIMES, max_initial=max_initial)


def allowed(history, logits_V=None, **options):
    """Ids that may follow a history; with flat logits a text token is likelier than none of the timestamps' sum."""
    tokens_BL = np.full((1, L), EOT, np.int32)
    tokens_BL[0, : len(history)] = history
    if logits_V is None:
        logits_V = np.where(np.arange(VOCAB) < TIMES, 9.0, 0.0)  # text so likely that the sum rule keeps out of it
    found_BV = timestamps(jnp.asarray(logits_V, jnp.float32)[None], tokens_BL, len(history), **options)
    return set(np.flatnonzero(np.isfinite(np.asarray(found_BV)[0])).tolist())


TEXT, TIME = set(range(EOT)), set(range(TIMES, VOCAB))
BETWEEN = set(range(EOT, TIMES - 1))  # end token and controls, without no-timestamps


@pytest.mark.parametrize(
    "history,want",
    [
        ([], TIME),
        ([TIMES + 2], TEXT | BETWEEN),  # a segment has begun: text
        ([TIMES + 2, 1], TEXT | BETWEEN | set(range(TIMES + 3, VOCAB))),  # no segment of zero length
        ([TIMES + 2, 1, TIMES + 5], BETWEEN | set(range(TIMES + 5, VOCAB))),  # a pair, or the end
        ([TIMES + 2, 1, TIMES + 5, TIMES + 5], TEXT | BETWEEN),
        ([TIMES + 2, 1, VOCAB - 1], BETWEEN | {VOCAB - 1}),
    ],
)
def test_timestamps_come_in_pairs_and_do_not_decrease(history, want):
    assert allowed(history) == want


def test_first_timestamp_is_limited():
    assert allowed([], max_initial=3) == set(range(TIMES, TIMES + 4))
    assert allowed([], max_initial=0) == {TIMES}
    assert allowed([TIMES, 1], max_initial=3) == allowed([TIMES, 1])


def test_timestamps_win_together():
    logits_V = np.zeros(VOCAB)
    logits_V[3] = 2.0
    assert np.exp(logits_V[3]) < len(TIME) - 1
    assert allowed([TIMES, 1], logits_V) == TIME - {TIMES}
    logits_V[3] = 4.0
    assert allowed([TIMES, 1], logits_V) == TEXT | BETWEEN | TIME - {TIMES}


def test_rows_are_ruled_by_their_own_history():
    rng = np.random.default_rng(0)
    tokens_BL = np.where(rng.random((64, L)) < 0.5, rng.integers(0, EOT, (64, L)), TIMES + np.arange(L))
    logits_BV = rng.normal(size=(64, VOCAB)).astype(np.float32)
    for count in range(L):
        whole = np.asarray(timestamps(logits_BV, tokens_BL, count))
        alone = [np.asarray(timestamps(logits_BV[b : b + 1], tokens_BL[b : b + 1], count))[0] for b in range(0, 64, 9)]
        np.testing.assert_array_equal(whole[::9], alone)
        assert np.isfinite(whole).any(1).all()


@pytest.mark.parametrize("beam", [False, True])
def test_what_a_search_finds_keeps_the_rules(beam):
    plan = SearchPlan(eot=EOT, max_tokens=STEPS, beam=beam, width=3 if beam else 1)
    free = run(plan, start(range(8)), states(8))
    ruled = run(plan, start(range(8)), states(8), rules=Rules(eot=EOT, timestamps=TIMES, max_initial=9))
    for b in range(8):
        tokens = ruled.tokens_BL[b, : ruled.lengths_B[b]].tolist()
        for i, token in enumerate(tokens[:L]):
            assert token in allowed(tokens[:i], max_initial=9)
    assert (free.tokens_BL != ruled.tokens_BL).any()


def test_hotwords_are_likelier_where_they_continue():
    words_NL = np.asarray([[5, 6, 7], [9, -1, -1], [5, 8, -1]], np.int32)
    tokens_BL = np.asarray([[1, 5, 0, 0], [5, 6, 0, 0], [6, 9, 0, 0]], np.int32)
    bias = jax.jit(rules.hotwords, static_argnums=0)
    found_BV = np.asarray(bias((3, 12), tokens_BL, 2, words_NL, 1.5))
    want = [{5, 9, 6, 8}, {5, 9, 7}, {5, 9}]
    assert [set(np.flatnonzero(row)) for row in found_BV] == want and set(np.unique(found_BV)) == {0.0, 1.5}
    first_BV = np.asarray(bias((3, 12), tokens_BL, 0, words_NL, -2.0))
    assert [set(np.flatnonzero(row)) for row in first_BV] == [{5, 9}] * 3 and first_BV.min() == -2.0


def test_a_hotword_is_heard_and_a_ban_is_stronger():
    plan, said = SearchPlan(eot=EOT, max_tokens=STEPS), np.asarray([[11, 12, 13]], np.int32)
    free = run(plan, start(range(4)), states())
    assert not (free.tokens_BL[:, :-1] == 11).any()
    loud = run(plan, start(range(4)), states(), rules=Rules(hotwords_NL=said, hotword_bias=np.float32(50), eot=EOT))
    np.testing.assert_array_equal(loud.tokens_BL[:, 0], 11)
    deaf = run(plan, start(range(4)), states(), rules=Rules(hotwords_NL=said, hotword_bias=np.float32(0), eot=EOT))
    np.testing.assert_array_equal(deaf.tokens_BL, free.tokens_BL)
    banned = Rules(rules.mask([11], VOCAB), hotwords_NL=said, hotword_bias=np.float32(50), eot=EOT)
    assert not (run(plan, start(range(4)), states(), rules=banned).tokens_BL == 11).any()
