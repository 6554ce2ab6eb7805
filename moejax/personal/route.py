"""A speaker's route through a mixture, fitted on a few phrases of his with their texts.

A mixture offers somebody whom it never heard a basis: the directions in which speakers were found to differ. The
weights in that basis are E numbers, found by a few gradient steps from what the gate makes of his voice; everything
else stands still. Few numbers need few phrases (LoraHub, Huang et al. 2023, fits the weights of LoRAs so).
"""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from moejax.enrolment import voice
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.ops import losses
from moejax.personal.material import Material, Recording
from moejax.recognizer import Recognizer
from moejax.tasks import recognition
from moejax.tasks.routes import Mixture

STEPS, RATE = 20, 0.2
PULL = 0.0  # weight of the squared distance from the gate's own answer
ROOM = 32  # texts are padded to whole multiples of so many tokens: few shapes, few programs


def can(recognizer: Recognizer) -> bool:
    """Whether a recogniser has a route to fit: a mixture of experts in the decoder, one gate for all layers."""
    network = recognizer.network
    whole = isinstance(network.mixture, Mixture) and network.mixture.gate == "utterance"
    return whole and network.route == "gate" and not recognition.encoder_adapted(network.params)


def fit(
    recognizer: Recognizer,
    recordings: Sequence[Recording],
    language: str,
    *,
    steps: int = STEPS,
    rate: float = RATE,
    pull: float = PULL,
) -> Recognizer:
    """The recogniser on the route that makes these texts likeliest, for everything it reads.

    Errors: BadValue for one without such a route (`can`), and for recordings in which nothing can be heard.
    """
    if not can(recognizer):
        raise BadValue(
            f"{recognizer.system.name} has no route to fit: that takes a mixture with experts in the decoder"
        )
    material = Material(recognizer, recordings, language)
    batch = _padded(material.batch(range(len(recordings)), [0] * len(recordings), [False] * len(recordings)))
    network = recognizer.network
    start_E = jnp.asarray(voice.logits(network, [one.wave for one in recordings], recognizer.samples)[0], jnp.float32)
    update, logits_E, state = _update(network.graphdef, network.mixture, rate), start_E, optax.adam(rate).init(start_E)
    for _ in range(steps):
        logits_E, state = update(logits_E, state, network.params, batch, start_E, pull)
    return recognizer.on_route(np.asarray(logits_E))


@functools.lru_cache(maxsize=4)
def _update(graphdef, mixture, rate):
    """One step of Adam on the route, jitted."""
    optimizer = optax.adam(rate)

    def loss(logits_E, params, batch, start_E, pull):
        model, rows = functional.merge(graphdef, params), len(batch.tokens_BL)
        route = mixture.route(jnp.broadcast_to(logits_E, (rows, len(logits_E))))
        x_BLD = model.decoder.norm(model.decoder.hidden(batch.tokens_BL, batch.states_BTD, None, route))
        args = (x_BLD, model.decoder.embed[...], batch.targets_BL, batch.score_BL)
        return losses.frozen_cross_entropy(*args)[0] + pull * jnp.square(logits_E - start_E).sum()

    @jax.jit
    def update(logits_E, state, params, batch, start_E, pull):
        gradient_E = jax.grad(loss)(logits_E, params, batch, start_E, pull)
        change_E, state = optimizer.update(gradient_E, state)
        return optax.apply_updates(logits_E, change_E), state

    return update


def _padded(batch):
    more = -batch.tokens_BL.shape[1] % ROOM

    def wider(array_BL):
        return np.pad(np.asarray(array_BL), ((0, 0), (0, more)))  # nothing of it is scored

    names = ("tokens_BL", "targets_BL", "score_BL")
    return dataclasses.replace(batch, **{name: wider(getattr(batch, name)) for name in names})
