"""Who speaks, once more, by the voices of the recording itself: resegmentation behind the network.

The network says where speech is and about who speaks. Half-second means of what the encoder says, projected to where
training speakers differ most beside how one of them varies (linear discriminant analysis), are then divided among its
speakers by the Bayesian hidden Markov model of VBx (Landini et al. 2022, arXiv 2012.14952). It begins twice, with the
network's answer and with as many clusters of the vectors; the higher bound wins. Vectors are centred on the recording:
a microphone is nobody. Speech and overlap stay where the network heard them.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from sklearn import cluster
from sklearn.metrics import roc_auc_score

from moejax.diarize import naming
from moejax.diarize.talks import Part
from moejax.runtime.files import write_npz

FILE = "resegmentation.npz"
SEGMENT = 5  # frames of one mean that the projection is learnt from
COMPARED = 15  # frames of one mean when layers are compared on dev
LAYERS = 3  # of an encoder: those that tell dev's voices apart best
WIDTH = 32  # of the projection
SHRINK = 0.1  # share of the mean variance in the covariance
TALKS = 1000  # that are looked at
STEP = 3  # frames from one vector of a recording to the next
STAYS = 0.9  # probability that the speaker of a vector goes on in the next
NETWORK = 0.3  # weight of the network's log-probabilities beside the voices'
ROUNDS = 30
CLUSTERED = 500  # vectors at most: a tree of all of an hour would take a gigabyte
GRID = {"half": (2, 7), "acoustic": (0.4, 1.0), "speaker": (2.0, 10.0)}  # that dev chooses from


@dataclasses.dataclass(frozen=True)
class Space:
    """Where voices are compared. `spread_W`: variance between speakers in every direction, where it is one within."""

    layers: tuple[int, ...]  # of `naming.layers`
    centre_F: np.ndarray
    matrix_FW: np.ndarray
    spread_W: np.ndarray

    def vectors(self, heard: np.ndarray) -> np.ndarray:
        """[T, W] of what is heard [T, ...]."""
        return (_of(naming.layers(heard), self.layers) - self.centre_F) @ self.matrix_FW


@dataclasses.dataclass(frozen=True)
class Resegmentation:
    """`half`: frames on either side that a vector is the mean of; `acoustic` and `speaker`: the factors Fa and Fb of
    VBx, which scale what is heard and how soon somebody is dropped.
    """

    space: Space
    half: int = 7
    acoustic: float = 1.0
    speaker: float = 2.0

    def __call__(self, active_ST: np.ndarray, prob_TS: np.ndarray, vectors_TW: np.ndarray) -> np.ndarray:
        """Activity bool [S, T] of the network's, its probabilities and the vectors of all frames. Nobody comes in;
        who is left with nothing is silent.
        """
        T, there = active_ST.shape[1], np.flatnonzero(active_ST.any(1))
        speech_T = np.asarray(active_ST.any(0))
        if len(there) < 2:
            return active_ST
        spoken = np.flatnonzero(speech_T)
        at = spoken[::STEP]
        own_TW = np.where(speech_T[:, None], vectors_TW[:T] - vectors_TW[:T][speech_T].mean(0), 0.0)
        sum_TW = np.concatenate([np.zeros((1, own_TW.shape[1])), own_TW.cumsum(0)])
        count_T = np.concatenate([[0], speech_T.cumsum()])
        low, high = np.maximum(at - self.half, 0), np.minimum(at + self.half + 1, T)
        means_NW = (sum_TW[high] - sum_TW[low]) / (count_T[high] - count_T[low])[:, None]
        share_NS = prob_TS[at][:, there] + 1e-6
        share_NS /= share_NS.sum(1, keepdims=True)
        who_N = there[self._divided(means_NW, share_NS).argmax(1)]
        middle = (at[1:] + at[:-1] + 1) // 2
        first_T = who_N[np.searchsorted(middle, spoken, side="right")]
        found_ST = np.zeros_like(active_ST)
        found_ST[first_T, spoken] = True
        left_S = np.asarray(found_ST.any(1))
        for t in spoken[active_ST.sum(0)[spoken] > 1]:  # the others are those whom the network heard there, too
            others = [s for s in np.argsort(-prob_TS[t], kind="stable") if left_S[s] and not found_ST[s, t]]
            found_ST[others[: active_ST[:, t].sum() - 1], t] = True
        return found_ST

    def _divided(self, x_NW: np.ndarray, share_NS: np.ndarray) -> np.ndarray:
        """Posterior [N, S] of each vector's speaker: the paper's variational updates until its bound stands still."""
        N, S = share_NS.shape
        rho_NW = x_NW * np.sqrt(self.space.spread_W)
        prior_NS = NETWORK * np.log(share_NS) - 0.5 * self.acoustic * np.square(x_NW).sum(1, keepdims=True)
        begins = [share_NS**3 / (share_NS**3).sum(1, keepdims=True)]
        if N > S:
            begins.append(_clustered(x_NW, S))
        return max((self._settled(gamma_NS, rho_NW, prior_NS) for gamma_NS in begins), key=lambda one: one[1])[0]

    def _settled(self, gamma_NS, rho_NW, prior_NS) -> tuple[np.ndarray, float]:
        """(posterior, bound) from a first one on."""
        N, S = gamma_NS.shape
        spread_W, ratio = self.space.spread_W, self.acoustic / self.speaker
        pi_S, before = np.full(S, 1 / S), -np.inf
        for _ in range(ROUNDS):
            variance_SW = 1 / (1 + ratio * gamma_NS.sum(0)[:, None] * spread_W)
            mean_SW = ratio * variance_SW * (gamma_NS.T @ rho_NW)
            heard_NS = self.acoustic * (rho_NW @ mean_SW.T - 0.5 * (variance_SW + mean_SW**2) @ spread_W) + prior_NS
            gamma_NS, pi_S, evidence = _forward_backward(heard_NS, pi_S)
            bound = evidence + 0.5 * self.speaker * (np.log(variance_SW) - variance_SW - mean_SW**2 + 1).sum()
            if bound - before < 1e-4:
                break
            before = bound
        return gamma_NS, bound

    def save(self, path: Path) -> None:
        space = self.space
        arrays = {"centre": space.centre_F, "matrix": space.matrix_FW, "spread": space.spread_W}
        told = {"layers": np.array(space.layers), "told": np.array([self.half, self.acoustic, self.speaker])}
        write_npz(path, **{name: one.astype(np.float32) for name, one in arrays.items()}, **told)


def load(path: Path) -> Resegmentation | None:
    """None where training found it of no use."""
    if not path.is_file():
        return None
    with np.load(path) as held:
        half, acoustic, speaker = held["told"].tolist()
        arrays = (held[name].astype(np.float64) for name in ("centre", "matrix", "spread"))
        return Resegmentation(Space(tuple(held["layers"].tolist()), *arrays), int(half), acoustic, speaker)


def tried(space: Space) -> list[Resegmentation]:
    """What dev chooses from."""
    return [
        Resegmentation(space, **dict(zip(GRID, values, strict=True))) for values in itertools.product(*GRID.values())
    ]


def fitted(train: Part, dev: Part) -> Space | None:
    """From the talks of training speakers, with the layers that tell the voices of one dev talk apart best. None where
    there are too few speakers for either.
    """
    singles = [(layer,) for layer in range(naming.layers(train.heard[0][:1]).shape[1])]
    layers = singles[0]
    if len(singles) > 1:
        compared = _compared(dev)
        spaces = _spaces(train, singles)
        if spaces is None or compared is None:
            return None
        clear = np.array([_apart(space, compared) for space in spaces])
        layers = tuple(sorted(np.argsort(-clear, kind="stable")[:LAYERS].tolist()))
    spaces = _spaces(train, [layers])
    return spaces[0] if spaces else None


def _of(heard_TLD: np.ndarray, layers: Iterable[int]) -> np.ndarray:
    return heard_TLD[:, list(layers)].reshape(len(heard_TLD), -1)


def _segments(part: Part, frames: int) -> Iterator[tuple[int, str, np.ndarray]]:
    """(talk, speaker, means [N, L, D] of so many frames in which he speaks alone)."""
    for row in np.unique(np.linspace(0, len(part) - 1, min(TALKS, len(part))).astype(int)).tolist():
        heard_TLD = naming.layers(part.heard[row])
        for speaker, chosen_T in naming.alone(part.turns[row], len(heard_TLD)).items():
            whole = int(chosen_T.sum()) // frames
            if whole:
                own_TLD = heard_TLD[chosen_T][: whole * frames]
                yield row, speaker, own_TLD.reshape(whole, frames, *own_TLD.shape[1:]).mean(1)


def _spaces(train: Part, several: list[tuple[int, ...]]) -> list[Space] | None:
    """Discriminant analysis of each choice of layers, in one pass over the talks. None for fewer than two speakers."""
    scatter: list = [0.0] * len(several)
    sums: dict[str, np.ndarray] = {}
    counts: dict[str, int] = {}
    for _, speaker, means_NLD in _segments(train, SEGMENT):
        for i, layers in enumerate(several):
            x_NF = _of(means_NLD, layers)
            scatter[i] = scatter[i] + x_NF.T @ x_NF
        sums[speaker] = sums.get(speaker, 0.0) + means_NLD.sum(0)
        counts[speaker] = counts.get(speaker, 0) + len(means_NLD)
    if len(sums) < 2:
        return None
    count_S = np.array([counts[speaker] for speaker in sums], np.float64)
    mean_SLD = np.stack([sums[speaker] / counts[speaker] for speaker in sums])
    return [_discriminant(layers, scatter[i], _of(mean_SLD, layers), count_S) for i, layers in enumerate(several)]


def _discriminant(layers, scatter_FF, mean_SF, count_S) -> Space:
    total = count_S.sum()
    centre_F = count_S @ mean_SF / total
    within_FF = (scatter_FF - (mean_SF * count_S[:, None]).T @ mean_SF) / total
    F = len(within_FF)
    within_FF = (1 - SHRINK) * within_FF + SHRINK * max(float(np.trace(within_FF)) / F, 1e-12) * np.eye(F)
    variance_F, turned_FF = np.linalg.eigh(within_FF)
    white_FF = turned_FF / np.sqrt(variance_F)
    between_SF = (mean_SF - centre_F) @ white_FF * np.sqrt(count_S / total)[:, None]
    _, singular, right_KF = np.linalg.svd(between_SF, full_matrices=False)
    width = min(WIDTH, len(mean_SF) - 1, F)  # S speakers differ in S - 1 directions
    return Space(tuple(layers), centre_F, white_FF @ right_KF[:width].T, np.square(singular[:width]))


def _compared(dev: Part) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """(means [N, L, D], rows of pairs in one talk [P, 2], whether both are one speaker [P])."""
    means, whose = [], []
    for talk, speaker, means_NLD in _segments(dev, COMPARED):
        means.append(means_NLD)
        whose += [(talk, speaker)] * len(means_NLD)
    talks, speakers = np.array([talk for talk, _ in whose]), np.array([speaker for _, speaker in whose])
    if not len(talks):
        return None
    pairs_P2 = np.argwhere(np.triu(talks[:, None] == talks[None], 1))
    same_P = speakers[pairs_P2[:, 0]] == speakers[pairs_P2[:, 1]]
    return (np.concatenate(means), pairs_P2, same_P) if 0 < same_P.sum() < len(same_P) else None


def _apart(space: Space, compared) -> float:
    """AUC of cosines: pairs of one speaker against pairs of two."""
    means_NLD, pairs_P2, same_P = compared
    x_NW = (_of(means_NLD, space.layers) - space.centre_F) @ space.matrix_FW
    x_NW /= np.maximum(np.linalg.norm(x_NW, axis=1, keepdims=True), 1e-12)
    return float(roc_auc_score(same_P, (x_NW[pairs_P2[:, 0]] * x_NW[pairs_P2[:, 1]]).sum(1)))


def _clustered(x_NW: np.ndarray, S: int) -> np.ndarray:
    """[N, S] that all but says in which of S agglomerative clusters a vector is, by the angle."""
    unit_NW = x_NW / np.maximum(np.linalg.norm(x_NW, axis=1, keepdims=True), 1e-12)
    some = np.unique(np.linspace(0, len(x_NW) - 1, min(CLUSTERED, len(x_NW))).astype(int))
    tree = cluster.AgglomerativeClustering(S, metric="cosine", linkage="average").fit_predict(unit_NW[some])
    mean_SW = np.stack([unit_NW[some][tree == s].mean(0) for s in range(S)])
    near_N = (unit_NW @ (mean_SW / np.maximum(np.linalg.norm(mean_SW, axis=1, keepdims=True), 1e-12)).T).argmax(1)
    return np.where(np.arange(S) == near_N[:, None], 0.999, 0.001 / S)


def _forward_backward(log_NS: np.ndarray, pi_S: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """(posteriors [N, S], new shares of speakers [S], log evidence) of a chain that stays with STAYS, else goes to
    anybody by his share.
    """
    N, S = log_NS.shape
    top_N1 = log_NS.max(1, keepdims=True)
    likely_NS = np.exp(log_NS - top_N1)
    moves_SS = STAYS * np.eye(S) + (1 - STAYS) * pi_S
    forward_NS, backward_NS, scale_N = np.empty((N, S)), np.ones((N, S)), np.empty(N)
    now_S = pi_S
    for n in range(N):
        now_S = (now_S @ moves_SS if n else now_S) * likely_NS[n]
        scale_N[n] = now_S.sum() + 1e-300
        now_S = now_S / scale_N[n]
        forward_NS[n] = now_S
    for n in range(N - 2, -1, -1):
        backward_NS[n] = moves_SS @ (likely_NS[n + 1] * backward_NS[n + 1]) / scale_N[n + 1]
    gamma_NS = forward_NS * backward_NS
    gamma_NS /= gamma_NS.sum(1, keepdims=True)
    came_S = (likely_NS[1:] * backward_NS[1:] / scale_N[1:, None]).sum(0)
    pi_S = gamma_NS[0] + (1 - STAYS) * pi_S * came_S
    return gamma_NS, pi_S / pi_S.sum(), float(np.log(scale_N).sum() + top_N1.sum())
