"""Diarization error rate and Jaccard error rate, exact: intervals are swept, nothing is counted in frames.

As NIST's md-eval, dscore, pyannote.metrics and spyder agree once turns of one speaker that overlap are merged, which
is done here. Traps: pyannote's `collar` is the whole width around a border, here (as in the others) it is either side;
`skip_overlap` leaves out what the reference says several speak in, and spyder's "single" is another thing.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

Turn = tuple[float, float, str]  # start and end in seconds, speaker
Span = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Errors:
    """Seconds of speakers' time: `total` in the reference, and what of it is wrong. `jaccard`: error of every speaker
    of the reference. `speakers`: how many there are, in the reference and in the hypothesis.
    """

    total: float
    missed: float
    false_alarm: float
    confusion: float
    jaccard: tuple[float, ...] = ()
    speakers: tuple[int, int] = (0, 0)
    mapping: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {hypothesis: reference}

    @property
    def wrong(self) -> float:
        return self.missed + self.false_alarm + self.confusion

    @property
    def der(self) -> float:
        """Share of the reference's speaker time; of a silent reference 0 where nothing is claimed, else infinity."""
        if self.total:
            return self.wrong / self.total
        return float("inf") if self.wrong else 0.0

    @property
    def jer(self) -> float:
        """Mean of the speakers'; 0 where the reference has none."""
        return float(np.mean(self.jaccard)) if self.jaccard else 0.0

    def row(self) -> dict[str, float]:
        """Percent."""
        share = 100 / self.total if self.total else 0.0
        parts = {"missed": self.missed, "false_alarm": self.false_alarm, "confusion": self.confusion}
        return {"der": 100 * self.der, **{name: share * part for name, part in parts.items()}, "jer": 100 * self.jer}


def compare(
    reference: Iterable[Turn],
    hypothesis: Iterable[Turn],
    spans: Sequence[Span] | None = None,
    *,
    collar: float = 0.0,
    skip_overlap: bool = False,
) -> Errors:
    """Errors of one recording; speakers are mapped one to one so that most time is right.

    spans         what is scored (UEM); None: from the first to the last border of either side
    collar        seconds on either side of each border of the reference that are not scored
    skip_overlap  time in which the reference has several speakers is not scored
    """
    reference, hypothesis = _merged(reference), _merged(hypothesis)
    if spans is None:
        times = [time for turn in (*reference, *hypothesis) for time in turn[:2]]
        spans = [(min(times), max(times))] if times else []
    closed = [(time - collar, time + collar) for turn in reference for time in turn[:2]] if collar else []
    edges_I = _edges(reference, hypothesis, spans, closed)
    length_I, at_I = np.diff(edges_I), (edges_I[1:] + edges_I[:-1]) / 2
    ours, theirs = _active(hypothesis, at_I), _active(reference, at_I)
    ref_RI, hyp_HI = theirs[1], ours[1]
    scored_I = _inside(spans, at_I) & ~_inside(closed, at_I)
    if skip_overlap:
        scored_I &= ref_RI.sum(0) <= 1
    weight_I = length_I * scored_I
    both_RH = (ref_RI * weight_I) @ hyp_HI.T
    rows, columns = linear_sum_assignment(-both_RH)
    many_I, claimed_I = ref_RI.sum(0), hyp_HI.sum(0)
    right = float(both_RH[rows, columns].sum())
    common = float((np.minimum(many_I, claimed_I) * weight_I).sum())
    heard_R = (ref_RI * weight_I).sum(1)
    return Errors(
        total=float(heard_R.sum()),
        missed=float((np.maximum(many_I - claimed_I, 0) * weight_I).sum()),
        false_alarm=float((np.maximum(claimed_I - many_I, 0) * weight_I).sum()),
        confusion=max(common - right, 0.0),
        jaccard=_jaccard(both_RH, heard_R, (hyp_HI * weight_I).sum(1)),
        speakers=(len(theirs[0]), len(ours[0])),
        mapping={ours[0][h]: theirs[0][r] for r, h in zip(rows, columns, strict=True) if both_RH[r, h]},
    )


def pooled(many: Sequence[Errors]) -> Errors:
    """Of several recordings together: times add up, the Jaccard error is the mean over all speakers."""
    sums = [sum(getattr(one, name) for one in many) for name in ("total", "missed", "false_alarm", "confusion")]
    return Errors(
        *sums,
        jaccard=tuple(error for one in many for error in one.jaccard),
        speakers=(sum(one.speakers[0] for one in many), sum(one.speakers[1] for one in many)),
    )


def constant(spans: Sequence[Span], speaker: str = "one") -> list[Turn]:
    """The control: one speaker, always. What a system must be better than, beside silence (100 %)."""
    return [(start, end, speaker) for start, end in spans]


def rounded(turns: Iterable[Turn], step: float = 0.1) -> list[Turn]:
    """Turns with borders on a grid: the error of these is the best that a system with such frames can reach."""
    grid = [(float(np.rint(start / step) * step), float(np.rint(end / step) * step), who) for start, end, who in turns]
    return [turn for turn in grid if turn[1] > turn[0]]


def _merged(turns):
    """In order, overlapping turns of one speaker joined, those of no length left out."""
    found: dict[str, list] = {}
    for start, end, speaker in sorted(turns):
        if end <= start:
            continue
        own = found.setdefault(speaker, [])
        if own and start <= own[-1][1]:
            own[-1] = (own[-1][0], max(end, own[-1][1]), speaker)
        else:
            own.append((start, end, speaker))
    return [turn for own in found.values() for turn in own]


def _edges(*many) -> np.ndarray:
    """All borders, once each."""
    return np.unique([time for some in many for one in some for time in one[:2]])


def _active(turns, at_I) -> tuple[list[str], np.ndarray]:
    """(speakers, whether each is active at these times float64 [speakers, I])."""
    names = sorted({turn[2] for turn in turns})
    own = [[turn for turn in turns if turn[2] == name] for name in names]
    rows = [_inside(some, at_I) for some in own]
    return names, np.array(rows, np.float64).reshape(len(names), len(at_I))


def _inside(spans, at_I) -> np.ndarray:
    """Whether each time lies in one of the spans, which may overlap."""
    if not len(spans):
        return np.zeros(len(at_I), bool)
    starts, ends = (np.sort([span[i] for span in spans]) for i in (0, 1))
    return np.searchsorted(starts, at_I, "right") > np.searchsorted(ends, at_I, "right")


def _jaccard(both_RH, heard_R, claimed_H) -> tuple[float, ...]:
    """1 - intersection / union of each speaker of the reference, mapped so that their sum is least (DIHARD II)."""
    union_RH = heard_R[:, None] + claimed_H[None] - both_RH
    error_RH = 1.0 - np.divide(both_RH, union_RH, out=np.zeros_like(both_RH), where=union_RH > 0)
    rows, columns = linear_sum_assignment(error_RH)
    found = dict(zip(rows.tolist(), error_RH[rows, columns].tolist(), strict=True))
    return tuple(found.get(row, 1.0) for row in np.flatnonzero(heard_R > 0).tolist())
