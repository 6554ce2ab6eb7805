"""report.html: one page that stands alone (styles and pictures inside it), for telephone and desk."""

import html

from moejax.report import errors_page, markup, roles, sentences, study_page
from moejax.report.findings import Findings, Provenance
from moejax.report.study import Study
from moejax.score import tables, translations

CAPTIONS = {
    "wer_by_cohort": "WER of the main systems, over all utterances and by cohort, with 95 % intervals. "
    f"{' and '.join(roles.OWN.values())}: every utterance recognised by its own cohort's or speaker's adapter.",
    "wer_by_speaker": "What changes for each speaker: from the ring (before) to the dot (after); the tick is the "
    "one LoRA with as many parameters as the whole mixture.",
    "load": "Where the gate sends whom: each expert's share of the routing weight, by cohort; on the right in all, "
    "against the prior, and the share of utterances in which its weight is the largest. Even weights can hide that "
    "one expert is always the largest.",
    "differences": "Differences of WER over all seeds, paired by seed, speaker and utterance, with 95 % intervals: "
    "left of the line is better. Hollow: no difference is shown after correction for their number.",
    "learning_curves": "Cross-entropy of the trained stages: single batches thin, their running mean thick.",
}
ROUTING = {  # what the table of routing figures calls them
    "max_load": "largest share of one expert in the routing weight",
    "max_load_over_prior": "largest share of the weight, as a multiple of the expert's prior",
    "max_top1": "largest share of utterances with the same top expert",
    "entropy": "entropy of the load (nats)",
    "utterance_entropy": "mean entropy of one utterance's route (nats)",
    "gate_accuracy": "accuracy of the gate on the clusters, after the gate stage",
    "gate_accuracy_joint": f"the same after joint training, as {roles.MIXTURE} uses it",
    "majority": "the majority class would have",
    "nuisance": "duration and silence alone would have",
}


def page(found: Findings, drawn: dict[str, bytes]) -> str:
    """The whole page; `drawn` maps names of `CAPTIONS` to PNG bytes."""
    plots = {name: markup.figure(png, CAPTIONS[name]) for name, png in drawn.items()}
    maps = (markup.figure(png, f"cluster {name}", "map") for name, png in found.maps.items())

    def plot(name: str) -> str:
        return plots.get(name, "")

    return markup.document(
        f"moejax report: {found.name}",
        sentences.headline(found.headline),
        {
            "Word error rate": _results(found) + plot("wer_by_cohort"),
            "Seeds and ablations": _study(found.study, plot("differences")) if found.study else "",
            "Speaker by speaker": plot("wer_by_speaker") + _speakers(found),
            "Routing": _routing(found.routing, found.clusters) + plot("load"),
            "Translation": _translation(found.translation),
            "Learning": plot("learning_curves"),
            "Errors": _page(errors_page.markdown(found)),
            "Listen": _players(found),
            **{title: _page(text) for title, text in found.notes.items()},
            "Maps of the clusters": "".join(maps),
            "How it was made": _provenance(found.provenance),
        },
    )


def _page(text: str) -> str:
    """A Markdown page as a section, which has a title of its own."""
    return markup.markdown(text, level=2, skip_title=True)


def _pipe(lines: list[str]) -> str:
    return markup.markdown("\n".join(lines))


def _results(found: Findings) -> str:
    table = found.table
    text = _systems(found, found.main)
    text += f'<p class="soft">WER in percent, 95 % intervals by bootstrap over {table.unit}; in brackets in the '
    text += (
        "header: utterances. Green: lowest of its column. Own-adapter systems are oracles: they know who speaks.</p>"
    )
    if table.empty:
        text += f'<p class="soft">{html.escape(table.empty_sentence())}</p>'
    if rest := [s for s in table.systems if s not in found.main]:
        mark = f'<p class="soft">{tables.MARK} scored on some of the utterances only.</p>'
        text += markup.folded(f"{len(rest)} more systems", _systems(found, rest) + mark)
    if table.differences:
        text += "<h3>Differences, paired</h3>" + _pipe(table.select(found.main).differences_markdown())
        text += '<p class="soft">Negative: better. "better" and "worse" only where the interval leaves out 0.</p>'
    return text


def _systems(found: Findings, systems: list[str]) -> str:
    """Systems down, all utterances and cohorts across; the lowest rate of systems that scored everything is marked."""
    table, whole = found.table, [s for s in systems if s not in found.table.partial]
    best = {g: min((r["wer"] for s in whole if (r := table.row(s, *g))), default=None) for g in table.groups}
    out = "<tr><th>system</th><th>trained</th>"
    out += "".join(f"<th>{html.escape(n)}<br>({table.sizes[g, n]})</th>" for g, n in table.groups) + "</tr>"
    for system in systems:
        size = found.sizes[system].trainable if system in found.sizes else None
        mark = "" if system in whole else f" {tables.MARK}"
        out += f'<tr class="{"judged" if system == found.focus else ""}"><td>{html.escape(system)}{mark}</td>'
        out += f"<td>{'' if size is None else f'{size:,}'}</td>"
        out += "".join(_cell(table.row(system, *g), g, system in whole, best[g]) for g in table.groups) + "</tr>"
    return markup.table(out)


def _cell(row: dict | None, group: tuple[str, str], whole: bool, best: float | None) -> str:
    if row is None:
        return "<td>-</td>"
    bounds = f"[{tables.percent(row['wer_low'])}, {tables.percent(row['wer_high'])}]"
    small = f' <span class="bounds">{bounds}</span>' if group == ("all", "all") else ""
    mark = ' class="best"' if whole and row["wer"] == best else ""
    return f"<td{mark}>{tables.percent(row['wer'])}{small}</td>"


def _players(found: Findings) -> str:
    """The worst utterances to be heard, where their audio is asked for."""
    heard = [w for w in found.errors.worst if w.id in found.sounds]
    lead = markup.paragraphs([f"The utterances with most errors under {found.focus}."]) if heard else ""
    return lead + "".join(
        markup.player(found.sounds[w.id], f"{w.id}, {w.errors} of {w.words}: said: {w.said}; heard: {w.heard}")
        for w in heard
    )


def _speakers(found: Findings) -> str:
    names = found.table.names("speaker")
    lines = found.table.speakers_markdown(found.main)
    return markup.folded(f"Table of {len(names)} speakers", _pipe(lines)) if names else ""


def _routing(routing: dict, clusters: dict) -> str:
    found = [(label, routing[key]) for key, label in ROUTING.items() if isinstance(routing.get(key), int | float)]
    rows = "".join(f"<tr><td>{label}</td><td>{value:.3f}</td></tr>" for label, value in found)
    text = markup.paragraphs(sentences.routing(routing, clusters))
    if routing.get("gate_rows"):
        text += f'<p class="soft">Accuracies on the {routing["gate_rows"]} utterances of dev and test that are in a '
        text += "cluster; nothing of them was in training, but their speakers may have been.</p>"
    return text + (markup.table(rows) if rows else "")


def _study(study: Study, plot: str) -> str:
    lead = markup.paragraphs([f"{line}." for line in study_page.headline(study)])
    return lead + plot + markup.markdown(study_page.markdown(study), level=1)


def _translation(translation: dict) -> str:
    return _pipe(translations.to_markdown(translation))


def _provenance(found: Provenance) -> str:
    rows = [["configuration", f"`{found.config_digest}`"], ["data", f"`{found.data_digest}`"]]
    rows += [[name, version] for name, version in found.versions.items()]
    rows += [[f"stage {name}", f"{seconds:.1f} s"] for name, seconds in found.stages.items()]
    return _pipe(tables.pipe(["what", "which"], rows))
