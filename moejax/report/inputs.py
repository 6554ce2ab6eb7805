"""What the report reads of a workdir: the files that the other stages left. Only those of `evaluate` must be there."""

from dataclasses import dataclass
from pathlib import Path

from moejax.report import load, roles, study
from moejax.runtime.files import read_json, read_jsonl
from moejax.train import metrics
from moejax.work.normalizer import normalizer

NOTES = {  # the Markdown pages of other stages that belong into the report
    "The corpus": ("describe", "summary.md"),
    "Leakage": ("describe", "leakage.md"),
    "Clusters": ("cluster", "agreement.md"),
}
OPTIONAL = (  # whose absence is said
    ("evaluate", "routing.json"),
    ("translate", "summary.json"),
    ("describe", "summary.md"),
    ("describe", "leakage.md"),
    ("config.json",),
)


@dataclass(frozen=True)
class Inputs:
    """The files as they are; what is not there is empty, or None. `maps` are the PNG files of the stage cluster,
    `translations` the records of every "system.backend", `root` the folder that recordings are relative to.
    """

    evaluation: load.Evaluation
    routing: dict | None
    translation: dict | None
    translations: dict[str, list[dict]]
    agreement: dict | None
    config_digest: str | None
    data_digest: str | None
    seconds: dict[str, float]
    curves: dict[str, list[dict]]
    notes: dict[str, str]
    maps: dict[str, bytes]
    runs: study.Runs | None
    root: Path


def read(cfg, work) -> Inputs:
    """Logs what lacks. Errors: FileNotFoundError without W/evaluate, ValueError naming a file that is damaged."""
    rule = normalizer(cfg.report)
    evaluation = load.evaluation(work, rule, cfg.report.typical)
    for absent in [*evaluation.missing, *_absent(work)]:
        work.log(f"report: without {absent}")
    translation = load.optional_json(work.path("translate", "summary.json"))
    return Inputs(
        evaluation=evaluation,
        routing=load.optional_json(work.path("evaluate", "routing.json")),
        translation=translation,
        translations=_translations(work, translation or {}),
        agreement=load.optional_json(work.path("cluster", "agreement.json")),
        config_digest=_digest(work.path("config.json")),
        data_digest=_digest(work.path("describe", "done.json")),
        seconds=_seconds(work),
        curves=_curves(work),
        notes=_notes(work),
        maps={path.stem: path.read_bytes() for path in sorted(work.path("cluster").glob("*.png"))},
        runs=study.read(cfg, work, evaluation, rule),
        root=work.path(),
    )


def _absent(work) -> list[str]:
    return ["/".join(parts) for parts in OPTIONAL if not work.path(*parts).exists()]


def _digest(path) -> str | None:
    return (load.optional_json(path) or {}).get("digest")


def _seconds(work) -> dict[str, float]:
    """{stage: seconds} of every finished stage, in the order in which they ended."""
    done = sorted(work.path().glob("*/done.json"), key=lambda p: p.stat().st_mtime_ns)
    return {p.parent.name: float(read_json(p)["seconds"]) for p in done}


def _translations(work, summary: dict) -> dict[str, list[dict]]:
    """The records of every translation that was scored, where its file is still there."""
    paths = {name: work.path("translate", f"{name}.jsonl") for name in summary}
    return {name: read_jsonl(path) for name, path in paths.items() if path.exists()}


def _curves(work) -> dict[str, list[dict]]:
    """{stage: records of its metrics.jsonl} for the stages of `roles.TRAINED` that left one."""
    paths = {stage: work.path(*stage.split("/"), metrics.FILE) for stage in roles.TRAINED}
    found = {stage: metrics.read(path) for stage, path in paths.items() if path.exists()}
    return {stage: records for stage, records in found.items() if records}


def _notes(work) -> dict[str, str]:
    found = {title: work.path(*parts) for title, parts in NOTES.items()}
    return {title: path.read_text(encoding="utf-8") for title, path in found.items() if path.exists()}
