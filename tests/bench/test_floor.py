"""Counted work against XLA's own count, where it counts right: straight programs without loops."""

import jax
import jax.numpy as jnp

from moejax.bench import floor
from moejax.bench.rows import EXPERTS, RANK
from moejax.bench.training import make_loss, mixture
from moejax.nn import functional
from moejax.nn.whisper import WhisperConfig
from moejax.tasks import asr

CONFIG = WhisperConfig(128, 2, 2, 2, 2, 512, 512, vocab_size=3000, max_source_positions=100, max_target_positions=64)
BATCH, SECONDS, TOKENS = 2, 2.0, 32


def abstract(**experts):
    mixed = mixture(**experts) if experts else None
    graphdef, recipe = functional.split(asr.build(CONFIG, mixture=mixed)())
    return graphdef, jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.float32), recipe)


def flops(function, *arguments):
    return jax.jit(function).lower(*arguments).cost_analysis()["flops"]


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def test_encoder():
    graphdef, params = abstract()
    counted = flops(lambda params, mel: functional.merge(graphdef, params).encode(mel), params, shape(BATCH, 200, 80))
    # softmax, gelu and norms come on top of the products
    assert 0.85 * counted < floor.encoder(CONFIG, BATCH, SECONDS).flops < counted


def test_training_step_of_the_decoder():
    graphdef, params = abstract(num_experts=10, top_k=2)
    loss_fn = make_loss(graphdef)
    batch = {
        "states_BTD": shape(BATCH, 100, 128),
        "tokens_BL": shape(BATCH, TOKENS, dtype=jnp.int32),
        "targets_BL": shape(BATCH, TOKENS, dtype=jnp.int32),
        "weight_BX": shape(BATCH, 2),
        "index_BX": shape(BATCH, 2, dtype=jnp.int32),
    }

    def step(expert, rest, batch):
        return jax.grad(lambda expert: loss_fn({**rest, "expert": expert}, batch, None)[0])(expert)

    expert = params.pop("expert")
    counted = flops(step, expert, params, batch)
    least = floor.decoder_step(CONFIG, BATCH, SECONDS, TOKENS, RANK, EXPERTS["top_k"]).flops
    # elementwise work, softmax of the vocabulary and unmasked scores come on top of the products
    assert 0.75 * counted < least < 1.02 * counted


def test_greedy_reads_every_weight_for_every_token():
    works = floor.greedy(CONFIG, BATCH, SECONDS, 5, 4)
    matrices = 2 * (8 * 128 * 128 + 2 * 128 * 512) + 3000 * 128
    keys = 2 * BATCH * 2 * 128 * 100  # of the encoder states
    once = [work.bytes for work in works[2:]]
    assert len(once) == 5 and all(4 * (matrices - 2 * 2 * 128 * 128 + keys) < size for size in once)
    assert once == sorted(once) and once[4] - once[0] == 4 * 4 * 2 * BATCH * 2 * 128  # own keys grow by the token
    assert works[2].seconds(1e15, 1e9) == once[0] / 1e9  # bound by memory on any processor


def test_shorter_audio_is_less_work_and_routes_are_little_more():
    long, short = (floor.decoder_step(CONFIG, 8, s, 64, 8, 2).flops for s in (30.0, 6.0))
    assert short < 0.6 * long
    without, routed = (sum(w.bytes for w in floor.greedy(CONFIG, 8, 30.0, 64, 4, r, k)) for r, k in ((0, 0), (8, 2)))
    assert without < routed < 1.5 * without


def test_the_floor_is_the_longer_of_arithmetic_and_memory():
    work = floor.Work(100.0, 10.0) + 2 * floor.Work(50.0, 5.0)
    assert work == floor.Work(200.0, 20.0)
    assert work.seconds(100.0, 100.0) == 2.0 and work.seconds(1e9, 10.0) == 2.0
