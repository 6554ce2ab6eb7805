"""The stage that answers "whom does it help?": table, figures, error analysis and one page with all of it.

Reads what other stages wrote (`inputs`), makes of it what there is to say (`findings`), and writes that to W/report:
table.csv, table.md, errors.md, factors.csv, summary.json, report.html, figures/*.png, and of several runs seeds.csv
and seeds_differences.csv.
"""

import os
import time

from moejax.errors import BadValue
from moejax.report import errors_page, factors, figures, findings, inputs, page, study, summary, table_page
from moejax.report.console import console_summary
from moejax.runtime.files import write_bytes, write_json, write_text
from moejax.text.normalize import NORMALIZERS
from moejax.work.fields import Field
from moejax.work.stage import Stage


def _file_that_is_there(key, file):
    if file and not os.path.isfile(os.path.expanduser(file)):
        raise BadValue(f"config key {key!r} is {file!r}: no such file")


SECTIONS = {
    "report": {
        "normalizer": Field(
            "lower",
            "What reference and hypothesis may differ in without it counting as an error.\n"
            "none: white space; lower: case and punctuation too; basic and english: Whisper's rules.",
            choices=tuple(NORMALIZERS),
        ),
        "spelling": Field(
            "",
            'JSON file of British to American words, for the normalizer english; "" for none.',
            rule=_file_that_is_there,
            takes='a file, or ""',
        ),
        "draws": Field(1000, "Bootstrap samples behind every interval.", limits=(1, 10_000_000)),
        "typical": Field(
            "typical",
            'Name of the cohort that is not atypical; "" for none (no atypical rate is given then).',
        ),
        "main": Field(
            (
                *("base", "full", "lora", "lora_total", "lora_merged", "moe_frozen", "moe"),
                *("moe_oracle", "moe_mean_gate", "moe_random_gate"),
                *("hyper", "hyper_AB", "moe_hyper_AB", "lora_AB", "lora_st", "moe_st"),
            ),
            "Systems in figures and on top, of those that there are.",
        ),
        "against": Field(("lora_total", "lora"), "Systems that every system is compared with, with intervals."),
        "worst": Field(20, "Utterances that the error analysis lists."),
        "embed_audio": Field(
            False,
            "Whether report.html holds the recordings of the worst utterances, to be played.\n"
            "It then grows by their size and carries voices: think of who gets it.",
            later=True,
        ),
        "figures": Field(True, "Whether figures are drawn."),
    }
}
__all__ = ["SECTIONS", "console_summary", "run"]


def run(cfg, work) -> dict:
    """Writes W/report, returns WER by system. FileNotFoundError without W/evaluate; what else lacks is logged."""
    start, folder = time.perf_counter(), work.path("report")
    found = findings.find(cfg, inputs.read(cfg, work))
    drawn = figures.draw(found) if cfg.report.figures else {}
    for name, text in texts(found, drawn).items():
        write_text(folder / name, text)
    for name, png in drawn.items():
        write_bytes(folder / "figures" / f"{name}.png", png)
    facts = summary.of(found)
    facts["stages"]["report"] = round(time.perf_counter() - start, 1)  # its own done.json comes after this
    write_json(folder / "summary.json", facts)
    return {"systems": {name: system["wer"] for name, system in facts["systems"].items()}}


def texts(found: findings.Findings, drawn: dict[str, bytes]) -> dict[str, str]:
    """{name of the file: its text}."""
    made = {
        "table.csv": found.published.to_csv(),
        "table.md": table_page.markdown(found),
        "errors.md": errors_page.markdown(found),
        "factors.csv": study.csv_of(found.factors.rows, factors.COLUMNS),
        "report.html": page.page(found, drawn),
    }
    if found.study is not None:
        made["seeds.csv"] = study.csv_of(found.study.rates, study.RATES)
        made["seeds_differences.csv"] = study.csv_of(found.study.gaps, study.GAPS)
    return made


STAGE = Stage("report", run, needs=("evaluate", "translate"), reads=("report",), sections=SECTIONS)
