"""Where errors occur, as data: rates by property of the utterances and of their speakers, what each explains, and whom
the gain of adaptation reaches.
"""

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from moejax.report import roles
from moejax.report.load import Evaluation
from moejax.score import bleu, bootstrap, effects, tables

NONE = "(none)"  # where a property is not named, or was not measured
SPEECH = "typical speech"
SECONDS = "seconds"  # in the model it would say what words, rate and silence say together
MOST_LEVELS = 20  # of what is named; those of fewest utterances are taken together
NAMED = ("etiology", "severity", SPEECH, "device", "accent", "gender")
MEASURED = {"SNR": " dB", "silence": " %", "words": "", SECONDS: " s", "speaking rate": " words/s"}
COLUMNS = (
    *("system", "measure", "factor", "level", "utterances", "speakers"),
    *("value", "low", "high", "difference", "difference_low", "difference_high"),
)


@dataclass(frozen=True)
class Gap:
    """A paired difference of WER (a fraction, negative is better) with its 95 % interval."""

    utterances: int
    difference: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        return tables.verdict({"low": self.low, "high": self.high})


@dataclass(frozen=True)
class Majority:
    """The change against the base within the accent of most utterances, `share` of those with an accent, in the other
    accents, and the second less the first.
    """

    accent: str
    share: float
    inside: Gap
    outside: Gap
    apart: Gap


@dataclass(frozen=True)
class Factors:
    """`levels` has the levels of every factor in the order of tables. `rows` has `COLUMNS`: WER (measure "wer", a
    fraction) and BLEU ("bleu", 0 to 100) by level, and what they differ by from the factor's other levels together.
    `models` says by system what each factor explains, `typical` and `majority` what changes against the base; `unit` is
    what the bootstrap drew.
    """

    levels: dict[str, list[str]]
    rows: list[dict]
    models: dict[str, effects.Model]
    typical: dict[str, Gap]
    majority: dict[str, Majority]
    unit: str

    def row(self, system: str, factor: str, level: str, measure: str = "wer") -> dict | None:
        return self._rows.get((system, measure, factor, level))

    @functools.cached_property
    def _rows(self) -> dict[tuple[str, ...], dict]:
        return {tuple(r[c] for c in COLUMNS[:4]): r for r in self.rows}


def analyse(
    found: Evaluation,
    main: Sequence[str],
    translations: Mapping[str, list[dict]],
    *,
    typical: str,
    draws: int,
    seed: int,
) -> Factors:
    """Of the systems `main`; `translations` maps "system.backend" to its records ({id, hypothesis, reference})."""
    of = {r["id"]: r for system in main for r in found.of(system)}
    ids, speakers = list(of), [r["speaker"] for r in of.values()]
    levels = _levels(list(of.values()), found.known, typical)
    members = _Members(ids, speakers, levels, dict(draws=draws, seed=seed))
    rows = _rates(members, found, main)
    for name, records in translations.items():
        if name.rsplit(".", 1)[0] in main:
            rows += _bleu(members, name, records)
    modelled = {factor: x for factor, (x, _) in levels.items() if factor != SECONDS}
    models, place = {}, members.place
    for system in main:
        scored = found.of(system)
        at = [place[r["id"]] for r in scored]
        model = effects.fit(
            [r["errors"] for r in scored],
            [r["words"] for r in scored],
            [r["speaker"] for r in scored],
            {factor: x[at] for factor, x in modelled.items()},
        )
        models |= {system: model} if model else {}
    base = {r["id"]: r for r in found.of(roles.BASE)} if roles.BASE in main else {}
    others = [s for s in main if s != roles.BASE] if base else []
    accents = dict(zip(ids, levels["accent"][0], strict=True)) if "accent" in levels else {}
    pairs = {s: [(r, base[r["id"]]) for r in found.of(s) if r["id"] in base] for s in others}
    hurt = {s: [(a, b) for a, b in pair if typical and a["cohort"] == typical] for s, pair in pairs.items()}
    return Factors(
        levels={factor: order for factor, (_, order) in levels.items()},
        rows=rows,
        models=models,
        typical={s: _gap(pair, draws=draws, seed=seed) for s, pair in hurt.items() if pair},
        majority={s: m for s in others if (m := _majority(pairs[s], accents, draws, seed))},
        unit=members.unit,
    )


def _levels(rows: list[dict], known: dict[str, dict], typical: str) -> dict[str, tuple[np.ndarray, list[str]]]:
    """{factor: (level of every utterance [U], levels in order)} of the factors that have two levels or more."""
    about = [known.get(r["id"], {}) for r in rows]
    cohorts = {r["cohort"] for r in rows}
    made = {}
    for factor in NAMED:
        level_U = np.array([a.get(factor) or NONE for a in about], dtype=str)
        if factor == SPEECH:
            told = [typical if r["cohort"] == typical else "atypical" if r["cohort"] else NONE for r in rows]
            level_U = np.array(told if typical in cohorts else [NONE] * len(rows), dtype=str)
        made[factor] = _named(level_U)
    made |= {f: thirds(values_U, MEASURED[f]) for f, values_U in _measured(rows, about).items()}
    return {factor: found for factor, found in made.items() if len(found[1]) > 1}


def _named(level_U: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """The names in alphabetical order; numbers of many values (a severity that several people rated) in thirds."""
    names, counts = np.unique(level_U[level_U != NONE], return_counts=True)
    if len(names) > MOST_LEVELS:
        with contextlib.suppress(ValueError):
            return thirds(np.array([np.nan if x == NONE else float(x) for x in level_U]), "")
        rare = names[np.argsort(-counts, kind="stable")[MOST_LEVELS - 1 :]]
        level_U = np.where(np.isin(level_U, rare), effects.OTHERS, level_U)
    return level_U, sorted(set(level_U.tolist()), key=lambda x: (x == NONE, x == effects.OTHERS, x))


def _measured(rows: list[dict], about: list[dict]) -> dict[str, np.ndarray]:
    """{factor: values [U]} of `MEASURED`, NaN where unknown; the rate is that of the frames that are not silent."""

    def column(name: str) -> np.ndarray:
        return np.array([np.nan if a.get(name) is None else a[name] for a in about], np.float64)

    words_U = np.array([r["words"] for r in rows], np.float64)
    spoken_U = column("seconds") * (1.0 - column("silence"))
    rate_U = bootstrap.ratios(words_U, spoken_U)
    found = (column("snr"), 100.0 * column("silence"), words_U, column("seconds"), rate_U)
    return dict(zip(MEASURED, found, strict=True))


def thirds(values_U: np.ndarray, unit: str) -> tuple[np.ndarray, list[str]]:
    """Levels by the quantiles that cut the known values into three equal parts; fewer where values are tied."""
    finite_U = np.isfinite(values_U)
    if not finite_U.any():
        return np.full(len(values_U), NONE), [NONE]
    low, high = np.quantile(values_U[finite_U], (1 / 3, 2 / 3))
    one, two = (f"{edge:.3g}{unit}" for edge in (low, high))
    names = [f"up to {one}", f"over {one} up to {two}", f"over {two}", NONE]
    code_U = np.where(finite_U, (values_U > low).astype(int) + (values_U > high), 3)
    return np.array(names)[code_U], [name for i, name in enumerate(names) if (code_U == i).any()]


class _Members:
    """Which utterances are in which level, and sums over them on the same bootstrap draws."""

    def __init__(self, ids: list[str], speakers: list[str], levels: dict, options: dict):
        self.speakers, self.options, self.unit = speakers, options, ""
        self.place = {name: u for u, name in enumerate(ids)}
        self.names = [(factor, name) for factor, (_, order) in levels.items() for name in order]
        columns = [levels[factor][0] == name for factor, name in self.names]
        self.inside_UL = np.stack(columns, axis=1) if columns else np.zeros((len(ids), 0), bool)

    def rows(self, system: str, measure: str, values_UV: np.ndarray, figure: Callable, scored_U: np.ndarray):
        """Rows of `COLUMNS` for `figure` (sums [N, V] to values [N]) of each level and of the factor's other levels."""
        U, V = values_UV.shape
        inside_UL = self.inside_UL & scored_U[:, None]
        L = inside_UL.shape[1]
        each_UQ = np.concatenate([(inside_UL[:, :, None] * values_UV[:, None, :]).reshape(U, L * V), values_UV], axis=1)
        drawn_DQ, self.unit = bootstrap.resample_many(each_UQ, self.speakers, **self.options)
        sums_NQ = np.concatenate([each_UQ.sum(0, keepdims=True), drawn_DQ])  # as they are, then the draws
        sums_NLV = sums_NQ[:, : L * V].reshape(len(sums_NQ), L, V)
        others_NLV = sums_NQ[:, None, L * V :] - sums_NLV
        value_NL, other_NL = (figure(x.reshape(-1, V)).reshape(x.shape[:2]) for x in (sums_NLV, others_NLV))
        gap_NL = value_NL - other_NL
        bounds = *bootstrap.bounds(value_NL[1:]), *bootstrap.bounds(gap_NL[1:])
        speakers_U = np.asarray(self.speakers, dtype=str)
        for at, (factor, level) in enumerate(self.names):
            if not (size := int(inside_UL[:, at].sum())):
                continue
            low, high, gap_low, gap_high = (float(bound[at]) for bound in bounds)
            if size < 2:  # nothing varies between draws of one utterance
                low = high = gap_low = gap_high = float("nan")
            people = len(np.unique(speakers_U[inside_UL[:, at]]))
            figures = (size, people, float(value_NL[0, at]), low, high, float(gap_NL[0, at]), gap_low, gap_high)
            yield dict(zip(COLUMNS, (system, measure, factor, level, *figures), strict=True))


def _rates(members: _Members, found: Evaluation, main: Sequence[str]) -> list[dict]:
    rows = []
    for system in main:
        counts_U2, scored_U = np.zeros((len(members.place), 2)), np.zeros(len(members.place), bool)
        for r in found.of(system):
            at = members.place[r["id"]]
            counts_U2[at], scored_U[at] = (r["errors"], r["words"]), True
        rate = lambda sums_N2: bootstrap.ratios(sums_N2[:, 0], sums_N2[:, 1])  # noqa: E731
        rows += members.rows(system, "wer", counts_U2, rate, scored_U)
    return rows


def _bleu(members: _Members, name: str, records: list[dict]) -> list[dict]:
    scored = [r for r in records if r["reference"] and r["id"] in members.place]
    if not scored:
        return []
    at = [members.place[r["id"]] for r in scored]
    sums_US, scored_U = np.zeros((len(members.place), bleu.SUMS)), np.zeros(len(members.place), bool)
    sums_US[at] = bleu.sums([r["hypothesis"] for r in scored], [r["reference"] for r in scored])
    scored_U[at] = True
    return list(members.rows(name, "bleu", sums_US, bleu.of_sums, scored_U))


def _gap(pairs: list[tuple[dict, dict]], **options) -> Gap:
    found = tables.compare([a for a, _ in pairs], [b for _, b in pairs], **options)
    return Gap(*(found[key] for key in ("utterances", "difference", "low", "high")))


def _majority(pairs: list[tuple[dict, dict]], accents: dict[str, str], draws: int, seed: int) -> Majority | None:
    """None where fewer than two accents are named."""
    pairs = [(a, b) for a, b in pairs if accents.get(a["id"], NONE) != NONE]
    accent_U = np.array([accents[a["id"]] for a, _ in pairs], dtype=str)
    names, counts = np.unique(accent_U, return_counts=True)
    if len(names) < 2:
        return None
    first = str(names[counts.argmax()])
    inside_U = accent_U == first
    gap_U = np.array([a["errors"] - b["errors"] for a, b in pairs], np.float64)
    words_U = np.array([a["words"] for a, _ in pairs], np.float64)
    values_U4 = np.stack([part * x for part in (inside_U, ~inside_U) for x in (gap_U, words_U)], axis=1)
    drawn_D4, _ = bootstrap.resample_many(values_U4, [a["speaker"] for a, _ in pairs], draws=draws, seed=seed)
    sums_N4 = np.concatenate([values_U4.sum(0, keepdims=True), drawn_D4])
    one_N, two_N = bootstrap.ratios(sums_N4[:, 0], sums_N4[:, 1]), bootstrap.ratios(sums_N4[:, 2], sums_N4[:, 3])
    changes_N3 = np.stack([one_N, two_N, two_N - one_N], axis=1)
    low_3, high_3 = bootstrap.bounds(changes_N3[1:])
    sizes = (int(inside_U.sum()), int((~inside_U).sum()), len(pairs))
    inside, outside, apart = (
        Gap(n, float(x), float(low), float(high))
        for n, x, low, high in zip(sizes, changes_N3[0], low_3, high_3, strict=True)
    )
    return Majority(first, float(inside_U.mean()), inside, outside, apart)
