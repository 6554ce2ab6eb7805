"""Makes the number of clusters equal the number of experts, by splitting, merging or shrinking, and says which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np

from moejax.cohorts.clustering import checked, kmeans, softmax, squared_distances, weighted_centroids
from moejax.cohorts.names import MATCHES
from moejax.errors import BadValue


@dataclass(frozen=True, kw_only=True)
class Split:
    """Cluster `cluster` becomes itself and a new last one, by the nearer of two centres."""

    cluster: int
    centres_2U: np.ndarray
    variance: float


@dataclass(frozen=True, kw_only=True)
class Merge:
    """Cluster `gone` joins `into`; the clusters above `gone` move down by one. `into < gone`."""

    into: int
    gone: int


@dataclass(frozen=True, kw_only=True)
class Matched:
    """Matched clusters: as many columns as `num_experts`, fewer than asked if `action` is "shrink"."""

    labels_N: np.ndarray
    memberships_NC: np.ndarray
    num_experts: int
    action: str  # "none", "split", "merge" or "shrink"
    note: str
    steps: tuple[Split | Merge, ...]

    def apply(
        self, labels_N: np.ndarray, memberships_NC: np.ndarray, x_NU: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same splits and merges for points that the unmatched model assigned: `(labels_N, memberships_NC)`."""
        for step in self.steps:
            labels_N, memberships_NC = _take(step, labels_N, memberships_NC, x_NU)
        return labels_N, memberships_NC


def _take(
    step: Split | Merge, labels_N: np.ndarray, memberships_NC: np.ndarray, x_NU: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    labels_N, memberships_NC = np.array(labels_N, np.int64), np.array(memberships_NC, np.float64)
    if isinstance(step, Split):
        near_N2 = softmax(-0.5 * squared_distances(np.asarray(x_NU, np.float64), step.centres_2U) / step.variance)
        column_N = memberships_NC[:, step.cluster].copy()
        memberships_NC[:, step.cluster] = column_N * near_N2[:, 0]
        labels_N[(labels_N == step.cluster) & (near_N2[:, 1] > near_N2[:, 0])] = memberships_NC.shape[1]
        return labels_N, np.concatenate([memberships_NC, (column_N * near_N2[:, 1])[:, None]], axis=1)
    memberships_NC[:, step.into] += memberships_NC[:, step.gone]
    labels_N[labels_N == step.gone] = step.into
    labels_N[labels_N > step.gone] -= 1
    return labels_N, np.delete(memberships_NC, step.gone, axis=1)


def _split_largest(labels_N: np.ndarray, clusters: int, x_NU: np.ndarray, seed: int) -> Split | None:
    """k-means with 2 on the largest cluster that has two different points, or None."""
    sizes_C = np.bincount(labels_N[labels_N >= 0], minlength=clusters)
    for cluster in np.argsort(-sizes_C, kind="stable"):
        points_NU = x_NU[labels_N == cluster]
        if len(points_NU) < 2 or np.ptp(points_NU, axis=0).max() <= 1e-9:
            continue
        halves = kmeans(points_NU, 2, seed)
        inertia = cast(float, halves.inertia_)  # set by fit
        variance = max(inertia / points_NU.size, 1e-3 * float(points_NU.var(axis=0).mean()), 1e-12)
        return Split(cluster=int(cluster), centres_2U=halves.cluster_centers_.astype(np.float64), variance=variance)
    return None


def _merge_nearest(memberships_NC: np.ndarray, x_NU: np.ndarray) -> Merge:
    centroids_CU = weighted_centroids(x_NU, memberships_NC)
    distance_CC = squared_distances(centroids_CU, centroids_CU)
    distance_CC[np.tril_indices(len(distance_CC))] = np.inf
    into, gone = np.unravel_index(distance_CC.argmin(), distance_CC.shape)
    return Merge(into=int(into), gone=int(gone))


def match_experts(
    labels_N: np.ndarray,
    memberships_NC: np.ndarray,
    x_NU: np.ndarray,
    num_experts: int,
    policy: str = "split",
    seed: int = 0,
) -> Matched:
    """Matches C clusters to `num_experts`: too many are merged, nearest centroids first; too few are split or E
    shrinks.

    "split" halves the largest cluster (k-means with 2) until there are enough; when every cluster is a single point E
    shrinks after all. "shrink" lowers E to C. Noise stays noise. `.action` and `.note` say what was done.
    """
    if policy not in MATCHES:
        raise BadValue(f"unknown matching policy {policy!r}; known: {', '.join(MATCHES)}")
    found = np.shape(memberships_NC)[1]
    if num_experts < 1 or found < 1:
        raise BadValue(f"match_experts: {found} cluster(s) for {num_experts} expert(s): both must be at least 1")
    x_NU = checked(x_NU, least=1)
    labels_N, memberships_NC = np.asarray(labels_N), np.asarray(memberships_NC)
    steps: list[Split | Merge] = []
    while memberships_NC.shape[1] != num_experts:
        clusters = memberships_NC.shape[1]
        if clusters > num_experts:
            step = _merge_nearest(memberships_NC, x_NU)
        else:
            step = _split_largest(labels_N, clusters, x_NU, seed) if policy == "split" else None
        if step is None:
            break
        steps.append(step)
        labels_N, memberships_NC = _take(step, labels_N, memberships_NC, x_NU)
    clusters = memberships_NC.shape[1]
    if clusters < num_experts:
        action, note = "shrink", f"{found} clusters for {num_experts} experts: the experts shrink to {clusters}"
    elif steps:
        action = "split" if found < num_experts else "merge"
        what = "the largest were split" if action == "split" else "the nearest were merged"
        note = f"{found} clusters for {num_experts} experts: {what}"
    else:
        action, note = "none", f"{found} clusters for {num_experts} experts"
    return Matched(
        labels_N=labels_N,
        memberships_NC=memberships_NC,
        num_experts=clusters,
        action=action,
        note=note,
        steps=tuple(steps),
    )
