"""The error analysis as data: whom does the judged system help, which errors are left, which words and utterances."""

from collections import Counter
from dataclasses import dataclass

from moejax.report import roles
from moejax.report.load import Evaluation
from moejax.score import tables, wer

LOOP, STOP = 2.0, 0.5  # length ratios beyond which an utterance counts as run on, or cut short
MOST_WORDS = 8  # frequent errors of a kind


@dataclass(frozen=True)
class Change:
    """What the judged system changes against another, on the same utterances: `before` is the other one's WER."""

    before: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Served:
    """How the judged system serves one speaker, or several together; `heard` is None where nobody knows who was in
    training. `changes` has every baseline, None where they share no utterance.
    """

    name: str
    cohort: str
    heard: bool | None
    speakers: int
    utterances: int
    wer: float
    changes: dict[str, Change | None]

    @property
    def label(self) -> str:
        return f"{self.cohort}: {self.name}" if self.cohort else self.name


@dataclass(frozen=True)
class Balance:
    """Against one baseline: for how many speakers WER fell or stayed, and (change, label) of those for whom it rose."""

    against: str
    better: int
    equal: int
    worse: list[tuple[float, str]]

    @property
    def speakers(self) -> int:
        return self.better + self.equal + len(self.worse)


@dataclass(frozen=True)
class Kinds:
    """Errors of one system over some utterances.

    Rates over the reference words (NaN without any): `wer` and its three kinds, `clipped` (an utterance's errors count
    at most its length), `calm` (over utterances on which the decoder did not run on). Percent of all errors (NaN
    without any): `inserted`, `runaway`. Numbers of utterances: `long` and `short` (length ratio beyond `LOOP` and
    `STOP`), `empty`.
    """

    wer: float
    substitutions: float
    deletions: float
    insertions: float
    clipped: float
    calm: float
    inserted: float
    runaway: float
    long: int
    short: int
    empty: int


@dataclass(frozen=True)
class Worst:
    """An utterance with many errors under the judged system; `other` is what the strongest baseline heard, if any, and
    `recording` its audio file as the manifest has it (relative to the workdir, or absolute), "" where none is named.
    """

    id: str
    errors: int
    words: int
    said: str
    heard: str
    other: str | None
    recording: str = ""


@dataclass(frozen=True)
class Errors:
    """`served` has every speaker, `voices` those heard in training and the new ones together; `kinds` goes by (system,
    cohort) with the cohort None for all utterances; `frequent` is {system: {kind: [(words, times)]}}; `baseline` names
    the system that the worst utterances are shown beside.
    """

    before: list[str]
    served: list[Served]
    voices: list[Served]
    balance: list[Balance]
    cohorts: list[str]
    kinds: dict[tuple[str, str | None], Kinds]
    frequent: dict[str, dict[str, list[tuple[str, int]]]]
    worst: list[Worst]
    baseline: str | None


def analyse(found: Evaluation, main: list[str], focus: str, *, worst: int, draws: int, seed: int) -> Errors:
    """Of the systems `main`, with `focus` as the judged one; `worst` utterances are listed."""
    before = roles.before(main, focus)
    served, voices = whom(found, focus, before, draws=draws, seed=seed)
    baseline = before[-1] if before else None
    return Errors(
        before=before,
        served=served,
        voices=voices,
        balance=[_balance(other, served) for other in before],
        cohorts=found.cohorts,
        kinds={key: cell for system in main for key, cell in _by_cohort(found, system).items()},
        frequent={system: _frequent(found.of(system)) for system in main},
        worst=_worst(found, focus, baseline, worst),
        baseline=baseline,
    )


def whom(found: Evaluation, focus: str, before: list[str], **options) -> tuple[list[Served], list[Served]]:
    """Every speaker, cohort by cohort, and the speakers heard in training and new to it; `options` of the bootstrap."""
    theirs = {s: {r["id"]: r for r in found.of(s)} for s in before}
    ours: dict[str, list[dict]] = {}
    for row in found.of(focus):
        ours.setdefault(row["speaker"], []).append(row)
    rank = {c: i for i, c in enumerate(found.cohorts)}
    home = {speaker: rows[-1]["cohort"] for speaker, rows in ours.items()}
    speakers = sorted((s for s in ours if s), key=lambda s: (rank.get(home[s], len(rank)), s))

    def served(name: str, cohort: str, members: list[str], rows: list[dict]) -> Served:
        changes = {b: _change(rows, theirs[b], options) for b in before}
        heard = set(members) <= found.heard if found.heard else None
        return Served(name, cohort, heard, len(members), len(rows), _rate(rows, "errors"), changes)

    voices = []
    for name, group in (("heard in training", found.heard), ("new", set(speakers) - found.heard)):
        if found.heard and (inside := [s for s in speakers if s in group]):
            # In the order of the evaluation, not speaker by speaker: what is drawn at random goes by place
            voices.append(served(name, "", inside, [r for r in found.of(focus) if r["speaker"] in group]))
    return [served(s, home[s], [s], ours[s]) for s in speakers], voices


def _change(ours: list[dict], theirs: dict[str, dict], options: dict) -> Change | None:
    paired = [(r, theirs[r["id"]]) for r in ours if r["id"] in theirs]
    if not paired:
        return None
    gap = tables.compare([o for o, _ in paired], [t for _, t in paired], **options)
    return Change(_rate([t for _, t in paired], "errors"), gap["difference"], gap["low"], gap["high"])


def _balance(other: str, served: list[Served]) -> Balance:
    changed = [(change.difference, s.label) for s in served if (change := s.changes[other])]
    better = sum(c < 0 for c, _ in changed)
    worse = sorted(((c, label) for c, label in changed if c > 0), reverse=True)
    return Balance(other, better, len(changed) - better - len(worse), worse)


def _by_cohort(found: Evaluation, system: str) -> dict[tuple[str, str | None], Kinds]:
    members: dict[str | None, list[dict]] = {None: [], **{c: [] for c in found.cohorts}}
    for row in found.of(system):
        members[None].append(row)
        if row["cohort"]:
            members[row["cohort"]].append(row)
    return {(system, cohort): _kinds(rows) for cohort, rows in members.items()}


def _kinds(rows: list[dict]) -> Kinds:
    errors = sum(r["errors"] for r in rows)
    ratios = [r["length_ratio"] for r in rows]

    def share(key: str) -> float:
        return 100 * sum(r[key] for r in rows) / errors if errors else float("nan")

    return Kinds(
        **{key: _rate(rows, key) for key in ("substitutions", "deletions", "insertions")},
        wer=_rate(rows, "errors"),
        clipped=sum(r["clipped_errors"] for r in rows) / max(sum(r["clipped_words"] for r in rows), 1),
        calm=_rate([r for r in rows if not r["runaway_errors"]], "errors"),
        inserted=share("insertions"),
        runaway=share("runaway_errors"),
        long=sum(x > LOOP for x in ratios),
        short=sum(x < STOP for x in ratios),
        empty=ratios.count(0.0),
    )


def _frequent(rows: list[dict]) -> dict[str, list[tuple[str, int]]]:
    seen = {"substitute": Counter(), "delete": Counter(), "insert": Counter()}
    for r in rows:
        for edit in wer.edits(r["reference"], r["hypothesis"]):
            text = f"{edit.reference} > {edit.hypothesis}" if edit.kind == "substitute" else ""
            seen[edit.kind][text or edit.reference or edit.hypothesis] += 1
    return {kind: sorted(c.items(), key=lambda item: (-item[1], item[0]))[:MOST_WORDS] for kind, c in seen.items()}


def _worst(found: Evaluation, focus: str, baseline: str | None, most: int) -> list[Worst]:
    rows = sorted(found.of(focus), key=lambda r: (-r["errors"], -r["errors"] / max(r["words"], 1), r["id"]))
    other = {r["id"]: r["hypothesis"] for r in found.of(baseline)} if baseline else {}
    return [
        Worst(
            r["id"],
            r["errors"],
            r["words"],
            r["reference"],
            r["hypothesis"],
            other=other.get(r["id"]),
            recording=found.known.get(r["id"], {}).get("audio") or "",
        )
        for r in rows[:most]
        if r["errors"]
    ]


def _rate(rows: list[dict], key: str) -> float:
    """Over the reference words; NaN without any."""
    words = sum(r["words"] for r in rows)
    return sum(r[key] for r in rows) / words if words else float("nan")
