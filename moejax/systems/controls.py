"""The mixture with another route than its gate's for the utterance: what is the choice worth, and which part of it?

    moe_mean_gate     everybody gets the mean route of the training part: what routing is worth
    moe_uniform_gate  everybody gets even weights
    moe_shuffled_gate everybody gets the route of another utterance of the same part: as varied, of somebody else
    moe_random_gate   each utterance's weights in a random order over the experts. It also mixes up the scales at which
                      the experts were trained, and so errs more than not routing at all would
    moe_enrolled      the gate hears the speaker's mean embedding instead of the utterance's: training utterances of a
                      known one, his other ones of the same part else. No control but another use of the mixture
    moe_oracle        everybody gets the mean training route of the true cohort: what the gate makes of a voice beyond
                      its cohort is the distance to moe. A cohort that is not in training gets the mean route

The logits of all are known before decoding, one row for each of the manifest's: no row's depend on the batch that it is
decoded in.
"""

import dataclasses

import numpy as np

from moejax.data.manifest import SPLITS
from moejax.ops import routing
from moejax.systems.mixture import JOINT, open_mixture
from moejax.systems.system import Kind, Opened, System
from moejax.tasks import asr
from moejax.training import gate_inputs, network
from moejax.work.context import Context
from moejax.work.folder import Work


def _random(context, graphdef, params, mixture):
    embedding_NU = gate_inputs.embeddings_of(context, np.arange(len(context.corpus.manifest)))
    logits_NE = np.asarray(asr.make_gate(graphdef)(params, embedding_NU), np.float32)
    return np.random.default_rng(context.cfg.seed).permuted(logits_NE, axis=1)


def _mean(context, graphdef, params, mixture):
    mean_E = network.mean_logits(context, graphdef, params, mixture)
    return np.tile(mean_E, (len(context.corpus.manifest), 1))


def _uniform(context, graphdef, params, mixture):
    return np.zeros((len(context.corpus.manifest), mixture.num_experts), np.float32)


def _shuffled(context, graphdef, params, mixture):
    rng, split = np.random.default_rng(context.cfg.seed), context.corpus.manifest.column("split")
    other_N = np.arange(len(split))
    for part in SPLITS:
        rows = np.flatnonzero(split == part)
        other_N[rows] = rows[_derangement(rng, len(rows))]
    embedding_NU = gate_inputs.embeddings_of(context, other_N)
    return np.asarray(asr.make_gate(graphdef)(params, embedding_NU), np.float32)


def _enrolled(context, graphdef, params, mixture):
    return np.asarray(asr.make_gate(graphdef)(params, gate_inputs.enrolled_by_all(context)), np.float32)


def _oracle(context, graphdef, params, mixture):
    rows = context.corpus.rows("train")
    weight_NE = network.train_weights(context, graphdef, params, mixture)
    cohort = context.corpus.manifest.column("cohort")
    mean_E = weight_NE.mean(0)
    mean = {
        c: weight_NE[cohort[rows] == c].mean(0) if (cohort[rows] == c).any() else mean_E for c in context.corpus.cohorts
    }
    chosen_NE = np.stack([mean[c] for c in cohort])
    return routing.logits_of(chosen_NE, mixture.routing)


def _derangement(rng, count: int) -> np.ndarray:
    """A random order in which nobody stays in place (with two or more)."""
    order = rng.permutation(count)
    found = np.empty(count, int)
    found[order] = np.roll(order, 1)  # one cycle through all
    return found


CONTROLS = {
    "moe_mean_gate": _mean,
    "moe_uniform_gate": _uniform,
    "moe_shuffled_gate": _shuffled,
    "moe_random_gate": _random,
    "moe_enrolled": _enrolled,
    "moe_oracle": _oracle,
}
# Those that are one network, the same for everybody
MEANING = {
    "moe_mean_gate": "moe on the mean route of its training part for every utterance",
    "moe_uniform_gate": "moe on even weights for every utterance",
}


def _known(work: Work) -> list[System]:
    there = work.path(JOINT.stage, "params.safetensors").exists()
    return [_record(name) for name in CONTROLS] if there else []


def _record(name: str) -> System:
    return System(name, "control", JOINT.stage, of=JOINT.name, meaning=MEANING.get(name, ""))


def _open(context: Context, system: System) -> Opened:
    mixture = open_mixture(context, JOINT)
    network = mixture.network
    even = system.name == "moe_uniform_gate" and network.experts.routing not in ("dense", "sigmoid")
    if even:  # even logits choose the first k
        return system.opened(dataclasses.replace(network, route="uniform"), mixture.trainable)
    logits_NE = CONTROLS[system.name](context, network.graphdef, network.params, network.experts)
    return system.opened(dataclasses.replace(network, logits_NE=logits_NE), mixture.trainable)


KIND = Kind(_known, _open, names=tuple(CONTROLS))
