"""Finds cohorts: density clusters or mixtures over (reduced) embeddings, with soft memberships and out-of-sample
assignment.

Everything here is numpy on one CPU and runs once. HDBSCAN stalls above 50 to 100 dimensions: reduce first
(`projection.fit_pca`). Clusters of utterances tend to follow the sentence that was read; clusters of *speaker means*
follow the voice.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import hdbscan
import numpy as np
from sklearn.cluster import AgglomerativeClustering, KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_score
from sklearn.mixture import GaussianMixture

from moejax.ops.projection import checked, fit_discriminant

NOISE = -1
NOISE_POLICIES = ("drop", "soft", "uniform", "nearest")
PATIENCE = 3  # the criterion rises steadily once there are too many components: later ones are not tried
SMALL = 50  # below this many points a mixture's covariances are guesses: the fallback is agglomerative instead

Assignment = tuple[np.ndarray, np.ndarray]  # labels_N (NOISE where none), memberships_NC (rows sum to 1)


@dataclass(frozen=True, kw_only=True)
class ClusterModel:
    """Clusters of the fitting points, and how a new point is assigned.

    `labels_N` is `NOISE` for points in no cluster; rows of `memberships_NC` sum to 1, noise or not; `probabilities_N`
    is the strength of each point's label (0 for noise). `note` says why another method answered than the one asked,
    else "".
    """

    method: str
    labels_N: np.ndarray
    memberships_NC: np.ndarray
    probabilities_N: np.ndarray
    assign: Callable[[np.ndarray], Assignment]
    note: str = ""

    @property
    def num_clusters(self) -> int:
        return self.memberships_NC.shape[1]


def normalised(memberships_NC: np.ndarray, labels_N: np.ndarray | None = None) -> np.ndarray:
    """Rows scaled to sum to 1. A row of zeros or NaN becomes one-hot at its label, or uniform where that is noise."""
    weight_NC = np.nan_to_num(np.asarray(memberships_NC, np.float64), nan=0.0, posinf=0.0, neginf=0.0)
    total_N = weight_NC.sum(axis=1)
    bad_N = total_N <= 1e-12
    if bad_N.any():
        weight_NC[bad_N] = 1.0
        if labels_N is not None:
            known_N = bad_N & (labels_N >= 0)
            weight_NC[known_N] = np.eye(weight_NC.shape[1])[labels_N[known_N]]
        total_N = weight_NC.sum(axis=1)
    return weight_NC / np.maximum(total_N, 1e-300)[:, None]


def squared_distances(x_NU: np.ndarray, centroids_CU: np.ndarray) -> np.ndarray:
    """Squared Euclidean distance of every point to every centroid, `[N, C]`."""
    cross_NC = x_NU @ centroids_CU.T
    return np.maximum((x_NU**2).sum(axis=1)[:, None] - 2 * cross_NC + (centroids_CU**2).sum(axis=1)[None, :], 0.0)


def weighted_centroids(x_NU: np.ndarray, memberships_NC: np.ndarray) -> np.ndarray:
    """Membership-weighted mean of the points of each cluster, `[C, U]`."""
    return memberships_NC.T @ x_NU / np.maximum(memberships_NC.sum(axis=0), 1e-12)[:, None]


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    weight_NC = np.exp(logits_NC - logits_NC.max(axis=1, keepdims=True))
    return weight_NC / weight_NC.sum(axis=1, keepdims=True)


def _spherical(x_NU: np.ndarray, labels_N: np.ndarray, method: str) -> ClusterModel:
    """A hard partition as a model: posteriors of equal spherical Gaussians around its centroids."""
    clusters = int(labels_N.max()) + 1
    centroids_CU = weighted_centroids(x_NU, np.eye(clusters)[labels_N])
    within = float(np.mean((x_NU - centroids_CU[labels_N]) ** 2))
    variance = max(within, 1e-3 * float(x_NU.var(axis=0).mean()), 1e-12)  # singletons only: no variance within

    def assign(new_NU: np.ndarray) -> Assignment:
        weight_NC = softmax(-0.5 * squared_distances(np.asarray(new_NU, np.float64), centroids_CU) / variance)
        return weight_NC.argmax(axis=1), weight_NC

    _, weight_NC = assign(x_NU)
    return ClusterModel(
        method=method,
        labels_N=labels_N,
        memberships_NC=weight_NC,
        probabilities_N=weight_NC[np.arange(len(x_NU)), labels_N],
        assign=assign,
    )


@contextlib.contextmanager
def _equal_points():
    """Equal points are at distance 0, density 1/0: hdbscan divides anyway, and `normalised` clears what comes of it."""
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice encountered", RuntimeWarning)
        yield


def fit_hdbscan(
    x_NU: np.ndarray,
    *,
    min_cluster_size: int = 10,
    min_samples: int | None = None,
    epsilon: float = 0.0,
    selection: str = "eom",
    seed: int = 0,
) -> ClusterModel:
    """HDBSCAN with soft memberships and approximate prediction; deterministic, so `seed` changes nothing.

    Finding no cluster is an answer, not an error: then `num_clusters` is 0 and every label is noise (`fit_clusters`
    falls back).
    """
    x_NU = checked(x_NU)
    n = len(x_NU)
    if min_cluster_size < 2:
        raise ValueError(f"hdbscan: min_cluster_size={min_cluster_size} must be at least 2")
    none = ClusterModel(
        method="hdbscan",
        labels_N=np.full(n, NOISE),
        memberships_NC=np.zeros((n, 0)),
        probabilities_N=np.zeros(n),
        assign=lambda new_NU: (np.full(len(new_NU), NOISE), np.zeros((len(new_NU), 0))),
    )
    if n < 2 * min_cluster_size:
        return none
    clusterer = hdbscan.HDBSCAN(
        min_cluster_size=min_cluster_size,
        min_samples=min(min_samples or min_cluster_size, n - 1),
        cluster_selection_epsilon=epsilon,
        cluster_selection_method=selection,
        prediction_data=True,
        core_dist_n_jobs=1,
    )
    with _equal_points():
        clusterer.fit(x_NU)
        if clusterer.labels_.max() < 0:
            return none
        weight_NC = hdbscan.all_points_membership_vectors(clusterer)
    labels_N = clusterer.labels_.astype(np.int64)

    def assign(new_NU: np.ndarray) -> Assignment:
        new_NU = np.asarray(new_NU, np.float64)
        if len(new_NU) == 0:
            return np.zeros(0, np.int64), np.zeros((0, weight_NC.shape[1]))
        with _equal_points():
            found_N, _ = hdbscan.approximate_predict(clusterer, new_NU)
            found_NC = hdbscan.membership_vector(clusterer, new_NU)
        return found_N.astype(np.int64), normalised(found_NC, found_N)

    return ClusterModel(
        method="hdbscan",
        labels_N=labels_N,
        memberships_NC=normalised(weight_NC, labels_N),
        probabilities_N=np.nan_to_num(clusterer.probabilities_),
        assign=assign,
    )


def fit_gmm(
    x_NU: np.ndarray,
    *,
    num_clusters: int | None = None,
    max_clusters: int = 12,
    covariance: str = "full",
    inits: int = 3,
    seed: int = 0,
) -> ClusterModel:
    """Gaussian mixture by EM; `num_clusters` fixed, or chosen by the Bayesian information criterion from 2 to
    `max_clusters`.

    `covariance` as in scikit-learn: full, diag, tied or spherical. Variances are floored at 1e-3 of the data's.
    """
    x_NU = checked(x_NU)
    if covariance not in ("full", "diag", "tied", "spherical"):
        raise ValueError(f"gmm: unknown covariance {covariance!r}; known: diag, full, spherical, tied")
    floor = max(1e-3 * float(x_NU.var(axis=0).mean()), 1e-9)
    best, best_bic = None, np.inf
    for clusters in _candidates(len(x_NU), num_clusters, max_clusters):
        mixture = GaussianMixture(
            clusters, covariance_type=covariance, reg_covar=floor, n_init=inits, random_state=seed, max_iter=200
        )
        with warnings.catch_warnings():
            # EM that stops at max_iter still has a likelihood; the criterion compares those.
            warnings.simplefilter("ignore", ConvergenceWarning)
            mixture.fit(x_NU)
        bic = mixture.bic(x_NU)
        if best is None or bic < best_bic:
            best, best_bic = mixture, bic
        elif clusters - best.n_components >= PATIENCE:
            break

    def assign(new_NU: np.ndarray) -> Assignment:
        if len(new_NU) == 0:
            return np.zeros(0, np.int64), np.zeros((0, best.n_components))
        weight_NC = best.predict_proba(np.asarray(new_NU, np.float64))
        return weight_NC.argmax(axis=1), weight_NC

    labels_N, weight_NC = assign(x_NU)
    return ClusterModel(
        method="gmm",
        labels_N=labels_N,
        memberships_NC=weight_NC,
        probabilities_N=weight_NC.max(axis=1),
        assign=assign,
    )


def fit_kmeans(
    x_NU: np.ndarray, *, num_clusters: int | None = None, max_clusters: int = 12, seed: int = 0
) -> ClusterModel:
    """k-means; without `num_clusters` the number with the best mean silhouette."""
    return _best_partition(
        x_NU,
        "kmeans",
        lambda points_NU, k: KMeans(k, n_init=10, random_state=seed).fit_predict(points_NU),
        num_clusters,
        max_clusters,
    )


def fit_ward(
    x_NU: np.ndarray, *, num_clusters: int | None = None, max_clusters: int = 12, seed: int = 0
) -> ClusterModel:
    """Agglomerative clusters by Ward's criterion: for a handful of points. Deterministic; `seed` changes nothing."""
    return _best_partition(
        x_NU,
        "ward",
        lambda points_NU, k: AgglomerativeClustering(k, linkage="ward").fit_predict(points_NU),
        num_clusters,
        max_clusters,
    )


def _candidates(n: int, num_clusters: int | None, max_clusters: int) -> list[int]:
    if num_clusters is None:
        return list(range(2, max(2, min(max_clusters, n - 1)) + 1))
    if not 1 <= num_clusters <= n:
        raise ValueError(f"num_clusters={num_clusters} must be between 1 and the number of points, {n}")
    return [num_clusters]


def _best_partition(
    x_NU: np.ndarray,
    method: str,
    partition: Callable[[np.ndarray, int], np.ndarray],
    num_clusters: int | None,
    max_clusters: int,
) -> ClusterModel:
    x_NU = checked(x_NU)
    candidates = _candidates(len(x_NU), num_clusters, max_clusters)
    best_N, best_score = None, -np.inf
    for clusters in candidates:
        labels_N = partition(x_NU, clusters)
        found = len(np.unique(labels_N))
        score = silhouette_score(x_NU, labels_N) if len(candidates) > 1 and 1 < found < len(x_NU) else -1.0
        if best_N is None or score > best_score:
            best_N, best_score = labels_N, score
    return _spherical(x_NU, np.asarray(best_N, np.int64), method)


METHODS: dict[str, Callable[..., ClusterModel]] = {
    "hdbscan": fit_hdbscan,
    "gmm": fit_gmm,
    "kmeans": fit_kmeans,
    "ward": fit_ward,
}


def fit_clusters(x_NU: np.ndarray, method: str, *, seed: int = 0, **options) -> ClusterModel:
    """Fits `METHODS[method]` with its options; where HDBSCAN finds fewer than two clusters, a fallback answers.

    The fallback is a spherical Gaussian mixture, or Ward's clusters below `SMALL` points; `.note` says so.
    """
    if method not in METHODS:
        raise ValueError(f"unknown clustering method {method!r}; known: {', '.join(sorted(METHODS))}")
    model = METHODS[method](x_NU, seed=seed, **options)
    if method != "hdbscan" or model.num_clusters >= 2:
        return model
    other = fit_ward(x_NU, seed=seed) if len(x_NU) < SMALL else fit_gmm(x_NU, covariance="spherical", seed=seed)
    found = f"hdbscan found {model.num_clusters} cluster(s) in {len(x_NU)} points with {options or 'its defaults'}"
    return replace(other, note=f"{found}; fell back to {other.method} with {other.num_clusters} clusters")


def speaker_means(x_NU: np.ndarray, speaker_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean embedding of each speaker and the speakers' names in the same order: `(means_PU, names_P)`.

    The mean removes what changes from sentence to sentence: in a prototype HDBSCAN on speaker means agreed with the
    true cohorts at adjusted Rand 0.84, on utterances at 0.10.
    """
    names_P, index_N = np.unique(np.asarray(speaker_N), return_inverse=True)
    x_NU = checked(x_NU, least=1)
    return np.stack([x_NU[index_N == p].mean(axis=0) for p in range(len(names_P))]), names_P


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
        raise ValueError(f"fit_posterior: labels must lie in -1..{num_clusters - 1} and not all be noise")
    if seen_C.sum() == 1:
        only = int(seen_C.argmax())
        return lambda new_NU: (
            np.full(len(new_NU), only),
            np.tile(np.eye(num_clusters)[only], (len(new_NU), 1)),
        )
    mean_U, matrix_UK = fit_discriminant(x_NU, labels_N, int(seen_C.sum()) - 1, shrinkage)
    z_NK = (x_NU - mean_U) @ matrix_UK
    centroids_CK = np.stack([z_NK[labels_N == c].mean(axis=0) if seen_C[c] else np.zeros(z_NK.shape[1])
                             for c in range(num_clusters)])  # fmt: skip
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
        raise ValueError(f"unknown noise policy {policy!r}; known: {', '.join(NOISE_POLICIES)}")
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
