"""The map of the sample in the plane, three times: by cluster, by cohort, by speaker."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from moejax.cohorts import projection
from moejax.cohorts.agreement import codes
from moejax.cohorts.names import PLANES
from moejax.errors import BadValue
from moejax.runtime.files import replacing

# Okabe and Ito's palette, told apart with every common colour blindness; the marker changes after eight groups.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#8C6D1F", "#000000")
MARKERS = ("o", "^", "s", "D", "v", "P", "X", "*")
NOISE_COLOUR = "#BBBBBB"
MOST_FOR_TSNE = 3000  # above this its minutes buy nothing that a plane does not show
MOST_IN_LEGEND = 40


def write_map(
    path: Path, points_NK: np.ndarray, groups: dict[str, np.ndarray], *, how: str = "pca", seed: int = 0
) -> None:
    """Draws `points_NK` in a plane once per entry of `groups` (title: label of each point) and writes a PNG, whole or
    not.

    Integer labels below 0 are noise and drawn grey; "" is drawn as "unknown". A grouping with more groups than colours
    gets a panel as wide as the picture, which names the groups' centres.
    """
    xy_N2, axis = plane(points_NK, how, next(iter(groups.values())), seed)
    many = [title for title, labels_N in groups.items() if len(set(np.asarray(labels_N).tolist())) > len(COLOURS) + 1]
    few = [title for title in groups if title not in many]
    rows = [few] * bool(few) + [[title] for title in many]
    across = max(len(row) for row in rows)
    figure = Figure(figsize=(5.4 * across, 6.2 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    grids = [part.subplots(1, len(row), squeeze=False) for part, row in zip(parts, rows, strict=True)]
    panels = [axes for grid in grids for axes in grid[0]]
    for axes, title in zip(panels, [title for row in rows for title in row], strict=True):
        labels_N = np.asarray(groups[title])
        draw_centres(axes, xy_N2, labels_N) if title in many else draw(axes, xy_N2, labels_N)
        axes.set_title(f"by {title}" + (": the mean of each" if title in many else ""))
        axes.set_xlabel(f"{axis} 1")
        axes.set_ylabel(f"{axis} 2")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def write_overlap(path: Path, counts_PC: np.ndarray, speakers: list[str]) -> None:
    """Draws how each speaker's utterances are spread over the clusters (last column: noise), as shares, and writes a
    PNG, whole or not. Speakers stand in the order of their main cluster; the `MOST_IN_LEGEND` with most utterances.
    """
    most = np.sort(np.argsort(-counts_PC.sum(axis=1), kind="stable")[:MOST_IN_LEGEND])
    share_PC = counts_PC[most] / np.maximum(counts_PC[most].sum(axis=1, keepdims=True), 1)
    order = np.lexsort((-share_PC.max(axis=1), share_PC.argmax(axis=1)))
    share_PC, names = share_PC[order], [speakers[most[p]] or "unknown" for p in order]
    clusters = share_PC.shape[1] - 1
    figure = Figure(figsize=(2.6 + 0.5 * (clusters + 1), 1.6 + 0.22 * len(names)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    image = axes.imshow(share_PC, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(clusters + 1), [*map(str, range(clusters)), "noise"])
    axes.set_yticks(range(len(names)), names, fontsize=7)
    axes.set_xlabel("the experts' cluster")
    figure.colorbar(image, label="share of the speaker's utterances")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def draw(axes, xy_N2: np.ndarray, labels_N: np.ndarray) -> None:
    """One panel with its legend below; it names at most `MOST_IN_LEGEND` groups and counts the rest."""
    names = sorted(set(labels_N.tolist()), key=lambda name: (isinstance(name, str), name))
    noise = [name for name in names if not isinstance(name, str) and name < 0]
    size = float(np.clip(16000 / max(len(labels_N), 1), 12, 36))
    for name in noise:
        rows_N = labels_N == name
        axes.scatter(*xy_N2[rows_N].T, s=0.7 * size, c=NOISE_COLOUR, marker=".", label="noise", linewidths=0)
    for index, name in enumerate(name for name in names if name not in noise):
        rows_N = labels_N == name
        axes.scatter(
            *xy_N2[rows_N].T,
            s=size,
            c=COLOURS[index % len(COLOURS)],
            marker=MARKERS[index // len(COLOURS) % len(MARKERS)],
            # matplotlib leaves a label that starts with an underscore out of the legend
            label=" " + str(name) if str(name).startswith("_") else str(name) or "unknown",
            alpha=0.75,
            linewidths=0,
        )
    handles, labels = axes.get_legend_handles_labels()
    more = len(handles) - MOST_IN_LEGEND
    axes.legend(
        handles[:MOST_IN_LEGEND],
        labels[:MOST_IN_LEGEND],
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=5 if len(labels) > 8 else 4,
        fontsize=7,
        title=f"and {more} more" if more > 0 else None,
        markerscale=float(np.sqrt(36 / size)),  # as large in the legend however many points there are
        handletextpad=0.2,
        columnspacing=0.8,
    )


def draw_centres(axes, xy_N2: np.ndarray, labels_N: np.ndarray) -> None:
    """Every point pale, and over them the mean of each group with its name; the `MOST_IN_LEGEND` largest are named."""
    axes.scatter(*xy_N2.T, s=8, c=NOISE_COLOUR, alpha=0.5, linewidths=0)
    names, counts = np.unique(labels_N, return_counts=True)
    names = sorted(names[np.argsort(-counts, kind="stable")][:MOST_IN_LEGEND].tolist(), key=str)
    centres = np.array([xy_N2[labels_N == name].mean(axis=0) for name in names])
    low_2, high_2 = centres.min(axis=0), centres.max(axis=0)
    spread_2 = 1.3 * np.maximum(high_2 - low_2, 1e-9)  # of the panel: the means and room for their names
    axes.set_xlim(low_2[0] - 0.1 * spread_2[0], low_2[0] + 0.95 * spread_2[0])
    axes.set_ylim(low_2[1] - 0.1 * spread_2[1], low_2[1] + 0.95 * spread_2[1])
    taken = list(centres + spread_2 * (-0.05, 0.0))  # no name lies on another's mark
    for index in np.argsort(centres[:, 1]):
        name, centre = str(names[index]) or "unknown", centres[index]
        colour = COLOURS[index % len(COLOURS)]
        marker = MARKERS[index // len(COLOURS) % len(MARKERS)]
        axes.scatter(*centre, s=60, c=colour, marker=marker, edgecolors="white", linewidths=0.7, zorder=3)
        place = centre + (0.012 * spread_2[0], 0.0)
        room_2 = spread_2 * (0.011 * len(name), 0.028)  # a line of text as it is drawn in this panel
        while any((np.abs(place - other) < room_2).all() for other in taken):
            place = place + (0.0, 0.014 * spread_2[1])
        taken.append(place)
        axes.annotate(
            name,
            centre,
            place,
            fontsize=8,
            color="#222222",
            va="center",
            zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4, "alpha": 0.8},
            arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5},
        )


def plane(points_NK: np.ndarray, how: str, labels_N: np.ndarray, seed: int) -> tuple[np.ndarray, str]:
    """Two coordinates per point and the name of the axes; "lda" needs 3 groups and "tsne" a small sample, else "pca".

    "lda" shows the labels at their best (it looks for the plane that separates them): a picture, not evidence.
    """
    if how not in PLANES:
        raise BadValue(f"cluster.map={how!r} is unknown; known: {', '.join(PLANES)}")
    groups_N = np.asarray(labels_N)
    groups_N = groups_N if np.issubdtype(groups_N.dtype, np.integer) else codes(groups_N)
    if how == "lda" and len(np.unique(groups_N[groups_N >= 0])) >= 3 and points_NK.shape[1] >= 2:
        mean_K, matrix_K2 = projection.fit_discriminant(points_NK, groups_N, 2)
        if matrix_K2.shape[1] == 2:
            return (points_NK - mean_K) @ matrix_K2, "discriminant"
    if how == "tsne" and 10 <= len(points_NK) <= MOST_FOR_TSNE:
        from sklearn.manifold import TSNE

        perplexity = min(30.0, (len(points_NK) - 1) / 3)
        return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(points_NK), "t-SNE"
    centred_NK = points_NK - points_NK.mean(axis=0)
    axes_K2 = np.linalg.svd(centred_NK, full_matrices=False)[2][:2].T
    xy = centred_NK @ axes_K2
    return np.pad(xy, ((0, 0), (0, 2 - xy.shape[1]))), "component"
