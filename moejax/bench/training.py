"""moejax's training steps for the benchmark: the product's step and optimizer, on encoder states or on features."""

import dataclasses

import jax
import numpy as np

from moejax.bench import inputs
from moejax.bench.worker import Job
from moejax.convert import hf_whisper
from moejax.nn import functional
from moejax.nn.quantize import quantize
from moejax.ops import losses
from moejax.runtime import sharding
from moejax.tasks import asr
from moejax.train import optim, state
from moejax.types import Route

RANK, ALPHA, RATE, CLIP = 8, 16.0, 1e-3, 1.0  # the peer's too
EVERY_DECODER_LAYER = ("decoder/layers/*/*",)


def mixture(num_experts: int, top_k: int) -> asr.Mixture:
    return asr.Mixture(targets=EVERY_DECODER_LAYER, num_experts=num_experts, rank=RANK, alpha=ALPHA, top_k=top_k)


def typed(config, options):
    """The config with activations of the options' type."""
    return dataclasses.replace(config, dtype=options.get("dtype", "float32"))


def awake(experts, std=0.01):
    """Experts whose B is not zero, so that nothing can be optimised away."""
    rng = np.random.default_rng(5)
    flat = functional.paths(experts)
    drawn = {p: np.float32(std) * rng.standard_normal(x.shape, np.float32) for p, x in flat.items() if p[-1] == "B"}
    return functional.nest({**flat, **drawn})


def train(options) -> Job:
    """One step of experts with a given route; from encoder states ("states": true) or through the frozen encoder.

    "experts" and "top_k" size the mixture on every linear layer of the decoder; fresh experts (B = 0), as at the start
    of a training. The result is the loss of the step.
    """
    step, now, frozen, batch = prepared(options)
    held = [now]

    def run():
        held[0], metrics = step(held[0], frozen, batch)
        return jax.block_until_ready(metrics)["loss"]

    return Job(run)


def prepared(options):
    """`(step, state, frozen, batch)`, placed on the first `devices` devices and not yet compiled."""
    config, base = hf_whisper.load(options["folder"], dtype=options.get("dtype", "float32"))
    config = typed(config, options)
    E, k = options["experts"], options["top_k"]
    make = asr.build(config, mixture=mixture(E, k))
    graphdef, params = asr.init(make, quantize(base, options.get("weights", "")))
    batch = examples(options, config)
    mesh = sharding.make_mesh({"data": -1}, jax.devices()[: options.get("devices", 1)])
    optimizer, schedule = optim.make_optimizer(learning_rate=RATE, steps=10**6, schedule="constant", clip=CLIP)
    now, frozen = state.init_state(params, ("expert",), optimizer, jax.random.key(0))
    now, frozen, live, still = state.place(now, frozen, optimizer, mesh)  # and how both lie on the devices
    step = state.make_step(make_loss(graphdef), optimizer, mesh, live, still, schedule=schedule)
    return step, now, frozen, sharding.shard_batch(batch, mesh)


def examples(options, config) -> dict:
    """The batch: states or features, tokens, targets, and a route for each utterance."""
    batch, seconds = options["batch"], options["seconds"]
    tokens_BL, targets_BL = inputs.tokens(batch, options["tokens"], options["prefix"])
    weight_BX, index_BX = inputs.route(batch, options["experts"], options["top_k"])
    if options["states"]:
        seen = {"states_BTD": inputs.states(batch, seconds, config.d_model)}
    else:
        seen = {"mel_BNM": inputs.mel(batch, seconds, config.num_mel_bins)}
    words = {"tokens_BL": tokens_BL, "targets_BL": targets_BL}
    return {**seen, **words, "weight_BX": weight_BX, "index_BX": index_BX}


def make_loss(graphdef):
    """`loss_fn(params, batch, key)`: cross-entropy of every token; the batch decides whether the encoder runs."""

    def loss_fn(params, batch, key):
        del key
        model = functional.merge(graphdef, params)
        route = Route(batch["weight_BX"], batch["index_BX"])
        if "states_BTD" in batch:
            states_BTD = batch["states_BTD"].astype(model.config.dtype)
        else:
            states_BTD = model.encode(batch["mel_BNM"])
        logits_BLV = model.decode(batch["tokens_BL"], states_BTD, route=route)
        score_BL = batch["targets_BL"] >= 0
        return losses.token_cross_entropy(logits_BLV, batch["targets_BL"], score_BL)[0], {}

    return loss_fn
