"""LLaMA: against NumPy from the formula, its reader against the whole pass, experts by the patterns of Whisper."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_llama as tiny

from moejax.decode import beam, prefix, search
from moejax.decode.rules import Rules
from moejax.errors import BadValue
from moejax.nn import functional, inject
from moejax.nn.llama import SIZES, Llama, LlamaConfig
from moejax.nn.llama_reader import LlamaReader
from moejax.nn.quantize import quantize
from moejax.nn.variables import Init
from moejax.types import Route

RNG = np.random.default_rng(3)
TOKENS_BL = RNG.integers(3, tiny.VOCAB, (3, 7))
HEARD_BAD = RNG.normal(size=(3, 2, 16)).astype(np.float32)
ROUTE = Route(jnp.asarray([[0.5, 0.2, 0.3], [1.0, 0.0, 0.0], [0.1, 0.9, 0.0]]))


def numpy_llama(config, params, tokens_L, heard_AD=None):
    """The network of the paper with rotate_half, one row, in float64."""
    tree = {p.removeprefix("backbone/"): np.asarray(x, np.float64) for p, x in functional.paths(params).items()}

    def normed(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + config.epsilon) * tree[f"{name}/scale"]

    def silu(x):
        return x / (1 + np.exp(-x))

    def turned(x_LHK):
        K = config.width
        angle = np.arange(len(x_LHK))[:, None] / config.stretch / config.theta ** (np.arange(0, K, 2) / K)[None]
        cos, sin = (np.concatenate([wave(angle)] * 2, -1)[:, None] for wave in (np.cos, np.sin))
        half = np.concatenate([-x_LHK[..., K // 2 :], x_LHK[..., : K // 2]], -1)
        return x_LHK * cos + half * sin

    x = np.stack(
        [tree["embed"][t] if t < config.vocab_size else heard_AD[t - config.vocab_size] for t in tokens_L.tolist()]
    )
    for n in range(config.layers):
        at = f"layers/{n}"
        h = normed(x, f"{at}/self_attn_norm")
        q, k, v = ((h @ tree[f"{at}/self_attn/{part}/kernel"]).reshape(len(x), -1, config.width) for part in "qkv")
        q, k, out = turned(q), turned(k), np.zeros_like(q)
        for head in range(config.heads):
            own = head * config.key_heads // config.heads
            score = q[:, head] @ k[:, own].T / np.sqrt(config.width)
            score = np.where(np.tril(np.ones_like(score)) > 0, score, -np.inf)
            weight = np.exp(score - score.max(-1, keepdims=True))
            out[:, head] = weight / weight.sum(-1, keepdims=True) @ v[:, own]
        x = x + out.reshape(len(x), -1) @ tree[f"{at}/self_attn/out/kernel"]
        h = normed(x, f"{at}/mlp_norm")
        gate, up, down = (tree[f"{at}/mlp/{part}/kernel"] for part in ("gate", "up", "down"))
        x = x + (silu(h @ gate) * (h @ up)) @ down
    return normed(x, "norm") @ (tree["embed"].T if config.tied else tree["head/kernel"])


@functools.cache
def runner(config):
    """One program for each config and shape, whoever asks."""
    graphdef = tiny.llama(config)[0]
    return jax.jit(lambda params, *xs, at_BK: functional.merge(graphdef, params)(*xs, at_BK=at_BK))


def whole(config, tokens_BL, heard_BAD=None, at_BK=None):
    return np.asarray(runner(config)(tiny.llama(config)[1], jnp.asarray(tokens_BL), heard_BAD, at_BK=at_BK))


@pytest.mark.parametrize("config", [tiny.LLAMA, tiny.TIED], ids=["grouped", "tied"])
def test_logits_are_those_of_the_formula(config):
    tokens_BL = TOKENS_BL.copy()
    tokens_BL[:, 1:3] = config.vocab_size + np.arange(2)  # what is heard
    found_BLV = whole(config, tokens_BL, HEARD_BAD)
    for b in range(3):
        want_LV = numpy_llama(config, tiny.llama(config)[1], tokens_BL[b], HEARD_BAD[b])
        np.testing.assert_allclose(found_BLV[b], want_LV, atol=1e-4)
    other = dataclasses.replace(config, theta=7.0)  # a control: other positions are another network
    assert np.abs(found_BLV[0] - numpy_llama(other, tiny.llama(config)[1], tokens_BL[0], HEARD_BAD[0])).max() > 1e-2


def test_positions_that_are_asked_for_and_what_follows_a_token():
    found_BLV = whole(tiny.LLAMA, TOKENS_BL, HEARD_BAD)  # the program of the formula's test
    at_BK = jnp.asarray([[0, 6], [3, 4], [1, 1]])
    few_BKV = whole(tiny.LLAMA, TOKENS_BL, HEARD_BAD, at_BK)
    np.testing.assert_allclose(few_BKV, np.take_along_axis(found_BLV, np.asarray(at_BK)[..., None], 1), atol=1e-5)
    changed_BL = TOKENS_BL.copy()
    changed_BL[:, 4:] = 5
    moved_BLV = np.abs(whole(tiny.LLAMA, changed_BL, HEARD_BAD) - found_BLV).max((0, 2))
    assert moved_BLV[:4].max() < 1e-6 and moved_BLV[4:].min() > 1e-2


def model():
    return tiny.audio(config=dataclasses.replace(tiny.AUDIO, sounds=None))


@jax.jit
def read_all(params, tokens_BL, route):
    """Logits of a prefix of four tokens in one pass, then of one token in every step."""
    reader = LlamaReader(functional.merge(model()[0], params), HEARD_BAD, None, route)
    B, L = tokens_BL.shape
    visible_LL = jnp.tril(jnp.ones((L, L), bool))
    x, cache = reader.read(
        tokens_BL[:, :4], jnp.arange(4)[None].repeat(B, 0), reader.cache(4), 0, seen(visible_LL[:4, :4], B)
    )
    cache, found = reader.grow(cache, L - 4), [reader.logits(x)]
    for n in range(4, L):
        at_B1 = jnp.full((B, 1), n)
        x, cache = reader.read(tokens_BL[:, n : n + 1], at_B1, cache, n, seen(visible_LL[n : n + 1], B))
        found.append(reader.logits(x))
    return jnp.concatenate(found, axis=1)


def seen(visible_TS, B):
    return jnp.broadcast_to(visible_TS[None], (B, *visible_TS.shape))


@jax.jit
def pass_all(params, tokens_BL, route):
    return functional.merge(model()[0], params).decoder(tokens_BL, HEARD_BAD, route)


@pytest.mark.parametrize(
    ("route", "weights"), [(None, ""), (ROUTE, ""), (ROUTE, "int8")], ids=["frozen", "experts", "int8"]
)
def test_a_token_at_a_time_reads_as_the_whole_pass(route, weights):
    tokens_BL = TOKENS_BL.copy()
    tokens_BL[:, 1:3] = tiny.VOCAB + np.arange(2)
    params = quantize(model()[1], weights)
    found = np.asarray(read_all(params, tokens_BL, route))
    np.testing.assert_allclose(found, pass_all(params, tokens_BL, route), atol=1e-4)
    if not weights:  # controls, by programs that the others have
        assert np.abs(found - pass_all(params, tokens_BL, ROUTE if route is None else None)).max() > 1e-2


def naive_beam(params, prefix_L, heard_AD, width, steps):
    """openai-whisper's beam search on dictionaries, every step by the whole pass."""
    running, finished = {(): 0.0}, {}
    for _ in range(steps):
        scores = {}
        for tokens, total in running.items():
            row = np.full((1, 12), 5)
            row[0, : len(prefix_L) + len(tokens)] = [*prefix_L, *tokens]
            logits_V = np.asarray(
                pass_row(params, jnp.asarray(row), heard_AD[None])[0, len(prefix_L) + len(tokens) - 1], np.float64
            )
            logprob_V = logits_V - np.log(np.exp(logits_V - logits_V.max()).sum()) - logits_V.max()
            for token in np.argsort(-logprob_V)[: width + 1]:
                scores[*tokens, int(token)] = total + logprob_V[token]
        running = {}
        for tokens in sorted(scores, key=scores.get, reverse=True):
            if tokens[-1] != tiny.EOT:
                running[tokens] = scores[tokens]
            elif len(finished) < width:
                finished[tokens] = scores[tokens]
            if len(running) == width:
                break
        if len(finished) >= width:
            break
    for tokens in running:
        if len(finished) < width:
            finished[(*tokens, tiny.EOT)] = running[tokens]
    best = max(finished, key=lambda tokens: finished[tokens] / max(len(tokens) - 1, 1))
    return list(best[:-1])


@jax.jit
def pass_row(params, tokens_BL, heard_BAD):
    return functional.merge(model()[0], params).decoder(tokens_BL, heard_BAD)


def test_beam_search_over_prefixes_of_different_lengths_with_what_is_heard():
    params, V, steps = model()[1], tiny.VOCAB, 5
    rows = [[1, V, V + 1, 9], [1, 7, V, V + 1, 11, 9], [1, V + 1, V]]
    width = max(map(len, rows))
    tokens_BP = np.asarray([[tiny.EOT] * (width - len(row)) + row for row in rows], np.int32)
    pad_B = np.asarray([width - len(row) for row in rows], np.int32)
    begin = prefix.Start(tokens_BP, pad_B, pad_B, np.full(3, steps, np.int32))
    plan = search.SearchPlan(eot=tiny.EOT, max_tokens=steps, beam=True, width=4)

    @jax.jit
    def run(params):
        made = functional.merge(model()[0], params)
        return beam.beam_search(made, HEARD_BAD, begin, Rules(eot=tiny.EOT), plan=plan, reader=LlamaReader)

    found = jax.tree.map(np.asarray, run(params))
    for b, row in enumerate(rows):
        want = naive_beam(params, row, HEARD_BAD[b], 4, steps)
        assert found.tokens_BL[b, : found.lengths_B[b]].tolist() == want


def test_patterns_gates_and_int8_work_on_it_as_on_whisper():
    graphdef, params = model()
    at = set(functional.paths(params["expert"]["decoder"]["layers"]))
    assert at == {f"{n}/self_attn/{part}/experts/{x}" for n in (0, 1) for part in "qv" for x in "AB"}
    fresh = jax.tree.map(jnp.zeros_like, params["expert"])
    silent = pass_all({**params, "expert": fresh}, TOKENS_BL, ROUTE)
    np.testing.assert_allclose(silent, pass_all(params, TOKENS_BL, None), atol=1e-5)
    small = quantize(params, "int8")
    loud = np.asarray(pass_all(params, TOKENS_BL, ROUTE))
    assert np.corrcoef(loud.ravel(), np.asarray(pass_all(small, TOKENS_BL, ROUTE)).ravel())[0, 1] > 0.99
    made = functional.merge(graphdef, params)
    inject.add_routers(made, num_experts=3, route=lambda logits: Route(jax.nn.softmax(logits)), init=Init(1))
    assert made.decoder.layers[1].router is not None


def test_sizes_that_no_network_can_have():
    with pytest.raises(BadValue, match="heads = 4 does not divide by key_heads = 3"):
        LlamaConfig(16, 1, 4, 3, 8, 10)
    with pytest.raises(BadValue, match="heads are 5 wide"):
        LlamaConfig(20, 1, 4, 4, 8, 10)
    with pytest.raises(BadValue, match="layers is 0"):
        LlamaConfig(16, 0, 4, 4, 8, 10)
    with pytest.raises(BadValue, match="9 tokens exceed the language model's 8"):
        made = Llama(dataclasses.replace(tiny.LLAMA, max_positions=8), init=Init(0))
        made(jnp.zeros((1, 9), int))


@pytest.mark.parametrize(("name", "count"), [("7b", 6_738_415_616), ("13b", 13_015_864_320)])
def test_full_sizes(name, count):
    assert functional.count(functional.abstract(lambda: Llama(SIZES[name], init=Init(0)))[1]) == count
