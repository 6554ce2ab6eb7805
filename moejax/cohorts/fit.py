"""From embeddings to cohorts: which points are clustered, how clusters become experts, who is assigned how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moejax.cohorts import agreement, clustering, matching, points, projection
from moejax.cohorts import choice as cluster_choice
from moejax.cohorts.figures import PLANES
from moejax.errors import BadValue

ASSIGNMENTS = ("speaker", "sound")
DISCRIMINANTS = ("speaker", "cluster", "none")


@dataclass(frozen=True, kw_only=True)
class Cohorts:
    """Every utterance's cluster. `raw_labels_N` is before the noise policy, `labels_N`, `targets_NC`, `keep_N` after
    it.

    `by_N` says how a row was assigned: "fit" (one of the clustered utterances), "speaker" (its speaker's cluster) or
    "sound". `found_N` are the clusters of the fitted rows before they were matched to the experts (`NOISE` elsewhere),
    `point_M` which point each fitted row was part of, `candidates` the table they were chosen from.
    """

    method: str
    level: str
    signal: str  # the layers, or the blocks of the gradient
    found: int  # clusters before matching them to the number of experts
    found_N: np.ndarray
    point_M: np.ndarray
    candidates: list[dict]
    voices: dict | None  # level voice: their agreement with the speakers
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
    columns: dict[str, np.ndarray],
    layer_names: list[str],
    num_experts: int,
    seed: int,
    options: dict,
    log: Callable[[str], None],
    gradient: tuple[np.ndarray, list[str]] | None = None,
) -> Cohorts:
    """Clusters the sample, matches clusters to experts, assigns every utterance. `options` is the config section.

    `columns` are the manifest's speaker and nuisances, `gradient` the sample's rows of the adaptation signal and its
    blocks' names, which then is what is clustered. Only rows of `sample_N` are fitted; speakers' names are used as
    `options["level"]` and `options["assign"]` say and never outside `train_N`. Utterances that were not fitted are
    assigned by the embedding as it is: of a new utterance nobody knows the words.
    """
    check_options(options)
    if sample_N.sum() < 4:
        raise BadValue(f"cluster: the sample has {int(sample_N.sum())} utterance(s); at least 4 are needed")
    _check_finite(x_NU)
    speaker_N = columns["speaker"].astype(str)
    level = points.level_of(options["level"], speaker_N[sample_N], log)
    named_N = sample_N & (speaker_N != "") if level == "speaker" else sample_N
    parts = {name: values_N[named_N] for name, values_N in columns.items()}
    voice_N, voices = np.full(len(x_NU), "", "<U64"), None
    if level == "speaker":
        voice_N = np.where(train_N, speaker_N, "")
    elif level == "voice":
        found_M, layer = points.find_voices(x_NU[named_N], layer_names, parts, options["remove"], seed)
        voice_N[named_N] = found_M
        codes_M = agreement.codes(found_M)
        voices = agreement.agreement(codes_M, {"speaker": parts["speaker"]}) | {"layer": layer}
        log(f"cluster: {len(np.unique(found_M))} voices among {len(found_M)} utterances, grouped by layer {layer}")
    voice_M = None if level == "utterance" else voice_N[named_N]
    removed_MV = points.nuisances(parts, options["remove"])
    signal_MU, names = (x_NU[named_N], layer_names) if gradient is None else (gradient[0][named_N], gradient[1])
    signals = points.signals_of(
        signal_MU,
        names,
        layers=options["layers"] if gradient is None else ("auto",),
        removed_MV=removed_MV,
        voice_M=voice_M,
        seed=seed,
    )
    choice = cluster_choice.choose(signals, voice_M, options, level, seed)
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
    heard_NU = x_NU if gradient is not None else x_NU[:, choice.signal.columns]
    raw_N, member_NC, probability_N, by_N = assign(
        heard_NU,
        named_N,
        index_M,
        matched,
        np.zeros(len(x_NU), bool) if options["assign"] == "sound" else train_N,
        voice_N,
        np.unique(voice_M) if voice_M is not None else None,
        options["shrinkage"],
    )
    centroids_CK = centroids(points_PK, matched)
    # Where an utterance lies: a fitted one at its own signal, any other at its clusters' centres.
    points_NK = member_NC @ centroids_CK
    points_NK[named_N] = choice.pca(choice.signal.fit_MU)
    labels_N, targets_NC, keep_N = clustering.apply_noise(
        raw_N, member_NC, options["noise"], x_NU=points_NK, centroids_CU=centroids_CK
    )
    return Cohorts(
        method=model.method,
        level=level,
        signal=choice.signal.name,
        found=model.num_clusters,
        found_N=found_N,
        point_M=index_M,
        candidates=choice.table,
        voices=voices,
        match_action=matched.action,
        match_note=matched.note,
        noise=options["noise"],
        stability=choice.stability,
        raw_labels_N=raw_N,
        labels_N=labels_N,
        targets_NC=targets_NC,
        keep_N=keep_N,
        probability_N=probability_N,
        by_N=by_N,
        points_NK=points_NK,
        centroids_CK=centroids_CK,
        pca=choice.pca,
        gate_projection=gate_projection(x_NU[sample_N], speaker_N[sample_N], raw_N[sample_N], options, log),
    )


def _check_finite(x_NU) -> None:
    finite_N = np.isfinite(x_NU).all(axis=1)
    if not finite_N.all():
        raise BadValue(
            f"cluster: {int((~finite_N).sum())} of {len(x_NU)} embeddings hold NaN or infinity, the first is that of"
            f" utterance {int(np.argmin(finite_N))} of the manifest"
        )


def check_options(options: dict) -> None:
    """One line for the first choice that does not exist, before anything is computed."""
    known = {
        "level": points.LEVELS,
        "method": ("auto", *clustering.METHODS),
        "match": matching.POLICIES,
        "noise": clustering.NOISE_POLICIES,
        "assign": ASSIGNMENTS,
        "discriminant": DISCRIMINANTS,
        "map": PLANES,
    }
    for key, choices in known.items():
        if options[key] not in choices:
            raise BadValue(f"cluster.{key}={options[key]!r} is unknown; known: {', '.join(choices)}")


def assign(x_NU, fit_N, index_M, matched, known_N, voice_N, voices_P, shrinkage):
    """`(labels_N, memberships_NC, probability_N, by_N)` of every utterance.

    Fitted rows have their point's cluster, rows of `known_N` that of the voice they bear, and all others what they
    sound like (`clustering.fit_posterior` on the fitted rows); where `known_N` is false for a fitted row of a voice, it
    too goes by its sound. A posterior never says noise: whether an utterance belongs to no cohort cannot be read off a
    model of voices.
    """
    fit_labels = matched.labels_N[index_M]
    if (fit_labels < 0).all():
        raise BadValue("cluster: every point is noise; lower cluster.hdbscan.min_cluster_size or use method='gmm'")
    labels_N, member_NC = clustering.fit_posterior(x_NU[fit_N], fit_labels, matched.num_experts, shrinkage)(x_NU)
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
