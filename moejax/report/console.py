"""What `moejax all` prints at its end, from the files of W/report alone."""

from moejax.report import roles, sentences
from moejax.runtime.files import read_json
from moejax.score import tables, translations

MOST_PARTIAL = 6  # so many single-speaker adapters are listed, more are counted


def console_summary(work) -> str:
    """What `moejax all` ends with: the table by cohort, the routing, the translations, where the report is."""
    with open(work.path("report", "table.csv"), encoding="utf-8", newline="") as file:
        table = tables.from_csv(file.read())
    found = lines(table, read_json(work.path("report", "summary.json")))
    return "\n".join([*found, f"report: {work.path('report', 'report.html')}"])


def lines(table: tables.Table, summary: dict) -> list[str]:
    """The text over table.csv and summary.json."""
    found = _table_lines(table, summary["systems"])
    if empty := summary.get("empty_references"):
        found.append(f"references without words after normalisation: {len(empty)} (the first: {empty[0]})")
    for d in summary["differences"]:
        if d["system"] == roles.MIXTURE and d["low"] is not None:
            found.append(f"{d['system']} against {d['against']}: {sentences.gap(d)}, {tables.verdict(d)}")
    found += _study_lines(summary.get("study"))
    found += _routing_lines(summary["routing"])
    found += sentences.routing(summary["routing"], summary["clusters"])
    return found + _translation_lines(summary["translation"])


def _table_lines(table: tables.Table, sizes: dict[str, dict]) -> list[str]:
    """Systems by cohort; where there are many that scored some utterances only, those are counted."""
    many = len(table.partial) > MOST_PARTIAL
    head = ["WER %", *(f"{name} ({table.sizes[group, name]})" for group, name in table.groups), "trained"]
    body = []
    for system in (s for s in table.systems if not (many and s in table.partial)):
        rows = [table.row(system, *group) for group in table.groups]
        cells = [tables.percent(row["wer"]) if row else "-" for row in rows]
        mark = "*" if system in table.partial else ""
        body.append([system + mark, *cells, _count(sizes[system]["trainable"])])
    found = _columns([head, *body])
    if many:
        found.append(f"and {len(table.partial)} systems scored on their own utterances only: see report/table.md")
    elif table.partial:
        found.append("* scored on its own utterances only")
    return found


def _study_lines(study: dict | None) -> list[str]:
    """The judged system over all seeds against the others; how many variants there are besides."""
    if not study:
        return []
    lines = []
    for gap in study["differences"]:
        if gap["part"] == "main" and gap["system"] == study["focus"] and gap["group"] in ("all", "voices"):
            whose = "" if gap["group"] == "all" else f", {gap['name']} speakers"
            lines.append(
                f"over {gap['seeds']} seeds: {gap['system']} against {gap['against']}{whose}: "
                f"{sentences.gap(gap)}, {gap['reads']}"
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


def _translation_lines(found: dict[str, dict]) -> list[str]:
    """A line a row; p-values only of BLEU: table.md has the rest."""
    if not found:
        return []
    baseline = next((row["against"] for row in found.values() if row.get("against")), "")
    head = ["translation", "WER %", "BLEU", "chrF", *[f"p against {baseline}"] * bool(baseline)]
    body = []
    for name, row in found.items():
        label = f"{row['system']} {row['translator']}" if "translator" in row else name
        cells = [label, translations.wer(row), f"{row['bleu']:.1f}", f"{row['chrf']:.1f}"]
        body.append([*cells, *[translations.p_value(row.get("bleu_p"))] * bool(baseline)])
    return _columns([head, *body])


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
