"""The evaluation table: every system, over all utterances and by cohort, speaker and etiology, with intervals.

In `rows`, CSV and `to_dict` rates are fractions (0.123); in Markdown, which people read, they are percent (12.3).
"""

import csv
import functools
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from moejax.errors import BadValue
from moejax.score import bootstrap

COLUMNS = ("system", "group", "name", "utterances", "words", "errors", "wer", "wer_low", "wer_high", "cer")
COUNTS = ("utterances", "words", "errors")
GROUPS = ("all", "cohort", "speaker", "etiology")
AGAINST = ("lora_total", "lora")
NEEDED = ("id", "system", "speaker", "cohort", "etiology", "errors", "words", "char_errors", "chars")
MARK = "†"
FEW = 12  # so many speakers can be columns of a table for people; more are rows of a table of their own
MOST = 8  # systems beside each other in that table, where nobody says which


@dataclass(frozen=True)
class Table:
    """Scores of several systems: `rows` has `COLUMNS`, `differences` the paired comparisons.

    `partial` names the systems that saw only some of the utterances, as (scored, of all): their figures, "all"
    included, count only these. `sizes` holds the utterances of every (group, name) over all systems, `cohort_of` each
    speaker's cohort, `unit` what the bootstrap drew for "all", `empty` the utterances whose reference has no words
    under the normaliser: they are scored, and every word recognised in them counts as inserted.
    """

    rows: list[dict]
    differences: list[dict] = field(default_factory=list)
    partial: dict[str, tuple[int, int]] = field(default_factory=dict)
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)
    cohort_of: dict[str, str] = field(default_factory=dict)
    unit: str = bootstrap.SPEAKERS
    empty: tuple[str, ...] = ()

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(r["system"] for r in self.rows))

    def names(self, group: str) -> list[str]:
        """The names in one of `GROUPS`, in table order (speakers stand cohort by cohort)."""
        return [name for g, name in self.sizes if g == group]

    def row(self, system: str, group: str = "all", name: str = "all") -> dict | None:
        """One row, or None where this system has no utterance of that group."""
        return self._rows.get((system, group, name))

    @functools.cached_property
    def _rows(self) -> dict[tuple[str, str, str], dict]:
        return {(r["system"], r["group"], r["name"]): r for r in self.rows}

    @property
    def groups(self) -> list[tuple[str, str]]:
        """All utterances, and the cohorts: (group, name)."""
        return [("all", "all"), *(("cohort", c) for c in self.names("cohort"))]

    def select(self, systems: Sequence[str]) -> "Table":
        """The same table with these systems only, in this order; names that it lacks are left out."""
        rank = {s: i for i, s in enumerate(systems)}
        return replace(
            self,
            rows=sorted((r for r in self.rows if r["system"] in rank), key=lambda r: rank[r["system"]]),
            differences=[d for d in self.differences if d["system"] in rank],
            partial={s: part for s, part in self.partial.items() if s in rank},
        )

    def to_dict(self) -> dict:
        """Everything as plain JSON values (an undefined figure is None)."""
        return {
            "rows": [_plain(r) for r in self.rows],
            "differences": [_plain(r) for r in self.differences],
            "partial": {system: list(part) for system, part in self.partial.items()},
            "unit": self.unit,
            "empty_references": list(self.empty),
        }

    def to_csv(self) -> str:
        """One line per row, rates as fractions of six digits, undefined ones as nan."""
        out = io.StringIO()
        writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()})
        return out.getvalue()

    def to_markdown(self, main: Sequence[str] = ()) -> str:
        """Systems down, groups across, then the differences.

        Up to `FEW` speakers are columns after the cohorts. More are rows of a table of their own, with the systems
        `main` as columns (default: the first that scored every utterance), and the etiologies are columns instead.
        """
        few = len(self.names("speaker")) <= FEW
        columns = self.groups + ([("speaker", s) for s in self.names("speaker")] if few else self._etiologies())
        head = ["system", *(self._heading(*c) for c in columns)]
        lines = ["WER in percent (the CSV has fractions); in brackets in the header: utterances.", ""]
        lines += pipe(head, [[self._label(s), *(self._cell(s, *c) for c in columns)] for s in self.systems])
        lines += ["", f"Intervals are 95 %, by bootstrap over {self.unit}."]
        if self.partial:
            parts = ", ".join(f"{s} {n} of {total}" for s, (n, total) in self.partial.items())
            lines += ["", f"{MARK} scored on some of the utterances only, `all` counts these: {parts}."]
        if self.empty:
            lines += ["", self.empty_sentence()]
        if not few:
            lines += ["", "## Speakers", "", *self.speakers_markdown(main)]
        if self.differences:
            lines += ["", "## Differences", "", *self.differences_markdown()]
        return "\n".join(lines) + "\n"

    def empty_sentence(self) -> str:
        """How many references have no words, and what that does to the figures; "" for none."""
        if not self.empty:
            return ""
        shown = ", ".join(self.empty[:3]) + (" ..." if len(self.empty) > 3 else "")
        count = "1 utterance has" if len(self.empty) == 1 else f"{len(self.empty)} utterances have"
        return f"{count} no words left in the reference after normalisation; words heard there are errors: {shown}."

    def speakers_markdown(self, main: Sequence[str] = ()) -> list[str]:
        """Lines of the table of speakers, cohort by cohort, with these systems as columns (see `to_markdown`)."""
        main = list(main) or [s for s in self.systems if s not in self.partial][:MOST]
        body = []
        for s in self.names("speaker"):
            cells = [self._cell(system, "speaker", s) for system in main]
            body.append([s, self.cohort_of.get(s, ""), str(self.sizes["speaker", s]), *cells])
        return pipe(["speaker", "cohort", "utterances", *main], body)

    def differences_markdown(self) -> list[str]:
        """The paired differences as a Markdown table, in points of WER; negative means better than the other system."""
        body = [
            [
                self._label(d["system"]),
                d["against"],
                str(d["utterances"]),
                f"{points(d['difference'])} [{points(d['low'])}, {points(d['high'])}]",
                "-" if math.isnan(d["p"]) else f"{d['p']:.3f}",
                verdict(d),
            ]
            for d in self.differences
        ]
        return pipe(["system", "against", "utterances", "points of WER [95 %]", "p", "reads"], body)

    def _etiologies(self) -> list[tuple[str, str]]:
        """Those that are not just a cohort by another name, as far as words and errors tell."""

        def counted(group: str, name: str) -> list[tuple]:
            rows = ((s, self.row(s, group, name)) for s in self.systems)
            return [(s, r["words"], r["errors"]) for s, r in rows if r]

        known = [counted("cohort", c) for c in self.names("cohort")]
        return [("etiology", e) for e in self.names("etiology") if counted("etiology", e) not in known]

    def _heading(self, group: str, name: str) -> str:
        of = {"speaker": self.cohort_of.get(name), "etiology": "etiology"}.get(group)
        return f"{of}: {name} ({self.sizes[group, name]})" if of else f"{name} ({self.sizes[group, name]})"

    def _label(self, system: str) -> str:
        return f"{system} {MARK}" if system in self.partial else system

    def _cell(self, system: str, group: str, name: str) -> str:
        row = self.row(system, group, name)
        if row is None:
            return "-"
        bounds = f" [{percent(row['wer_low'])}, {percent(row['wer_high'])}]" if group == "all" else ""
        return percent(row["wer"]) + bounds


def build(
    rows: Iterable[dict],
    *,
    systems: Sequence[str] | None = None,
    cohorts: Sequence[str] | None = None,
    against: Sequence[str] = AGAINST,
    draws: int = 1000,
    seed: int = 0,
) -> Table:
    """The table of per-utterance counts, each a dict of `NEEDED`; an empty cohort, speaker or etiology has no group.

    `systems` and `cohorts` set the order (default: of first appearance). Differences are paired, on the utterances that
    both systems scored; `against` names that are not among the systems are left out. Raises on an utterance that
    appears twice for a system, or whose reference length differs between systems.
    """
    by_system = _by_system(list(rows), systems)
    every = {i: r for scored in by_system.values() for i, r in scored.items()}
    for scored in by_system.values():
        for i, r in scored.items():
            if r["words"] != every[i]["words"]:
                lengths = f"{r['words']} and {every[i]['words']} reference words"
                raise BadValue(f"utterance {i!r} has {lengths} in two systems: score them on the same texts")
    groups = _groups(list(every.values()), cohorts)
    cohort_of = {r["speaker"]: r["cohort"] for r in every.values() if r["speaker"] and r["cohort"]}
    table_rows = []
    for system, scored in by_system.items():
        members = _members(scored.values())
        table_rows += [_row(system, *g, members[g], draws, seed) for g in groups if g in members]
    speakers = {r["speaker"] for r in every.values()}
    return Table(
        rows=table_rows,
        differences=_differences(by_system, against, draws, seed),
        partial={s: (len(r), len(every)) for s, r in by_system.items() if len(r) < len(every)},
        sizes=groups,
        cohort_of=cohort_of,
        empty=tuple(i for i, r in every.items() if not r["words"]),
        unit=bootstrap.SPEAKERS if len(speakers) >= bootstrap.MIN_SPEAKERS else bootstrap.UTTERANCES,
    )


def from_csv(text: str) -> Table:
    """The table that `to_csv` wrote, without differences; sizes are those of the system with most utterances."""
    rows: list[dict[str, Any]] = [
        {k: int(v) if k in COUNTS else v if k in COLUMNS[:3] else float(v) for k, v in row.items()}
        for row in csv.DictReader(io.StringIO(text))
    ]
    sizes: dict[tuple[str, str], int] = {}
    for r in rows:
        group = r["group"], r["name"]
        sizes[group] = max(sizes.get(group, 0), r["utterances"])
    whole = sizes.get(("all", "all"), 0)
    scored = {r["system"]: r["utterances"] for r in rows if r["group"] == "all"}
    return Table(rows, partial={s: (n, whole) for s, n in scored.items() if n < whole}, sizes=sizes)


def percent(rate: float) -> str:
    """A rate as percent with one decimal, "-" where it is undefined."""
    return "-" if math.isnan(rate) else f"{100 * rate:.1f}"


def points(rate: float) -> str:
    """A difference of rates in signed percentage points, "-" where it is undefined."""
    return "-" if math.isnan(rate) else f"{100 * rate:+.1f}"


def pipe(head: Sequence[str], body: Sequence[Sequence[str]], *, align_left: bool = False) -> list[str]:
    """Lines of a Markdown table; the first column is aligned left, the others right unless `align_left`."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"

    rule = ["---"] + ["---" if align_left else "---:"] * (len(head) - 1)
    return [line(head), "|" + "|".join(rule) + "|", *map(line, body)]


def verdict(difference: dict) -> str:
    """What a difference allows to say: "better" or "worse" only if its interval leaves out 0."""
    if math.isnan(difference["low"]):
        return "too few utterances"
    if difference["high"] < 0:
        return "better"
    return "worse" if difference["low"] > 0 else "no difference shown"


def _by_system(rows: list[dict], systems: Sequence[str] | None) -> dict[str, dict[str, dict]]:
    by_system: dict[str, dict[str, dict]] = {s: {} for s in systems or ()}
    for row in rows:
        if lacking := [k for k in NEEDED if k not in row]:
            raise BadValue(f"a row lacks {', '.join(lacking)}; a row needs {', '.join(NEEDED)}")
        scored = by_system.setdefault(row["system"], {})
        if row["id"] in scored:
            raise BadValue(f"utterance {row['id']!r} appears twice for system {row['system']!r}")
        scored[row["id"]] = row
    return {s: scored for s, scored in by_system.items() if scored}


def _groups(utterances: list[dict], cohorts: Sequence[str] | None) -> dict[tuple[str, str], int]:
    """Utterances per (group, name), in the order of the columns."""

    def seen(key: str) -> list[str]:
        return list(dict.fromkeys(r[key] for r in utterances if r[key]))

    order = [c for c in cohorts or () if c in seen("cohort")]
    order += [c for c in seen("cohort") if c not in order]
    rank = {c: i for i, c in enumerate(order)}
    home = {r["speaker"]: rank.get(r["cohort"], len(rank)) for r in utterances}
    names = [("all", "all")] if utterances else []
    names += [("cohort", c) for c in order]
    names += [("speaker", s) for s in sorted(seen("speaker"), key=lambda s: (home[s], s))]
    names += [("etiology", e) for e in sorted(seen("etiology"))]
    members = _members(utterances)
    return {name: len(members[name]) for name in names}


def _members(utterances: Iterable[dict]) -> dict[tuple[str, str], list[dict]]:
    """The rows of every (group, name)."""
    found: dict[tuple[str, str], list[dict]] = {}
    for row in utterances:
        found.setdefault(("all", "all"), []).append(row)
        for group in GROUPS[1:]:
            if row[group]:
                found.setdefault((group, row[group]), []).append(row)
    return found


def _row(system: str, group: str, name: str, members: list[dict], draws: int, seed: int) -> dict:
    errors, words = [r["errors"] for r in members], [r["words"] for r in members]
    wer = bootstrap.interval(errors, words, [r["speaker"] or "" for r in members], draws=draws, seed=seed)
    chars = sum(r["chars"] for r in members)
    cer = sum(r["char_errors"] for r in members) / chars if chars else float("nan")
    figures = (len(members), int(sum(words)), int(sum(errors)), wer.value, wer.low, wer.high, cer)
    return dict(zip(COLUMNS, (system, group, name, *figures), strict=True))


def _differences(by_system: dict[str, dict[str, dict]], against: Sequence[str], draws: int, seed: int) -> list[dict]:
    found = []
    for other in (o for o in against if o in by_system):
        for system, scored in by_system.items():
            common = [i for i in scored if i in by_system[other]]
            if system == other or not common:
                continue
            ours, theirs = [scored[i] for i in common], [by_system[other][i] for i in common]
            found.append({"system": system, "against": other} | compare(ours, theirs, draws=draws, seed=seed))
    return found


def compare(ours: Sequence[dict], theirs: Sequence[dict], *, draws: int = 1000, seed: int = 0) -> dict:
    """Paired difference of two systems' rows over the same utterances in the same order: ours minus theirs, a fraction.

    Keys: utterances, difference, low, high (95 %), p (approximate randomisation; NaN for one utterance), unit.
    """
    if [r["id"] for r in ours] != [r["id"] for r in theirs]:
        raise ValueError("paired rows must be of the same utterances in the same order")
    a, b = [r["errors"] for r in ours], [r["errors"] for r in theirs]
    words, speakers = [r["words"] for r in ours], [r["speaker"] or "" for r in ours]
    gap = bootstrap.difference(a, b, words, speakers, draws=draws, seed=seed)
    p = bootstrap.randomisation(a, b, draws=draws, seed=seed) if len(ours) > 1 else float("nan")
    figures = {"utterances": len(ours), "difference": gap.value, "low": gap.low, "high": gap.high}
    return figures | {"p": p, "unit": gap.unit}


def _plain(row: dict) -> dict:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
