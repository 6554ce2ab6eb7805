"""The stage that answers "whom does it help?": table, figures, error analysis and one page with all of it.

Reads only what other stages wrote (`report_load`), writes W/report: table.csv, table.md, errors.md, summary.json,
report.html and figures/*.png.
"""

import importlib.metadata
import json
import math
import os
import platform
import time

from moejax.errors import NotThere
from moejax.report import errors as report_errors
from moejax.report import figures, study_page
from moejax.report import page as report_html
from moejax.report import study as report_study
from moejax.report.console import console_summary
from moejax.report.load import OWN, Evaluation, curves, evaluation, optional_json, stage_seconds
from moejax.runtime.files import write_json, write_text
from moejax.score import tables
from moejax.text import normalize
from moejax.work.stage import Stage

DEFAULTS = {
    "report": {
        "normalizer": "lower",  # none, lower, basic, english: what reference and hypothesis may differ in
        "spelling": "",  # JSON file of British to American words, for english
        "draws": 1000,  # bootstrap samples behind every interval
        "typical": "typical",  # name of the cohort that is not atypical; "" for none (no atypical rate is given then)
        # Systems in figures and on top
        "main": (
            *("base", "full", "lora", "lora_total", "lora_merged", "moe_frozen", "moe"),
            *("moe_oracle", "moe_mean_gate", "moe_random_gate"),
            *("hyper", "hyper_AB", "moe_hyper_AB", "lora_AB"),
        ),
        "against": ("lora_total", "lora"),  # every system is compared with these, with intervals
        "worst": 15,  # utterances listed in the error analysis
        "figures": True,
    }
}
__all__ = ["DEFAULTS", "console_summary", "run"]
ROUTING = (
    *("experts", "cohorts", "load", "max_load", "max_load_over_prior", "top1", "max_top1", "entropy"),
    *("utterance_entropy", "gate_accuracy", "gate_accuracy_joint", "gate_rows", "majority", "nuisance", "prior"),
)  # what summary.json has of routing.json
PACKAGES = ("moejax", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def run(cfg, work) -> dict:
    """Writes W/report, returns WER by system. FileNotFoundError without W/evaluate; what else lacks is logged."""
    options, start = cfg.report, time.perf_counter()
    rule = normalizer(options)
    found = evaluation(work, rule, options.typical)
    table = tables.build(
        found.rows,
        systems=[*found.systems, *found.derived],
        cohorts=found.cohorts,
        against=tuple(options.against),
        draws=options.draws,
        seed=cfg.seed,
    )
    main = main_systems(table, tuple(options.main), found.derived)
    routing = _routing(optional_json(work.path("evaluate", "routing.json")), table)
    if routing and (worth := gate_worth(found, draws=options.draws, seed=cfg.seed)):
        routing["gate_worth"] = worth
    translation = optional_json(work.path("translate", "summary.json"))
    for absent in [*found.missing, *_absent(work)]:
        work.log(f"report: without {absent}")
    summary = summarise(work, found, table, routing, translation, options.typical)
    errors = report_errors.markdown(found, main, worst=options.worst, draws=options.draws, seed=cfg.seed)
    study = report_study.load(cfg, work, found, report_errors.focus_of(main), rule)
    drawn = draw(work, found, table, main, routing) if options.figures else {}
    published = table.select(list(found.systems))
    folder = work.path("report")
    if study is not None:
        summary["study"] = study.to_dict()
        write_text(folder / "seeds.csv", report_study.csv_of(study.rates, report_study.RATES))
        write_text(folder / "seeds_differences.csv", report_study.csv_of(study.gaps, report_study.GAPS))
        if options.figures:
            drawn["differences"] = figures.differences(study_page.forest(study))
    write_text(folder / "table.csv", published.to_csv())
    more = "" if study is None else "\n" + study_page.markdown(study)
    write_text(folder / "table.md", table_page(table, found.derived, options.normalizer) + more)
    write_text(folder / "errors.md", errors)
    for name, png in drawn.items():
        write_bytes(folder / "figures" / f"{name}.png", png)
    page = report_html.page(
        title=f"moejax report: {cfg.name}",
        table=table,
        main=main,
        summary=summary,
        headline=headline(table, main),
        figures=drawn | cluster_figures(work),
        errors=errors,
        notes=_notes(work),
        derived=found.derived,
        study=study,
    )
    write_text(folder / "report.html", page)
    summary["stages"]["report"] = round(time.perf_counter() - start, 1)  # its own done.json comes after this
    write_json(folder / "summary.json", summary)
    return {"systems": {name: s["wer"] for name, s in summary["systems"].items()}}


def normalizer(options) -> normalize.Normalizer:
    """The text normaliser that the config names, with its spelling table."""
    spelling = None
    if options.spelling:
        if not os.path.exists(options.spelling):
            raise NotThere(f"report.spelling names {options.spelling!r}, which does not exist")
        with open(options.spelling, encoding="utf-8") as file:
            spelling = json.load(file)
    return normalize.get(options.normalizer, spelling)


def main_systems(table: tables.Table, main: tuple[str, ...], derived: list[str]) -> list[str]:
    """The systems that figures show: those of `main` that exist, and the own-adapter ones; without any, the first 8."""
    chosen = [s for s in main if s in table.systems]
    if not chosen:
        return table.systems[:8]
    place = next((i for i, s in enumerate(chosen) if s.startswith("moe")), len(chosen))
    return chosen[:place] + derived + chosen[place:]


def summarise(work, found: Evaluation, table, routing: dict, translation: dict | None, typical: str) -> dict:
    """The content of summary.json: what other programs read. Undefined figures are null."""
    config, describe = (optional_json(work.path(*p)) or {} for p in (("config.json",), ("describe", "done.json")))
    plain = {r["system"]: r for r in table.to_dict()["rows"] if r["group"] == "all"}
    systems = {}
    for name, size in found.systems.items():
        row = plain[name]
        systems[name] = {
            "wer": row["wer"],
            "trainable": size.get("trainable"),
            "total": size.get("total"),
            "utterances": row["utterances"],
            "wer_low": row["wer_low"],
            "wer_high": row["wer_high"],
            "cer": row["cer"],
            "wer_atypical": _atypical(found.of(name), typical),
        }
    return {
        "stages": stage_seconds(work),
        "systems": systems,
        "differences": table.select(list(found.systems)).to_dict()["differences"],
        "interval": f"95 %, bootstrap over {table.unit}",
        "routing": routing,
        "clusters": _clusters(optional_json(work.path("cluster", "agreement.json"))),
        "translation": {name: t for name, t in (translation or {}).items() if isinstance(t, dict) and "bleu" in t},
        "versions": versions(),
        "config_digest": config.get("digest"),
        "data_digest": describe.get("digest"),
    }


def headline(table: tables.Table, main: list[str]) -> str:
    """The result in plain words: the judged system's WER, and against each baseline whether a difference is shown."""
    focus = report_errors.focus_of(main)
    row = table.row(focus)
    text = f"{focus} has {tables.percent(row['wer'])} % WER over {row['utterances']} utterances"
    if base := table.row("base"):
        text += f" (base {tables.percent(base['wer'])} %)"
    for d in table.differences:
        if d["system"] == focus:
            interval = (
                f"{tables.points(d['difference'])} points [{tables.points(d['low'])}, {tables.points(d['high'])}]"
            )
            text += f"; against {d['against']} {interval}: {tables.verdict(d)}"
    return text + "."


def table_page(table: tables.Table, derived: list[str], rule: str) -> str:
    """table.md: the whole table, with what the derived systems are and the normaliser."""
    text = f"# Word error rates\n\n{table.to_markdown()}\nTexts are compared under the normaliser `{rule}`.\n"
    for kind, name in OWN.items():
        if name in derived:
            text += f"\n`{name}`: every utterance recognised by its own {kind}'s adapter: an oracle, not in the CSV.\n"
    return text


def draw(work, found: Evaluation, table: tables.Table, main: list[str], routing: dict) -> dict[str, bytes]:
    """{name: PNG} of the figures that there is something to draw for."""
    drawn = {"wer_by_cohort": figures.by_cohort(table, main)}
    focus = report_errors.focus_of(main)
    before = "base" if "base" in main else main[0]
    if table.names("speaker") and focus != before:
        between = "lora_total" if "lora_total" in main else None
        drawn["wer_by_speaker"] = figures.by_speaker(table, before, focus, between, found.heard)
    if routing.get("load"):
        drawn["load"] = figures.load(routing)
    if records := curves(work):
        drawn["learning_curves"] = figures.learning_curves(records)
    return drawn


def cluster_figures(work) -> dict[str, bytes]:
    """The maps that the stage cluster drew."""
    return {f"cluster {p.stem}": p.read_bytes() for p in sorted(work.path("cluster").glob("*.png"))}


def versions() -> dict[str, str]:
    """Python and the packages that results depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"  # moejax itself may run from its source folder
    return found


def write_bytes(path, content: bytes) -> None:
    """Writes the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)


def _routing(routing: dict | None, table: tables.Table) -> dict:
    """The routing figures as summary.json has them, with each expert's share of all utterances as `expert_load`."""
    if not routing:
        return {}
    found = {key: routing.get(key) for key in ROUTING}
    if found["load"]:
        sizes = {name: table.sizes["cohort", name] for name in table.names("cohort")}
        total_E = figures.expert_load(found["load"], found["cohorts"], sizes)
        found["expert_load"] = routing.get("expert_load") or [round(float(x), 6) for x in total_E]
    return found


def gate_worth(found: Evaluation, *, draws: int, seed: int) -> dict | None:
    """What the gate is worth: `moe` against itself with the same mean route for every utterance, paired."""
    routed, constant = found.of("moe"), found.of("moe_mean_gate")
    if not routed or not constant:
        return None
    gap = tables.compare(routed, constant, draws=draws, seed=seed)
    shown = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in gap.items()}
    return {"against": "moe_mean_gate", **shown}


def _clusters(agreement: dict | None) -> dict:
    """How the experts came about: clusters found, what was done to get as many as experts, noise."""
    keys = ("method", "level", "found", "num_experts", "match", "noise_share", "noise_policy", "stability")
    return {key: agreement.get(key) for key in keys} if agreement else {}


def _atypical(rows: list[dict], typical: str) -> float | None:
    """Corpus WER over the cohorts other than the typical one; None where there is no typical one, or no other."""
    if not any(r["cohort"] == typical for r in rows if r["cohort"]):
        return None
    rows = [r for r in rows if r["cohort"] and r["cohort"] != typical]
    words = sum(r["words"] for r in rows)
    return sum(r["errors"] for r in rows) / words if words else None


def _absent(work) -> list[str]:
    optional = (
        ("evaluate", "routing.json"),
        ("translate", "summary.json"),
        ("describe", "summary.md"),
        ("describe", "leakage.md"),
        ("config.json",),
    )
    return ["/".join(parts) for parts in optional if not work.path(*parts).exists()]


def _notes(work) -> dict[str, str]:
    """The Markdown pages of other stages that belong into the report."""
    pages = {"The corpus": ("describe", "summary.md"), "Leakage": ("describe", "leakage.md")}
    pages["Clusters"] = ("cluster", "agreement.md")
    found = {title: work.path(*parts) for title, parts in pages.items()}
    return {title: path.read_text(encoding="utf-8") for title, path in found.items() if path.exists()}


STAGE = Stage("report", run, needs=("evaluate", "translate"), reads=("report",), sections=DEFAULTS)
