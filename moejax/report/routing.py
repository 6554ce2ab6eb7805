"""Where the gate sends whom, and what that is worth: the figures of summary.json."""

import math
from typing import Any

import numpy as np

from moejax.report import roles
from moejax.report.load import Evaluation
from moejax.score import tables

KEYS = (  # what is taken over of routing.json
    *("experts", "cohorts", "load", "max_load", "max_load_over_prior", "top1", "max_top1", "entropy"),
    *("utterance_entropy", "gate_accuracy", "gate_accuracy_joint", "gate_rows", "majority", "nuisance", "prior"),
)
CLUSTERS = ("method", "level", "found", "num_experts", "match", "noise_share", "noise_policy", "stability")


def find(routing: dict | None, found: Evaluation, table: tables.Table, *, draws: int, seed: int) -> dict:
    """`KEYS`, each expert's share of all utterances as `expert_load`, and `gate_worth`; empty without routing.json."""
    if not routing:
        return {}
    made: dict[str, Any] = {key: routing.get(key) for key in KEYS}
    if made["load"]:
        sizes = {name: table.sizes["cohort", name] for name in table.names("cohort")}
        total_E = expert_load(made["load"], made["cohorts"], sizes)
        made["expert_load"] = routing.get("expert_load") or [round(float(x), 6) for x in total_E]
    if worth := gate_worth(found, draws=draws, seed=seed):
        made["gate_worth"] = worth
    return made


def expert_load(load, cohorts: list[str], sizes: dict[str, int]) -> np.ndarray:
    """Each expert's share of all routing weight [E] from the matrix [E, C] and the utterances of every cohort.

    Shares within cohorts are weighted by the cohorts' sizes (a cohort without a size counts as one utterance); a matrix
    of shares of the whole is just summed.
    """
    load_EC = np.atleast_2d(np.asarray(load, np.float64))
    weight_C = np.array([sizes.get(c, 1) for c in cohorts], np.float64)
    total_E = load_EC.sum(1) if np.isclose(load_EC.sum(), 1, atol=0.02) else load_EC @ weight_C
    return total_E / max(total_E.sum(), 1e-12)


def gate_worth(found: Evaluation, *, draws: int, seed: int) -> dict | None:
    """What the gate is worth: the mixture against itself with the same mean route for every utterance, paired."""
    routed, constant = found.of(roles.MIXTURE), found.of(roles.MEAN_GATE)
    if not routed or not constant:
        return None
    gap = tables.compare(routed, constant, draws=draws, seed=seed)
    shown = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in gap.items()}
    return {"against": roles.MEAN_GATE, **shown}


def clusters(agreement: dict | None) -> dict:
    """How the experts came about: clusters found, what was done to get as many as experts, noise."""
    return {key: agreement.get(key) for key in CLUSTERS} if agreement else {}
