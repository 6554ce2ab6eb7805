"""Pictures of a cross-validation as PNG bytes: who is taken for whom, and what each class looks like."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from moejax.report.figures import WIDTH, panels, png


def confusion(counts_CC: np.ndarray, names: Sequence[str], model: str) -> bytes:
    """Shares of each right class (rows) by what was said (columns); numbers are clips."""
    size = len(names)
    figure, ((axes,),) = panels(1, 1, min(WIDTH, 1.6 + 0.42 * size))
    share_CC = counts_CC / np.maximum(counts_CC.sum(1, keepdims=True), 1)
    axes.imshow(share_CC, cmap="Blues", vmin=0.0, vmax=1.0)
    for right in range(size):
        for said in range(size):
            if counts_CC[right, said]:
                colour = "white" if share_CC[right, said] > 0.55 else "#1d2126"
                axes.text(said, right, str(counts_CC[right, said]), ha="center", va="center", color=colour, size=8)
    axes.set_xticks(range(size), names, rotation=45, ha="right")
    axes.set_yticks(range(size), names)
    axes.set_xlabel(f"said by {model}")
    axes.set_ylabel("right")
    return png(figure)


def mels(pictures: Mapping[str, np.ndarray], names: Sequence[str]) -> bytes:
    """The log-mel image of one clip of each class, all on one scale of decibels; time from left to right."""
    count = len(pictures["label"])
    columns = min(4, count)
    lines = math.ceil(count / columns)
    figure, grid = panels(lines, columns, 0.3 + 1.5 * lines)
    low, high = float(pictures["image"].min()), float(pictures["image"].max())
    seconds = pictures["image"].shape[2] * int(pictures["hop"]) / int(pictures["rate"])
    for axes, image_MN, label in zip(grid.flat, pictures["image"], pictures["label"], strict=False):
        extent = (0.0, seconds, 0.0, float(image_MN.shape[0]))
        axes.imshow(image_MN, origin="lower", aspect="auto", cmap="magma", vmin=low, vmax=high, extent=extent)
        axes.set_title(names[int(label)], size=9)
        axes.tick_params(labelsize=7)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    grid[-1][0].set_xlabel("seconds", size=8)
    grid[-1][0].set_ylabel("mel bands", size=8)
    return png(figure)
