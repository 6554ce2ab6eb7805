"""Is the gate any good? Its accuracy beside what the majority class and mere duration and silence would reach."""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moejax.tasks import asr


def gate_scores(corpus, graphdef, params, embedding, label, fit_rows) -> dict:
    """Accuracies against the out-of-sample cluster labels, on all rows outside the sample (noise labels left out).

    gate_accuracy: argmax of the gate. majority: always the sample's largest cluster. nuisance: logistic regression that
    sees only duration and silence share. A gate no better than the last encodes how long people speak, not how.
    """
    held = np.setdiff1d(np.arange(len(label)), np.flatnonzero(corpus.manifest.column("sample")))
    held = held[label[held] >= 0]
    known = fit_rows[label[fit_rows] >= 0]
    if not len(held):
        raise ValueError("no utterance outside the sample to test the gate on; lower data.sample_share")
    logits_NE = np.asarray(asr.make_gate(graphdef)(params, embedding[held]))
    majority = np.bincount(label[known]).argmax()
    return {
        "rows": int(len(held)),
        "gate_accuracy": float((logits_NE.argmax(1) == label[held]).mean()),
        "majority": float((label[held] == majority).mean()),
        "nuisance": _nuisance(corpus, label, known, held),
    }


def _nuisance(corpus, label, known, held) -> float:
    seconds, silence = corpus.manifest.column("seconds"), corpus.manifest.column("silence")
    features = np.stack([seconds, np.log(seconds), silence], axis=1)
    if len(set(label[known])) < 2:
        return float((label[held] == label[known][0]).mean())
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features[known], label[known])
    return float((model.predict(features[held]) == label[held]).mean())
