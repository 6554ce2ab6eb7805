"""What `moejax all` prints at its end, from the files of W/report alone."""

import csv

from moejax.report.page import routing_text
from moejax.runtime.files import read_json
from moejax.score import tables

MOST_PARTIAL = 6  # so many single-speaker adapters are listed, more are counted


def console_summary(work) -> str:
    """What `moejax all` ends with: the table by cohort, the routing, the translations, where the report is."""
    summary, path = read_json(work.path("report", "summary.json")), work.path("report", "table.csv")
    with open(path, encoding="utf-8", newline="") as file:
        rows = {(r["system"], r["group"], r["name"]): r for r in csv.DictReader(file)}
    groups = list(dict.fromkeys((g, n) for _, g, n in rows if g in ("all", "cohort")))
    whole = max(s["utterances"] for s in summary["systems"].values())
    partial = [name for name, s in summary["systems"].items() if s["utterances"] < whole]
    systems = [s for s in summary["systems"] if s not in partial or len(partial) <= MOST_PARTIAL]
    sizes = {g: max(int(rows[s, *g]["utterances"]) for s in systems if (s, *g) in rows) for g in groups}
    head = ["WER %", *(f"{name} ({sizes[kind, name]})" for kind, name in groups), "trained"]
    body = []
    for s in systems:
        own = "*" if s in partial else ""
        cells = [tables.percent(float(rows[s, *g]["wer"])) if (s, *g) in rows else "-" for g in groups]
        body.append([s + own, *cells, _count(summary["systems"][s]["trainable"])])
    lines = _columns([head, *body])
    if len(partial) > MOST_PARTIAL:
        lines.append(f"and {len(partial)} systems scored on their own utterances only: see report/table.md")
    elif partial:
        lines.append("* scored on its own utterances only")
    for d in summary["differences"]:
        if d["system"] == "moe" and d["low"] is not None:
            interval = (
                f"{tables.points(d['difference'])} points [{tables.points(d['low'])}, {tables.points(d['high'])}]"
            )
            lines.append(f"moe against {d['against']}: {interval}, {tables.verdict(d)}")
    lines += _study_lines(summary.get("study"))
    lines += _routing_lines(summary["routing"])
    lines += routing_text(summary["routing"], summary["clusters"])
    for name, t in summary["translation"].items():
        lines.append(f"translation {name}: BLEU {t['bleu']:.1f}, chrF {t['chrf']:.1f}")
    return "\n".join([*lines, f"report: {work.path('report', 'report.html')}"])


def _study_lines(study: dict | None) -> list[str]:
    """The judged system over all seeds against the others; how many variants there are besides."""
    if not study:
        return []
    lines = []
    for gap in study["differences"]:
        if gap["part"] == "main" and gap["system"] == study["focus"] and gap["group"] in ("all", "voices"):
            whose = "" if gap["group"] == "all" else f", {gap['name']} speakers"
            bounds = f"[{tables.points(gap['low'])}, {tables.points(gap['high'])}]"
            lines.append(
                f"over {gap['seeds']} seeds: {gap['system']} against {gap['against']}{whose}: "
                f"{tables.points(gap['difference'])} points {bounds}, {gap['reads']}"
            )
    if study["changes"]:
        lines.append(f"{len(study['changes'])} variants: see report/table.md")
    return lines


def _routing_lines(routing: dict) -> list[str]:
    if not routing.get("expert_load"):
        return []
    lines = ["share of the routing weight, by expert: " + " ".join(f"{x:.2f}" for x in routing["expert_load"])]
    if routing.get("top1"):
        lines.append("share of utterances with it on top:     " + " ".join(f"{x:.2f}" for x in routing["top1"]))
    text = "routing:"
    if routing.get("max_load") is not None:
        text += f" largest load {routing['max_load']:.2f}"
        if routing.get("prior"):
            text += f" (largest prior {max(routing['prior']):.2f})"
    if routing.get("entropy") is not None:
        text += f", entropy {routing['entropy']:.2f}"
    if routing.get("gate_accuracy") is not None:
        others = [f"{k} {routing[k]:.2f}" for k in ("majority", "nuisance") if routing.get(k) is not None]
        text += f", gate accuracy {routing['gate_accuracy']:.2f} after the gate stage"
        if routing.get("gate_accuracy_joint") is not None:
            text += f", {routing['gate_accuracy_joint']:.2f} after joint training"
        text += f" against {', '.join(others)}" if others else ""
    return [*lines, text]


def _count(number: int | None) -> str:
    if number is None:
        return "-"
    return f"{number / 1e6:.1f} M" if number >= 1e6 else f"{number / 1e3:.1f} k" if number >= 1e3 else str(number)


def _columns(lines: list[list[str]]) -> list[str]:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return [
        "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    ]
