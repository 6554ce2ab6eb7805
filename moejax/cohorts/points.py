"""What is clustered: signals of the sample's utterances, freed of nuisances, and averaged over each voice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moejax.cohorts import clustering, nuisance, projection
from moejax.errors import BadValue

FEWEST_SPEAKERS = 3  # two means are at most two points: nothing to discover
VOICE_DIMS = 40  # components in which utterances are grouped into voices: more than cohorts need
VOICE_NUMBERS = tuple(int(round(8 * 1.25**step)) for step in range(14))  # 8, 10, 12, ..., 146
LEAST_IN_VOICE = 6  # utterances of a voice on average: a mean of fewer keeps the text


@dataclass(frozen=True, kw_only=True)
class Signal:
    """One way to look at the sample: `fit_MU` one row per fitted utterance, as free of nuisances as was asked for, from
    these `columns` of what was given.
    """

    name: str
    columns: np.ndarray
    fit_MU: np.ndarray

    def points(self, voice_M: np.ndarray | None) -> np.ndarray:
        """Means of the voices, or the utterances themselves."""
        return self.fit_MU if voice_M is None else clustering.speaker_means(self.fit_MU, voice_M)[0]

    def reduced(self, voice_M: np.ndarray | None, dims: int, variance: float) -> projection.Projection:
        return projection.fit_pca(self.points(voice_M), dims=dims, variance=variance, reference_NU=self.fit_MU)


def layer_columns(layers: tuple[str, ...], layer_names: list[str], width: int) -> np.ndarray:
    """Columns of the embedding that belong to the named layers: equal blocks in the order of `layer_names`."""
    if not layers:
        return np.arange(width)
    unknown = [name for name in layers if name not in layer_names]
    if unknown:
        raise BadValue(f"cluster.layers names {unknown[0]!r}; the embedding has: {', '.join(layer_names)}, or auto")
    if width % len(layer_names):
        raise BadValue(f"cluster.layers: {width} columns do not divide into {len(layer_names)} layers")
    block = width // len(layer_names)
    return np.concatenate([np.arange(block) + block * layer_names.index(name) for name in layers])


def level_of(level: str, speaker_M: np.ndarray, log: Callable[[str], None]) -> str:
    """The level asked for, or "voice" where too few speakers have names."""
    named = np.unique(speaker_M[speaker_M != ""])
    if level != "speaker" or len(named) >= FEWEST_SPEAKERS:
        return level
    log(f"cluster.level='speaker', but the sample names {len(named)} speaker(s): voices are grouped by their sound")
    return "voice"


def nuisances(columns: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray:
    """The nuisances called `names` side by side `[M, V]`: words of the text, and measures."""
    parts = [np.zeros((len(next(iter(columns.values()))), 0))]
    for name in names:
        if name == "text":
            parts.append(nuisance.word_counts([str(text) for text in columns["text"]]))
        else:
            parts.append(nuisance.standardised(np.asarray(columns[name], np.float64)[:, None]))
    return np.concatenate(parts, axis=1)


def find_voices(x_MU: np.ndarray, layer_names: list[str], columns: dict, names: tuple[str, ...], seed: int):
    """Groups the sample by voice without knowing who spoke: `(voice_M, the layer that says so)`.

    In the layer whose groups have the best silhouette (the lowest layers know the voice best). Twice: the words are
    taken out first of all utterances alike, then, with the measures, within the groups that this shows, because voices
    differ in duration and silence too.
    """
    most = max(2, len(x_MU) // LEAST_IN_VOICE)
    numbers = sorted({min(number, most) for number in VOICE_NUMBERS})
    words_MV, all_MV = nuisances(columns, tuple(n for n in names if n == "text")), nuisances(columns, names)
    best, best_score = None, -np.inf
    for name in layer_names:
        part_MU = x_MU[:, layer_columns((name,), layer_names, x_MU.shape[1])]
        voice_M = None
        for removed_MV in (words_MV, all_MV):
            free_MU = nuisance.freed(part_MU, removed_MV, voice_M, seed=seed)
            points_MK = projection.fit_pca(free_MU, dims=VOICE_DIMS)(free_MU)
            voice_M = clustering.voice_groups(points_MK, numbers, seed)
        score = clustering.silhouette(points_MK, voice_M, seed)
        if score > best_score:
            best, best_score = (voice_M, name), score
    assert best is not None  # there is a layer, and a silhouette is a number
    if (best[0] == best[0][0]).all():
        raise BadValue(
            f"cluster: all {len(x_MU)} utterances of the sample sound alike, one voice in every layer: there is nothing"
            " to cluster; name the speakers, or take cluster.level='utterance'"
        )
    return np.char.mod("voice %d", best[0]), best[1]


def signals_of(
    x_MU: np.ndarray,
    layer_names: list[str],
    *,
    layers: tuple[str, ...],
    removed_MV: np.ndarray,
    voice_M: np.ndarray | None,
    seed: int,
) -> list[Signal]:
    """The layers to choose from: with ("auto",) each by itself and all together, else the one set asked for."""
    if "auto" in layers:
        sets = [(name,) for name in layer_names] + [()] * (len(layer_names) > 1)
    else:
        sets = [tuple(layers)]
    found = []
    for chosen in sets:
        columns = layer_columns(chosen, layer_names, x_MU.shape[1])
        free_MU = nuisance.freed(x_MU[:, columns], removed_MV, voice_M, seed=seed)
        found.append(Signal(name="+".join(chosen) or "+".join(layer_names), columns=columns, fit_MU=free_MU))
    return found
