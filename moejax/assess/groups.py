"""Whom a score is broken down by: what the table names of an utterance, and what is measured of its sound and text."""

from collections.abc import Sequence

import numpy as np

from moejax.audio import read
from moejax.audio.flaws import Rejected
from moejax.data.manifest import Utterance
from moejax.report import factors

NAMED = ("speaker", "cohort", "etiology", "severity", "device", "accent", "gender")
MEASURED = {"snr": " dB", "silence": " %", "words": "", "seconds": " s", "speaking_rate": " words/s"}  # and their units
GROUPS = (*NAMED, *MEASURED)
ALL = ("all", "all")


def named(utterances: Sequence[Utterance]) -> list[str]:
    """The columns in which the table tells utterances apart."""
    return [name for name in NAMED if len({getattr(one, name) for one in utterances} - {None, ""}) > 1]


def members(utterances: Sequence[Utterance], by: Sequence[str]) -> dict[tuple[str, str], list[int]]:
    """{(group, level): places of its utterances} in the order of tables, `ALL` first. What is measured is cut into
    thirds, as in a report (`report.factors`); utterances of which it is not known are in no level.
    """
    found: dict[tuple[str, str], list[int]] = {ALL: list(range(len(utterances)))}
    measured = _measured(utterances) if set(by) & set(MEASURED) else {}
    for group in by:
        if group in MEASURED:
            level_U, order = factors.thirds(measured[group], MEASURED[group])
        else:
            level_U = np.array([getattr(one, group) or "" for one in utterances])
            order = sorted(set(level_U.tolist()) - {""})
        for level in order:
            if level != factors.NONE:
                found[group, level] = np.flatnonzero(level_U == level).tolist()
    return found


def _measured(utterances: Sequence[Utterance]) -> dict[str, np.ndarray]:
    """{name: values [U]} of `MEASURED`, NaN for a recording in which nothing can be heard."""
    checked = [_listened(one) for one in utterances]
    sound_U3 = np.array([(np.nan,) * 3 if c is None else (c.snr, c.silence_share, c.seconds) for c in checked])
    snr_U, silence_U, seconds_U = sound_U3.reshape(-1, 3).T
    words_U = np.array([len(one.text.split()) for one in utterances], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        rate_U = words_U / (seconds_U * (1.0 - silence_U))
    rate_U[~np.isfinite(rate_U)] = np.nan
    return {"snr": snr_U, "silence": 100 * silence_U, "words": words_U, "seconds": seconds_U, "speaking_rate": rate_U}


def _listened(utterance: Utterance) -> read.Checked | None:
    try:
        return read.load(utterance.audio, whole=False, min_seconds=0.0, max_seconds=float("inf"))
    except Rejected:
        return None
