"""Where the gate of a decoded mixture sends whom."""

import numpy as np

from moejax.ops import routing as routes
from moejax.systems.system import Opened
from moejax.training import gate_inputs, network, probe
from moejax.training.load_monitor import load_table
from moejax.work.context import Context


def summary(context: Context, system: Opened, rows: np.ndarray, records: list[dict]) -> dict:
    """Load of every expert by cohort on the decoded part, and the gate's accuracy; printed and kept for the report.

    `load` counts shares of weight, `top1` utterances by their largest weight. `gate_accuracy` is that of the gate
    stage, `gate_accuracy_joint` that of the gate as `moe` uses it, on the same rows.
    """
    weight_NE = np.array([record["route"] for record in records], np.float32)
    share_NE = np.asarray(routes.shares(weight_NE))
    cohort_NC = np.eye(len(context.corpus.cohorts))[context.corpus.cohort_index(rows)]
    load_EC = share_NE.T @ cohort_NC
    meta = network.gate_of(context.work)["meta"]
    load_E = share_NE.mean(0)
    prior_E = np.asarray(meta["prior"])
    top = np.bincount(weight_NE.argmax(1), minlength=len(prior_E)) / len(weight_NE)
    context.work.log(load_table(load_EC, context.corpus.cohorts, prior_E, top))
    clusters = gate_inputs.clusters_of(context)
    fit_rows = np.flatnonzero(context.corpus.manifest.column("sample") & clusters["keep"])
    embedding = gate_inputs.embeddings_of(context, np.arange(len(context.corpus.manifest)))
    scores = probe.gate_scores(
        context, system.network.graphdef, system.network.params, embedding, clusters["label"], fit_rows
    )
    context.work.log(
        f"  gate accuracy after joint training {scores['gate_accuracy']:.3f} (after the gate stage"
        f" {meta['gate_accuracy']:.3f}, majority {scores['majority']:.3f})"
    )
    return {
        "experts": len(prior_E),
        "cohorts": context.corpus.cohorts,
        "load": (load_EC / np.maximum(load_EC.sum(0, keepdims=True), 1e-9)).tolist(),
        "load_total": load_E.tolist(),
        "top1": top.tolist(),
        "max_top1": float(top.max()),
        "max_load": float(load_E.max()),
        "max_load_over_prior": float((load_E / prior_E).max()),
        "prior": prior_E.tolist(),
        "entropy": float(-(load_E * np.log(load_E + 1e-9)).sum()),
        "utterance_entropy": float(-(share_NE * np.log(share_NE + 1e-9)).sum(1).mean()),
        "gate_accuracy": meta["gate_accuracy"],
        "gate_accuracy_joint": scores["gate_accuracy"],
        "gate_rows": scores["rows"],
        "majority": scores["majority"],
        "nuisance": scores["nuisance"],
    }
