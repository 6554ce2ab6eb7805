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
    return _grid(pictures, names, None)


def decides(pictures: Mapping[str, np.ndarray], names: Sequence[str]) -> bytes:
    """The same in grey, with what decides in red: of each clip the strongest percent is full."""
    return _grid(pictures, names, pictures["saliency"])


def _grid(pictures, names, saliency) -> bytes:
    count = len(pictures["label"])
    columns = min(4, count)
    lines = math.ceil(count / columns)
    figure, grid = panels(lines, columns, 0.3 + 1.5 * lines)
    low, high = float(pictures["image"].min()), float(pictures["image"].max())
    seconds = pictures["image"].shape[2] * int(pictures["hop"]) / int(pictures["rate"])
    for number, (axes, label) in enumerate(zip(grid.flat, pictures["label"], strict=False)):
        image_MN = pictures["image"][number]
        extent = (0.0, seconds, 0.0, float(image_MN.shape[0]))
        shown = {"origin": "lower", "aspect": "auto", "extent": extent}
        axes.imshow(image_MN, cmap="magma" if saliency is None else "Greys_r", vmin=low, vmax=high, **shown)
        if saliency is not None:
            hot_MN = saliency[number] / max(float(np.quantile(saliency[number], 0.99)), 1e-20)
            red = np.zeros((*hot_MN.shape, 4))
            red[..., 0], red[..., 3] = 1.0, np.clip(hot_MN, 0, 1) ** 1.5
            axes.imshow(red, **shown)
        axes.set_title(names[int(label)], size=9)
        axes.tick_params(labelsize=7)
    for axes in grid.flat[count:]:
        axes.set_visible(False)
    grid[-1][0].set_xlabel("seconds", size=8)
    grid[-1][0].set_ylabel("mel bands", size=8)
    return png(figure)
