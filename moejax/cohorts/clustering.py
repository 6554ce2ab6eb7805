"""Finds cohorts: density clusters, partitions or mixtures over (reduced) embeddings, with soft memberships and
out-of-sample assignment.

Everything here runs once, on one CPU. HDBSCAN stalls above 50 to 100 dimensions: reduce first
(`projection.fit_pca`). Clusters of utterances tend to follow the sentence that was read; clusters of *speaker means*
follow the voice.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import cast

import hdbscan
import numpy as np
import scipy.cluster.hierarchy
from sklearn.cluster import AgglomerativeClustering, KMeans, SpectralClustering
from sklearn.metrics import silhouette_score

from moejax.cohorts import em
from moejax.cohorts.names import KNOWN
from moejax.cohorts.projection import checked
from moejax.errors import BadValue

Assignment = tuple[np.ndarray, np.ndarray]  # labels_N (NOISE where none), memberships_NC (rows sum to 1)

NOISE = -1
NEIGHBOUR = 7  # whose distance is the scale around a point in spectral clustering
MOST_FOR_SILHOUETTE = 2000  # points; its distances are quadratic, and a random part says the same
SMALL = 50  # below this many points a mixture's covariances are guesses: the fallback is agglomerative instead


@dataclass(frozen=True, kw_only=True)
class ClusterModel:
    """Clusters of the fitting points, and how a new point is assigned.

    `labels_N` is `NOISE` for points in no cluster; rows of `memberships_NC` sum to 1, noise or not; `probabilities_N`
    is the strength of each point's label (0 for noise). `note` says why another method answered than the one asked,
    else "". `bic` and `effective` (number of components that the weights use) are those of a mixture, else None.
    """

    method: str
    labels_N: np.ndarray
    memberships_NC: np.ndarray
    probabilities_N: np.ndarray
    assign: Callable[[np.ndarray], Assignment]
    note: str = ""
    bic: float | None = None
    effective: float | None = None

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


def of_groups(x_NU: np.ndarray, group_N: np.ndarray) -> ClusterModel:
    """Groups that are known, as clusters: a new point belongs where it lies nearest. Errors: BadValue for fewer than
    two.
    """
    names, labels_N = np.unique(np.asarray(group_N, str), return_inverse=True)
    if len(names) < 2:
        raise BadValue(f"cluster.method is {KNOWN!r}, and the corpus names {len(names)} cohort(s): two are needed")
    found = _spherical(checked(x_NU), labels_N.astype(np.int64), KNOWN)
    return replace(found, memberships_NC=np.eye(len(names))[labels_N], probabilities_N=np.ones(len(labels_N)))


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
        raise BadValue(f"hdbscan: min_cluster_size={min_cluster_size} must be at least 2")
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
        weight_NC = cast(np.ndarray, hdbscan.all_points_membership_vectors(clusterer))  # guessed to have one axis
    labels_N = clusterer.labels_.astype(np.int64)

    def assign(new_NU: np.ndarray) -> Assignment:
        new_NU = np.asarray(new_NU, np.float64)
        if len(new_NU) == 0:
            return np.zeros(0, np.int64), np.zeros((0, weight_NC.shape[1]))
        with _equal_points():
            found_N = hdbscan.approximate_predict(clusterer, new_NU)[0]
            found_NC = hdbscan.membership_vector(clusterer, new_NU)
        return found_N.astype(np.int64), normalised(found_NC, found_N)

    return ClusterModel(
        method="hdbscan",
        labels_N=labels_N,
        memberships_NC=normalised(weight_NC, labels_N),
        probabilities_N=np.nan_to_num(clusterer.probabilities_),
        assign=assign,
    )


def _spectral(x_NU: np.ndarray, clusters: int, seed: int) -> np.ndarray:
    """Normalised cuts with the local scale of Zelnik-Manor and Perona 2004: exp(-d^2 / (s_i s_j))."""
    square_NN = squared_distances(x_NU, x_NU)
    rank = min(NEIGHBOUR, len(x_NU) - 1)
    scale_N = np.sqrt(np.partition(square_NN, rank, axis=1)[:, rank])
    floor = max(1e-3 * float(scale_N.mean()), 1e-12)
    scale_N = np.maximum(scale_N, floor)
    near_NN = np.exp(-square_NN / (scale_N[:, None] * scale_N[None, :]))
    return SpectralClustering(clusters, affinity="precomputed", random_state=seed).fit_predict(near_NN)


def kmeans(x_NU: np.ndarray, clusters: int, seed: int) -> KMeans:
    """k-means from ten starts."""
    means = KMeans(clusters, n_init=10, random_state=seed)  # pyright: ignore[reportArgumentType] - guessed from "auto"
    return means.fit(x_NU)


PARTITIONS: dict[str, Callable[[np.ndarray, int, int], np.ndarray]] = {
    "kmeans": lambda x_NU, clusters, seed: cast(np.ndarray, kmeans(x_NU, clusters, seed).labels_),
    "ward": lambda x_NU, clusters, seed: AgglomerativeClustering(clusters, linkage="ward").fit_predict(x_NU),
    "spectral": _spectral,
}
FAMILIES = {"gmm": "gaussian", "student": "student", "laplace": "laplace", "vmf": "vmf", "dpgmm": "dp"}


def fit_numbers(
    x_NU: np.ndarray, method: str, numbers: Sequence[int], *, seed: int = 0, covariance: str = "diag", inits: int = 4
) -> list[ClusterModel]:
    """A model for each number of clusters, by a partition or a mixture; one program fits all of a mixture's numbers.

    "dpgmm" finds its own number below the largest of `numbers` and gives one model; components without a point go.
    """
    x_NU = checked(x_NU)
    if method in PARTITIONS:
        return [_spherical(x_NU, np.asarray(PARTITIONS[method](x_NU, n, seed), np.int64), method) for n in numbers]
    family = FAMILIES[method]
    numbers = [max(numbers)] if family == "dp" else numbers
    found = em.fit(x_NU, family=family, covariance=covariance, components=numbers, inits=inits, seed=seed)
    return [_mixture(x_NU, mixture, method) for mixture in found]


def _mixture(x_NU: np.ndarray, mixture: em.MixtureModel, method: str) -> ClusterModel:
    weight_NC = mixture.posterior(x_NU)
    used = np.unique(weight_NC.argmax(axis=1)) if mixture.family == "dp" else np.arange(mixture.num_components)

    def assign(new_NU: np.ndarray) -> Assignment:
        if len(new_NU) == 0:
            return np.zeros(0, np.int64), np.zeros((0, len(used)))
        weight_NC = normalised(mixture.posterior(new_NU)[:, used])
        return weight_NC.argmax(axis=1), weight_NC

    labels_N, weight_NC = assign(x_NU)
    return ClusterModel(
        method=method,
        labels_N=labels_N,
        memberships_NC=weight_NC,
        probabilities_N=weight_NC.max(axis=1),
        assign=assign,
        bic=mixture.bic,
        effective=mixture.effective,
    )


def candidates(n: int, num_clusters: int | None, max_clusters: int) -> list[int]:
    """The one number asked for, or those from 2 to `max_clusters` that `n` points allow."""
    if num_clusters is None:
        return list(range(2, max(2, min(max_clusters, n - 1)) + 1))
    if not 1 <= num_clusters <= n:
        raise BadValue(f"num_clusters={num_clusters} must be between 1 and the number of points, {n}")
    return [num_clusters]


def silhouette(x_NU: np.ndarray, labels_N: np.ndarray, seed: int = 0) -> float:
    """Mean silhouette of the points that are in a cluster, times their share; -1 for a single cluster or none."""
    keep_N = labels_N >= 0
    found = len(np.unique(labels_N[keep_N]))
    if not 1 < found < keep_N.sum():
        return -1.0
    size = min(int(keep_N.sum()), MOST_FOR_SILHOUETTE)
    if size == MOST_FOR_SILHOUETTE and len(np.unique(_part(labels_N[keep_N], size, seed))) < 2:
        return -1.0
    return float(silhouette_score(x_NU[keep_N], labels_N[keep_N], sample_size=size, random_state=seed)) * keep_N.mean()


def evenness(labels_N: np.ndarray) -> float:
    """Entropy of the clusters' sizes as a share of the most there could be: 1 for equal ones, near 0 for outliers."""
    size_C = np.unique(labels_N[labels_N >= 0], return_counts=True)[1] / max((labels_N >= 0).sum(), 1)
    return float(-(size_C * np.log(size_C)).sum() / np.log(len(size_C))) if len(size_C) > 1 else 0.0


def _part(labels_N: np.ndarray, size: int, seed: int) -> np.ndarray:
    """The labels that `silhouette_score` will draw."""
    return labels_N[np.random.RandomState(seed).permutation(len(labels_N))[:size]]


def _fit_best(
    x_NU: np.ndarray,
    method: str,
    *,
    num_clusters: int | None = None,
    max_clusters: int = 12,
    seed: int = 0,
    **options,
) -> ClusterModel:
    """The number of clusters by the Bayesian information criterion of a mixture, else by silhouette."""
    x_NU = checked(x_NU)
    models = fit_numbers(x_NU, method, candidates(len(x_NU), num_clusters, max_clusters), seed=seed, **options)
    if len(models) == 1:
        return models[0]
    if method in FAMILIES:
        return min(models, key=_bic)
    return max(models, key=lambda model: silhouette(x_NU, model.labels_N, seed))


def _bic(model: ClusterModel) -> float:
    assert model.bic is not None  # every mixture has it
    return model.bic


METHODS: dict[str, Callable[..., ClusterModel]] = {
    "hdbscan": fit_hdbscan,
    **{name: functools.partial(_fit_best, method=name) for name in (*PARTITIONS, *FAMILIES)},
}


def fit_clusters(x_NU: np.ndarray, method: str, *, seed: int = 0, **options) -> ClusterModel:
    """Fits `METHODS[method]` with its options; where HDBSCAN finds fewer than two clusters, a fallback answers.

    The fallback is a spherical Gaussian mixture, or Ward's clusters below `SMALL` points; `.note` says so.
    """
    if method not in METHODS:
        raise BadValue(f"unknown clustering method {method!r}; known: {', '.join(sorted(METHODS))}")
    model = METHODS[method](x_NU, seed=seed, **options)
    if method != "hdbscan" or model.num_clusters >= 2:
        return model
    other = _fit_best(x_NU, "ward", seed=seed)
    if len(x_NU) >= SMALL:
        other = _fit_best(x_NU, "gmm", covariance="spherical", seed=seed)
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


def voice_groups(x_NU: np.ndarray, numbers: Sequence[int], seed: int = 0) -> np.ndarray:
    """Groups utterances that sound like one speaker, where nobody knows who spoke: labels `[N]`.

    One tree by Ward's criterion, cut at the number in `numbers` with the best silhouette.
    """
    x_NU = checked(x_NU)
    tree_M2 = scipy.cluster.hierarchy.ward(x_NU)
    cuts = [scipy.cluster.hierarchy.fcluster(tree_M2, n, "maxclust") - 1 for n in numbers if 2 <= n < len(x_NU)]
    if not cuts:
        raise BadValue(f"voice_groups: no number of groups in {list(numbers)} lies between 2 and {len(x_NU) - 1}")
    return max(cuts, key=lambda labels_N: silhouette(x_NU, labels_N, seed))
