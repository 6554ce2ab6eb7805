"""A small network that says different things and comes to an end, and searches over it compiled once per plan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from moejax.decode import prefix as prefixes
from moejax.decode.rules import Rules
from moejax.nn import functional
from moejax.nn.whisper import WhisperConfig
from moejax.tasks import asr, recognition

VOCAB, EOT, SOT, TIMES, STEPS, ROWS = 60, 30, 31, 40, 9, 4
CONFIG = WhisperConfig(
    16, 1, 2, 2, 2, 32, 32, VOCAB, max_source_positions=20, max_target_positions=24, mask_padding=True
)
MIXTURE = asr.Mixture(("decoder/layers/*/*",), num_experts=5, rank=2, alpha=4.0, shared_rank=1)


@functools.cache
def model(mixture=False):
    """`(graphdef, params)`; weights wide enough that a random network speaks clearly."""
    graphdef, params = asr.init(asr.build(CONFIG, mixture=MIXTURE if mixture else None))
    rng = np.random.default_rng(1)
    params = jax.tree.map(lambda x: jnp.asarray(0.4 * rng.normal(size=x.shape), jnp.float32), params)
    return graphdef, {**params, "backbone": {**params["backbone"], "decoder": _spoken(params["backbone"]["decoder"])}}


def _spoken(decoder, end=0.7, times=0.0, places=8.0):
    """The end and the timestamps come now and then, by the output norm's bias, which no other token hears."""
    bias_D, embed_VD = decoder["norm"]["bias"], 0.5 * decoder["embed"]
    bias_D = bias_D / jnp.sqrt(jnp.square(bias_D).sum())
    embed_VD = embed_VD - jnp.outer(embed_VD @ bias_D, bias_D)
    embed_VD = embed_VD.at[EOT].add(end * bias_D).at[TIMES:].add(times * bias_D)
    norm = {**decoder["norm"], "bias": bias_D}
    for layer in decoder["layers"].values():
        layer["cross_attn"]["out"]["kernel"] = 4.0 * layer["cross_attn"]["out"]["kernel"]
    # The output is tied to the input: wide positions stop it from echoing.
    return {**decoder, "norm": norm, "embed": embed_VD, "positions": places * decoder["positions"]}


def states(rows=ROWS, seed=2):
    return np.asarray(jax.random.normal(jax.random.key(seed), (rows, 10, 16)))


@functools.cache
def search(mixture=False):
    return recognition.make_search(model(mixture)[0])


def start(rows, pad=0):
    """One prefix per row, of its own length: [SOT, 33, 34] after 0 to 3 tokens of prompt; `pad` more columns."""
    said = [[7, 8, 9, 10][4 - b % 4 :] + [SOT, 33, 34] for b in rows]
    width = max(map(len, said)) + pad
    tokens_BP = np.asarray([[EOT] * (width - len(ids)) + ids for ids in said], np.int32)
    pad_B = np.asarray([width - len(ids) for ids in said], np.int32)
    sot_B, limit_B = (np.full(len(said), x, np.int32) for x in (width - 3, STEPS))
    return prefixes.Start(tokens_BP, pad_B, sot_B, limit_B)


def run(plan, begin, states_BTD, *, rules=None, temperature=0.0, draws=None, route=None):
    """`Decoded` as numpy of one search."""
    graphdef, params = model(route is not None)
    mask_BT = np.ones(states_BTD.shape[:2], bool)
    found = search(route is not None)(
        params, states_BTD, mask_BT, route, begin, rules or Rules(eot=EOT), np.float32(temperature), draws, plan=plan
    )
    return jax.tree.map(np.asarray, found)


@functools.partial(jax.jit, static_argnums=0)
def _decode(graphdef, params, tokens_BL, states_BTD):
    return functional.merge(graphdef, params).decode(tokens_BL, states_BTD)


def next_logprobs(tokens, states_TD):
    """Log-probabilities [V] of the token after `tokens`, by the whole network without a cache."""
    graphdef, params = model()
    padded = np.zeros((1, 24), np.int32)
    padded[0, : len(tokens)] = tokens
    logits_V = np.asarray(_decode(graphdef, params, padded, states_TD[None]))[0, len(tokens) - 1].astype(np.float64)
    return logits_V - np.log(np.exp(logits_V - logits_V.max()).sum()) - logits_V.max()
