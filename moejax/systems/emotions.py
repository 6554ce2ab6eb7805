"""Stage `emotions`: what the tokens of emotions are worth, and what they cost the text.

The part evaluate.split is read by the base as published, which the system `emotion` without its tokens is, and with
them; beside them stands a probe: logistic regression on the mean state of the same frozen encoder, chosen on dev.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from moejax.errors import BadValue
from moejax.runtime.files import write_json, write_text
from moejax.score import bootstrap, classes, wer
from moejax.systems import listening, registry
from moejax.systems.emotion import NAME
from moejax.training import encoder_states
from moejax.training.emotion import FILE
from moejax.work.context import Context
from moejax.work.fields import Field
from moejax.work.normalizer import normalizer
from moejax.work.stage import Stage

SECTIONS = {"emotions": {"draws": Field(1000, "Bootstrap samples behind every interval.", limits=(1, 10_000_000))}}
READINGS = {"base": "as published", "on": "with tokens"}
GAP = "on - base"
STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # inverse, of the probe's regularisation


def run(cfg, work) -> dict:
    """Writes W/emotions: base.jsonl, on.jsonl, table.md, summary.json. Errors: BadValue where the stage
    emotion was idle, or nobody in the part has one of its labels.
    """
    if not work.path(NAME, FILE).exists():
        raise BadValue("emotions reads what the stage emotion taught, and emotion.steps is 0")
    context = Context(cfg, work)
    rows = context.corpus.rows(cfg.evaluate.split)
    tokenizer = registry.open_system(context, NAME).network.tokenizer
    assert tokenizer is not None  # a system of the stage emotion brings one that knows them
    names = list(tokenizer.emotions)
    label_N = _labels(context, rows, names)
    if not (label_N >= 0).any():
        raise BadValue(f"emotions: no utterance of {cfg.evaluate.split} has one of the labels {', '.join(names)}")
    records = {kind: _read(context, rows, kind) for kind in READINGS}
    for kind, lines in records.items():
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        write_text(work.path("emotions", f"{kind}.jsonl"), text)
    train_N = _labels(context, context.corpus.rows("train"), names)
    usual = int(np.bincount(train_N[train_N >= 0]).argmax())  # said of what is too quiet to be read
    said_N = np.array([_likeliest(line["emotion"], names, usual) for line in records["on"]])
    probe_N, strength = _probe(context, rows, names)
    speakers = list(context.corpus.manifest.strings("speaker", rows))
    felt = {"token": said_N, "probe": probe_N}
    found = {
        "emotions": names,
        "strength": strength,
        "wer": _texts(cfg, records, speakers, label_N),
        "felt": {who: _felt(label_N, one_N, speakers, len(names), cfg.emotions.draws) for who, one_N in felt.items()},
    }
    write_json(work.path("emotions", "summary.json"), found)
    text = markdown(cfg, found)
    write_text(work.path("emotions", "table.md"), text)
    for line in text.splitlines():
        work.log(line)
    return {"ua": {who: one["ua"][0] for who, one in found["felt"].items()}}


def _labels(context: Context, rows, names: Sequence[str]) -> np.ndarray:
    """Number of each row's label among the names, -1 for none of them."""
    place = {name: number for number, name in enumerate(names)}
    return np.array([place.get(str(one), -1) for one in context.corpus.manifest.column("label")[rows]])


def _likeliest(emotion: Mapping[str, float] | None, names: Sequence[str], usual: int) -> int:
    return usual if emotion is None else names.index(max(emotion, key=emotion.__getitem__))


def _read(context: Context, rows, kind: str) -> list[dict]:
    """One object per row, in order."""
    system = registry.open_system(context, "base" if kind == "base" else NAME)
    options: dict[str, Any] = {} if kind == "base" else {"emotion": True}
    read = listening.transcripts(context, system, rows, np.full(len(rows), -1), **options)
    found = {i: one for i, one, _ in context.work.progress(read, total=len(rows), desc=f"{kind}: {READINGS[kind]}")}
    manifest = context.corpus.manifest
    ids, texts, labels = (list(manifest.strings(name, rows)) for name in ("id", "text", "label"))
    return [
        {"id": ids[i], "reference": texts[i], "hypothesis": found[i].text.strip(), "label": labels[i]}
        | {"emotion": found[i].emotion}
        for i in range(len(rows))
    ]


def _probe(context: Context, rows, names: Sequence[str]) -> tuple[np.ndarray, float]:
    """(what a linear classifier of the encoder's mean state says of these rows, its inverse regularisation)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    states = encoder_states.opened(context)
    if states is None:
        raise BadValue("emotions: the probe hears kept encoder states: raise runtime.encoder_cache_bytes")
    step = 2 * context.base.config.hop

    def heard(rows):
        frames = -(-context.corpus.samples[rows] // step)
        return np.stack(
            [states(row)[:count].astype(np.float32).mean(0) for row, count in zip(rows, frames, strict=True)]
        )

    parts = {part: context.corpus.manifest.indices(split=part) for part in ("train", "dev")}
    labels = {part: _labels(context, own, names) for part, own in parts.items()}
    parts = {part: own[labels[part] >= 0] for part, own in parts.items()}
    labels = {part: one[one >= 0] for part, one in labels.items()}
    train, dev = heard(parts["train"]), heard(parts["dev"]) if len(parts["dev"]) else None

    def fitted(strength):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000, class_weight="balanced"))
        return model.fit(train, labels["train"])

    chosen = STRENGTHS[1]
    if dev is not None:
        hits = [float((fitted(one).predict(dev) == labels["dev"]).mean()) for one in STRENGTHS]
        chosen = STRENGTHS[int(np.argmax(hits))]
    return fitted(chosen).predict(heard(rows)), chosen


def _texts(cfg, records, speakers, label_N) -> dict:
    """{labelled or others: {reading: rate, GAP: difference, ...}}, each of these (value, low, high)."""
    rule, found = normalizer(cfg.report), {}
    counts = {
        kind: wer.count([rule(one["reference"]) for one in lines], [rule(one["hypothesis"]) for one in lines])
        for kind, lines in records.items()
    }
    for part, mask_N in (("labelled", label_N >= 0), ("others", label_N < 0)):
        places = np.flatnonzero(mask_N)
        if not len(places):
            continue
        own = [speakers[i] for i in places]
        errors = {kind: [counts[kind][i].errors for i in places] for kind in counts}
        words = [counts["on"][i].words for i in places]
        rates = {kind: bootstrap.interval(errors[kind], words, own, draws=cfg.emotions.draws) for kind in counts}
        rates[GAP] = bootstrap.difference(errors["on"], errors["base"], words, own, draws=cfg.emotions.draws)
        spans = {kind: (one.value, one.low, one.high) for kind, one in rates.items()}
        found[part] = {**spans, "utterances": len(places), "words": int(sum(words)), "speakers": len(set(own))}
    return found


def _felt(label_N, said_N, speakers, count: int, draws: int) -> dict:
    """UA, WA, F1 (value, low, high) and confusion of the labelled."""
    places = np.flatnonzero(label_N >= 0)
    own = [speakers[i] for i in places]
    one = classes.scores(label_N[places], said_N[places], own, np.zeros(len(places), int), count, draws)
    spans = {"ua": one.recall, "wa": one.accuracy, "f1": one.f1}
    found = {name: (span.value, span.low, span.high) for name, span in spans.items()}
    return {**found, "clips": len(places), "confusion": one.confusion_CC.tolist()}


def markdown(cfg, found) -> str:
    """The tables of texts, of emotions, and of which is taken for which."""
    lines = [f"# {cfg.name}: tokens of emotions", "", f"Percent; intervals 95 %, {bootstrap.OVER}.", ""]
    lines += [f"| words | {' | '.join((*READINGS.values(), GAP))} |", f"|---|{'---:|' * (len(READINGS) + 1)}"]
    for part, one in found["wer"].items():
        cells = [_span(one[kind]) for kind in READINGS] + [_span(one[GAP], "+")]
        people = f"{one['speakers']} speakers" if one["speakers"] > 1 else "1 speaker"
        said = f"{part}: {one['utterances']} utterances, {one['words']} words, {people}"
        lines.append(f"| {said} | {' | '.join(cells)} |")
    lines += ["", "| emotions | UA | WA | macro F1 |", "|---|---:|---:|---:|"]
    for who, one in found["felt"].items():
        what = f"{who}, {one['clips']} clips"
        lines.append(f"| {what} | {' | '.join(_span(one[name]) for name in ('ua', 'wa', 'f1'))} |")
    names = found["emotions"]
    lines += ["", f"| token: right, then said | {' | '.join(names)} |", f"|---|{'---:|' * len(names)}"]
    for name, row in zip(names, found["felt"]["token"]["confusion"], strict=True):
        lines.append(f"| {name} | {' | '.join(map(str, row))} |")
    return "\n".join([*lines, ""])


def _span(values: Sequence[float], sign: str = "") -> str:
    value, low, high = (f"{100 * one:{sign}.1f}" for one in values)
    return f"{value} [{low}, {high}]"


STAGE = Stage(
    "emotions",
    run,
    needs=("emotion",),
    reads=(
        "emotions",
        "evaluate.split",
        "evaluate.batch_size",
        "report.normalizer",
        "report.spelling",
    ),
    apart=True,
    sections=SECTIONS,
)
