import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moejax.decode.greedy import greedy
from moejax.nn import functional
from moejax.nn.incremental import Reader
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper, WhisperConfig

VOCAB, EOT, MAX = 40, 39, 9
CONFIG = WhisperConfig(
    16, 1, 2, 2, 2, 32, 32, VOCAB, max_source_positions=20, max_target_positions=16, mask_padding=True
)
PREFIX = [3, 1, 4]


@pytest.fixture(scope="module")
def model():
    graphdef, abstract = functional.abstract(lambda: Whisper(CONFIG, init=Init(0)))
    rng = np.random.default_rng(1)
    # Wide weights, so that a random network says different things and says them clearly.
    return functional.merge(
        graphdef, jax.tree.map(lambda leaf: jnp.asarray(0.4 * rng.normal(size=leaf.shape), jnp.float32), abstract)
    )


@pytest.fixture(scope="module")
def states_BTD():
    return jax.random.normal(jax.random.key(2), (6, 10, 16))


def run(model, states_BTD, prefix=PREFIX, **options):
    graphdef, params = functional.split(model)

    @jax.jit
    def decode(params, states_BTD, prefix_BL):
        return greedy(
            functional.merge(graphdef, params), states_BTD, prefix_BL, **{"max_tokens": MAX, "eot": EOT} | options
        )

    return jax.tree.map(np.asarray, decode(params, states_BTD, jnp.asarray(prefix)))


@functools.partial(jax.jit, static_argnums=0)
def _logits(graphdef, params, tokens_BL, states_BTD):
    return functional.merge(graphdef, params).decode(tokens_BL, states_BTD)


def naive(model, states_BTD, prefix_BL, banned=(), first=(), eot=EOT):
    """The same search with the whole network over the whole sequence each time, one row after the other."""
    graphdef, params = functional.split(model)
    rows = []
    for i, prefix in enumerate(prefix_BL):
        tokens, total = list(prefix), 0.0
        while len(tokens) < len(prefix) + MAX:
            padded = jnp.asarray([tokens + [0] * (16 - len(tokens))])  # the network is causal, so one shape serves all
            logits_LV = _logits(graphdef, params, padded, states_BTD[i : i + 1])[0]
            logits_V = np.asarray(logits_LV[len(tokens) - 1], np.float64)
            logits_V[list(banned)] = -np.inf
            if len(tokens) == len(prefix):
                logits_V[list(first)] = -np.inf
            tokens.append(int(logits_V.argmax()))
            total += logits_V.max() - np.log(np.exp(logits_V).sum())
            if tokens[-1] == eot:
                break
        rows.append((tokens[len(prefix) :], total))
    return rows


def check(found, rows, eot=EOT):
    for i, (tokens, total) in enumerate(rows):
        ended = tokens[-1] == eot
        assert found.tokens_BL[i].tolist() == tokens + [eot] * (MAX - len(tokens))
        assert found.lengths_B[i] == len(tokens) - ended
        np.testing.assert_allclose(found.sum_logprob_B[i], total, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def stop(model, states_BTD):
    """A token that rows say at different times, or never: as the end token it ends them so."""
    free_BL = run(model, states_BTD).tokens_BL
    hit_VBL = free_BL[None] == np.arange(VOCAB)[:, None, None]
    first_VB = np.where(hit_VBL.any(-1), hit_VBL.argmax(-1), MAX)
    return int(np.argmax([len(set(first_B.tolist())) for first_B in first_VB]))


def test_equals_the_search_without_a_cache(model, states_BTD, stop):
    for eot in (EOT, stop):
        rows = naive(model, states_BTD, [PREFIX] * 6, eot=eot)
        assert len({tuple(tokens) for tokens, _ in rows}) > 1
        check(run(model, states_BTD, eot=eot), rows, eot)


def test_rows_end_at_different_times_and_stay_ended(model, states_BTD, stop):
    found = run(model, states_BTD, eot=stop)
    assert len(set(found.lengths_B.tolist())) > 2
    for tokens, length in zip(found.tokens_BL, found.lengths_B, strict=True):
        assert (tokens[length:] == stop).all() and (tokens[:length] != stop).all()


def test_prefix_per_row_and_of_one_token(model, states_BTD):
    prefix_BL = [[i, 2 * i] for i in range(6)]
    check(run(model, states_BTD, prefix_BL), naive(model, states_BTD, prefix_BL))
    check(run(model, states_BTD, [5]), naive(model, states_BTD, [[5]] * 6))


def test_suppression(model, states_BTD):
    free = run(model, states_BTD)
    banned, first = np.unique(free.tokens_BL[:, 1:3]).tolist(), np.unique(free.tokens_BL[:, 0]).tolist()
    found = run(model, states_BTD, suppress=banned, begin_suppress=first)
    assert not np.isin(found.tokens_BL, [t for t in banned if t != EOT]).any()
    assert not np.isin(found.tokens_BL[:, 0], first).any()
    check(found, naive(model, states_BTD, [PREFIX] * 6, banned, first))


def test_batching_and_padding_change_nothing(model, states_BTD):
    whole = run(model, states_BTD)
    mask_BT = jnp.broadcast_to(jnp.arange(14) < 10, (6, 14))
    padded = jnp.concatenate([states_BTD, 7.0 * jnp.ones((6, 4, 16))], axis=1)
    others = [run(model, padded, mask_BT=mask_BT), *(run(model, states_BTD[i : i + 1]) for i in range(6))]
    np.testing.assert_array_equal(whole.tokens_BL, others[0].tokens_BL)
    np.testing.assert_array_equal(whole.tokens_BL, np.concatenate([one.tokens_BL for one in others[1:]]))
    assert (run(model, padded).tokens_BL != whole.tokens_BL).any()  # without the mask the padding is heard


def test_stops_when_all_rows_have_ended(model, states_BTD, stop, monkeypatch):
    """Counts the steps really taken: a loop that ran on would give the same tokens."""
    graphdef, params = functional.split(model)
    calls = []
    lengths_B = run(model, states_BTD, eot=stop).lengths_B
    read = Reader.read

    def counting(self, tokens_BT, position_BT, *rest):
        jax.debug.callback(lambda at: calls.append(int(at)), position_BT[0, -1])
        return read(self, tokens_BT, position_BT, *rest)

    monkeypatch.setattr(Reader, "read", counting)

    @jax.jit
    def decode(params, states_BTD):
        return greedy(functional.merge(graphdef, params), states_BTD, PREFIX, max_tokens=MAX, eot=stop)

    early = next(i for i in range(6) if lengths_B[i] < MAX - 2)
    jax.block_until_ready(decode(params, states_BTD[early : early + 1]))
    jax.effects_barrier()
    assert max(calls) + 1 == len(PREFIX) + lengths_B[early]


def test_impossible_requests_are_named(model, states_BTD):
    with pytest.raises(ValueError, match="room for 14"):
        run(model, states_BTD, max_tokens=15)
    with pytest.raises(ValueError, match="prefix is empty"):
        run(model, states_BTD, np.zeros((0,), np.int32))
    with pytest.raises(ValueError, match=r"\[40\].*0..39"):
        run(model, states_BTD, suppress=[40])
    with pytest.raises(ValueError, match="max_tokens is 0"):
        run(model, states_BTD, max_tokens=0)
