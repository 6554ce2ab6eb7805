"""LoRAs of one person on the decoder of a frozen model, several of them trained side by side as one program."""

import functools
from collections.abc import Callable, Sequence

import jax
import numpy as np

from moejax.convert import low_rank
from moejax.convert.low_rank import LowRank
from moejax.errors import BadValue
from moejax.personal.material import Material
from moejax.recognizer import Recognizer
from moejax.systems.system import Network, System
from moejax.tasks import asr
from moejax.train import optim
from moejax.train.state import init_state, train_step

TARGETS = ("decoder/layers/*/*",)  # every linear layer of the decoder: the encoder's states are then computed once
EACH = 2  # recordings of every adapter in a step
# Six readings of everything, forty steps at least. Chosen on six speakers of speechocean762 with twelve recordings each
# (tiny.en, errors of eight others in front of 275 words: as published 35.6 %; 40 steps at 3e-4 32.4, at 1e-3 for 20
# steps 36.4, at 3e-4 for 100 steps 38.2).
RATE = 3e-4
Told = Callable[[int, int], None]  # steps done, of how many


def steps_for(recordings: int) -> int:
    """Training steps of an adapter that learns from so many recordings."""
    return max(40, 3 * recordings)


def train(
    recognizer: Recognizer,
    material: Material,
    members: Sequence[Sequence[int]],
    *,
    rank: int,
    steps: int,
    rate: float = RATE,
    seed: int = 0,
    told: Told = lambda done, of: None,
) -> list[dict[str, LowRank]]:
    """An adapter for each list of recordings (places in the material) that it learns from. The adapters stand in one
    stacked array and do not see each other; every step takes `EACH` recordings of each.
    """
    mixture = asr.Mixture(targets=TARGETS, num_experts=len(members), rank=rank, alpha=2.0 * rank)
    graphdef, params = asr.init(asr.build(recognizer.config, mixture=mixture, seed=seed), recognizer.params)
    optimizer, _ = optim.make_optimizer(learning_rate=rate, steps=steps, warmup=min(8, steps), b2=0.98)
    state, frozen = init_state(params, ("expert",), optimizer, jax.random.key(seed))
    loss = asr.make_loss(graphdef, asr.Row(route="label", frozen=True), mixture=mixture)
    step = jax.jit(functools.partial(train_step, loss, optimizer, None, False), donate_argnums=0)
    draws = [_turns(places, np.random.default_rng([seed, label])) for label, places in enumerate(members)]
    labels = [label for label in range(len(members)) for _ in range(EACH)]
    for done in range(steps):
        chosen = [next(turns) for turns in draws for _ in range(EACH)]
        batch = material.batch([place for place, _ in chosen], labels, [timed for _, timed in chosen])
        state, _ = step(state, frozen, batch)
        told(done + 1, steps)
    expert = jax.tree.map(np.asarray, state.params["expert"])
    return [low_rank.one_expert(expert, label, mixture.alpha / rank) for label in range(len(members))]


def _turns(places, rng):
    """(recording, with times or not) for ever: all of them in a drawn order, then in another one."""
    while True:
        for place in rng.permutation(np.asarray(places)):
            yield int(place), bool(rng.random() < 0.5)


def can(recognizer: Recognizer) -> bool:
    """Whether a LoRA can be learnt on a recogniser: one network for everybody, its kernels no integers."""
    network = recognizer.network
    alike = network.mixture is None or (network.route == "label" and isinstance(network.mixture, asr.Mixture))
    return alike and not any(leaf.dtype == np.int8 for leaf in jax.tree.leaves(network.params["backbone"]))


def plain(recognizer: Recognizer) -> Recognizer:
    """The recogniser as one network without adapters, to learn on: a LoRA that it has is merged into its weights.

    Errors: BadValue for one on which none can be learnt (`can`).
    """
    network = recognizer.network
    if not can(recognizer):
        raise BadValue(f"no LoRA can be learnt on {recognizer.system.name}: it is no network for everybody, or int8")
    if network.mixture is None:
        return recognizer
    expert, mixture = network.params["expert"], network.experts
    update = low_rank.one_expert(expert, network.label, mixture.scales(low_rank.layers(expert)))
    graphdef, params = asr.init(asr.build(recognizer.config), low_rank.merged(network.params, update))
    base = System("base", "base", "base").opened(Network(graphdef, params, recognizer.config), 0)
    return recognizer.of_system(base)


def with_adapter(recognizer: Recognizer, adapter: dict[str, LowRank]) -> Recognizer:
    """The same recogniser with the adapter merged into its weights; its compiled programs are shared."""
    return recognizer.with_params(low_rank.merged(recognizer.params, adapter))
