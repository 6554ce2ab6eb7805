"""Whose voice it is: speakers of a recording beside voices that are known, by what the diarizer hears of both.

A voice is the mean of what is heard while somebody speaks alone, layer by layer: centred, whitened by how much the same
speaker differs between training talks (within-class covariance normalisation, Hatch et al. 2006), of length one. Two
voices are alike from the greatest cosine on that two different speakers of dev talks, of one group, have in two talks:
there nobody would have been taken for somebody else.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from moejax.diarize import labels
from moejax.diarize.talks import RATE, Part
from moejax.diarize.turns import Turn
from moejax.errors import NotThere
from moejax.runtime.files import write_npz

FILE = "voices.npz"
LAYERS = 6  # of an encoder, evenly: a matrix of each is kept
SHRINK = 0.1  # share of the mean variance in the covariance: there are fewer talks than numbers in a layer
LEAST = 10  # frames that one has to speak alone
TALKS = 1000  # that are looked at
PAIRS = 20  # of different speakers that dev must have


@dataclasses.dataclass(frozen=True)
class Voices:
    """How voices are compared. `found`: share of pairs of talks in which a dev speaker is alike; `others`: pairs of
    different speakers, none of whom is.
    """

    centre_LD: np.ndarray
    matrix_LDD: np.ndarray
    alike: float
    found: float
    others: int

    def vector(self, mean_LD: np.ndarray) -> np.ndarray:
        """[L * D] of length one, from a mean of `layers`."""
        found_LD = np.einsum("LD,LDE->LE", mean_LD - self.centre_LD, self.matrix_LDD)
        found_LD /= np.maximum(np.linalg.norm(found_LD, axis=1, keepdims=True), 1e-12)
        return found_LD.reshape(-1) / np.sqrt(len(found_LD))

    def names(self, own: Mapping[str, np.ndarray], known: Mapping[str, np.ndarray]) -> dict[str, str]:
        """{speaker: who it is} of vectors; each known voice goes to one speaker at most, where they are alike."""
        speakers, people = list(own), list(known)
        if not speakers or not people:
            return {}
        likeness_SP = np.array([own[name] for name in speakers]) @ np.array([known[name] for name in people]).T
        rows, columns = linear_sum_assignment(-np.where(likeness_SP > self.alike, likeness_SP, -1.0))
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return {speakers[s]: people[p] for s, p in pairs if likeness_SP[s, p] > self.alike}

    def save(self, path: Path) -> None:
        arrays = {"centre": self.centre_LD.astype(np.float32), "matrix": self.matrix_LDD.astype(np.float32)}
        write_npz(path, **arrays, told=np.array([self.alike, self.found, self.others]))


def load(path: Path) -> Voices:
    """Errors: NotThere where the diarizer was trained without."""
    if not path.is_file():
        raise NotThere(
            f"there is no {path}: this diarizer was not taught to compare voices. Training in a new workdir does it,"
            " where training and dev have speakers in several talks"
        )
    with np.load(path) as held:
        alike, found, others = held["told"].tolist()
        return Voices(held["centre"].astype(np.float64), held["matrix"].astype(np.float64), alike, found, int(others))


def layers(heard: np.ndarray) -> np.ndarray:
    """[T, L, D] of what is heard: at most LAYERS of an encoder's states, or features as one layer."""
    heard = np.asarray(heard, np.float64)
    if heard.ndim == 2:
        return heard[:, None]
    return heard[:, np.unique(np.linspace(0, heard.shape[1] - 1, min(heard.shape[1], LAYERS)).astype(int))]


def alone(turns: Sequence[Turn], frames: int) -> dict[str, np.ndarray]:
    """{speaker: frames bool [T] in which he speaks and nobody else does}."""
    active_ST, names = labels.activity(turns, frames, RATE)
    return dict(zip(names, active_ST & (active_ST.sum(0, keepdims=True) == 1), strict=True))


@dataclasses.dataclass(frozen=True)
class Heard:
    """One speaker in one talk."""

    talk: int
    group: str
    speaker: str
    mean_LD: np.ndarray


def measured(part: Part) -> list[Heard]:
    """Of speakers who are alone long enough, in at most TALKS talks."""
    found = []
    for row in np.unique(np.linspace(0, len(part) - 1, min(TALKS, len(part))).astype(int)).tolist():
        heard_TLD = layers(part.heard[row])
        for speaker, chosen_T in alone(part.turns[row], len(heard_TLD)).items():
            if chosen_T.sum() >= LEAST:
                found.append(Heard(row, part.groups[row], speaker, heard_TLD[chosen_T].mean(0)))
    return found


def fitted(train: Sequence[Heard], dev: Sequence[Heard]) -> Voices | None:
    """From voices in training talks, with the threshold of dev talks; None where speakers are too few for either."""
    by: dict[str, list[np.ndarray]] = {}
    for one in train:
        by.setdefault(one.speaker, []).append(one.mean_LD)
    several = [np.array(some) for some in by.values() if len(some) > 1]
    if len(several) < 2:
        return None
    centre_LD = np.mean([one.mean_LD for one in train], axis=0)
    within_NLD = np.concatenate([some - some.mean(0) for some in several])
    count = len(within_NLD) - len(several)
    matrix_LDD = np.array([_whitening(within_NLD[:, layer], count) for layer in range(len(centre_LD))])
    plain = Voices(centre_LD, matrix_LDD, 1.0, 0.0, 0)
    vectors = [plain.vector(one.mean_LD) for one in dev]
    same, others = [], []
    for i, one in enumerate(dev):
        for j, other in enumerate(dev[:i]):
            if one.talk != other.talk and one.group == other.group:
                (same if one.speaker == other.speaker else others).append(float(vectors[i] @ vectors[j]))
    if len(others) < PAIRS:
        return None
    alike = max(others)
    found = float(np.mean([cosine > alike for cosine in same])) if same else 0.0
    return dataclasses.replace(plain, alike=alike, found=found, others=len(others))


def _whitening(within_ND: np.ndarray, count: int) -> np.ndarray:
    """[D, D] after which differences of a speaker have variance one in every direction."""
    covariance_DD = within_ND.T @ within_ND / max(count, 1)
    D = len(covariance_DD)
    mean = max(float(np.trace(covariance_DD)) / D, 1e-12)
    values_D, turned_DD = np.linalg.eigh((1 - SHRINK) * covariance_DD + SHRINK * mean * np.eye(D))
    return turned_DD / np.sqrt(values_D)
