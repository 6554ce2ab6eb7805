"""Chooses layer, method and number of clusters by criteria that never see a label; keeps the candidates."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from moejax.cohorts import agreement, clustering, projection
from moejax.cohorts.names import KNOWN
from moejax.cohorts.points import Signal
from moejax.runtime import faults, watchdog

MARGIN = 0.02  # of the score: what comes this close to the best is told apart by its stability
SHORTLIST = 5  # of those at most, because stability costs refits


@dataclass(kw_only=True)
class Candidate:
    """One line of the table: what was fitted, how many clusters it has, and its criteria (None: not measured)."""

    signal: str
    method: str
    clusters: int
    silhouette: float
    score: float
    bic: float | None = None
    effective: float | None = None
    noise: float = 0.0
    stability: float | None = None
    chosen: bool = False

    def row(self) -> dict:
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The fitted clusters and where they stand: projection of the signal, its points, the settings for a refit."""

    signal: Signal
    pca: projection.Projection
    points_PK: np.ndarray
    model: clustering.ClusterModel
    stability: float | None
    table: list[dict]


def choose(
    signals: list[Signal], voice_M: np.ndarray | None, group_M: np.ndarray, options: dict, level: str, seed: int
) -> Choice:
    """The candidate with the best score; among those within `MARGIN` of it the most stable.

    The score is the silhouette times the evenness of the sizes: by the silhouette alone the best partition is often two
    clusters, one outlying speaker and everybody else, which is no cohort and gives an expert nothing to learn from.
    Candidates are the signals (layers) times the methods times the numbers of clusters that the options leave open.
    A method asked for by name chooses its own number by its own criterion. `group_M`: what the corpus calls each
    fitted row's group, for the method that takes these.
    """
    group_P = _of_points(group_M, voice_M)
    found = []
    for signal in signals:
        pca = signal.reduced(voice_M, options["dims"], options["variance"])
        points_PK = pca(signal.points(voice_M))
        faults.point("cluster.fit")
        watchdog.beat()
        for model, method, settings in models_of(points_PK, group_P, options, level, seed):
            silhouette = clustering.silhouette(points_PK, model.labels_N, seed)
            score = silhouette * clustering.evenness(model.labels_N) if silhouette > 0 else silhouette
            candidate = Candidate(
                signal=signal.name,
                method=model.method,
                clusters=model.num_clusters,
                bic=model.bic,
                score=score,
                silhouette=silhouette,
                effective=model.effective,
                noise=agreement.noise_share(model.labels_N),
            )
            found.append((candidate, signal, pca, points_PK, model, method, settings))
    found.sort(key=lambda each: -each[0].score)  # stable: equals stay in the order of signals, methods, numbers
    close = [each for each in found if each[0].score >= found[0][0].score - MARGIN][:SHORTLIST]
    for candidate, _, _, points_PK, _, method, settings in close:
        candidate.stability = stability(points_PK, method, settings, options["refits"], seed)
    best = max(close, key=lambda each: (each[0].stability or 0.0, each[0].score))
    best[0].chosen = True
    return Choice(
        signal=best[1],
        pca=best[2],
        points_PK=best[3],
        model=best[4],
        stability=best[0].stability,
        table=[each[0].row() for each in found],
    )


def _of_points(group_M: np.ndarray, voice_M: np.ndarray | None) -> np.ndarray:
    """The group of most of a voice's rows, in the order of the voices; of each row where there are none."""
    if voice_M is None:
        return group_M
    counts_PC, _ = agreement.overlap(voice_M, np.unique(group_M, return_inverse=True)[1], len(np.unique(group_M)))
    return np.unique(group_M)[counts_PC[:, :-1].argmax(axis=1)]


def models_of(points_PK: np.ndarray, group_P: np.ndarray, options: dict, level: str, seed: int):
    """Yields `(model, method, settings)`; the settings repeat the fit on other points with the same number."""
    if options["method"] == KNOWN:
        yield clustering.of_groups(points_PK, group_P), KNOWN, {}
        return
    if options["method"] != "auto":
        settings = method_options(options, options["method"], level, len(points_PK))
        yield clustering.fit_clusters(points_PK, options["method"], seed=seed, **settings), options["method"], settings
        return
    numbers = clustering.candidates(len(points_PK), None, options["auto"]["max_clusters"])
    for method in options["auto"]["methods"]:
        settings = method_options(options, method, level, len(points_PK))
        if method == "hdbscan":
            model = clustering.fit_hdbscan(points_PK, **settings)
            if model.num_clusters >= 2:
                yield model, method, settings
            continue
        settings = {name: value for name, value in settings.items() if name in ("covariance", "inits")}
        for model in clustering.fit_numbers(points_PK, method, numbers, seed=seed, **settings):
            yield model, method, {**settings, "num_clusters": model.num_clusters}


def method_options(options: dict, method: str, level: str, num_points: int) -> dict:
    """The settings of a method with its automatic values (0, "auto") worked out.

    All mixtures read the section gmm, and spectral clustering that of k-means.
    """
    section = "gmm" if method in clustering.FAMILIES else "kmeans" if method == "spectral" else method
    settings = dict(options[section])
    if method == "hdbscan":
        size = settings["min_cluster_size"] or (max(5, round(0.02 * num_points)) if level == "utterance" else 2)
        samples = settings["min_samples"] or (size if level == "utterance" else 1)
        return {**settings, "min_cluster_size": size, "min_samples": samples}
    settings["num_clusters"] = settings["num_clusters"] or None
    if settings.get("covariance") == "auto":
        settings["covariance"] = "spherical" if num_points < clustering.SMALL else "diag"
    return settings


def stability(points_PK: np.ndarray, method: str, settings: dict, refits: int, seed: int) -> float | None:
    """Agreement between refits on 90 % of the points, or None where it was not asked for or the points are too few."""
    fixed = settings.get("num_clusters") or 0
    if method == KNOWN or refits < 2 or len(points_PK) < max(10, fixed + 2):
        return None
    return agreement.stability(
        lambda index_N, run: clustering.fit_clusters(points_PK[index_N], method, seed=run, **settings).labels_N,
        len(points_PK),
        refits=refits,
        seed=seed,
    )


def to_markdown(table: list[dict], most: int = 12) -> list[str]:
    """Lines of the table: the best by score, and how many more there were."""
    if len(table) < 2:
        return []
    lines = [
        "",
        f"Candidates ({len(table)}, the first {min(most, len(table))} by score = silhouette x evenness of the sizes): "
        f"of those within {MARGIN} of the best the most stable is chosen; no criterion sees a cohort",
        "",
        "| signal | method | clusters | score | silhouette | stability | BIC | noise | chosen |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table[:most]:
        bic, stable = (
            "" if row[k] is None else f"{row[k]:{form}}" for k, form in (("bic", ".0f"), ("stability", ".2f"))
        )
        lines.append(
            f"| {row['signal']} | {row['method']} | {row['clusters']} | {row['score']:.3f} | {row['silhouette']:.3f} | "
            f"{stable} | {bic} | {row['noise']:.0%} | {'yes' if row['chosen'] else ''} |"
        )
    return lines
