"""Everything that the report says, as plain values: what is drawn, printed and written is made of this alone."""

import platform
from dataclasses import dataclass
from pathlib import Path

from moejax.report import factors as factors_of
from moejax.report import roles, routing, study
from moejax.report.errors import Errors, Worst, analyse
from moejax.report.factors import Factors
from moejax.report.inputs import Inputs
from moejax.runtime import versions as package_versions
from moejax.score import tables

PACKAGES = ("moejax", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


@dataclass(frozen=True)
class Size:
    """Parameters of a system, None where nobody counted them."""

    trainable: int | None
    total: int | None


@dataclass(frozen=True)
class Headline:
    """The judged system: its WER over so many utterances, that of the base, and its paired differences."""

    focus: str
    wer: float
    utterances: int
    base: float | None
    differences: list[dict]


@dataclass(frozen=True)
class Provenance:
    """Seconds of every finished stage, versions of the packages, digests of the config and of the data."""

    stages: dict[str, float]
    versions: dict[str, str]
    config_digest: str | None
    data_digest: str | None


@dataclass(frozen=True)
class Findings:
    """`table` has all systems, `main` names those of the figures, `focus` the judged one; `sizes` has the systems that
    stages trained, in table order, and `derived` ({name: kind}) those put together here, which are in no CSV.
    `atypical` is the WER over the cohorts other than the typical one, None where that means nothing. `heard` are the
    speakers of the training part, `sounds` the bytes of the worst utterances' recordings by id, where they are asked
    for, `curves` the records of every training's metrics, `notes` Markdown pages of other stages, `maps` their PNG
    files; `study` is there where there are several runs.
    """

    name: str
    normalizer: str
    headline: Headline
    table: tables.Table
    main: list[str]
    focus: str
    sizes: dict[str, Size]
    derived: dict[str, str]
    atypical: dict[str, float | None]
    heard: frozenset[str]
    errors: Errors
    factors: Factors
    sounds: dict[str, bytes]
    routing: dict
    clusters: dict
    translation: dict[str, dict]
    curves: dict[str, list[dict]]
    study: study.Study | None
    provenance: Provenance
    notes: dict[str, str]
    maps: dict[str, bytes]

    @property
    def published(self) -> tables.Table:
        """The table of the systems that were trained: what table.csv and summary.json have."""
        return self.table.select(list(self.sizes))


def find(cfg, read: Inputs) -> Findings:
    """All figures, from what `inputs.read` found."""
    options, found = cfg.report, read.evaluation
    bootstrap = dict(draws=options.draws, seed=cfg.seed)
    against = tuple(options.against)
    table = tables.build(
        found.rows, systems=[*found.systems, *found.derived], cohorts=found.cohorts, against=against, **bootstrap
    )
    main = roles.main_systems(table.systems, options.main, found.derived)
    focus = roles.judged(main)
    errors = analyse(found, main, focus, worst=options.worst, **bootstrap)
    return Findings(
        name=cfg.name,
        normalizer=options.normalizer,
        headline=_headline(table, focus),
        table=table,
        main=main,
        focus=focus,
        sizes={name: Size(size.get("trainable"), size.get("total")) for name, size in found.systems.items()},
        derived={name: kind for kind, name in roles.OWN.items() if name in found.derived},
        atypical={name: _atypical(found.of(name), options.typical) for name in found.systems},
        heard=frozenset(found.heard),
        errors=errors,
        factors=factors_of.analyse(found, main, read.translations, typical=options.typical, **bootstrap),
        sounds=_sounds(errors.worst, read.root) if options.embed_audio else {},
        routing=routing.find(read.routing, found, table, **bootstrap),
        clusters=routing.clusters(read.agreement),
        translation={n: t for n, t in (read.translation or {}).items() if isinstance(t, dict) and "bleu" in t},
        curves=read.curves,
        study=study.compute(read.runs, found, focus, against, **bootstrap) if read.runs else None,
        provenance=Provenance(read.seconds, versions(), read.config_digest, read.data_digest),
        notes=read.notes,
        maps=read.maps,
    )


def versions() -> dict[str, str]:
    """Python and the packages that results depend on."""
    return {"python": platform.python_version(), **package_versions.of(PACKAGES)}


def _sounds(worst: list[Worst], root: Path) -> dict[str, bytes]:
    """The recordings as their files are, WAV or FLAC; those that went since are left out."""
    paths = {w.id: root / w.recording for w in worst if w.recording}
    return {name: path.read_bytes() for name, path in paths.items() if path.is_file()}


def _headline(table: tables.Table, focus: str) -> Headline:
    row, base = table.row(focus), table.row(roles.BASE)
    assert row is not None  # the focus is a system of the table
    differences = [d for d in table.differences if d["system"] == focus]
    return Headline(focus, row["wer"], row["utterances"], base["wer"] if base else None, differences)


def _atypical(rows: list[dict], typical: str) -> float | None:
    """Corpus WER over the cohorts other than the typical one; None where there is no typical one, or no other."""
    if not any(r["cohort"] == typical for r in rows if r["cohort"]):
        return None
    rows = [r for r in rows if r["cohort"] and r["cohort"] != typical]
    words = sum(r["words"] for r in rows)
    return sum(r["errors"] for r in rows) / words if words else None
