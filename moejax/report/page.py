"""report.html: one page that stands alone (styles and pictures inside it), for telephone and desk."""

import base64
import html
import re

from moejax.report import study_page
from moejax.score import tables

CAPTIONS = {
    "wer_by_cohort": "WER of the main systems, over all utterances and by cohort, with 95 % intervals. own_cohort and "
    "own_speaker: every utterance recognised by its own cohort's or speaker's adapter.",
    "wer_by_speaker": "What changes for each speaker: from the ring (before) to the dot (after); the tick is the "
    "one LoRA with as many parameters as the whole mixture.",
    "load": "Where the gate sends whom: each expert's share of the routing weight, by cohort; on the right in all, "
    "against the prior, and the share of utterances in which its weight is the largest. Even weights can hide that "
    "one expert is always the largest.",
    "differences": "Differences of WER over all seeds, paired by seed, speaker and utterance, with 95 % intervals: "
    "left of the line is better. Hollow: no difference is shown after correction for their number.",
    "learning_curves": "Cross-entropy of the trained stages: single batches thin, their running mean thick.",
}
STYLE = """
:root{color-scheme:light;--ink:#1d2126;--soft:#5c646e;--line:#dfe3e7;--accent:#c8324a}
*{box-sizing:border-box}
body{margin:0;background:#fff;color:var(--ink);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1000px;margin:0 auto;padding:20px 16px 60px}
h1{font-size:1.5rem;margin:.2em 0}
h2{font-size:1.2rem;margin:2em 0 .5em;padding-top:.5em;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.5em 0 .4em}
.lead{font-size:1.08rem;border-left:4px solid var(--accent);padding:.3em 0 .3em .8em;margin:1em 0}
.soft{color:var(--soft);font-size:.88rem}
nav a{margin-right:1em;white-space:nowrap}a{color:#1f5fa8}
.wide{overflow-x:auto;-webkit-overflow-scrolling:touch;margin:.6em 0}
table{border-collapse:collapse;font-size:.86rem;font-variant-numeric:tabular-nums}
th,td{padding:.3em .6em;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap;vertical-align:top}
th{font-weight:600;color:var(--soft);vertical-align:bottom}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:#fff}
td.text,th.text{text-align:left;white-space:normal;min-width:11em}
tr.judged td{background:#fdf1f3;font-weight:600}td.best{color:#1d7a51;font-weight:700}
.bounds{color:var(--soft);font-weight:400;font-size:.92em}
figure{margin:1em 0}figure img{display:block;width:100%;max-width:720px;min-width:480px;height:auto}
figure.map img{max-width:none;min-width:900px}
figcaption{color:var(--soft);font-size:.88rem;margin-top:.3em}
details{margin:.6em 0}summary{cursor:pointer;color:#1f5fa8}
code{background:#f3f4f6;padding:.05em .3em;border-radius:3px;font-size:.92em}
"""


def page(*, title, table, main, summary, headline, figures, errors, notes, derived, study=None) -> str:
    """The whole page. `figures` maps names to PNG bytes, `notes` titles to Markdown, `errors` is the page errors.md,
    `study` the runs over seeds and variants, if there are any.
    """
    rest = [s for s in table.systems if s not in main]
    parts = [
        f'<p class="lead">{html.escape(headline)}</p>',
        _section("Word error rate", _results(table, main, rest, summary, derived) + _figure(figures, "wer_by_cohort")),
        _section("Seeds and ablations", _study(study, figures)),
        _section("Speaker by speaker", _figure(figures, "wer_by_speaker") + _speakers(table, main)),
        _section("Routing", _routing(summary["routing"], summary["clusters"]) + _figure(figures, "load")),
        _section("Translation", _translation(summary["translation"])),
        _section("Learning", _figure(figures, "learning_curves")),
        _section("Errors", markdown(errors, level=2, skip_title=True)),
        *(_section(name, markdown(text, level=2, skip_title=True)) for name, text in notes.items()),
        _section("Maps of the clusters", "".join(_figure(figures, f) for f in figures if f.startswith("cluster "))),
        _section("How it was made", _provenance(summary)),
    ]
    present = [p for p in parts if p]
    titles = [t for p in present for t in re.findall(r'<h2 id="(.*?)">(.*?)</h2>', p)]
    nav = "<nav class='soft'>" + "".join(f'<a href="#{i}">{t}</a> ' for i, t in titles) + "</nav>"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{html.escape(title)}</h1>{nav}" + "\n".join(present) + "</main></body></html>\n"
    )


def markdown(text: str, *, level: int = 0, skip_title: bool = False) -> str:
    """HTML of the Markdown that the stages write: headings, paragraphs, lists, pipe tables, `code` and **bold**.

    `level` is added to the depth of headings; `skip_title` leaves out the first heading of depth one.
    """
    blocks, lines = [], text.splitlines()
    while lines:
        line = lines.pop(0)
        if heading := re.match(r"(#+) (.*)", line):
            depth = len(heading[1])
            if skip_title and depth == 1:
                continue
            depth = min(depth + level - (1 if skip_title else 0), 6)
            blocks.append(f"<h{depth}>{_inline(heading[2])}</h{depth}>")
        elif line.startswith("|"):
            taken = [line]
            while lines and lines[0].startswith("|"):
                taken.append(lines.pop(0))
            blocks.append(_pipe_table(taken))
        elif line.startswith(("- ", "* ")):
            items = [line]
            while lines and lines[0].startswith(("- ", "* ")):
                items.append(lines.pop(0))
            blocks.append("<ul>" + "".join(f"<li>{_inline(i[2:])}</li>" for i in items) + "</ul>")
        elif line.strip():
            taken = [line]
            while lines and lines[0].strip() and not re.match(r"#+ |\||[-*] ", lines[0]):
                taken.append(lines.pop(0))
            blocks.append(f"<p>{_inline(' '.join(taken))}</p>")
    return "\n".join(blocks)


def _inline(text: str) -> str:
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(text, quote=False))
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", text)


def _pipe_table(lines: list[str]) -> str:
    cells = [[c.strip().replace("\\|", "|") for c in re.split(r"(?<!\\)\|", line.strip())[1:-1]] for line in lines]
    ruled = len(cells) > 1 and all(re.fullmatch(r":?-+:?", c) for c in cells[1])
    left = [not c.endswith(":") for c in cells[1]] if ruled else [True] * len(cells[0])
    body = cells[2:] if ruled else cells
    out = _html_row(cells[0], left, "th") if ruled else ""
    return '<div class="wide"><table>' + out + "".join(_html_row(r, left, "td") for r in body) + "</table></div>"


def _html_row(cells: list[str], left: list[bool], tag: str) -> str:
    marks = [' class="text"' if i and text else "" for i, text in enumerate(left)]
    return "<tr>" + "".join(f"<{tag}{m}>{_inline(c)}</{tag}>" for c, m in zip(cells, marks, strict=False)) + "</tr>"


def _results(table, main, rest, summary, derived) -> str:
    text = _systems(table, main, summary)
    text += (
        f'<p class="soft">WER in percent, 95 % intervals by bootstrap over {table.unit}; in brackets in the header: '
    )
    text += "utterances. Green: lowest of its column. Own-adapter systems are oracles: they know who speaks.</p>"
    if rest:
        text += (
            f"<details><summary>{len(rest)} more systems (single adapters)</summary>{_systems(table, rest, summary)}"
        )
        text += f'<p class="soft">{tables.MARK} scored on some of the utterances only.</p></details>'
    if table.differences:
        shown = table.select(main).differences_markdown()
        text += "<h3>Differences, paired</h3>" + markdown("\n".join(shown))
        text += '<p class="soft">Negative: better. "better" and "worse" only where the interval leaves out 0.</p>'
    return text


def _systems(table, systems, summary) -> str:
    groups = [("all", "all"), *(("cohort", c) for c in table.names("cohort"))]
    best = {
        g: min((r["wer"] for s in systems if (r := table.row(s, *g)) and s not in table.partial), default=None)
        for g in groups
    }
    out = "<tr><th>system</th><th>trained</th>"
    out += "".join(f"<th>{html.escape(n)}<br>({table.sizes[g, n]})</th>" for g, n in groups) + "</tr>"
    for system in systems:
        size = summary["systems"].get(system, {}).get("trainable")
        mark = f" {tables.MARK}" if system in table.partial else ""
        out += f'<tr class="{"judged" if system == "moe" else ""}"><td>{html.escape(system)}{mark}</td>'
        out += f"<td>{'' if size is None else f'{size:,}'}</td>"
        for group in groups:
            row = table.row(system, *group)
            if row is None:
                out += "<td>-</td>"
                continue
            bounds = f"[{tables.percent(row['wer_low'])}, {tables.percent(row['wer_high'])}]"
            small = f' <span class="bounds">{bounds}</span>' if group == groups[0] else ""
            mark = ' class="best"' if row["wer"] == best[group] and system not in table.partial else ""
            out += f"<td{mark}>{tables.percent(row['wer'])}{small}</td>"
        out += "</tr>"
    return f'<div class="wide"><table>{out}</table></div>'


def _speakers(table, main) -> str:
    names = table.names("speaker")
    if not names:
        return ""
    body = []
    for s in names:
        rows = [table.row(system, "speaker", s) for system in main]
        cells = [tables.percent(r["wer"]) if r else "-" for r in rows]
        body.append([s, table.cohort_of.get(s, ""), str(table.sizes["speaker", s]), *cells])
    lines = tables.pipe(["speaker", "cohort", "utterances", *main], body)
    return f"<details><summary>Table of {len(names)} speakers</summary>{markdown(chr(10).join(lines))}</details>"


def _routing(routing: dict, clusters: dict) -> str:
    names = {
        "max_load": "largest share of one expert in the routing weight",
        "max_load_over_prior": "largest share of the weight, as a multiple of the expert's prior",
        "max_top1": "largest share of utterances with the same top expert",
        "entropy": "entropy of the load (nats)",
        "utterance_entropy": "mean entropy of one utterance's route (nats)",
        "gate_accuracy": "accuracy of the gate on the clusters, after the gate stage",
        "gate_accuracy_joint": "the same after joint training, as moe uses it",
        "majority": "the majority class would have",
        "nuisance": "duration and silence alone would have",
    }
    found = [(label, routing[key]) for key, label in names.items() if isinstance(routing.get(key), int | float)]
    rows = "".join(f"<tr><td>{label}</td><td>{value:.3f}</td></tr>" for label, value in found)
    text = "".join(f"<p>{html.escape(line)}</p>" for line in routing_text(routing, clusters))
    if routing.get("gate_rows"):
        text += f'<p class="soft">Accuracies on the {routing["gate_rows"]} utterances of dev and test that are in a '
        text += "cluster; nothing of them was in training, but their speakers may have been.</p>"
    return text + (f'<div class="wide"><table>{rows}</table></div>' if rows else "")


def routing_text(routing: dict, clusters: dict) -> list[str]:
    """In plain words: how clusters became experts, what the gate is worth, and whether its choice has collapsed."""
    lines = []
    if clusters:
        made = {
            "none": "one expert each",
            "split": "the largest were split",
            "merge": "the nearest were merged",
            "shrink": "no more experts than clusters",
        }
        action = (clusters["match"] or {}).get("action", "none")
        lines.append(
            f"{clusters['method']} found {clusters['found']} clusters of {clusters['level']}s in the sample, with "
            f"{100 * clusters['noise_share']:.1f} % of its utterances in none of them (noise policy: "
            f"{clusters['noise_policy']}); from them come {clusters['num_experts']} experts: {made[action]}."
        )
    if (worth := routing.get("gate_worth")) and worth["low"] is not None:
        interval = f"[{tables.points(worth['low'])}, {tables.points(worth['high'])}]"
        lines.append(
            f"What routing is worth: moe against itself with the mean route of the training part for everybody "
            f"(moe_mean_gate): {tables.points(worth['difference'])} points {interval}: {tables.verdict(worth)}."
        )
    if top_E := routing.get("top1"):
        first = max(range(len(top_E)), key=top_E.__getitem__)
        never = [str(e) for e, share in enumerate(top_E) if share == 0]
        text = f"Expert {first} has the largest weight in {100 * top_E[first]:.1f} % of the utterances"
        lines.append(text + (f"; never: {', '.join(never)}." if never else "."))
    return lines


def _study(study, figures) -> str:
    if study is None:
        return ""
    lead = "".join(f"<p>{html.escape(line)}.</p>" for line in study_page.headline(study))
    return lead + _figure(figures, "differences") + markdown(study_page.markdown(study), level=1)


def _translation(translation: dict) -> str:
    if not translation:
        return ""
    body = [[n, f"{t['bleu']:.1f}", f"{t['chrf']:.1f}", f"`{t.get('signature', '')}`"] for n, t in translation.items()]
    return markdown("\n".join(tables.pipe(["system . translator", "BLEU", "chrF", "signature"], body)))


def _provenance(summary: dict) -> str:
    rows = [["configuration", f"`{summary['config_digest']}`"], ["data", f"`{summary['data_digest']}`"]]
    rows += [[name, version] for name, version in summary["versions"].items()]
    rows += [[f"stage {name}", f"{seconds:.1f} s"] for name, seconds in summary["stages"].items()]
    return markdown("\n".join(tables.pipe(["what", "which"], rows)))


def _figure(figures: dict[str, bytes], name: str) -> str:
    if name not in figures:
        return ""
    data, caption = base64.b64encode(figures[name]).decode(), html.escape(CAPTIONS.get(name, name))
    kind = "map" if name.startswith("cluster ") else "plot"
    image = f'<div class="wide"><img alt="{caption}" src="data:image/png;base64,{data}"></div>'
    return f'<figure class="{kind}">{image}<figcaption>{caption}</figcaption></figure>'


def _section(title: str, content: str) -> str:
    anchor = title.lower().replace(" ", "-")
    return f'<section><h2 id="{anchor}">{html.escape(title)}</h2>{content}</section>' if content else ""
