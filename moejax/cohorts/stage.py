"""The cluster stage: cohorts in the embeddings of the sample, every utterance assigned, and what the clusters encode.

Reads W/describe/manifest.parquet and W/embed/embeddings.npz; writes W/cluster/clusters.npz (`id`, `label` [N] with -1
for noise, `membership` [N, C], `keep` [N], `probability` [N], `by` [N], `centroids` [C, K], `pca_mean`, `pca_matrix`,
and `proj_mean` [U], `proj_matrix` [U, K] when a discriminant is asked for), agreement.json, agreement.md, map.png and
overlap.png.
No speaker's cohort is used anywhere but in the agreement and the picture.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

from moejax.cohorts.names import KNOWN, LEVELS, MATCHES, METHODS, NOISE_POLICIES, PLANES
from moejax.data.manifest import Manifest
from moejax.errors import BadValue, NotThere
from moejax.runtime.files import write_json, write_npz, write_text
from moejax.work.fields import SHARE, SIZE, Field, above
from moejax.work.stage import Stage


def _cluster_size(key, size):
    if size == 1:
        raise BadValue(f"config key {key!r} is 1; it takes at least 2, or 0 for automatic")


MAX_CLUSTERS = Field(12, "Most clusters that are tried.", limits=(2, 1000))
SECTIONS = {
    "cluster": {
        "level": Field(
            "speaker",
            "What is a point.\n"
            "speaker: the mean of a speaker's utterances, which removes the text; voice: the same without knowing who"
            " spoke, utterances that sound like one person being grouped first; utterance: each by itself.",
            choices=LEVELS,
        ),
        "signal": Field(
            "embedding",
            "What is clustered: the embedding, or the gradient of an adapter (embed.signals must have it).",
            choices=("embedding", "gradient"),
        ),
        "remove": Field(
            ("text", "seconds", "silence"),
            "What is regressed out of what is clustered: words, duration in seconds, share of silence.",
            choices=("text", "seconds", "silence"),
        ),
        "method": Field(
            "auto",
            "How points are clustered.\n"
            "auto: the best of cluster.auto.methods; gmm, student, laplace, vmf and dpgmm are mixtures; known: those"
            " that the corpus names as cohorts are taken as they are (experts for severity x gender, say).",
            choices=("auto", *METHODS, KNOWN),
        ),
        "layers": Field(
            ("auto",),
            "Layers of the embedding that are clustered; () for all. The gate always sees all.\n"
            "auto: every layer alone and all together are tried; else names such as h0, h1, output.",
        ),
        "auto": {
            "methods": Field(
                ("kmeans", "ward", "gmm"),
                "Methods that auto tries.\n"
                "The best silhouette times evenness of sizes is taken, and where several are close, the most stable.",
                choices=METHODS,
                needed=True,
            ),
            "max_clusters": MAX_CLUSTERS,
        },
        "dims": Field(8, "Principal components that are kept; HDBSCAN stalls above 50 to 100.", limits=SIZE),
        "variance": Field(
            1.0,
            "Share of the variance with which fewer components are enough; 1.0 for no such limit.",
            limits=(above(0), 1.0),
        ),
        "hdbscan": {
            "min_cluster_size": Field(
                0,
                "Fewest points of a cluster, at least 2; 0: 2 for speakers, 2 % of the utterances (at least 5).",
                rule=_cluster_size,
                takes="0, or a whole number at least 2",
            ),
            "min_samples": Field(
                0,
                "Points in the neighbourhood of a core point; 0: 1 for speakers, min_cluster_size for utterances.",
            ),
            "epsilon": Field(0.0, "Distance below which clusters are not split further; 0: no such limit."),
            "selection": Field(
                "eom",
                "How clusters are taken from the tree.\neom: excess of mass; leaf: the smallest ones.",
                choices=("eom", "leaf"),
            ),
        },
        "gmm": {
            "num_clusters": Field(
                0,
                "Components of every mixture; 0: by BIC from 2 to max_clusters (dpgmm: its own number up to that).",
                limits=(0, 1000),
            ),
            "max_clusters": MAX_CLUSTERS,
            "covariance": Field(
                "auto",
                "Form of a component's covariance; auto: spherical below 50 points, else diag.",
                choices=("auto", "full", "diag", "spherical"),
            ),
            "inits": Field(3, "Starts of each mixture, of which the most likely result is kept.", limits=(1, 1000)),
        },
        "kmeans": {
            "num_clusters": Field(
                0, "Clusters of kmeans and spectral; 0: by silhouette from 2 to max_clusters.", limits=(0, 1000)
            ),
            "max_clusters": MAX_CLUSTERS,
        },
        "ward": {
            "num_clusters": Field(0, "Clusters of ward; 0: by silhouette from 2 to max_clusters.", limits=(0, 1000)),
            "max_clusters": MAX_CLUSTERS,
        },
        "match": Field(
            "split",
            "What is done where there are fewer clusters than gate.num_experts.\n"
            "split: the largest are split; shrink: there are fewer experts.",
            choices=MATCHES,
        ),
        "noise": Field(
            "soft",
            "What becomes of points in no cluster.\n"
            "drop: they are left out; soft: they keep their memberships; uniform: they belong to all alike; nearest:"
            " they join the nearest cluster.",
            choices=NOISE_POLICIES,
        ),
        "assign": Field(
            "speaker",
            "How training utterances get a cluster, for level speaker and voice.\n"
            "speaker: their speaker's; sound: all the one they sound like. Utterances of dev, test and of speakers"
            " outside the sample are always assigned by their sound.",
            choices=("speaker", "sound"),
        ),
        "discriminant": Field(
            "speaker",
            "What the gate's fixed projection tells apart: speakers, clusters, or none for no such projection.",
            choices=("speaker", "cluster", "none"),
        ),
        "discriminant_dims": Field(8, "Dimensions of that projection.", limits=SIZE),
        "shrinkage": Field(
            None,
            "Shrinkage of the covariance within groups, from 0 to 1; None: Ledoit-Wolf.",
            kind=float,
            limits=SHARE,
        ),
        "refits": Field(4, "Refits on 90 % of the points for the stability figure; 0 for none.", limits=(0, 1000)),
        "map": Field(
            "pca",
            "Plane of the picture of the clusters.\n"
            "pca; lda of the clusters; or tsne, for samples below 3000 utterances.",
            choices=PLANES,
        ),
    }
}

CLASSES = ("speaker", "cohort", "etiology", "accent", "gender", "text", "prompt")
MEASURES = ("seconds", "silence")
NUISANCES = ("seconds", "silence")
PARTS = {
    "found": "clusters as found, utterances of the sample",
    "speakers": "clusters as found, each speaker counted once",
    "sample": "the experts' clusters, sample",
    "heldout": "the experts' clusters, dev and test, by sound alone",
}


def run(config, work) -> dict:
    """Finds, assigns, writes and prints; returns the figures for done.json and the report."""
    # Imported here: scikit-learn, hdbscan and matplotlib take seconds, and every command reads this module's SECTIONS.
    from sklearn.exceptions import ConvergenceWarning

    from moejax.cohorts import figures as cluster_figures
    from moejax.cohorts import fit, gradients

    options = config.cluster.to_dict()
    manifest = Manifest.load(work.path("describe", "manifest.parquet"), root=work.root)
    x_NU, layer_names = load_embeddings(work.path("embed", "embeddings.npz"), manifest.column("id"))
    sample_N, train_N = manifest.column("sample"), manifest.column("split") == "train"
    gradient = None if options["signal"] == "embedding" else gradients.load(work, manifest.column("id"))
    with warnings.catch_warnings():
        # Of points that are equal k-means makes fewer clusters than it was asked for; the table says how many.
        warnings.simplefilter("ignore", ConvergenceWarning)
        cohorts = fit.discover(
            fit.Sample(
                x_NU=x_NU,
                layer_names=layer_names,
                fit_N=sample_N & train_N,
                train_N=train_N,
                columns={name: manifest.column(name) for name in ("speaker", "text", "cohort", *MEASURES)},
                gradient=gradient,
            ),
            num_experts=int(config.gate.num_experts),
            seed=int(config.seed),
            options=options,
            log=work.log,
        )
    report = describe_clusters(cohorts, manifest, sample_N & train_N, ~train_N)
    alarms = warnings_of(report)
    write_npz(work.path("cluster", "clusters.npz"), id=np.asarray(manifest.column("id"), str), **cohorts.arrays())
    write_json(work.path("cluster", "agreement.json"), {**report, "warnings": alarms})
    text = to_markdown(report, alarms)
    write_text(work.path("cluster", "agreement.md"), text)
    cluster_figures.write_map(
        work.path("cluster", "map.png"),
        cohorts.points_NK[sample_N & train_N],
        {
            "cluster": cohorts.raw_labels_N[sample_N & train_N],
            "cohort": manifest.column("cohort")[sample_N & train_N],
            "speaker": manifest.column("speaker")[sample_N & train_N],
        },
        how=options["map"],
        seed=int(config.seed),
    )
    cluster_figures.write_overlap(
        work.path("cluster", "overlap.png"), np.asarray(report["overlap"]["counts"]), report["overlap"]["speakers"]
    )
    work.log(text)
    return summary(report, alarms)


def load_embeddings(path: Path, ids_N: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """`embedding` [N, U] in the order of `ids_N`, and the layers' names; an utterance without a vector is an error."""
    if not Path(path).is_file():
        raise NotThere(f"no embeddings at {path}; `moejax embed` writes them")
    with np.load(path) as arrays:
        ids, x_NU = arrays["id"], arrays["embedding"]
        layer_names = [str(name) for name in arrays["layer_names"]]
    row_of = {str(name): row for row, name in enumerate(ids)}
    missing = [name for name in ids_N if name not in row_of]
    if missing:
        raise BadValue(f"{path} has no embedding of {len(missing)} utterance(s), the first is {missing[0]!r}")
    return x_NU[[row_of[name] for name in ids_N]], layer_names


def describe_clusters(cohorts, manifest: Manifest, sample_N: np.ndarray, heldout_N: np.ndarray) -> dict:
    """Sizes, noise, stability, and the agreement with every known column: of the clusters as found (by utterance, and
    with every speaker counted once), and of the experts' clusters on the sample and on dev + test.

    Computed from the labels *before* the noise policy. With `level` speaker the sample's agreement with the speaker is
    1 by construction; the held-out part, assigned by sound alone, is the honest one.
    """
    from moejax.cohorts import agreement

    columns = {name: manifest.column(name) for name in CLASSES}
    columns |= {name: agreement.quantile_bins(manifest.column(name)) for name in MEASURES}
    columns = {name: values_N for name, values_N in columns.items() if len(set(values_N)) > 1}
    labels_N, choice = cohorts.raw_labels_N, cohorts.choice
    parts = {
        "found": (cohorts.found_N, cohorts.found_N >= 0),
        "sample": (labels_N, sample_N),
        "heldout": (labels_N, heldout_N),
    }
    counts, names = agreement.overlap(manifest.column("speaker"), labels_N, cohorts.num_clusters)
    return {
        "method": choice.model.method,
        "level": cohorts.level,
        "signal": choice.signal.name,
        "found": choice.model.num_clusters,
        "num_clusters": cohorts.num_clusters,
        "num_experts": cohorts.num_clusters,
        "match": {"action": cohorts.matched.action, "note": cohorts.matched.note},
        "sizes": {
            "found": np.bincount(cohorts.found_N[cohorts.found_N >= 0], minlength=choice.model.num_clusters).tolist(),
            "sample": np.bincount(labels_N[sample_N & (labels_N >= 0)], minlength=cohorts.num_clusters).tolist(),
            "all": np.bincount(labels_N[labels_N >= 0], minlength=cohorts.num_clusters).tolist(),
        },
        "noise_share": agreement.noise_share(labels_N[sample_N]),
        "noise_policy": cohorts.noise,
        "stability": choice.stability,
        "voices": cohorts.voices,
        "candidates": choice.table,
        "agreement": {
            part: agreement.agreement(found_N[rows_N], {name: v_N[rows_N] for name, v_N in columns.items()})
            for part, (found_N, rows_N) in parts.items()
            if rows_N.any()
        }
        | by_speaker(cohorts.found_N, columns),
        "overlap": {"speakers": names, "counts": counts.tolist()},
    }


def by_speaker(found_N: np.ndarray, columns: dict[str, np.ndarray]) -> dict:
    """{"speakers": agreement} with every speaker counted once, by most of his utterances: many recordings of a few
    voices cannot decide it. {} without names.
    """
    from moejax.cohorts import agreement

    names_N = columns.get("speaker")
    if names_N is None:
        return {}
    counts_PC, names = agreement.overlap(names_N[found_N >= 0], found_N[found_N >= 0], int(found_N.max()) + 1)
    first = [int(np.flatnonzero(names_N.astype(str) == name)[0]) for name in names]
    once = {name: columns[name][first] for name in ("cohort", "etiology", "accent", "gender") if name in columns}
    return {"speakers": agreement.agreement(counts_PC[:, :-1].argmax(axis=1), once)}


def warnings_of(report: dict) -> list[str]:
    """One line for each nuisance that explains more of the clusters than the speaker does: the classic failure."""
    lines = []
    for part, rows in report["agreement"].items():
        voice = rows.get("speaker", {"explained": 0.0})["explained"]
        for name in NUISANCES:
            if name in rows and rows[name]["explained"] > max(voice, 0.05):
                lines.append(
                    f"{part}: {name} explains {rows[name]['explained']:.2f} of the clusters, the speaker {voice:.2f}: "
                    "they encode the nuisance; try silence-trimmed pooling or cluster.level='speaker'"
                )
    return lines


def to_markdown(report: dict, alarms: list[str]) -> str:
    """The table that is printed and kept in agreement.md."""
    from moejax.cohorts import choice

    stability = "not measured" if report["stability"] is None else f"{report['stability']:.2f}"
    lines = [
        f"{report['found']} clusters by {report['method']} on {report['level']}s of {report['signal']}, "
        f"{report['num_clusters']} for the experts ({report['match']['note']}), "
        f"noise {report['noise_share']:.1%} ({report['noise_policy']}), stability {stability}",
        "",
        "| cluster | sample | all | speakers |",
        "|---|---|---|---|",
    ]
    counts = np.asarray(report["overlap"]["counts"])
    for cluster, (few, many) in enumerate(zip(report["sizes"]["sample"], report["sizes"]["all"], strict=True)):
        lines.append(f"| {cluster} | {few} | {many} | {int((counts[:, cluster] > 0).sum())} |")
    if report["voices"]:
        rows = report["voices"].get("speaker")  # none where nobody has a name
        told = " ".join(f"{key} {rows[key]:.2f}" for key in ("ami", "ari", "purity")) if rows else "unknown"
        lines += ["", f"Voices, grouped by layer {report['voices']['layer']}; agreement with the speakers: {told}"]
    lines += choice.to_markdown(report["candidates"])
    for part, rows in report["agreement"].items():
        lines += [
            "",
            f"What the clusters encode ({PARTS[part]}): explained is the share of the clusters' entropy, above chance",
            "",
            "| column | classes | explained | AMI | ARI | purity |",
            "|---|---|---|---|---|---|",
        ]
        for name, row in sorted(rows.items(), key=lambda item: -item[1]["explained"]):
            figures = " | ".join(f"{row[key]:.2f}" for key in ("explained", "ami", "ari", "purity"))
            lines.append(f"| {name} | {row['classes']} | {figures} |")
    if alarms:
        lines += ["", *[f"WARNING {line}" for line in alarms]]
    return "\n".join(lines) + "\n"


def summary(report: dict, alarms: list[str]) -> dict:
    """The small part for done.json."""
    keys = ("method", "level", "signal", "found", "num_clusters", "num_experts", "noise_share", "stability")
    parts = report["agreement"].items()
    return {
        **{key: report[key] for key in keys},
        "match": report["match"]["action"],
        "ari": {part: {name: row["ari"] for name, row in rows.items()} for part, rows in parts},
        "explained": {part: {name: row["explained"] for name, row in rows.items()} for part, rows in parts},
        "warnings": alarms,
    }


STAGE = Stage(
    "cluster",
    run,
    needs=("embed",),
    reads=("cluster", "gate.num_experts"),
    switch="gate.num_experts",
    sections=SECTIONS,
)
