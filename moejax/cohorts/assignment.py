"""From clusters to every utterance: who belongs where by its sound, and what becomes of noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from moejax.cohorts.clustering import Assignment, softmax, squared_distances
from moejax.cohorts.names import NOISE_POLICIES
from moejax.cohorts.projection import checked, fit_discriminant
from moejax.errors import BadValue


def fit_posterior(
    x_NU: np.ndarray, labels_N: np.ndarray, num_clusters: int, shrinkage: float | None = None
) -> Callable[[np.ndarray], Assignment]:
    """Assigns utterances to given clusters by their sound alone: a Gaussian with shared covariance per cluster (LDA).

    Rows labelled `NOISE` take no part in the fit and no row is assigned to it. A cluster without a row gets membership
    0.
    """
    x_NU, labels_N = checked(x_NU), np.asarray(labels_N)
    seen_C = np.array([bool((labels_N == c).any()) for c in range(num_clusters)])
    if not seen_C.any() or labels_N.max() >= num_clusters:
        raise BadValue(f"fit_posterior: labels must lie in -1..{num_clusters - 1} and not all be noise")
    if seen_C.sum() == 1:
        only = int(seen_C.argmax())
        return lambda new_NU: (
            np.full(len(new_NU), only),
            np.tile(np.eye(num_clusters)[only], (len(new_NU), 1)),
        )
    mean_U, matrix_UK = fit_discriminant(x_NU, labels_N, int(seen_C.sum()) - 1, shrinkage)
    z_NK = (x_NU - mean_U) @ matrix_UK
    centroids_CK = np.stack(
        [z_NK[labels_N == c].mean(axis=0) if seen_C[c] else np.zeros(z_NK.shape[1]) for c in range(num_clusters)]
    )
    prior_C = np.array([max(float((labels_N == c).sum()), 1e-9) for c in range(num_clusters)])
    log_prior_C = np.where(seen_C, np.log(prior_C / prior_C.sum()), -np.inf)

    def assign(new_NU: np.ndarray) -> Assignment:
        new_NK = (np.asarray(new_NU, np.float64) - mean_U) @ matrix_UK
        weight_NC = softmax(-0.5 * squared_distances(new_NK, centroids_CK) + log_prior_C[None, :])
        return weight_NC.argmax(axis=1), weight_NC

    return assign


def apply_noise(
    labels_N: np.ndarray,
    memberships_NC: np.ndarray,
    policy: str,
    *,
    x_NU: np.ndarray | None = None,
    centroids_CU: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What becomes of noise: `(labels_N, targets_NC, keep_N)`; points that have a cluster are never touched.

    * drop: label stays -1, `keep` false.
    * soft: the membership vector is the target, its largest entry the label.
    * uniform: the target is uniform, label stays -1: there is no hard label to train on, only the soft target.
    * nearest: the cluster with the nearest centroid, one-hot; needs `x_NU` and `centroids_CU`.
    """
    if policy not in NOISE_POLICIES:
        raise BadValue(f"unknown noise policy {policy!r}; known: {', '.join(NOISE_POLICIES)}")
    labels_N, targets_NC = np.array(labels_N, np.int64), np.array(memberships_NC, np.float64)
    noise_N = labels_N < 0
    clusters = targets_NC.shape[1]
    if policy == "soft":
        labels_N[noise_N] = targets_NC[noise_N].argmax(axis=1)
    elif policy == "uniform":
        targets_NC[noise_N] = 1.0 / clusters
    elif policy == "nearest":
        if x_NU is None or centroids_CU is None:
            raise ValueError("noise policy 'nearest' needs x_NU and centroids_CU")
        labels_N[noise_N] = squared_distances(np.asarray(x_NU, np.float64)[noise_N], centroids_CU).argmin(axis=1)
        targets_NC[noise_N] = np.eye(clusters)[labels_N[noise_N]]
    return labels_N, targets_NC, ~noise_N if policy == "drop" else np.ones(len(labels_N), bool)
