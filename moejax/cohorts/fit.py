"""From embeddings to cohorts: which points are clustered, how clusters become experts, who is assigned how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moejax.cohorts import agreement, assignment, clustering, matching, points, projection
from moejax.cohorts import choice as cluster_choice
from moejax.errors import BadValue


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Every utterance's cluster. `raw_labels_N` is before the noise policy, `labels_N`, `targets_NC`, `keep_N` after
    it.

    `choice` is what was found in which signal, `matched` what became of it for the experts. `by_N` says how a row was
    assigned: "fit" (one of the clustered utterances), "speaker" (its speaker's cluster) or "sound". `found_N` are the
    clusters of the fitted rows as found (`NOISE` elsewhere), `point_M` which point each fitted row was part of.
    """

    choice: cluster_choice.Choice
    matched: matching.Matched
    level: str
    noise: str  # policy
    voices: dict | None  # level voice: their agreement with the speakers
    found_N: np.ndarray
    point_M: np.ndarray
    raw_labels_N: np.ndarray
    labels_N: np.ndarray
    targets_NC: np.ndarray
    keep_N: np.ndarray
    probability_N: np.ndarray
    by_N: np.ndarray
    points_NK: np.ndarray
    centroids_CK: np.ndarray
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
            "pca_mean": self.choice.pca.mean_U.astype(np.float32),
            "pca_matrix": self.choice.pca.matrix_UK.astype(np.float32),
        }
        if self.gate_projection is not None:
            mean_U, matrix_UK = self.gate_projection
            arrays |= {"proj_mean": mean_U.astype(np.float32), "proj_matrix": matrix_UK.astype(np.float32)}
        return arrays


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What cohorts are discovered in.

    `x_NU` are the embeddings of all utterances, equal blocks for `layer_names`; only rows of `fit_N` are fitted, and
    names are used in `train_N` alone. `columns` are the manifest's speaker and nuisances; `gradient` the rows of the
    adaptation signal and its blocks' names, which then is what is clustered.
    """

    x_NU: np.ndarray
    layer_names: list[str]
    fit_N: np.ndarray
    train_N: np.ndarray
    columns: dict[str, np.ndarray]
    gradient: tuple[np.ndarray, list[str]] | None = None

    @property
    def speaker_N(self) -> np.ndarray:
        return self.columns["speaker"].astype(str)


def discover(sample: Sample, *, num_experts: int, seed: int, options: dict, log: Callable[[str], None]) -> Cohorts:
    """Clusters the sample, matches clusters to experts, assigns every utterance. `options` is the config section;
    speakers' names are used as its `level` and `assign` say. Utterances that were not fitted are assigned by the
    embedding as it is: of a new utterance nobody knows the words.
    """
    if sample.fit_N.sum() < 4:
        raise BadValue(f"cluster: the sample has {int(sample.fit_N.sum())} utterance(s); at least 4 are needed")
    x_NU, speaker_N = sample.x_NU, sample.speaker_N
    _check_finite(x_NU)
    level = points.level_of(options["level"], speaker_N[sample.fit_N], log)
    named_N = sample.fit_N & (speaker_N != "") if level == "speaker" else sample.fit_N
    voice_N, voices = _voices(sample, level, named_N, options["remove"], seed, log)
    voice_M = None if level == "utterance" else voice_N[named_N]
    group_M = sample.columns["cohort"][named_N].astype(str)
    signals = _signals(sample, named_N, voice_M, options, seed)
    choice = cluster_choice.choose(signals, voice_M, group_M, options, level, seed)
    model, points_PK = choice.model, choice.points_PK
    if model.note:
        log(f"cluster: {model.note}")
    matched = matching.match_experts(
        model.labels_N, model.memberships_NC, points_PK, num_experts, options["match"], seed
    )
    if matched.action != "none":
        log(f"cluster: {matched.note}")
    index_M = np.arange(len(points_PK)) if voice_M is None else np.unique(voice_M, return_inverse=True)[1]
    found_N = np.full(len(x_NU), clustering.NOISE)
    found_N[named_N] = model.labels_N[index_M]
    raw_N, member_NC, probability_N, by_N = assign(
        x_NU if sample.gradient is not None else x_NU[:, choice.signal.columns],
        named_N,
        index_M,
        matched,
        np.zeros(len(x_NU), bool) if options["assign"] == "sound" else sample.train_N,
        voice_N,
        np.unique(voice_M) if voice_M is not None else None,
        options["shrinkage"],
    )
    centroids_CK = centroids(points_PK, matched)
    # Where an utterance lies: a fitted one at its own signal, any other at its clusters' centres.
    points_NK = member_NC @ centroids_CK
    points_NK[named_N] = choice.pca(choice.signal.fit_MU)
    labels_N, targets_NC, keep_N = assignment.apply_noise(
        raw_N, member_NC, options["noise"], x_NU=points_NK, centroids_CU=centroids_CK
    )
    return Cohorts(
        choice=choice,
        level=level,
        matched=matched,
        noise=options["noise"],
        found_N=found_N,
        point_M=index_M,
        voices=voices,
        raw_labels_N=raw_N,
        labels_N=labels_N,
        targets_NC=targets_NC,
        keep_N=keep_N,
        probability_N=probability_N,
        by_N=by_N,
        points_NK=points_NK,
        centroids_CK=centroids_CK,
        gate_projection=gate_projection(sample, raw_N, options, log),
    )


def _voices(sample: Sample, level: str, named_N, remove, seed: int, log) -> tuple[np.ndarray, dict | None]:
    """`(voice_N, how voices agree with the speakers)`: who is one voice, "" for nobody; the latter of level voice."""
    if level == "speaker":
        return np.where(sample.train_N, sample.speaker_N, ""), None
    voice_N = np.full(len(sample.x_NU), "", "<U64")
    if level != "voice":
        return voice_N, None
    parts = {name: values_N[named_N] for name, values_N in sample.columns.items()}
    found_M, layer = points.find_voices(sample.x_NU[named_N], sample.layer_names, parts, remove, seed)
    voice_N[named_N] = found_M
    log(f"cluster: {len(np.unique(found_M))} voices among {len(found_M)} utterances, grouped by layer {layer}")
    return voice_N, agreement.agreement(agreement.codes(found_M), {"speaker": parts["speaker"]}) | {"layer": layer}


def _signals(sample: Sample, named_N, voice_M, options: dict, seed: int):
    """The layers, or blocks of the gradient, to choose from, freed of nuisances."""
    parts = {name: values_N[named_N] for name, values_N in sample.columns.items()}
    layers = options["layers"]
    signal_MU, names = sample.x_NU[named_N], sample.layer_names
    if sample.gradient is not None:
        signal_MU, names, layers = sample.gradient[0][named_N], sample.gradient[1], ("auto",)
    return points.signals_of(
        signal_MU,
        names,
        layers=layers,
        removed_MV=points.nuisances(parts, options["remove"]),
        voice_M=voice_M,
        seed=seed,
    )


def _check_finite(x_NU) -> None:
    finite_N = np.isfinite(x_NU).all(axis=1)
    if not finite_N.all():
        raise BadValue(
            f"cluster: {int((~finite_N).sum())} of {len(x_NU)} embeddings hold NaN or infinity, the first is that of"
            f" utterance {int(np.argmin(finite_N))} of the manifest"
        )


def assign(x_NU, fit_N, index_M, matched, known_N, voice_N, voices_P, shrinkage):
    """`(labels_N, memberships_NC, probability_N, by_N)` of every utterance.

    Fitted rows have their point's cluster, rows of `known_N` that of the voice they bear, and all others what they
    sound like (`assignment.fit_posterior` on the fitted rows); where `known_N` is false for a fitted row of a voice, it
    too goes by its sound. A posterior never says noise: whether an utterance belongs to no cohort cannot be read off a
    model of voices.
    """
    fit_labels = matched.labels_N[index_M]
    if (fit_labels < 0).all():
        raise BadValue("cluster: every point is noise; lower cluster.hdbscan.min_cluster_size or use method='gmm'")
    labels_N, member_NC = assignment.fit_posterior(x_NU[fit_N], fit_labels, matched.num_experts, shrinkage)(x_NU)
    by_N = np.full(len(x_NU), "sound", "<U7")
    point_N = np.full(len(x_NU), -1)
    if voices_P is None:
        point_N[fit_N] = index_M
    else:
        row_of = {str(name): row for row, name in enumerate(voices_P)}
        point_N = np.where(known_N, [row_of.get(name, -1) for name in voice_N], -1)
    take_N = point_N >= 0
    labels_N[take_N], member_NC[take_N] = matched.labels_N[point_N[take_N]], matched.memberships_NC[point_N[take_N]]
    by_N[take_N] = "speaker"
    by_N[take_N & fit_N] = "fit"
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


def gate_projection(sample: Sample, labels_N, options, log) -> tuple[np.ndarray, np.ndarray] | None:
    """The discriminant that the gate sees through, fitted on the sample; None when not asked for or not possible."""
    kind, fit_N = options["discriminant"], sample.fit_N
    x_NU, speaker_N, labels_N = sample.x_NU[fit_N], sample.speaker_N[fit_N], labels_N[fit_N]
    if kind == "speaker" and len(np.unique(speaker_N[speaker_N != ""])) < 2:
        log("cluster.discriminant='speaker', but the sample names fewer than 2 speakers: fitted on the clusters")
        kind = "cluster"
    if kind == "none":
        return None
    groups_N = labels_N if kind == "cluster" else np.where(speaker_N == "", -1, agreement.codes(speaker_N))
    if len(np.unique(groups_N[groups_N >= 0])) < 2:
        log("cluster.discriminant: fewer than 2 groups, so the gate gets no projection")
        return None
    return projection.fit_discriminant(x_NU, groups_N, options["discriminant_dims"], options["shrinkage"])
