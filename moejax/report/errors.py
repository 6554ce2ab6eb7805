"""The error analysis: whom does the mixture help, what kinds of errors are left, which words, which utterances."""

from collections import Counter

from moejax.report.load import Evaluation
from moejax.score import tables, wer

KINDS = ("substitutions", "deletions", "insertions")
LOOP, STOP = 2.0, 0.5  # length ratios beyond which an utterance counts as run on, or cut short
BEFORE = ("base", "lora", "lora_total")


def markdown(found: Evaluation, main: list[str], *, worst: int, draws: int, seed: int) -> str:
    """The page errors.md. `main` are the systems to look at; `focus_of` them is the one that is judged."""
    focus = focus_of(main)
    lines = [
        "# Error analysis",
        "",
        f"WER in percent; changes in points, negative is better. Judged system: `{focus}`.",
    ]
    lines += whom(found, main, focus, draws, seed)
    lines += kinds(found, main)
    lines += words(found, main)
    lines += utterances(found, main, focus, worst)
    return "\n".join(lines) + "\n"


def focus_of(main: list[str]) -> str:
    """The system that the report judges: moe, else moe_frozen, else the last one."""
    return next((s for s in ("moe", "moe_frozen") if s in main), main[-1])


def whom(found: Evaluation, main: list[str], focus: str, draws: int, seed: int) -> list[str]:
    """Per speaker, and for speakers heard in training or new: WER before and after, with the paired change."""
    before = [s for s in BEFORE if s in main and s != focus]
    rows = {s: {r["id"]: r for r in found.of(s)} for s in [*before, focus]}
    speakers = list(dict.fromkeys(r["speaker"] for r in rows[focus].values() if r["speaker"]))
    rank = {c: i for i, c in enumerate(found.cohorts)}
    home = {r["speaker"]: r["cohort"] for r in rows[focus].values()}
    speakers.sort(key=lambda s: (rank.get(home[s], len(rank)), s))
    groups = [(f"{home[s]}: {s}" if home[s] else s, [s]) for s in speakers]
    lines = ["", "## Whom does it help?", ""]
    for label, members in (("heard in training", found.heard), ("new", set(speakers) - found.heard)):
        if found.heard and (inside := [s for s in speakers if s in members]):
            groups.append((f"all speakers {label} ({len(inside)})", inside))
    head = ["speaker", "in training", "utterances", *before, focus, *(f"{focus} - {b} [95 %]" for b in before)]
    body, change = [], {b: {} for b in before}
    for label, members in groups:
        ours = [r for r in rows[focus].values() if r["speaker"] in members]
        cells = [label, _heard(members, found.heard), str(len(ours))]
        gaps = []
        for b in before:
            paired = [(r, rows[b][r["id"]]) for r in ours if r["id"] in rows[b]]
            if not paired:
                cells.append("-")
                gaps.append("-")
                continue
            cells.append(_percent([t for _, t in paired]))
            gap = tables.compare([o for o, _ in paired], [t for _, t in paired], draws=draws, seed=seed)
            interval = f"[{tables.points(gap['low'])}, {tables.points(gap['high'])}]"
            gaps.append(f"{tables.points(gap['difference'])} {interval}")
            if not label.startswith("all speakers"):
                change[b][label] = gap["difference"]
        body.append([*cells, _percent(ours), *gaps])
    for b in before:
        lines.append(f"- {_balance(focus, b, change[b])}")
    return [*lines, "", *tables.pipe(head, body)]


def kinds(found: Evaluation, main: list[str]) -> list[str]:
    """Substitutions, deletions, insertions per system and cohort, the clipped rate, runaway and cut-short output."""
    head = ["system", "WER", *KINDS, "clipped WER", f"ratio > {LOOP:g}", f"ratio < {STOP:g}", "empty"]
    body = []
    for system in main:
        rows = found.of(system)
        clipped = sum(r["clipped_errors"] for r in rows) / max(sum(r["clipped_words"] for r in rows), 1)
        ratios = [r["length_ratio"] for r in rows]
        body.append(
            [system, _percent(rows), *(_share(rows, k) for k in KINDS), tables.percent(clipped)]
            + [str(sum(x > LOOP for x in ratios)), str(sum(x < STOP for x in ratios)), str(ratios.count(0.0))]
        )
    lines = ["", "## Kinds of errors", "", *tables.pipe(head, body), ""]
    lines.append(
        "Errors in percent of the reference words. Clipped: an utterance's errors count at most its length, the better "
        "of two references where one writes disfluencies in parentheses. Ratio: words recognised over words said, and "
        "in how many utterances; far above 1 the recogniser invents, far below it stops early."
    )
    if found.cohorts:
        head = ["cohort", *(f"{s}: del / ins" for s in main)]
        body = []
        for cohort in found.cohorts:
            rows = [[r for r in found.of(s) if r["cohort"] == cohort] for s in main]
            body.append([cohort, *(f"{_share(r, 'deletions')} / {_share(r, 'insertions')}" for r in rows)])
        lines += ["", "Deletions and insertions by cohort:", "", *tables.pipe(head, body)]
        lines += invented(found, main)
    return lines


def invented(found: Evaluation, main: list[str]) -> list[str]:
    """By cohort: which part of the errors are words that were never said, and what a decoder that runs on adds to them.

    A cohort in which a baseline runs on makes every other system look good: the rate over the rest says how good.
    """
    body = []
    for cohort in [None, *found.cohorts]:
        cells = []
        for system in main:
            rows = [r for r in found.of(system) if cohort in (None, r["cohort"])]
            errors = sum(r["errors"] for r in rows)
            if not errors:
                cells.append("-")
                continue
            shares = (100 * sum(r[key] for r in rows) / errors for key in ("insertions", "runaway_errors"))
            calm = _percent([r for r in rows if not r["runaway_errors"]])
            cells.append(" / ".join([*(f"{share:.0f}" for share in shares), calm]))
        body.append(["all" if cohort is None else cohort, *cells])
    return [
        "",
        "Invented words: percent of the errors that are insertions / percent of the errors in utterances on which the "
        "decoder runs on (a repetition loop of up to 4 words, or over twice as many words as were said) / WER over the "
        "other utterances:",
        "",
        *tables.pipe(["cohort", *main], body),
    ]


def words(found: Evaluation, main: list[str], most: int = 8) -> list[str]:
    """The most frequent substitutions, deletions and insertions of every system."""
    body = []
    for system in main:
        seen = {"substitute": Counter(), "delete": Counter(), "insert": Counter()}
        for r in found.of(system):
            for edit in wer.edits(r["reference"], r["hypothesis"]):
                text = f"{edit.reference} > {edit.hypothesis}" if edit.kind == "substitute" else ""
                seen[edit.kind][text or edit.reference or edit.hypothesis] += 1
        body.append([system, *(", ".join(f"{w} ({n})" for w, n in _top(c, most)) or "none" for c in seen.values())])
    head = ["system", "substituted (said > recognised)", "deleted", "inserted"]
    return ["", "## Most frequent errors", "", *tables.pipe(head, body, align_left=True)]


def utterances(found: Evaluation, main: list[str], focus: str, worst: int) -> list[str]:
    """The utterances with most errors under the judged system, beside what the strongest baseline made of them."""
    rows = sorted(found.of(focus), key=lambda r: (-r["errors"], -r["errors"] / max(r["words"], 1), r["id"]))
    baseline = next((s for s in reversed(BEFORE) if s in main and s != focus), None)
    other = {r["id"]: r["hypothesis"] for r in found.of(baseline)} if baseline else {}
    head = ["utterance", "errors", "said", f"{focus}"] + ([baseline] if baseline else [])
    body = [
        [r["id"], f"{r['errors']} of {r['words']}", r["reference"], r["hypothesis"] or "(nothing)"]
        + ([other.get(r["id"], "-") or "(nothing)"] if baseline else [])
        for r in rows[:worst]
        if r["errors"]
    ]
    lines = ["", f"## Worst utterances of `{focus}`", ""]
    return lines + (tables.pipe(head, body, align_left=True) if body else ["None: every utterance is right."])


def _balance(focus: str, other: str, change: dict[str, float]) -> str:
    """One sentence: for how many speakers the WER fell, stayed, rose, and who was hurt."""
    better = sum(c < 0 for c in change.values())
    worse = sorted(((c, s) for s, c in change.items() if c > 0), reverse=True)
    text = f"{focus} against {other}: lower WER for {better} of {len(change)} speakers"
    if same := len(change) - better - len(worse):
        text += f", equal for {same}"
    if worse:
        text += f", higher for {len(worse)} (" + ", ".join(f"{s} {tables.points(c)}" for c, s in worse[:5])
        text += ", ...)" if len(worse) > 5 else ")"
    return text + "."


def _heard(members: list[str], heard: set[str]) -> str:
    if not heard:
        return "-"
    return "yes" if set(members) <= heard else "no"


def _percent(rows: list[dict]) -> str:
    return _share(rows, "errors")


def _share(rows: list[dict], key: str) -> str:
    total = sum(r["words"] for r in rows)
    return tables.percent(sum(r[key] for r in rows) / total if total else float("nan"))


def _top(counter: Counter, most: int) -> list[tuple[str, int]]:
    return sorted(counter.items(), key=lambda item: (-item[1], item[0]))[:most]
