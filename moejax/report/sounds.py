"""Stage `cv`: what a cross-validation found, as a table, a page, pictures, and a page to listen to.

W/cv: table.csv, table.md, report.html, saliency*.html, summary.json, figures/*.png; of labels that were shuffled the
verdict alone. Reads what `folds` wrote.
"""

import csv
import io
import math

import numpy as np

from moejax.errors import BadValue
from moejax.report import markup, playhead, sound_figures
from moejax.runtime.files import read_json, write_bytes, write_json, write_text
from moejax.score import bootstrap, classes
from moejax.work.fields import Field
from moejax.work.stage import Stage

SECTIONS = {
    "cv": {
        "draws": Field(1000, "Bootstrap samples behind every interval.", limits=(1, 10_000_000)),
        "figures": Field(True, "Whether figures and the page with sounds are made."),
    }
}
PICTURES = {"pictures.npz": "", "pictures_probe.npz": "_probe"}  # of W/folds: what their pages' names end in
COLUMNS = (
    *("model", "parameters", "clips", "folds", "accuracy_mean", "accuracy_std"),
    *("wa", "wa_low", "wa_high", "ua", "ua_low", "ua_high", "f1", "f1_low", "f1_high"),
    *("loss_train", "loss_validation", "loss_test", "overfitting_percent", "loss_start"),
)


def run(cfg, work) -> dict:
    """Writes W/cv; UA by model. Errors: BadValue where shuffled labels were learnt, which is a leak."""
    found = {name: _results(work, name) for name in cfg.folds.models}
    if cfg.folds.sanity:
        return _verdict(work, found)
    scores = {name: _scores(results, cfg.cv.draws) for name, results in found.items()}
    rows = [_row(name, found[name], scores[name]) for name in found]
    folder, names = work.path("cv"), found[cfg.folds.models[0]][0]["classes"]
    text = markdown(cfg, rows, found)
    write_text(folder / "table.md", text)
    write_text(folder / "table.csv", _csv(rows))
    drawn = {}
    if cfg.cv.figures:
        drawn = {f"confusion_{n}": sound_figures.confusion(s.confusion_CC, names, n) for n, s in scores.items()}
        for name, end in PICTURES.items():
            if end and "probe" not in cfg.folds.models or (pictures := _pictures(work.path("folds", name))) is None:
                continue  # of models that are no longer asked for
            write_text(folder / f"saliency{end}.html", playhead.page(pictures, names, f"{cfg.name}: what decides"))
            drawn |= {} if end else {"mels": sound_figures.mels(pictures, names)}
            if "saliency" in pictures:
                drawn[f"decides_{pictures['model']}"] = sound_figures.decides(pictures, names)
        for name, png in drawn.items():
            write_bytes(folder / "figures" / f"{name}.png", png)
    write_text(folder / "report.html", _page(cfg, text, drawn, rows))
    write_json(folder / "summary.json", {"models": rows, "classes": names, "confusion": _lists(scores)})
    for line in text.splitlines():
        work.log(line)
    return {"ua": {row["model"]: row["ua"] for row in rows}}


def _pictures(path) -> dict | None:
    if not path.exists():
        return None
    with np.load(path) as file:
        return dict(file)


def _results(work, name) -> list[dict]:
    folders = work.path("folds", name).glob("fold*/result.json")
    return [read_json(path) for path in sorted(folders, key=lambda path: int(path.parent.name.removeprefix("fold")))]


def _all(results) -> tuple[np.ndarray, np.ndarray, list[str], np.ndarray]:
    """(right classes, said classes, groups, folds) of all clips, each when its fold was tested."""
    label_N = np.concatenate([np.array(one["label"]) for one in results])
    said_N = np.concatenate([np.array(one["log_probability"]).argmax(1) for one in results])
    names = [group or f"clip {one['id'][i]}" for one in results for i, group in enumerate(one["group"])]
    return label_N, said_N, names, np.repeat(np.arange(len(results)), [len(one["label"]) for one in results])


def _scores(results, draws) -> classes.Scores:
    return classes.scores(*_all(results), len(results[0]["classes"]), draws)


def _row(name, results, found: classes.Scores) -> dict:
    losses = {part: float(np.mean([one["loss"][part] for one in results])) for part in results[0]["loss"]}
    row = {"model": name, "parameters": results[0]["parameters"], "clips": int(found.confusion_CC.sum())}
    row |= {"folds": len(results), "accuracy_mean": found.fold_mean, "accuracy_std": found.fold_std}
    for short, interval in (("wa", found.accuracy), ("ua", found.recall), ("f1", found.f1)):
        row |= {short: interval.value, f"{short}_low": interval.low, f"{short}_high": interval.high}
    row |= {f"loss_{part}": losses[part] for part in ("train", "validation", "test", "start")}
    row["overfitting_percent"] = classes.overfitting(losses["train"], losses["validation"])
    return {column: row[column] for column in COLUMNS}


def _verdict(work, found) -> dict:
    """Of shuffled labels: chance, or a refusal."""
    said = {}
    for name, results in found.items():
        label_N, said_N, _, _ = _all(results)
        chance = classes.at_chance(label_N, said_N, len(results[0]["classes"]))
        said[name] = {"accuracy": chance.found, "chance": chance.expected, "sigma": chance.sigma}
        line = f"{name}: {chance.found:.3f} with shuffled labels, chance {chance.expected:.3f} +- {chance.sigma:.3f}"
        work.log(f"  {line}")
        if not chance.holds:
            raise BadValue(f"{line}: more than 3 sigma off, so test clips are known in training")
    write_json(work.path("cv", "sanity.json"), said)
    return {"sanity": said}


def markdown(cfg, rows, found) -> str:
    """The table, the comparison of models, folds one by one."""
    first = found[rows[0]["model"]]
    lines = [f"# {cfg.name}: cross-validation", ""]
    lines += [
        f"{rows[0]['clips']} clips, {len(first[0]['classes'])} classes, {len(first)} folds; each tested by networks"
        " that neither heard its clips nor were chosen by them. Percent; intervals 95 %, over speakers or recordings"
        f" (where there are fewer than {bootstrap.MIN_SPEAKERS}, over their clips).",
        "",
        "| model | parameters | accuracy, mean of folds | std | WA | UA | macro F1 | loss, train | validation | test"
        " | overfitting |",
        f"|---|{'---:|' * 10}",
    ]
    for row in rows:
        spans = [_span(row, name) for name in ("wa", "ua", "f1")]
        losses = [f"{row[f'loss_{part}']:.3f}" for part in ("train", "validation", "test")]
        cells = [row["model"], f"{row['parameters']:,}", _percent(row["accuracy_mean"]), _percent(row["accuracy_std"])]
        lines.append(f"| {' | '.join([*cells, *spans, *losses, _over(row['overfitting_percent'])])} |")
    lines += [
        "",
        "Overfitting: (validation - train) / train of losses, both asked without dropout after training.",
        "",
    ]
    lines += _compared(found)
    lines += ["## Folds", "", f"| fold | clips | {' | '.join(found)} |", f"|---|---:|{'---:|' * len(found)}"]
    for number, one in enumerate(first):
        cells = [_percent(results[number]["accuracy"]["test"]) for results in found.values()]
        lines.append(f"| {one['fold']} | {len(one['label'])} | {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _compared(found) -> list[str]:
    """Every other model's errors beside the first's, on the same clips."""
    names, lines = list(found), []
    for other in names[1:]:
        label_N, said_N, groups, _ = _all(found[names[0]])
        said = _all(found[other])[1]
        gap = bootstrap.difference(
            (label_N == said_N).astype(int), (label_N == said).astype(int), [1] * len(label_N), groups
        )
        lines.append(
            f"{names[0]} against {other}: {100 * gap.value:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}],"
            " on the same clips."
        )
    return [*lines, ""] if lines else []


def _page(cfg, text, drawn, rows) -> str:
    best = max(rows, key=lambda row: row["ua"])
    lead = f"Best: {best['model']}, UA {_span(best, 'ua')} %."
    figures = {
        "Confusion": "".join(
            markup.figure(png, f"{name.removeprefix('confusion_')}: right class by said class")
            for name, png in drawn.items()
            if name.startswith("confusion_")
        ),
        "Pictures": markup.figure(drawn["mels"], "log-mel image of one clip of each class", "map") if drawn else "",
        "What decides": "".join(
            markup.figure(png, f"{name.removeprefix('decides_')}: red is what its class hangs on", "map")
            for name, png in drawn.items()
            if name.startswith("decides_")
        ),
        "Listen": "".join(_listen(end) for end in ("", "_probe") if end == "" or "decides_probe" in drawn)
        * bool(drawn),
    }
    return markup.document(cfg.name, lead, {"Table": markup.markdown(text, skip_title=True), **figures})


def _listen(end: str) -> str:
    """A link to a page with sound."""
    return f'<p><a href="saliency{end}.html">What decides{", of the probe" * bool(end)}, with sound</a></p>'


def _csv(rows) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _lists(scores) -> dict:
    return {name: found.confusion_CC.tolist() for name, found in scores.items()}


def _span(row, name) -> str:
    """A figure with its interval."""
    return f"{_percent(row[name])} [{_percent(row[f'{name}_low'])}, {_percent(row[f'{name}_high'])}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _over(value: float) -> str:
    return f"{value:.0f} %" if math.isfinite(value) else "-"


STAGE = Stage("cv", run, needs=("folds",), reads=("cv", "folds.models", "folds.sanity"), apart=True, sections=SECTIONS)
