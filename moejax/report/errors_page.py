"""The error analysis as Markdown: errors.md, which is a part of report.html too."""

import math

from moejax.report import factors_page
from moejax.report.errors import LOOP, STOP, Balance, Errors, Kinds, Served
from moejax.report.findings import Findings
from moejax.score import tables

MOST_NAMED = 5  # speakers for whom WER rose, by name
HEARD = {True: "yes", False: "no", None: "-"}
KINDS = (
    "Errors in percent of the reference words. Clipped: an utterance's errors count at most its length, the better "
    "of two references where one writes disfluencies in parentheses. Ratio: words recognised over words said, and "
    "in how many utterances; far above 1 the recogniser invents, far below it stops early."
)
INVENTED = (
    "Invented words: percent of the errors that are insertions / percent of the errors in utterances on which the "
    "decoder runs on (a repetition loop of up to 4 words, or over twice as many words as were said) / WER over the "
    "other utterances:"
)


def markdown(found: Findings) -> str:
    """The page errors.md."""
    focus, main, errors = found.focus, found.main, found.errors
    lines = [
        "# Error analysis",
        "",
        f"WER in percent; changes in points, negative is better. Judged system: `{focus}`.",
        *_whom(errors, focus),
        *_kinds(errors, main),
        *factors_page.markdown(found.factors, main, focus),
        *_words(errors),
        *_utterances(errors, focus),
    ]
    return "\n".join(lines) + "\n"


def _whom(errors: Errors, focus: str) -> list[str]:
    """Per speaker, and for speakers heard in training or new: WER before and after, with the paired change."""
    head = ["speaker", "in training", "utterances", *errors.before, focus]
    head += [f"{focus} - {b} [95 %]" for b in errors.before]
    body = [_served(s.label, s) for s in errors.served]
    body += [_served(f"all speakers {s.name} ({s.speakers})", s) for s in errors.voices]
    balance = [f"- {_balance(focus, b)}" for b in errors.balance]
    return ["", "## Whom does it help?", "", *balance, "", *tables.pipe(head, body)]


def _served(label: str, served: Served) -> list[str]:
    changes = served.changes.values()
    before = [tables.percent(c.before) if c else "-" for c in changes]
    gaps = [
        f"{tables.points(c.difference)} [{tables.points(c.low)}, {tables.points(c.high)}]" if c else "-"
        for c in changes
    ]
    size = str(served.utterances)
    return [label, HEARD[served.heard], size, *before, tables.percent(served.wer), *gaps]


def _balance(focus: str, balance: Balance) -> str:
    """One sentence: for how many speakers the WER fell, stayed, rose, and who was hurt."""
    text = f"{focus} against {balance.against}: lower WER for {balance.better} of {balance.speakers} speakers"
    if balance.equal:
        text += f", equal for {balance.equal}"
    if worse := balance.worse:
        named = ", ".join(f"{label} {tables.points(c)}" for c, label in worse[:MOST_NAMED])
        text += f", higher for {len(worse)} ({named}{', ...' if len(worse) > MOST_NAMED else ''})"
    return text + "."


def _kinds(errors: Errors, main: list[str]) -> list[str]:
    """Substitutions, deletions, insertions per system and cohort, the clipped rate, runaway and cut-short output."""
    head = ["system", "WER", "substitutions", "deletions", "insertions", "clipped WER"]
    head += [f"ratio > {LOOP:g}", f"ratio < {STOP:g}", "empty"]
    body = []
    for system in main:
        k = errors.kinds[system, None]
        rates = (k.wer, k.substitutions, k.deletions, k.insertions, k.clipped)
        body.append([system, *map(tables.percent, rates), *map(str, (k.long, k.short, k.empty))])
    lines = ["", "## Kinds of errors", "", *tables.pipe(head, body), "", KINDS]
    return lines + _cohorts(errors, main) if errors.cohorts else lines


def _cohorts(errors: Errors, main: list[str]) -> list[str]:
    """By cohort: deletions and insertions; which part of the errors are words that were never said, and what a decoder
    that runs on adds to them.

    A cohort in which a baseline runs on makes every other system look good: the rate over the rest says how good.
    """
    head = ["cohort", *(f"{s}: del / ins" for s in main)]
    body = [[c, *(_dropped_and_added(errors.kinds[s, c]) for s in main)] for c in errors.cohorts]
    lines = ["", "Deletions and insertions by cohort:", "", *tables.pipe(head, body), "", INVENTED, ""]
    body = [[c or "all", *(_invented(errors.kinds[s, c]) for s in main)] for c in (None, *errors.cohorts)]
    return lines + tables.pipe(["cohort", *main], body)


def _dropped_and_added(kinds: Kinds) -> str:
    return f"{tables.percent(kinds.deletions)} / {tables.percent(kinds.insertions)}"


def _invented(kinds: Kinds) -> str:
    if math.isnan(kinds.inserted):
        return "-"
    return f"{kinds.inserted:.0f} / {kinds.runaway:.0f} / {tables.percent(kinds.calm)}"


def _words(errors: Errors) -> list[str]:
    """The most frequent substitutions, deletions and insertions of every system."""
    body = [
        [system, *(", ".join(f"{word} ({times})" for word, times in found) or "none" for found in kinds.values())]
        for system, kinds in errors.frequent.items()
    ]
    head = ["system", "substituted (said > recognised)", "deleted", "inserted"]
    return ["", "## Most frequent errors", "", *tables.pipe(head, body, align_left=True)]


def _utterances(errors: Errors, focus: str) -> list[str]:
    """The utterances with most errors under the judged system, beside what the strongest baseline made of them."""
    lines = ["", f"## Worst utterances of `{focus}`", ""]
    if not errors.worst:
        return [*lines, "None: every utterance is right."]
    beside = [errors.baseline] if errors.baseline else []
    files = ["recording"] if any(w.recording for w in errors.worst) else []
    body = [
        [w.id, f"{w.errors} of {w.words}", w.said, w.heard or "(nothing)"]
        + (["-" if w.other is None else w.other or "(nothing)"] if beside else [])
        + ([w.recording or "-"] if files else [])
        for w in errors.worst
    ]
    return lines + tables.pipe(["utterance", "errors", "said", focus, *beside, *files], body, align_left=True)
