"""The study as text: the Markdown that stands in table.md and in report.html, and the lines of the console."""

from moejax.report import roles
from moejax.report.study import HELDOUT, Study
from moejax.score import seeds, tables

NOISE = "by more than noise: the 95 % interval of the paired difference leaves out 0"


def markdown(study: Study) -> str:
    """Headings of depth two, each with its table; what was not run is left out."""
    lines = [*_systems(study), *_differences(study), *_speakers(study)]
    lines += [*_heldout(study), *_ablations(study), *_tuning(study)]
    return "\n".join(lines) + "\n"


def headline(study: Study) -> list[str]:
    """In plain words: the judged system against each other system of the report, and whom it serves worse than base."""
    focus, lines = study.focus, []
    for group, name, words in (("all", "all", "all speakers"), *_voices(study)):
        for gap in _gaps(study, "main", group, name):
            if gap["system"] == focus:
                lines.append(
                    f"{focus} against {gap['against']}, {words}, {gap['seeds']} seeds: {seeds.difference_cell(gap)} "
                    f"points, Holm p {p_value(gap['p_holm'])}: {gap['reads']}"
                )
    return lines + worse_than_base(study)


def worse_than_base(study: Study) -> list[str]:
    """One line for speakers new to training, one for the others: who is served worse than by the base."""
    lines = []
    for group, words in (("unseen speaker", "speakers not heard in training"), ("speaker", "speakers of training")):
        gaps = [g for g in study.gaps if g["group"] == group and g["against"] == roles.BASE]
        if not gaps:
            continue
        worse = [g for g in gaps if g["low"] > 0]
        text = f"worse than {roles.BASE} by more than noise, of {len(gaps)} {words}: "
        lines.append(text + (", ".join(f"{g['name']} {seeds.difference_cell(g)}" for g in worse) or "none"))
    return lines


def forest(study: Study) -> list[tuple[str, list[dict]]]:
    """What the figure of differences shows: systems against the first `against`, then variants against the judged."""

    def row(gap, label):
        figures = {key: gap[key] for key in ("difference", "low", "high")}
        return {"label": label, "shown": gap["reads"] in ("better", "worse"), **figures}

    blocks = []
    for group, name, words in (("all", "all", "all speakers"), *_voices(study)):
        gaps = _gaps(study, "main", group, name)
        if gaps:
            other = gaps[0]["against"]
            chosen = [row(g, g["system"]) for g in gaps if g["against"] == other]
            blocks.append((f"against {other}: {words} ({gaps[0]['utterances']})", chosen))
    gaps = [g for g in study.gaps if g["part"] == "ablation" and g["against"] == study.focus]
    if gaps:
        rows = [row(g, g["name"] if g["system"] == study.focus else f"{g['name']}: {g['system']}") for g in gaps]
        blocks.append((f"ablations, against {study.focus} as configured", rows))
    gaps = [g for g in _gaps(study, "heldout", "variant") if g["system"] == study.focus]
    gaps = [g for g in gaps if g["against"] != roles.BASE]
    if gaps:
        title = f"{study.focus} against {gaps[0]['against']}, cohort held out"
        blocks.append((title, [row(g, g["name"]) for g in gaps if g["against"] == gaps[0]["against"]]))
    return blocks


def p_value(p: float) -> str:
    return "-" if p != p else "<0.001" if p < 0.001 else f"{p:.3f}"


def _main(study: Study, system: str, group: str, name: str) -> dict:
    found = study.rate("main", system, group, name)
    assert found is not None  # all systems of the main part are scored on the same utterances
    return found


def _systems(study: Study) -> list[str]:
    columns = [("all", "all"), *(("voices", n) for n in study.names("main", "voices"))]
    columns += [("cohort", n) for n in study.names("main", "cohort")]
    sizes = {c: _main(study, study.systems("main")[0], *c)["utterances"] for c in columns}
    head = ["system", "seeds", *(_title(*c, sizes[c]) for c in columns)]
    body = []
    for system in study.systems("main"):
        found = [_main(study, system, *c) for c in columns]
        cells = [seeds.rate_cell(f, interval=c[0] != "cohort") for f, c in zip(found, columns, strict=True)]
        body.append([system, str(found[0]["seeds"]) if found[0]["seeds"] else "any", *cells])
    unit = _main(study, study.systems("main")[0], "all", "all")["unit"]
    return [
        f"## Over {study.seeds} training seeds",
        "",
        "WER in percent: mean over seeds ± standard deviation over seeds [95 % interval]; in brackets in the header: "
        f"utterances. All seeds share base and cohorts. Every bootstrap draw draws {unit}, and seeds.",
        "",
        *tables.pipe(head, body),
    ]


def _title(group: str, name: str, size: int) -> str:
    return f"{name} speakers ({size})" if group == "voices" else f"{name} ({size})"


def _voices(study: Study) -> list[tuple]:
    return [("voices", name, f"{name} speakers") for name in study.names("main", "voices")]


def _gaps(study: Study, part: str, group: str, name: str | None = None) -> list[dict]:
    wanted = (part, group)
    return [g for g in study.gaps if (g["part"], g["group"]) == wanted and name in (None, g["name"])]


def _differences(study: Study) -> list[str]:
    lines = ["", "## Differences over seeds", ""]
    lines.append(
        "Points of WER, paired by seed, speaker and utterance; negative is better. p by approximate randomisation "
        "(utterances exchanged; speakers exchanged as a whole), each corrected by Holm over the rows of its table. "
        '"better" and "worse" only where the interval leaves out 0 and the first p is below 0.05.'
    )
    for group, name, words in (("all", "all", "all speakers"), *_voices(study)):
        gaps = _gaps(study, "main", group, name)
        for other in dict.fromkeys(g["against"] for g in gaps):
            lines += ["", f"### Against {other}: {words}", "", *_gap_table([g for g in gaps if g["against"] == other])]
    gaps = [g for g in _gaps(study, "main", "cohort") if g["system"] == study.focus]
    for other in dict.fromkeys(g["against"] for g in gaps):
        body = [g | {"system": g["name"]} for g in gaps if g["against"] == other]
        lines += ["", f"### {study.focus} against {other} by cohort", "", *_gap_table(body, "cohort")]
    return lines


def _gap_table(gaps: list[dict], first: str = "system") -> list[str]:
    body = [
        [
            g["system"],
            str(g["seeds"]),
            str(g["utterances"]),
            seeds.difference_cell(g),
            p_value(g["p_holm"]),
            p_value(g["p_speakers_holm"]),
            g["reads"],
        ]
        for g in gaps
    ]
    head = [first, "seeds", "utterances", "points [95 %]", "Holm p, utterances", "Holm p, speakers", "reads"]
    return tables.pipe(head, body)


def _speakers(study: Study) -> list[str]:
    gaps = [g for g in study.gaps if g["group"] in ("speaker", "unseen speaker")]
    if not gaps:
        return []
    others = list(dict.fromkeys(g["against"] for g in gaps))
    by = {(g["name"], g["against"]): g for g in gaps}
    body = []
    for name in dict.fromkeys(g["name"] for g in gaps):
        found = [by.get((name, other)) for other in others]
        first = next(g for g in found if g)
        new = "no" if first["group"] == "unseen speaker" else "yes"
        cells = [seeds.difference_cell(g) if g else "-" for g in found]
        body.append([name, new, str(first["utterances"]), *cells])
    head = ["speaker", "in training", "utterances", *(f"{study.focus} - {other} [95 %]" for other in others)]
    lines = [f"- {line}." for line in worse_than_base(study)]
    return ["", "## Whom it serves, over seeds", "", *lines, "", f"({NOISE}.)", "", *tables.pipe(head, body)]


def _ablations(study: Study) -> list[str]:
    found = [r for r in study.rates if r["part"] == "ablation"]
    if not found:
        return []
    gaps = {(g["name"], g["system"], g["against"]): g for g in study.gaps if g["part"] == "ablation"}
    others = list(dict.fromkeys(g["against"] for g in study.gaps if g["part"] == "ablation"))
    head = ["variant", "system", "changes", "seeds", "WER", *(f"- {o} [95 %], Holm p" for o in others)]
    body = []
    for other in (study.focus, *(o for o in others if o != study.focus)):
        if row := study.rate("main", other, "all", "all"):
            cells = ["-" for _ in others]
            body.append(["as configured", other, "-", str(row["seeds"]), seeds.rate_cell(row, interval=True), *cells])
    for row in found:
        cells = []
        for other in others:
            gap = gaps.get((row["name"], row["system"], other))
            cells.append(f"{seeds.difference_cell(gap)}, {p_value(gap['p_holm'])}" if gap else "-")
        changed = ", ".join(f"{k}={v}" for k, v in study.changes.get(row["name"], {}).items()) or "-"
        name = [row["name"], row["system"], changed, str(row["seeds"])]
        body.append([*name, seeds.rate_cell(row, interval=True), *cells])
    text = "One change each; differences in points against the systems as configured, negative is better; Holm over "
    return ["", "## Ablations", "", text + "the rows.", "", *tables.pipe(head, body)]


def _heldout(study: Study) -> list[str]:
    names = study.names("heldout", "variant")
    if not names:
        return []
    systems = study.systems("heldout")
    gaps = [g for g in study.gaps if g["part"] == "heldout" and g["system"] == study.focus]
    others = list(dict.fromkeys(g["against"] for g in gaps))
    head = ["held out", "utterances", *systems, *(f"{study.focus} - {o} [95 %], Holm p" for o in others)]
    body = []
    for name in [n for n in names if n != HELDOUT] + [HELDOUT]:
        rows = [study.rate("heldout", s, "variant", name) for s in systems]
        size = next(r["utterances"] for r in rows if r)
        cells = [seeds.rate_cell(r) if r else "-" for r in rows]
        for other in others:
            gap = next((g for g in gaps if (g["name"], g["against"]) == (name, other)), None)
            cells.append(f"{seeds.difference_cell(gap)}, {p_value(gap['p_holm'])}" if gap else "-")
        body.append([name, str(size), *cells])
    text = "Each cohort is recognised by a run that never heard it, nor any of its speakers; bases differ by row. "
    text += "Holm over the cohorts."
    return ["", "## One cohort held out at a time", "", text, "", *tables.pipe(head, body)]


def _tuning(study: Study) -> list[str]:
    if not study.tune:
        return []
    body = []
    for system, found in study.tune.items():
        for tried in found["tried"]:
            mark = "chosen" if tried["values"] == found["chosen"] else ""
            values = ", ".join(f"{k}={v}" for k, v in tried["values"].items())
            body.append([system, values, tables.percent(tried["dev_wer"]), mark])
    text = "What was tried for each system, one seed each; dev chose, and test was not looked at."
    return ["", "## Tuning", "", text, "", *tables.pipe(["system", "values", "dev WER", ""], body)]
