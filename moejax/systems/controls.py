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

import numpy as np

from moejax.data.manifest import SPLITS
from moejax.ops import routing
from moejax.tasks import asr
from moejax.training import network
from moejax.work.context import Corpus


def logits(name: str, corpus: Corpus, graphdef, params, mixture: asr.Mixture) -> np.ndarray:
    """logits_NE of a control for every row of the manifest."""
    return CONTROLS[name](corpus, graphdef, params, mixture)


def _random(corpus, graphdef, params, mixture):
    embedding_NU = network.gate_inputs(corpus, np.arange(len(corpus.manifest)))
    logits_NE = np.asarray(asr.make_gate(graphdef)(params, embedding_NU), np.float32)
    return np.random.default_rng(corpus.cfg.seed).permuted(logits_NE, axis=1)


def _mean(corpus, graphdef, params, mixture):
    mean_E = network.mean_logits(corpus, graphdef, params, mixture)
    return np.tile(mean_E, (len(corpus.manifest), 1))


def _uniform(corpus, graphdef, params, mixture):
    return np.zeros((len(corpus.manifest), mixture.num_experts), np.float32)


def _shuffled(corpus, graphdef, params, mixture):
    rng, split = np.random.default_rng(corpus.cfg.seed), corpus.manifest.column("split")
    other_N = np.arange(len(split))
    for part in SPLITS:
        rows = np.flatnonzero(split == part)
        other_N[rows] = rows[_derangement(rng, len(rows))]
    embedding_NU = network.gate_inputs(corpus, other_N)
    return np.asarray(asr.make_gate(graphdef)(params, embedding_NU), np.float32)


def _enrolled(corpus, graphdef, params, mixture):
    return np.asarray(asr.make_gate(graphdef)(params, network.enrolled(corpus)), np.float32)


def _oracle(corpus, graphdef, params, mixture):
    rows = corpus.rows("train")
    weight_NE = network.train_weights(corpus, graphdef, params, mixture)
    cohort = corpus.manifest.column("cohort")
    mean = {c: weight_NE[cohort[rows] == c].mean(0) if (cohort[rows] == c).any() else None for c in corpus.cohorts}
    mean_E = weight_NE.mean(0)
    chosen_NE = np.stack([mean_E if mean[c] is None else mean[c] for c in cohort])
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
ONE_ROUTE = ("moe_mean_gate", "moe_uniform_gate")  # those that are one network, the same for everybody
