"""Rows of a language model that hears: every utterance is asked for its text, or for its translation. And the same
systems asked anything about recordings that no corpus has.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from moejax.cohorts import embed
from moejax.nn import functional
from moejax.ops import routing
from moejax.systems.system import Opened
from moejax.tasks import answers
from moejax.training import gate_inputs, salmonn
from moejax.types import Route
from moejax.work.context import Context


def answers_of(context: Context, system: Opened, rows: np.ndarray) -> Iterator[tuple[int, str, np.ndarray | None]]:
    """(place in `rows`, answer, experts' weights or None) of each; evaluate.batch_size together, on one device."""
    network, size = system.network, min(context.cfg.evaluate.batch_size, len(rows))
    own, answerer = context.cfg.salmonn, network.answerer
    assert answerer is not None  # of every system that answers
    task = "translate" if network.target else "transcribe"
    asked = salmonn.question(task, network.target or context.cfg.translate.target)
    weigh = _gate(system)
    for at in range(0, len(rows), size):
        pick = rows[np.minimum(np.arange(at, at + size), len(rows) - 1)]  # filled up: one shape
        route = answers.one_lora(size) if weigh is None else weigh(network.params, _heard(context, pick))
        waves = [context.corpus.audio[int(row)] for row in pick]
        texts = answerer(waves, [asked] * size, beams=own.beams, most=own.most, route=route)
        weight_BE = None if weigh is None else np.asarray(routing.dense_weights(route, network.experts.num_experts))
        for b in range(min(size, len(rows) - at)):
            yield at + b, texts[b], None if weight_BE is None else weight_BE[b]


@dataclasses.dataclass(frozen=True)
class Asked:
    """A language model that hears, with the route that it takes for recordings of at most so many samples."""

    answerer: answers.Answerer
    routes: Callable[[Sequence[np.ndarray]], Route]
    samples: int


def asked(context: Context, system: Opened) -> Asked:
    """The system for recordings that no corpus has: its gate hears of them what the stage `embed` would."""
    answerer, weigh = system.network.answerer, _gate(system)
    assert answerer is not None  # of every system that answers
    if weigh is None:
        return Asked(answerer, lambda waves: answers.one_lora(len(waves)), answerer.samples)
    hear = embed.of_recordings(context)
    return Asked(
        answerer, lambda waves: weigh(system.network.params, hear(waves)), min(answerer.samples, context.window)
    )


def _heard(context: Context, rows: np.ndarray) -> np.ndarray:
    """What the gate hears: the job's embeddings, as in training."""
    return np.asarray(gate_inputs.embeddings_of(context, rows), np.float32)


def _gate(system: Opened):
    """Jitted `(params, gate_in_BU) -> Route`; None where there is one LoRA."""
    network = system.network
    if network.route != "gate":
        return None

    @jax.jit
    def run(params, gate_in_BU) -> Route:
        gate = functional.merge(network.graphdef, params).gate
        return network.experts.whole_route(gate(gate_in_BU), gate, gate_in_BU, jnp.ones((len(gate_in_BU), 1)))

    return run
