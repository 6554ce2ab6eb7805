"""Is the gate any good? Its accuracy beside what the majority class and mere duration and silence would reach."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moejax.errors import BadValue
from moejax.tasks import asr


def gate_scores(context, graphdef, params, embedding, label, fit_rows) -> dict:
    """Accuracies against the out-of-sample cluster labels, on dev and test (noise labels left out).

    Rows of train are no test: their label is their speaker's cluster, and the gate was fitted on that speaker. Speakers
    of dev and test may have been heard in training, as the split has it.
    gate_accuracy: argmax of the gate. majority: always the sample's largest cluster. nuisance: logistic regression that
    sees only duration and silence share. A gate no better than the last encodes how long people speak, not how.
    """
    held = np.flatnonzero((context.corpus.manifest.column("split") != "train") & (label >= 0))
    known = fit_rows[label[fit_rows] >= 0]
    if not len(held):
        raise BadValue("no utterance of dev or test is in a cluster, so there is none to test the gate on")
    logits_NE = np.asarray(asr.make_gate(graphdef)(params, embedding[held]))
    majority = np.bincount(label[known]).argmax()
    return {
        "rows": int(len(held)),
        "gate_accuracy": float((logits_NE.argmax(1) == label[held]).mean()),
        "majority": float((label[held] == majority).mean()),
        "nuisance": _nuisance(context, label, known, held),
    }


def _nuisance(context, label, known, held) -> float:
    seconds, silence = context.corpus.manifest.column("seconds"), context.corpus.manifest.column("silence")
    features = np.stack([seconds, np.log(seconds), silence], axis=1)
    if len(set(label[known])) < 2:
        return float((label[held] == label[known][0]).mean())
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features[known], label[known])
    return float((model.predict(features[held]) == label[held]).mean())
