"""What the report says is found once: whatever writes or draws sees findings, never an utterance."""

import ast
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
from scored_workdir import complete, evaluated, settings

from moejax.report import console, errors_page, findings, inputs, page, summary, table_page
from moejax.report import stage as report
from moejax.score import tables

RENDERERS = (
    *("console", "errors_page", "factors_page", "figures", "markup", "page", "sentences", "study_page"),
    *("summary", "table_page"),
)
ROOM = Path(report.__file__).parent


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return complete(evaluated(tmp_path_factory.mktemp("found"), rates={"base": 0.5, "lora": 0.3, "moe": 0.2}))


@pytest.fixture(scope="module")
def found(work):
    return findings.find(settings(), inputs.read(settings(), work))


@pytest.mark.parametrize("name", RENDERERS)
def test_renderers_know_nothing_of_evaluations(name):
    known = {
        alias.name
        for node in ast.walk(ast.parse((ROOM / f"{name}.py").read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "moejax.report"
        for alias in node.names
    }
    assert not known & {"load", "inputs"}


def test_findings_are_plain_and_frozen(found):
    with pytest.raises(FrozenInstanceError):
        found.focus = "base"
    assert (found.focus, found.errors.before, found.errors.baseline) == ("moe", ["base", "lora"], "lora")
    assert found.derived == {"own_cohort": "cohort", "own_speaker": "speaker"}
    assert found.headline.wer == found.table.row("moe")["wer"] and found.headline.base == found.table.row("base")["wer"]


def test_served_speakers_add_up(found):
    errors = found.errors
    assert [s.label for s in errors.served][:3] == ["typical: A1", "typical: A2", "slow speech: B1"]
    assert sum(s.utterances for s in errors.served) == found.headline.utterances
    assert [(s.name, s.speakers, s.heard) for s in errors.voices] == [("heard in training", 5, True), ("new", 1, False)]
    for balance in errors.balance:
        changes = [s.changes[balance.against].difference for s in errors.served]
        assert balance.better == sum(c < 0 for c in changes) and balance.speakers == 6
        assert [c for c, _ in balance.worse] == sorted((c for c in changes if c > 0), reverse=True)


def test_kinds_of_errors_go_by_system_and_cohort(found):
    for (system, cohort), kinds in found.errors.kinds.items():
        row = found.table.row(system, *(("all", "all") if cohort is None else ("cohort", cohort)))
        assert kinds.wer == row["wer"]
        assert kinds.substitutions + kinds.deletions + kinds.insertions == pytest.approx(kinds.wer)


def test_writing_twice_gives_the_same_text(found):
    for write in (errors_page.markdown, table_page.markdown, summary.of):
        assert write(found) == write(found)


def test_console_speaks_of_the_published_files_alone(found):
    table = tables.from_csv(found.published.to_csv())
    lines = console.lines(table, summary.of(found))
    assert not any(name in line for name in found.derived for line in lines)
    assert lines[1].startswith("base ") and f" {tables.percent(found.headline.base)} " in lines[1]


def test_references_without_words_are_told_of_everywhere(found):
    assert not any("without words" in line for line in console.lines(found.published, summary.of(found)))
    found = replace(found, table=replace(found.table, empty=("u<1>", "u2")))
    lines = console.lines(found.published, summary.of(found))
    assert "references without words after normalisation: 2 (the first: u<1>)" in lines
    told = "2 utterances have no words left in the reference after normalisation"
    assert told in table_page.markdown(found) and told in page.page(found, {})
    assert summary.of(found)["empty_references"] == ["u<1>", "u2"]
