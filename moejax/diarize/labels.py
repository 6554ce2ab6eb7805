"""Turns as activity of speakers in frames, and activity as what a target speaker's model is asked (ego classes).

Activity is bool [S, T]: speakers by frames. Ego classes (the project TS-DIA) see one speaker as the target: alone, in
overlap, one other, several others, nobody. Each frame has one of them, and every recording is asked S + 1 times: once
for each speaker and once for a target that is not there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from moejax.diarize.turns import Turn
from moejax.errors import BadValue

EGO = ("ts", "ts_ovl", "others_sgl", "others_ovl", "ns")
NOBODY = "none"  # the target that is not there, in ids


def activity(
    turns: Iterable[Turn], frames: int, rate: float = 10.0, fine: int = 1, speakers: Sequence[str] | None = None
) -> tuple[np.ndarray, tuple[str, ...]]:
    """(activity [S, frames], names of the rows) of turns, `rate` frames a second.

    A turn is active from frame rint(start * rate) to before rint(end * rate). `fine`: borders are rounded at a rate so
    many times as high, and every `fine`-th of those frames is taken (EEND: 10, from 100 frames a second). `speakers`
    gives the rows; else they are sorted names. Errors: BadValue for a speaker who has no row.
    """
    turns = list(turns)
    names = tuple(sorted({turn.speaker for turn in turns})) if speakers is None else tuple(speakers)
    row = {name: place for place, name in enumerate(names)}
    found_SN = np.zeros((len(names), frames * fine), bool)
    for turn in turns:
        if turn.speaker not in row:
            raise BadValue(f"speaker {turn.speaker!r} is none of {', '.join(names)}")
        start, end = (int(np.rint(time * rate * fine)) for time in turn[:2])
        found_SN[row[turn.speaker], start:end] = True
    return found_SN[:, ::fine], names


def turns_of(active_ST: np.ndarray, names: Sequence[str], rate: float = 10.0) -> list[Turn]:
    """The turns of activity: `activity` of them is that again, whatever it was."""
    found = []
    for name, row_T in zip(names, np.asarray(active_ST, bool), strict=True):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row_T.astype(np.int8), [0]])))
        found += [Turn(float(a / rate), float(b / rate), name) for a, b in edges.reshape(-1, 2)]
    return sorted(found)


def ego_labels(active_ST: np.ndarray) -> np.ndarray:
    """Classes int8 [S + 1, T] (places in EGO): each speaker as the target, then a target that is not there."""
    active_ST = np.asarray(active_ST, bool)
    target_XT = np.concatenate([active_ST, np.zeros((1, active_ST.shape[1]), bool)])
    others_XT = active_ST.sum(0, dtype=np.int64)[None] - target_XT
    with_target = np.where(others_XT > 0, 1, 0)
    without = np.where(others_XT > 1, 3, np.where(others_XT == 1, 2, 4))
    return np.where(target_XT, with_target, without).astype(np.int8)


def activity_of(ego_XT: np.ndarray) -> np.ndarray:
    """The activity [S, T] that these classes [S + 1, T] are of. Errors: BadValue for classes that no activity has."""
    ego_XT = np.asarray(ego_XT)
    if ego_XT.ndim != 2 or not len(ego_XT) or ((ego_XT < 0) | (ego_XT >= len(EGO))).any():
        raise BadValue(f"ego classes are [speakers + 1, frames] of 0 to {len(EGO) - 1}")
    active_ST = ego_XT[:-1] <= 1
    wrong = np.argwhere(ego_labels(active_ST) != ego_XT)
    if len(wrong):
        row, frame = wrong[0]
        said = f"target {row}, frame {frame} is {EGO[ego_XT[row, frame]]}"
        raise BadValue(f"ego classes contradict one another: {said}, which the other targets rule out")
    return active_ST


def one_hot(ego_T: np.ndarray) -> np.ndarray:
    """bool [C, T] of one target's classes."""
    return np.arange(len(EGO))[:, None] == np.asarray(ego_T)[None]


def ego_supervisions(cut: str, recording: str, ego_XT: np.ndarray, names: Sequence[str], rate: float = 10.0) -> list:
    """A second set of lhotse supervisions, `<cut>__ts=<speaker or none>`; the audio is untouched. Classes stand in
    `custom` as runs [class, frames].
    """
    found = []
    for name, ego_T in zip((*names, None), ego_XT, strict=True):
        edges = np.flatnonzero(np.diff(ego_T.astype(np.int64), prepend=-1))
        lengths = np.diff(np.append(edges, len(ego_T)))
        runs = [[int(ego_T[at]), int(length)] for at, length in zip(edges, lengths, strict=True)]
        record = {"id": f"{cut}__ts={NOBODY if name is None else name}", "recording_id": recording, "start": 0.0}
        record |= {"duration": len(ego_T) / rate, "channel": 0, **({} if name is None else {"speaker": name})}
        found.append(record | {"custom": {"ego": runs, "rate": rate}})
    return found


def ego_of(supervisions: Iterable[dict]) -> tuple[np.ndarray, tuple[str, ...]]:
    """(classes [S + 1, T], speakers) of the supervisions of one cut. Errors: BadValue for what they are not."""
    rows, names = {}, []
    for record in supervisions:
        target = record["id"].partition("__ts=")[2]
        runs = (record.get("custom") or {}).get("ego")
        if not target or not isinstance(runs, list):
            raise BadValue(f"supervision {record['id']!r} holds no ego classes")
        rows[record.get("speaker")] = np.repeat(*np.array(runs, np.int64).reshape(-1, 2).T).astype(np.int8)
        names += [record["speaker"]] if record.get("speaker") else []
    if None not in rows:
        raise BadValue(f"no supervision of these has the target {NOBODY!r}")
    if len({len(row) for row in rows.values()}) > 1:
        raise BadValue("the targets of one cut have different numbers of frames")
    return np.stack([rows[name] for name in (*names, None)]), tuple(names)
