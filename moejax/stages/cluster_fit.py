"""From embeddings to cohorts: which points are clustered, how clusters become experts, who is assigned how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moejax.ops import agreement, clustering, matching, projection
from moejax.stages.cluster_figures import PLANES

LEVELS = ("speaker", "utterance")
ASSIGNMENTS = ("speaker", "sound")
DISCRIMINANTS = ("speaker", "cluster", "none")
FEWEST_SPEAKERS = 3  # two means are at most two points: nothing to discover


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Every utterance's cluster. `raw_labels_N` is before the noise policy, `labels_N`, `targets_NC`, `keep_N` after
    it.

    `by_N` says how a row was assigned: "fit" (one of the clustered utterances), "speaker" (its speaker's cluster) or
    "sound".
    """

    method: str
    level: str
    found: int  # clusters before matching them to the number of experts
    match_action: str
    match_note: str
    noise: str
    stability: float | None
    raw_labels_N: np.ndarray
    labels_N: np.ndarray
    targets_NC: np.ndarray
    keep_N: np.ndarray
    probability_N: np.ndarray
    by_N: np.ndarray
    points_NK: np.ndarray
    centroids_CK: np.ndarray
    pca: projection.Projection
    gate_projection: tuple[np.ndarray, np.ndarray] | None

    @property
    def num_clusters(self) -> int:
        return self.targets_NC.shape[1]

    def arrays(self) -> dict[str, np.ndarray]:
        """What clusters.npz holds beside the ids."""
        arrays = {
            "label": self.labels_N.astype(np.int32),
            "membership": self.targets_NC.astype(np.float32),
            "keep": self.keep_N,
            "probability": self.probability_N.astype(np.float32),
            "by": self.by_N,
            "centroids": self.centroids_CK.astype(np.float32),
            "pca_mean": self.pca.mean_U.astype(np.float32),
            "pca_matrix": self.pca.matrix_UK.astype(np.float32),
        }
        if self.gate_projection is not None:
            mean_U, matrix_UK = self.gate_projection
            arrays |= {"proj_mean": mean_U.astype(np.float32), "proj_matrix": matrix_UK.astype(np.float32)}
        return arrays


def discover(
    x_NU: np.ndarray,
    *,
    sample_N: np.ndarray,
    train_N: np.ndarray,
    speaker_N: np.ndarray,
    layer_names: list[str],
    num_experts: int,
    seed: int,
    options: dict,
    log: Callable[[str], None],
) -> Cohorts:
    """Clusters the sample, matches clusters to experts, assigns every utterance. `options` is the config section.

    Only rows of `sample_N` are fitted; speakers' names are used as `options["assign"]` says and never outside
    `train_N`.
    """
    check_options(options)
    if sample_N.sum() < 4:
        raise ValueError(f"cluster: the sample has {int(sample_N.sum())} utterance(s); at least 4 are needed")
    level = options["level"]
    speakers = [name for name in np.unique(speaker_N[sample_N].astype(str)) if name]
    if level == "speaker" and len(speakers) < FEWEST_SPEAKERS:
        log(f"cluster.level='speaker', but the sample names {len(speakers)} speaker(s): clustering utterances instead")
        level = "utterance"
    columns = layer_columns(options["layers"], layer_names, x_NU.shape[1])
    part_NU = x_NU[:, columns]
    named_N = sample_N & (speaker_N != "") if level == "speaker" else sample_N
    if level == "speaker":
        fit_PU, names_P = clustering.speaker_means(part_NU[named_N], speaker_N[named_N].astype(str))
    else:
        fit_PU, names_P = part_NU[named_N], None
    pca = projection.fit_pca(
        fit_PU, dims=options["dims"], variance=options["variance"], reference_NU=part_NU[sample_N]
    )
    points_PK = pca(fit_PU)
    method, settings = options["method"], method_options(options, level, len(points_PK))
    model = clustering.fit_clusters(points_PK, method, seed=seed, **settings)
    if model.note:
        log(f"cluster: {model.note}")
    matched = matching.match_experts(
        model.labels_N, model.memberships_NC, points_PK, num_experts, options["match"], seed
    )
    if matched.action != "none":
        log(f"cluster: {matched.note}")
    points_NK = pca(part_NU)
    if level == "speaker":
        raw_N, member_NC, probability_N, by_N = assign_by_speaker(
            part_NU, speaker_N.astype(str), named_N, train_N, names_P, model, matched, options
        )
    else:
        raw_N, member_NC, probability_N, by_N = assign_by_sound(points_NK, named_N, model, matched)
    centroids_CK = centroids(points_PK, matched)
    labels_N, targets_NC, keep_N = clustering.apply_noise(
        raw_N, member_NC, options["noise"], x_NU=points_NK, centroids_CU=centroids_CK
    )
    return Cohorts(
        method=model.method,
        level=level,
        found=model.num_clusters,
        match_action=matched.action,
        match_note=matched.note,
        noise=options["noise"],
        stability=stability(points_PK, method, settings, options["refits"], seed),
        raw_labels_N=raw_N,
        labels_N=labels_N,
        targets_NC=targets_NC,
        keep_N=keep_N,
        probability_N=probability_N,
        by_N=by_N,
        points_NK=points_NK,
        centroids_CK=centroids_CK,
        pca=pca,
        gate_projection=gate_projection(x_NU[sample_N], speaker_N[sample_N], raw_N[sample_N], options, log),
    )


def check_options(options: dict) -> None:
    """One line for the first choice that does not exist, before anything is computed."""
    known = {
        "level": LEVELS,
        "method": tuple(clustering.METHODS),
        "match": matching.POLICIES,
        "noise": clustering.NOISE_POLICIES,
        "assign": ASSIGNMENTS,
        "discriminant": DISCRIMINANTS,
        "map": PLANES,
    }
    for key, choices in known.items():
        if options[key] not in choices:
            raise ValueError(f"cluster.{key}={options[key]!r} is unknown; known: {', '.join(choices)}")


def layer_columns(layers: tuple[str, ...], layer_names: list[str], width: int) -> np.ndarray:
    """Columns of the embedding that belong to the named layers: equal blocks in the order of `layer_names`."""
    if not layers:
        return np.arange(width)
    unknown = [name for name in layers if name not in layer_names]
    if unknown:
        raise ValueError(f"cluster.layers names {unknown[0]!r}; the embedding has: {', '.join(layer_names)}")
    if width % len(layer_names):
        raise ValueError(f"cluster.layers: {width} columns do not divide into {len(layer_names)} layers")
    block = width // len(layer_names)
    return np.concatenate([np.arange(block) + block * layer_names.index(name) for name in layers])


def method_options(options: dict, level: str, num_points: int) -> dict:
    """The section of the method with its automatic values (0, "auto") worked out."""
    settings = dict(options[options["method"]])
    if options["method"] == "hdbscan":
        size = settings["min_cluster_size"] or (2 if level == "speaker" else max(5, round(0.02 * num_points)))
        samples = settings["min_samples"] or (1 if level == "speaker" else size)
        return {**settings, "min_cluster_size": size, "min_samples": samples}
    settings["num_clusters"] = settings["num_clusters"] or None
    if settings.get("covariance") == "auto":
        settings["covariance"] = "spherical" if num_points < clustering.SMALL else "full"
    return settings


def assign_by_sound(points_NK, fit_N, model, matched) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Level utterance: fitted rows keep their labels, the others are assigned out of sample."""
    labels_N = np.full(len(points_NK), clustering.NOISE)
    member_NC = np.zeros((len(points_NK), matched.num_experts))
    labels_N[fit_N], member_NC[fit_N] = matched.labels_N, matched.memberships_NC
    if not fit_N.all():
        new_labels, new_members = model.assign(points_NK[~fit_N])
        labels_N[~fit_N], member_NC[~fit_N] = matched.apply(new_labels, new_members, points_NK[~fit_N])
    return labels_N, member_NC, strength(labels_N, member_NC), np.where(fit_N, "fit", "sound")


def assign_by_speaker(
    x_NU, speaker_N, fit_N, train_N, names_P, model, matched, options
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Level speaker: a speaker's cluster for its training utterances, and a posterior of the sound for everybody else.

    The posterior (`clustering.fit_posterior`) is fitted on the sample's utterances labelled by their speakers. It never
    says noise: whether an utterance belongs to no cohort cannot be read off a model of speakers.
    """
    index_of = {str(name): p for p, name in enumerate(names_P)}
    index_N = np.array([index_of.get(name, -1) for name in speaker_N])
    fit_labels = matched.labels_N[index_N[fit_N]]
    if (fit_labels < 0).all():
        raise ValueError("cluster: every speaker is noise; lower cluster.hdbscan.min_cluster_size or use method='gmm'")
    assign = clustering.fit_posterior(x_NU[fit_N], fit_labels, matched.num_experts, options["shrinkage"])
    labels_N, member_NC = assign(x_NU)
    known_N = train_N & (index_N >= 0) if options["assign"] == "speaker" else np.zeros(len(x_NU), bool)
    labels_N[known_N] = matched.labels_N[index_N[known_N]]
    member_NC[known_N] = matched.memberships_NC[index_N[known_N]]
    by_N = np.where(known_N, np.where(fit_N, "fit", "speaker"), "sound")
    return labels_N, member_NC, strength(labels_N, member_NC), by_N


def strength(labels_N: np.ndarray, member_NC: np.ndarray) -> np.ndarray:
    """Membership of each row in its own cluster, 0 for noise."""
    return np.where(labels_N >= 0, member_NC[np.arange(len(labels_N)), np.maximum(labels_N, 0)], 0.0)


def centroids(points_PK: np.ndarray, matched: matching.Matched) -> np.ndarray:
    """Mean of each cluster's own points; by membership where a component is nobody's first choice."""
    centres_CK = clustering.weighted_centroids(points_PK, matched.memberships_NC)
    for cluster in range(matched.num_experts):
        own_P = matched.labels_N == cluster
        if own_P.any():
            centres_CK[cluster] = points_PK[own_P].mean(axis=0)
    return centres_CK


def stability(points_PK: np.ndarray, method: str, settings: dict, refits: int, seed: int) -> float | None:
    """Agreement between refits on 90 % of the points, or None where it was not asked for or the points are too few."""
    fixed = settings.get("num_clusters") or 0
    if refits < 2 or len(points_PK) < max(10, 2 * fixed):
        return None
    return agreement.stability(
        lambda index_N, run: clustering.fit_clusters(points_PK[index_N], method, seed=run, **settings).labels_N,
        len(points_PK),
        refits=refits,
        seed=seed,
    )


def gate_projection(x_NU, speaker_N, labels_N, options, log) -> tuple[np.ndarray, np.ndarray] | None:
    """The discriminant that the gate sees through, fitted on the sample; None when not asked for or not possible."""
    kind = options["discriminant"]
    if kind == "speaker" and len(np.unique(speaker_N[speaker_N != ""].astype(str))) < 2:
        log("cluster.discriminant='speaker', but the sample names fewer than 2 speakers: fitted on the clusters")
        kind = "cluster"
    if kind == "none":
        return None
    groups_N = labels_N if kind == "cluster" else np.where(speaker_N == "", -1, agreement.codes(speaker_N))
    if len(np.unique(groups_N[groups_N >= 0])) < 2:
        log("cluster.discriminant: fewer than 2 groups, so the gate gets no projection")
        return None
    return projection.fit_discriminant(x_NU, groups_N, options["discriminant_dims"], options["shrinkage"])
