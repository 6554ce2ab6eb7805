"""What do the clusters encode? Agreement of labels with what is known about the utterances, nuisances included."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score, adjusted_rand_score, mutual_info_score
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information


def codes(values_N: np.ndarray) -> np.ndarray:
    """Any column as small integers, equal values alike."""
    return np.unique(np.asarray(values_N).astype(str), return_inverse=True)[1]


def quantile_bins(values_N: np.ndarray, bins: int = 5) -> np.ndarray:
    """Each value's quantile bin 0..bins-1, so that a measure such as duration can stand beside a class.

    Equal values share a bin, so a column with few distinct values gives fewer bins; NaN is a bin of its own, the last.
    """
    values_N = np.asarray(values_N, np.float64)
    known_N = np.isfinite(values_N)
    bin_N = np.full(len(values_N), bins)
    if known_N.any():
        edges = np.quantile(values_N[known_N], np.linspace(0, 1, bins + 1)[1:-1])
        bin_N[known_N] = np.searchsorted(edges, values_N[known_N], side="right")
    return bin_N


def noise_share(labels_N: np.ndarray) -> float:
    """Share of points in no cluster."""
    labels_N = np.asarray(labels_N)
    return float(np.mean(labels_N < 0)) if len(labels_N) else 0.0


def adjusted_rand(labels_N: np.ndarray, classes_N: np.ndarray) -> float:
    """Adjusted Rand index over the points that are not noise: 1 for the same partition, about 0 for unrelated ones."""
    keep_N = np.asarray(labels_N) >= 0
    return float(adjusted_rand_score(codes(np.asarray(classes_N)[keep_N]), np.asarray(labels_N)[keep_N]))


def adjusted_mutual_information(labels_N: np.ndarray, classes_N: np.ndarray) -> float:
    """Adjusted mutual information over the points that are not noise (mean of the two entropies below the line)."""
    keep_N = np.asarray(labels_N) >= 0
    if not keep_N.any():
        return 0.0
    return float(adjusted_mutual_info_score(codes(np.asarray(classes_N)[keep_N]), np.asarray(labels_N)[keep_N]))


def explained(labels_N: np.ndarray, classes_N: np.ndarray) -> float:
    """Share of the clusters' entropy that the classes explain, above chance: 1 if the class decides the cluster.

    Unlike the adjusted mutual information it does not fall when there are more classes than clusters (30 speakers in 4
    clusters), so speaker, text and duration can be compared with one another.
    """
    labels_N = np.asarray(labels_N)
    keep_N = labels_N >= 0
    label_N, class_N = labels_N[keep_N], codes(np.asarray(classes_N)[keep_N])
    if len(np.unique(label_N)) < 2 or len(np.unique(class_N)) < 2:
        return 0.0
    table = contingency_matrix(class_N, label_N, sparse=True, dtype=np.int64)
    by_chance = expected_mutual_information(table, len(label_N))
    entropy = mutual_info_score(label_N, label_N)
    if entropy - by_chance < 1e-6 * entropy:  # every point its own class: chance explains all that there is
        return 0.0
    return float((mutual_info_score(class_N, label_N) - by_chance) / (entropy - by_chance))


def purity(labels_N: np.ndarray, classes_N: np.ndarray) -> float:
    """Share of the clustered points whose class is their cluster's most frequent one. 1 for singletons."""
    labels_N = np.asarray(labels_N)
    keep_N = labels_N >= 0
    if not keep_N.any():
        return 0.0
    table = contingency_matrix(codes(np.asarray(classes_N)[keep_N]), labels_N[keep_N])
    return float(table.max(axis=0).sum() / table.sum())


def overlap(groups_N: np.ndarray, labels_N: np.ndarray, num_clusters: int) -> tuple[np.ndarray, list[str]]:
    """Utterances of each group (speaker) in each cluster, noise in the last column: `(counts [P, C + 1], names)`."""
    names, index_N = np.unique(np.asarray(groups_N).astype(str), return_inverse=True)
    counts = np.zeros((len(names), num_clusters + 1), np.int64)
    labels_N = np.asarray(labels_N)
    np.add.at(counts, (index_N, np.where(labels_N < 0, num_clusters, labels_N)), 1)
    return counts, [str(name) for name in names]


def agreement(labels_N: np.ndarray, columns: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """For each named column: `ari`, `ami`, `explained`, `purity`, `classes`. A column with fewer than 2 classes is left
    out.

    Bin measures first (`quantile_bins`).
    """
    rows = {}
    for name, values_N in columns.items():
        classes = len(np.unique(codes(values_N))) if len(values_N) else 0
        if classes < 2:
            continue
        rows[name] = {
            "ari": adjusted_rand(labels_N, values_N),
            "ami": adjusted_mutual_information(labels_N, values_N),
            "explained": explained(labels_N, values_N),
            "purity": purity(labels_N, values_N),
            "classes": classes,
        }
    return rows


def stability(
    refit: Callable[[np.ndarray, int], np.ndarray],
    num_points: int,
    *,
    refits: int = 5,
    share: float = 0.9,
    seed: int = 0,
) -> float:
    """Mean adjusted Rand index between pairs of refits, each on a random `share` of the points with a seed of its own.

    `refit(index_N, seed)` returns the labels of the points it was given. Leaving points out matters: HDBSCAN alone is
    deterministic and would always agree with itself. Compared on the points that two refits share and both cluster.
    """
    if refits < 2 or not 0 < share <= 1:
        raise ValueError(f"stability: refits={refits} must be at least 2 and share={share} in (0, 1]")
    random = np.random.default_rng(seed)
    size = max(2, int(round(share * num_points)))
    runs = []
    for run in range(refits):
        index_N = np.sort(random.permutation(num_points)[:size])
        labels_N = np.full(num_points, -1)
        labels_N[index_N] = refit(index_N, seed + run)
        runs.append(labels_N)
    scores = []
    for i, first_N in enumerate(runs):
        for second_N in runs[:i]:
            both_N = (first_N >= 0) & (second_N >= 0)
            scores.append(adjusted_rand_score(first_N[both_N], second_N[both_N]) if both_N.sum() > 1 else 0.0)
    return float(np.mean(scores))
