"""A real Whisper of 1 + 1 layers and width 32, real batches for it, and the real step: what several tests share."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from moejax.data.collate import Collator, Utterances
from moejax.nn import functional
from moejax.nn.whisper import WhisperConfig
from moejax.runtime import sharding
from moejax.tasks import asr
from moejax.train import optim, state

VOCAB, EOT, PREFIX = 24, 23, [20, 21]
SECOND, BUCKET = 16000, 10240  # 10240 samples: 32 mel frames of hop 320, 16 encoder frames
U, E = 8, 4
CONFIG = WhisperConfig(
    32,
    1,
    1,
    2,
    2,
    48,
    48,
    VOCAB,
    num_mel_bins=20,
    max_source_positions=32,
    max_target_positions=16,
    hop=320,
    mask_padding=True,
)
EVERYWHERE = ("encoder/layers/*/*", "decoder/layers/*/*")
MIXTURE = asr.Mixture(targets=EVERYWHERE, num_experts=E, rank=2, alpha=4.0)
GATE = {"mean": np.zeros(U, np.float32), "matrix": np.eye(U, dtype=np.float32), "hidden": 0, "zero_start": False}
GATE_ROW = asr.Row(route="gate")


@functools.cache
def _fresh(mixture, config, hidden, seed):
    gate = None if mixture is None else {**GATE, "hidden": hidden}
    return asr.init(asr.build(config, mixture=mixture, gate=gate, seed=seed))


def model(mixture=MIXTURE, *, config=CONFIG, hidden=0, seed=0, awake=True):
    """`(graphdef, params)`; `awake` experts have B drawn too, so that they change what the model says."""
    graphdef, params = _fresh(mixture, config, hidden, seed)
    return graphdef, wake(params) if awake and mixture is not None else params


def wake(params, scale=0.3):
    """The same parameters with every zero B of the experts drawn."""
    rng = np.random.default_rng(5)
    flat = functional.paths(params["expert"])
    drawn = {p: jnp.asarray(scale * rng.normal(size=x.shape), jnp.float32) for p, x in flat.items() if p[-1] == "B"}
    return {**params, "expert": functional.nest({**flat, **drawn})}


def with_gate_bias(params, bias_E):
    """The gate's logits moved by `bias_E`."""
    gate = {**params["gate"]["gate"], "bias": jnp.asarray(bias_E, jnp.float32)}
    return {**params, "gate": {"gate": gate}}


def wave(row, samples):
    """A tone over noise, a pure function of the row."""
    rng = np.random.default_rng(row)
    time = np.arange(samples) / SECOND
    tone = 0.3 * np.sin(2 * np.pi * (200 + 150 * (row % 7)) * time)
    return (tone + 0.01 * rng.normal(size=samples)).astype(np.float32)


def collator(rows=16, *, words=None, samples=None, labels=None, gate_in=None, cohorts=None):
    """The product's collator on `rows` utterances of 1 to 4 words."""
    rng = np.random.default_rng(3)
    samples = rng.integers(BUCKET // 2, BUCKET, rows) if samples is None else np.asarray(samples)
    words = [rng.integers(0, 20, 1 + r % 4).tolist() for r in range(rows)] if words is None else words
    tokens = [PREFIX + w + [EOT] for w in words]
    return Collator(
        Utterances(lambda row: wave(row, samples[row]), np.asarray(samples), tokens, len(PREFIX), EOT),
        (BUCKET,),
        labels=np.arange(rows) % E if labels is None else labels,
        gate_in=rng.normal(size=(rows, U)) if gate_in is None else gate_in,
        cohorts=np.arange(rows) % 3 if cohorts is None else cohorts,
    )


def batch(rows=8, **options):
    """The first `rows` utterances as one batch."""
    return collator(max(rows, 16), **options)(BUCKET, np.arange(rows))


def replace(batch, **changes):
    return dataclasses.replace(batch, **changes)


@functools.cache
def _loss(graphdef_id, row, mixture, prior, cohorts):
    graphdef = _GRAPHS[graphdef_id]
    prior_E = None if prior is None else jnp.asarray(prior, jnp.float32)
    loss_fn = asr.make_loss(graphdef, row, mixture=mixture, prior_E=prior_E, num_cohorts=cohorts)
    return loss_fn, jax.jit(loss_fn), jax.jit(jax.value_and_grad(loss_fn, has_aux=True))


_GRAPHS = {}


def loss_of(graphdef, row=GATE_ROW, mixture=MIXTURE, prior=None, cohorts=3):
    """`(loss_fn, jitted, jitted with gradients)`, compiled once per choice."""
    _GRAPHS[id(graphdef)] = graphdef
    return _loss(id(graphdef), row, mixture, prior, cohorts)


def single():
    return sharding.make_mesh({}, jax.devices()[:1])


def trainer(loss_fn, params, trainable, *, mesh=None, steps=100, learning_rate=1e-2, **options):
    """`(state, frozen, step)` of the product's own optimizer and step; `step(state, frozen, batch)`."""
    mesh = single() if mesh is None else mesh
    optimizer, schedule = optim.make_optimizer(
        learning_rate=learning_rate, steps=steps, **{"schedule": "constant", **options}
    )
    fresh, frozen = state.init_state(params, trainable, optimizer, jax.random.key(0))
    fresh, frozen, *shardings = state.place(fresh, frozen, optimizer, mesh)
    step = state.make_step(loss_fn, optimizer, mesh, *shardings, schedule=schedule)
    return fresh, frozen, lambda now, frozen, data: step(now, frozen, sharding.shard_batch(data, mesh))


def changed(before, after):
    """{path: did any number change} over two trees of the same paths."""
    before, after = functional.paths(before), functional.paths(after)
    assert before.keys() == after.keys()
    return {path: not np.array_equal(before[path], after[path]) for path in before}
