"""With many speakers: they are rows, never columns, in table.md and on the page, and the figure grows with them."""

import csv
import struct

import pytest
from scored_workdir import complete, evaluated, settings

from moejax.report import figures
from moejax.report import stage as report

COHORTS = {
    "typical": [f"T{i:02d}" for i in range(15)],
    "dysarthria after a stroke": [f"S{i:02d}" for i in range(15)],
    "slow": [f"L{i:02d}" for i in range(30)],
}
MAIN = ["base", "lora_total", "own_cohort", "own_speaker", "moe"]


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    rates = {"base": 0.5, "lora_total": 0.25, "moe": 0.2}
    folder = tmp_path_factory.mktemp("many")
    work = complete(evaluated(folder, cohorts=COHORTS, each=2, rates=rates), cohorts=COHORTS)
    report.run(settings(draws=20), work)
    return work


def test_groups_come_first_and_speakers_are_rows_of_a_table_of_their_own(work):
    lines = work.path("report", "table.md").read_text().splitlines()
    heads = [cells(line) for line, rule in zip(lines, lines[1:], strict=False) if rule.startswith("|---")]
    sizes = "all (120)", "typical (30)", "dysarthria after a stroke (30)", "slow (60)", "etiology: als (90)"
    assert heads[0] == ["system", *sizes]
    assert heads[1] == ["speaker", "cohort", "utterances", *MAIN]
    start = lines.index("## Speakers") + 4
    found = [cells(line)[:2] for line in lines[start : start + 60]]
    home = [(c, s) for c in ("typical", "dysarthria after a stroke", "slow") for s in sorted(COHORTS[c])]
    assert found == [[speaker, cohort] for cohort, speaker in home]


def test_page_has_the_same_table_and_the_csv_every_system(work):
    page = work.path("report", "report.html").read_text()
    line = next(x for x in work.path("report", "table.md").read_text().splitlines() if x.startswith("| S03 |"))
    assert "".join(f"<td>{cell}</td>" for cell in cells(line)) in page
    with open(work.path("report", "table.csv"), newline="") as file:
        by_speaker = [r for r in csv.DictReader(file) if r["group"] == "speaker"]
    assert {r["system"] for r in by_speaker} >= {"base", "moe", "lora_slow", "lora_S03"}
    assert len({r["name"] for r in by_speaker}) == 60


def test_figure_by_speaker_grows_with_them(work):
    png = work.path("report", "figures", "wer_by_speaker.png").read_bytes()
    width, height = struct.unpack(">II", png[16:24])
    assert height > 60 * figures.ROW * 160 > 2 * width


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
