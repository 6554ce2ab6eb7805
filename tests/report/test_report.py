"""The report, made from a workdir as the other stages leave it: what it publishes, what it says, what it refuses."""

import csv
import json
import re

import pytest
from scored_workdir import RATES, Folder, complete, evaluated, settings

from moejax.report import figures, load, markup, routing
from moejax.report import stage as report
from moejax.score import tables


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Folder:
    work = complete(evaluated(tmp_path_factory.mktemp("work")))
    report.run(settings(), work)
    return work


@pytest.fixture(scope="module")
def summary(work) -> dict:
    return json.loads(work.path("report", "summary.json").read_text())


def read_csv(work: Folder) -> list[dict]:
    with open(work.path("report", "table.csv"), newline="") as file:
        return list(csv.DictReader(file))


def test_csv_has_the_published_columns_groups_and_systems_only(work):
    rows = read_csv(work)
    assert tuple(rows[0]) == tables.COLUMNS
    assert {r["group"] for r in rows} == {"all", "cohort", "speaker", "etiology"}
    expected = [
        *RATES,
        "lora_typical",
        "lora_slow_speech",
        "lora_tremor",
        *(f"lora_{s}" for s in "A1 A2 B1 B2 C1 C2".split()),
    ]
    assert list(dict.fromkeys(r["system"] for r in rows)) == expected
    own = [r for r in rows if r["system"] == "lora_A1"]
    assert {(r["group"], r["name"], r["utterances"]) for r in own} == {
        ("all", "all", "8"),
        ("cohort", "typical", "8"),
        ("speaker", "A1", "8"),
    }


def test_summary_has_what_other_programs_read(summary):
    assert {**summary["stages"], "report": 0} == {"describe": 12.5, "joint": 12.5, "report": 0}
    assert summary["systems"]["lora"]["trainable"] == 1000
    assert summary["systems"]["moe"]["wer"] < summary["systems"]["base"]["wer"]
    assert set(summary["routing"]) >= {"load", "max_load", "entropy", "gate_accuracy", "majority", "prior"}
    assert summary["translation"] == {"moe.offline": {"bleu": 41.25, "chrf": 60.5, "signature": "nrefs:1|v:2"}}
    assert set(summary["versions"]) >= {"python", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy"}
    assert (summary["config_digest"], summary["data_digest"]) == ("c0ffee", "da7a")


def test_atypical_rate_is_that_of_the_other_cohorts(work, summary):
    rows = [r for r in read_csv(work) if r["system"] == "base" and r["group"] == "cohort" and r["name"] != "typical"]
    expected = sum(int(r["errors"]) for r in rows) / sum(int(r["words"]) for r in rows)
    assert summary["systems"]["base"]["wer_atypical"] == pytest.approx(expected)


def test_own_adapters_are_put_together_utterance_by_utterance(work):
    found = load.evaluation(work, str.lower, "typical")
    assert found.derived == ["own_cohort", "own_speaker"]
    by_id = {r["id"]: r for r in found.of("lora_tremor") if r["cohort"] == "tremor"}
    for row in found.of("own_cohort"):
        assert row["cohort"] != "tremor" or row["hypothesis"] == by_id[row["id"]]["hypothesis"]
    assert len(found.of("own_cohort")) == len(found.of("base")) == len(found.of("own_speaker"))
    assert "own_cohort" in work.path("report", "table.md").read_text()


def test_figures_are_drawn_and_the_page_stands_alone(work):
    names = sorted(p.name for p in work.path("report", "figures").iterdir())
    assert names == ["learning_curves.png", "load.png", "wer_by_cohort.png", "wer_by_speaker.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in work.path("report", "figures").iterdir())
    page = work.path("report", "report.html").read_text()
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r'(src|href)="(?!data:|#)', page) and "@import" not in page and "url(" not in page
    assert "width=device-width" in page and "a&lt;b" in page and "<b>two</b>" in page


def test_page_opens_with_the_comparison_and_its_interval(work, summary):
    gap = next(d for d in summary["differences"] if (d["system"], d["against"]) == ("moe", "lora_total"))
    text = f"against lora_total {tables.points(gap['difference'])} points [{tables.points(gap['low'])}, "
    assert text in work.path("report", "report.html").read_text()
    assert f"{tables.points(gap['high'])}]: {tables.verdict(gap)}" in work.path("report", "report.html").read_text()


def test_errors_say_whom_it_helps_and_count_every_speaker(work):
    text = work.path("report", "errors.md").read_text()
    rows = {(r["system"], r["name"]): float(r["wer"]) for r in read_csv(work) if r["group"] == "speaker"}
    better = sum(rows["moe", s] < rows["base", s] for s in ("A1", "A2", "B1", "B2", "C1", "C2"))
    assert f"moe against base: lower WER for {better} of 6 speakers" in text
    assert re.search(r"\| tremor: C2 \| no \| 8 \|", text) and "| all speakers new (1) | no | 8 |" in text
    assert "## Kinds of errors" in text and "## Most frequent errors" in text and "## Worst utterances of `moe`" in text


def test_kinds_of_errors_sum_to_the_rate(work):
    line = next(x for x in work.path("report", "errors.md").read_text().splitlines() if x.startswith("| moe | "))
    total, *kinds = (float(c) for c in line.split("|")[2:6])
    assert sum(kinds) == pytest.approx(total, abs=0.2)


def test_console_shows_table_routing_and_place(work):
    text = report.console_summary(work)
    head, first = text.splitlines()[:2]
    assert head.split() == [
        "WER",
        "%",
        "all",
        "(48)",
        "typical",
        "(16)",
        "slow",
        "speech",
        "(16)",
        "tremor",
        "(16)",
        "trained",
    ]
    assert first.startswith("base ") and "lora_A1*" in text and "* scored on its own utterances only" in text
    assert "share of the routing weight, by expert: " in text
    assert "gate accuracy 0.90 after the gate stage against majority 0.33, nuisance 0.41" in text
    assert text.splitlines()[-3:-1] == ["translation  WER %  BLEU  chrF", "moe.offline      -  41.2  60.5"]
    assert text.endswith(str(work.path("report", "report.html")))


def test_expert_load_weighs_cohorts_by_their_utterances(summary):
    within = [[1.0, 0.0], [0.0, 1.0]]  # each cohort has its own expert
    assert routing.expert_load(within, ["a", "b"], {"a": 30, "b": 10}).tolist() == [0.75, 0.25]
    whole = [[0.3, 0.1], [0.2, 0.4]]
    assert routing.expert_load(whole, ["a", "b"], {"a": 30, "b": 10}) == pytest.approx([0.4, 0.6])
    assert sum(summary["routing"]["expert_load"]) == pytest.approx(1)


def test_evaluate_alone_is_enough_and_what_lacks_is_said(tmp_path):
    work = evaluated(tmp_path, rates={"base": 0.5, "moe": 0.2}, adapters=False)
    report.run(settings(figures=False), work)
    assert {line.removeprefix("report: without ") for line in work.lines} == {
        "evaluate/routing.json",
        "translate/summary.json",
        "describe/summary.md",
        "describe/leakage.md",
        "config.json",
    }
    assert json.loads(work.path("report", "summary.json").read_text())["routing"] == {}
    assert "routing weight" not in report.console_summary(work)


def test_without_manifest_there_is_one_group(tmp_path):
    work = evaluated(tmp_path, rates={"base": 0.5}, adapters=False)
    work.path("describe", "manifest.parquet").unlink()
    report.run(settings(), work)
    assert [r["group"] for r in read_csv(work)] == ["all"]
    assert "report: without describe/manifest.parquet (no speakers, no cohorts)" in work.lines


def test_normaliser_decides_what_counts(tmp_path):
    work = Folder(tmp_path)
    work.put("evaluate/systems.json", {"base": {"trainable": 0, "total": 1}})
    work.put("evaluate/base.jsonl", [{"id": "u", "reference": "Yes, sir.", "hypothesis": "yes sir"}])
    report.run(settings(figures=False), work)
    assert read_csv(work)[0]["errors"] == "0"
    report.run(settings(figures=False, normalizer="none"), work)
    assert read_csv(work)[0]["errors"] == "2"


def test_two_runs_write_the_same_bytes(tmp_path, monkeypatch):
    work = complete(evaluated(tmp_path, rates={"base": 0.5, "moe": 0.2}, adapters=False))
    contents = []
    monkeypatch.setattr(report.time, "perf_counter", lambda: 0.0)  # summary.json says how long the report took
    for _ in range(2):
        report.run(settings(), work)
        contents.append({p.name: p.read_bytes() for p in sorted(work.path("report").rglob("*.*")) if p.is_file()})
    assert contents[0] == contents[1] and len(contents[0]) == 10


@pytest.mark.parametrize(
    ("name", "content", "error", "message"),
    [
        ("evaluate/systems.json", None, FileNotFoundError, "systems.json is missing: run the stage evaluate"),
        ("evaluate/moe.jsonl", None, FileNotFoundError, "moe.jsonl is missing though systems.json lists 'moe'"),
        ("evaluate/moe.jsonl", "{\n", ValueError, "moe.jsonl line 1 is not JSON"),
        ("evaluate/moe.jsonl", '{"id": "?", "reference": "", "hypothesis": ""}\n', ValueError, "utterance '\\?'"),
        ("evaluate/systems.json", "{}", ValueError, "lists no system"),
    ],
)
def test_broken_input_is_named_and_nothing_is_written(tmp_path, name, content, error, message):
    work = evaluated(tmp_path, each=1, rates={"base": 0.5, "moe": 0.2}, adapters=False)
    path = work.path(*name.split("/"))
    path.unlink()
    if content is not None:
        path.write_text(content)
    with pytest.raises(error, match=message) as caught:
        report.run(settings(), work)
    assert "\n" not in str(caught.value)
    assert not work.path("report").exists()


def test_without_the_typical_cohort_there_is_no_atypical_rate(tmp_path):
    work = evaluated(tmp_path, rates={"base": 0.5}, adapters=False)
    for typical in ("", "nobody"):
        report.run(settings(figures=False, typical=typical), work)
        assert json.loads(work.path("report", "summary.json").read_text())["systems"]["base"]["wer_atypical"] is None


def test_gate_is_judged_against_its_own_mean_route(tmp_path):
    work = evaluated(tmp_path, rates={"base": 0.5, "moe": 0.1, "moe_mean_gate": 0.3}, adapters=False)
    work.put("evaluate/routing.json", {"experts": 2, "cohorts": [], "load": [], "top1": [1.0, 0.0], "gate_rows": 7})
    work.put(
        "cluster/agreement.json",
        {
            "method": "hdbscan",
            "level": "speaker",
            "found": 2,
            "num_experts": 4,
            "match": {"action": "split"},
            "noise_share": 0.2,
            "noise_policy": "soft",
            "stability": None,
        },
    )
    report.run(settings(figures=False), work)
    summary = json.loads(work.path("report", "summary.json").read_text())
    wer = {name: system["wer"] for name, system in summary["systems"].items()}
    worth = summary["routing"]["gate_worth"]
    assert worth["difference"] == pytest.approx(wer["moe"] - wer["moe_mean_gate"]) and worth["high"] < 0
    page = work.path("report", "report.html").read_text()
    assert "hdbscan found 2 clusters of speakers in the sample, with 20.0 % of its utterances in none" in page
    assert "Expert 0 has the largest weight in 100.0 % of the utterances; never: 1." in page


@pytest.mark.parametrize(
    ("said", "found", "expected"),
    [
        ("one two", "one two", False),
        ("one one one one", "one one one one", False),  # so it was said
        ("a b c d e f", "a b a b a b a b", True),
        ("a b c d e f", "a b a b a b", False),
        ("a b", "p q r s t u v w x", True),
        ("a b", "", False),
    ],
)
def test_running_on_is_repetition_or_far_too_many_words(said, found, expected):
    assert load.runs_on(said, found) == expected


def test_running_mean_keeps_length_and_level():
    assert figures.running_mean([1.0, 1.0, 1.0], 5) == [1, 1, 1]
    assert figures.running_mean([0.0, 3.0, 6.0, 3.0], 1) == [1.5, 3.0, 4.0, 4.5]


def test_missing_spelling_table_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="report.spelling names 'no.json'"):
        report.run(settings(normalizer="english", spelling="no.json"), Folder(tmp_path))


def test_markdown_becomes_html_without_letting_markup_through():
    text = "# T\n\nA `x<y` **b**\nmore\n\n- one\n- two\n\n| a | b |\n|---|---:|\n| p\\|q | <i> |\n"
    made = markup.markdown(text)
    assert "<h1>T</h1>" in made and "<p>A <code>x&lt;y</code> <b>b</b> more</p>" in made
    assert "<ul><li>one</li><li>two</li></ul>" in made
    assert "<td>p|q</td><td>&lt;i&gt;</td>" in made
