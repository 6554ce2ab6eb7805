"""Systems trained with several seeds: mean error rates, paired differences, and what is left after many comparisons."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moejax.errors import BadValue
from moejax.score import bootstrap
from moejax.score.multiplicity import holm
from moejax.score.tables import percent, points

LEVEL = 0.05


@dataclass(frozen=True)
class Scores:
    """Errors of several systems on the same utterances, each trained with some seeds.

    `errors[system]` is {seed: {utterance: errors}}; `words` and `speaker` are {utterance: ...}; `fixed` names the
    systems that no seed changes (the base): they stand for every seed.
    """

    words: dict[str, int]
    speaker: dict[str, str]
    errors: dict[str, dict[int, dict[str, int]]]
    fixed: frozenset[str] = field(default_factory=frozenset)

    @property
    def systems(self) -> list[str]:
        return list(self.errors)

    def seeds(self, system: str) -> list[int]:
        return sorted(self.errors[system])

    def whole(self, ids: Iterable[str]) -> list[str]:
        """The systems that scored every one of these utterances with every seed that they have."""
        ids = set(ids)
        return [s for s, by in self.errors.items() if all(ids <= scored.keys() for scored in by.values())]

    def array(self, system: str, seeds: Sequence[int], ids: Sequence[str]) -> np.ndarray:
        """errors_SU; of a fixed system its one row for all seeds."""
        by = self.errors[system]
        seeds = self.seeds(system)[:1] if system in self.fixed else seeds
        return np.array([[by[seed][i] for i in ids] for seed in seeds])


def collect(rows: Iterable[Mapping], fixed: Iterable[str] = ()) -> Scores:
    """Scores from rows of counts as `tables.build` takes them, each with its `seed`. Raises on an utterance whose
    reference length differs between systems or seeds, or that appears twice.
    """
    words, speaker, errors = {}, {}, {}
    for r in rows:
        name = r["id"]
        if words.setdefault(name, r["words"]) != r["words"]:
            lengths = f"{r['words']} and {words[name]} reference words"
            raise BadValue(f"utterance {name!r} has {lengths}: score all runs on the same texts")
        speaker[name] = r["speaker"] or ""
        scored = errors.setdefault(r["system"], {}).setdefault(r["seed"], {})
        if name in scored:
            raise BadValue(f"utterance {name!r} appears twice for system {r['system']!r}, seed {r['seed']}")
        scored[name] = r["errors"]
    return Scores(words, speaker, errors, frozenset(fixed) & errors.keys())


def rate(scores: Scores, system: str, ids: Sequence[str], *, draws: int = 1000, seed: int = 0) -> dict:
    """Keys: seeds, utterances, wer (mean over seeds), sd (over seeds, NaN for one), low, high, unit."""
    errors_SU = scores.array(system, scores.seeds(system), ids)
    words = [scores.words[i] for i in ids]
    found = bootstrap.interval(errors_SU, words, [scores.speaker[i] for i in ids], draws=draws, seed=seed)
    each_S = errors_SU.sum(1) / max(sum(words), 1)
    sd = float(each_S.std(ddof=1)) if len(each_S) > 1 else float("nan")
    figures = {"seeds": 0 if system in scores.fixed else len(each_S), "utterances": len(ids)}
    return figures | {"wer": found.value, "sd": sd, "low": found.low, "high": found.high, "unit": found.unit}


def difference(
    ours: tuple[Scores, str], theirs: tuple[Scores, str], ids: Sequence[str], *, draws: int = 1000, seed: int = 0
) -> dict | None:
    """Paired by seed and utterance, ours minus theirs, a fraction; None where they have no seed in common.

    Keys: seeds, utterances, difference, low, high, p (utterances exchanged), p_speakers (speakers exchanged as a
    whole; NaN below `bootstrap.MIN_SPEAKERS` of them), unit.
    """
    seeds = _common(ours, theirs)
    if not seeds:
        return None
    a_SU, b_SU = (scores.array(system, seeds, ids) for scores, system in (ours, theirs))
    words, speakers = [ours[0].words[i] for i in ids], [ours[0].speaker[i] for i in ids]
    gap = bootstrap.difference(a_SU, b_SU, words, speakers, draws=draws, seed=seed)
    enough = len(set(speakers)) >= bootstrap.MIN_SPEAKERS
    exchanged: dict[str, Any] = {"draws": max(draws, 10_000), "seed": seed}
    p_speakers = bootstrap.randomisation(a_SU, b_SU, blocks=speakers, **exchanged) if enough else float("nan")
    p = bootstrap.randomisation(a_SU, b_SU, **exchanged) if len(ids) > 1 else float("nan")
    figures = {"seeds": len(seeds), "utterances": len(ids), "difference": gap.value, "low": gap.low, "high": gap.high}
    return figures | {"p": p, "p_speakers": p_speakers, "unit": gap.unit}


def _common(ours, theirs) -> list[int]:
    fixed = [scores.seeds(system) for scores, system in (ours, theirs) if system not in scores.fixed]
    if not fixed:
        return [0]
    return sorted(set(fixed[0]).intersection(*fixed))


def corrected(differences: Sequence[dict]) -> list[dict]:
    """The same differences as one family: with `p_holm` and `p_speakers_holm`."""
    adjusted = {key: holm([d[key] for d in differences]) for key in ("p", "p_speakers")}
    return [d | {f"{key}_holm": values[i] for key, values in adjusted.items()} for i, d in enumerate(differences)]


def verdict(difference: Mapping) -> str:
    """Says better or worse only if the interval leaves out 0 and the corrected p of exchanged utterances is small."""
    if math.isnan(difference["low"]):
        return "too few utterances"
    if difference["low"] <= 0 <= difference["high"]:
        return "no difference shown"
    side = "better" if difference["high"] < 0 else "worse"
    return side if difference.get("p_holm", 0.0) < LEVEL else f"{side}, but not after correction"


def rate_cell(found: Mapping, interval: bool = False) -> str:
    """Percent, with the standard deviation over seeds, and on request the interval."""
    text = percent(found["wer"]) + ("" if math.isnan(found["sd"]) else f" ± {percent(found['sd'])}")
    return f"{text} [{percent(found['low'])}, {percent(found['high'])}]" if interval else text


def difference_cell(found: Mapping) -> str:
    """Points with the interval."""
    return f"{points(found['difference'])} [{points(found['low'])}, {points(found['high'])}]"
