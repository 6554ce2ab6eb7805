"""Stage `rater`: scores of experts (accuracy, fluency) from pooled states of the frozen encoder.

A ridge regression on the standardised embeddings of the stage `embed`, as simple as it can be: what it knows of
pronunciation is what the published encoder knows. Its figures are of speakers whom nothing was learnt of: over folds of
speakers, and, where the split has speakers in test alone, once on those.

    W/rater/rater.safetensors    of each score: mean and scale of the embedding, weights, bias; range of the experts
    W/rater/table.md, .csv       correlation with the experts, beside controls, with intervals
    W/rater/predictions.csv      every utterance: the experts' score and what folds that did not know its speaker say
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.linear_model import RidgeCV
from sklearn.model_selection import GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from moejax.data.sources import folder
from moejax.errors import BadValue
from moejax.runtime.files import write_text
from moejax.score import bootstrap, graded
from moejax.score.bootstrap import Interval
from moejax.text.units import letters
from moejax.train.params_file import save_params
from moejax.work.context import Context, embeddings
from moejax.work.fields import Field
from moejax.work.stage import Stage

ALPHAS = np.logspace(0, 6, 13)  # penalties; leaving one clip out chooses, in training speakers alone
SECTIONS = {
    "rater": {
        "scores": Field(
            (),
            "Columns of the corpus' table that experts scored utterances in, numbers each; the rater learns them.\n"
            "Empty: no rater. Utterances without a score are left out.",
        ),
        "folds": Field(5, "Parts that speakers are cut into, each judged by what the others taught.", limits=(2, 100)),
        "draws": Field(1000, "Bootstrap samples behind every interval.", limits=(10, 10_000_000)),
    }
}
COLUMNS = ("score", "speakers", "what", "utterances", "correlation", "low", "high", "mean_error")


@dataclasses.dataclass(frozen=True)
class Rated:
    """Utterances with scores: `rows` of the manifest, `score_NK` of the experts, the features of either kind."""

    rows: np.ndarray
    score_NK: np.ndarray
    heard_NU: np.ndarray  # pooled encoder states
    timing_NF: np.ndarray  # what duration and tempo alone say
    speakers: np.ndarray
    ids: list[str]

    def __len__(self) -> int:
        return len(self.rows)

    def part(self, mask) -> Rated:
        """The utterances where `mask` is true."""
        chosen = [name for name, kept in zip(self.ids, mask, strict=True) if kept]
        arrays = (self.rows, self.score_NK, self.heard_NU, self.timing_NF, self.speakers)
        rows, score, heard, timing, speakers = (array[mask] for array in arrays)
        return Rated(rows, score, heard, timing, speakers, chosen)


def run(cfg, work) -> dict:
    """Writes W/rater. Errors: BadValue for a column that is not there or holds no numbers, for fewer speakers than
    folds, and for a corpus without a speaker's name.
    """
    context, names = Context(cfg, work), list(cfg.rater.scores)
    rated = _rated(context, names)
    known, new = _apart(context, rated)
    if len(set(known.speakers)) < cfg.rater.folds:
        raise BadValue(f"rater.folds is {cfg.rater.folds}, and {len(set(known.speakers))} speakers were scored")
    rows, lines = [], []
    said_NK = crossed(known.heard_NU, known.score_NK, known.speakers, cfg.rater.folds)
    lines += _lines(known, said_NK, names, "folds")
    rows += _figures(cfg, known, said_NK, names, "folds of speakers")
    model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS, alpha_per_target=True))
    model.fit(known.heard_NU, known.score_NK)
    if len(new):
        unseen_NK = _two_axes(model.predict(new.heard_NU), len(names))
        lines += _lines(new, unseen_NK, names, "unseen")
        timed = make_pipeline(StandardScaler(), RidgeCV(ALPHAS)).fit(known.timing_NF, known.score_NK)
        timed_NK = _two_axes(timed.predict(new.timing_NF), len(names))
        rows += [_figure(cfg, new, unseen_NK, k, name, "unseen speakers", "encoder") for k, name in enumerate(names)]
        rows += [_figure(cfg, new, timed_NK, k, name, "unseen speakers", "tempo") for k, name in enumerate(names)]
    error_K = np.sqrt(np.square(said_NK - known.score_NK).mean(0))
    _save(work, cfg, model, names, known.score_NK, error_K)
    write_text(
        work.path("rater", "predictions.csv"), _csv(("id", "speaker", "part", "score", "experts", "rater"), lines)
    )
    write_text(work.path("rater", "table.csv"), _csv(COLUMNS, [[row[name] for name in COLUMNS] for row in rows]))
    text = markdown(cfg.name, rows)
    write_text(work.path("rater", "table.md"), text)
    for line in text.splitlines():
        work.log(line)
    found = {row["score"]: row["correlation"] for row in rows if row["what"] == "encoder"}
    return {"utterances": len(known), "unseen": len(new), "correlation": found}


def table(cfg) -> list[Path]:
    """Tables that the scores stand in. Errors: BadValue for a corpus that is no folder."""
    if cfg.data.source != "folder":
        raise BadValue(f"rater.scores are columns of a folder's table; data.source is {cfg.data.source!r}")
    root = os.path.abspath(cfg.data.root)
    return [Path(path) for path, _ in folder.tables(root, cfg.data.options.get("metadata", "metadata.csv"))]


def outside(cfg) -> str | None:
    """Digest of the bytes of these tables. Errors: BadValue for a column that one of them does not have."""
    if not cfg.rater.scores:
        return None
    for path in table(cfg):
        there = next(folder.each_row(path))
        if lacking := [name for name in cfg.rater.scores if name not in there]:
            raise BadValue(f"{path}: no column {lacking[0]!r} (rater.scores); it has {', '.join(there)}")
    return hashlib.blake2b(b"".join(path.read_bytes() for path in table(cfg)), digest_size=8).hexdigest()


def scores(cfg, names: Sequence[str]) -> dict[str, list[float]]:
    """{id: scores}, NaN where there is none. Errors: BadValue naming the row."""
    found: dict[str, list[float]] = {}
    for path in table(cfg):
        columns = {field: name for field, name in cfg.data.columns.items() if field in ("audio", "text", "id")}
        told = folder.utterances(path, os.path.abspath(cfg.data.root), columns)
        pairs = zip(told, folder.each_row(path), strict=True)
        for number, (one, row) in enumerate(pairs, 1):
            found[one.id] = [_number(row[name], f"{path}: row {number}, {name!r}") for name in names]
    return found


def _number(value, where: str) -> float:
    text = folder.cell(value)
    try:
        number = float(text) if text else float("nan")
    except ValueError:
        raise BadValue(f"{where} is {text[:40]!r}; a score is a number, or empty") from None
    if np.isinf(number):
        raise BadValue(f"{where} is not finite")
    return number


def _rated(context: Context, names) -> Rated:
    manifest, told = context.corpus.manifest, scores(context.cfg, names)
    ids = [str(name) for name in manifest.column("id")]
    score_NK = np.array([told.get(name, [np.nan] * len(names)) for name in ids])
    there = np.isfinite(score_NK).all(axis=1)
    if not there.any():
        raise BadValue(f"no utterance has all of {', '.join(names)} (rater.scores)")
    speakers = np.array([str(name) for name in manifest.column("speaker")])
    if (speakers[there] == "").any():
        raise BadValue("the rater is judged on speakers that it does not know, and some utterances name none")
    spelled_N = np.array([sum(len(letters(word)) for word in str(text).split()) for text in manifest.column("text")])
    seconds_N = manifest.column("seconds")
    voiced_N = np.maximum(seconds_N * (1 - manifest.column("silence")), 0.1)
    timing_NF = np.stack([seconds_N, voiced_N, spelled_N, spelled_N / voiced_N, spelled_N / seconds_N], axis=1)
    rows = np.arange(len(manifest))
    whole = Rated(rows, score_NK, embeddings(context.work)["embedding"], timing_NF, speakers, ids)
    return whole.part(there)


def _apart(context: Context, rated: Rated) -> tuple[Rated, Rated]:
    """(train and dev, the test utterances of speakers who are in neither)."""
    learnt = np.array([str(part) != "test" for part in context.corpus.manifest.column("split")[rated.rows]])
    known = set(rated.speakers[learnt])
    new = np.array([name not in known for name in rated.speakers], bool)
    return rated.part(learnt), rated.part(new & ~learnt)


def crossed(feature_NU, score_NK, speakers, folds: int) -> np.ndarray:
    """What a ridge that did not hear the speaker says of every utterance, [N, K]."""
    said_NK = np.zeros_like(score_NK)
    for train, test in GroupKFold(folds).split(feature_NU, groups=speakers):
        model = make_pipeline(StandardScaler(), RidgeCV(ALPHAS, alpha_per_target=True))
        model.fit(feature_NU[train], score_NK[train])
        said_NK[test] = _two_axes(model.predict(feature_NU[test]), score_NK.shape[1])
    return said_NK


def exchanged(score_NK: np.ndarray, speakers: np.ndarray, seed: int) -> np.ndarray:
    """The scores dealt to other speakers, each one's together: a control that nothing can be learnt from."""
    names, rng = np.unique(speakers), np.random.default_rng([seed, 7])
    turned = np.roll(rng.permutation(names), 1)
    given = np.concatenate([rng.permutation(np.flatnonzero(speakers == name)) for name in turned])
    taken = np.concatenate([np.flatnonzero(speakers == name) for name in np.roll(turned, 1)])
    found_NK = np.empty_like(score_NK)
    found_NK[taken] = score_NK[given]
    return found_NK


def _two_axes(found, count: int) -> np.ndarray:
    return np.asarray(found).reshape(-1, count)


def _figures(cfg, known: Rated, said_NK, names, speakers) -> list[dict]:
    timed_NK = crossed(known.timing_NF, known.score_NK, known.speakers, cfg.rater.folds)
    chance = dataclasses.replace(known, score_NK=exchanged(known.score_NK, known.speakers, cfg.seed))
    chance_NK = crossed(chance.heard_NU, chance.score_NK, chance.speakers, cfg.rater.folds)
    rows = []
    for k, name in enumerate(names):
        rows.append(_figure(cfg, known, said_NK, k, name, speakers, "encoder"))
        rows.append(_figure(cfg, known, timed_NK, k, name, speakers, "tempo"))
        rows.append(_figure(cfg, chance, chance_NK, k, name, speakers, "chance"))
    return rows


def _figure(cfg, rated: Rated, said_NK, k: int, name: str, speakers: str, what: str) -> dict:
    found: Interval = graded.pearson(said_NK[:, k], rated.score_NK[:, k], rated.speakers.tolist(), cfg.rater.draws)
    error = float(np.abs(said_NK[:, k] - rated.score_NK[:, k]).mean())
    row = {"score": name, "speakers": speakers, "what": what, "utterances": len(rated), "mean_error": round(error, 4)}
    return row | {"correlation": round(found.value, 4), "low": round(found.low, 4), "high": round(found.high, 4)}


def _lines(rated: Rated, said_NK, names, part) -> list[tuple]:
    return [
        (rated.ids[n], rated.speakers[n], part, name, f"{rated.score_NK[n, k]:g}", f"{said_NK[n, k]:.3f}")
        for n in range(len(rated))
        for k, name in enumerate(names)
    ]


def _save(work, cfg, model, names, score_NK, error_K) -> None:
    scaler, ridge = model[0], model[-1]
    params = {
        "mean": scaler.mean_.astype(np.float32),
        "scale": scaler.scale_.astype(np.float32),
        "weight": _two_axes(ridge.coef_.T, len(names)).astype(np.float32),
        "bias": np.reshape(ridge.intercept_, -1).astype(np.float32),
        "lowest": score_NK.min(0).astype(np.float32),
        "highest": score_NK.max(0).astype(np.float32),
        "error": error_K.astype(np.float32),
    }
    embed = cfg.embed
    heard = {"layers": list(embed.layers), "how": embed.pooling, "trim_silence": embed.trim_silence}
    save_params(work.path("rater", "rater.safetensors"), {"rater": params}, {"scores": names, "embedding": heard})


WHAT = {
    "encoder": "the rater: pooled states of the frozen encoder",
    "tempo": "duration, letters and tempo alone",
    "chance": "the rater, scores dealt to other speakers",
}


def markdown(name: str, rows: list[dict]) -> str:
    """The table of all figures."""
    lines = [f"# {name}: the rater against experts", ""]
    lines += [
        f"Pearson's correlation over utterances, 95 % intervals {bootstrap.OVER}; nobody's speech was learnt from.",
        "",
    ]
    lines += ["| score | speakers | by | utterances | correlation | mean error |", "|---|---|---|---:|---:|---:|"]
    for row in rows:
        span = f"{row['correlation']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        cells = [row["score"], row["speakers"], WHAT[row["what"]], f"{row['utterances']:,}", span]
        lines.append(f"| {' | '.join([*cells, format(row['mean_error'], '.2f')])} |")
    return "\n".join([*lines, ""])


def _csv(columns, rows) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return out.getvalue()


STAGE = Stage(
    "rater",
    run,
    needs=("embed",),
    reads=("rater", "embed"),
    without=("embed.batch_size", "embed.signals"),
    apart=True,
    switch="rater.scores",
    outside=outside,
    sections=SECTIONS,
)
