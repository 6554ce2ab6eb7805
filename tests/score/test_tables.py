"""The table: sums, groups, partial systems, differences and the three forms it is written in."""

import csv
import io
import json
import math

import numpy as np
import pytest

from moejax.score import tables


def utterances(
    system: str, rate: float, *, speakers=("A1", "A2", "B1", "B2", "C1", "C2"), each=12, seed=0
) -> list[dict]:
    """Rows of one system; the words depend on the seed alone, so that systems share their references."""
    words = np.random.default_rng(seed).integers(3, 10, (len(speakers), each))
    errors = np.random.default_rng([seed, int(rate * 1000)]).binomial(words, rate)
    return [
        {
            "id": f"{s}-{u}",
            "system": system,
            "speaker": s,
            "cohort": {"A": "typical", "B": "tremor", "C": "slow"}[s[0]],
            "etiology": "" if s[0] == "A" else "als",
            "errors": int(errors[p, u]),
            "words": int(words[p, u]),
            "char_errors": int(errors[p, u]),
            "chars": int(5 * words[p, u]),
        }
        for p, s in enumerate(speakers)
        for u in range(each)
    ]


@pytest.fixture(scope="module")
def table():
    rows = utterances("base", 0.6) + utterances("lora", 0.3) + utterances("lora_total", 0.2) + utterances("moe", 0.2001)
    rows += [r | {"system": "lora_B1"} for r in utterances("lora", 0.3) if r["speaker"] == "B1"]
    return tables.build(rows, draws=200)


def test_columns_and_groups_are_the_published_ones(table):
    assert all(tuple(r) == tables.COLUMNS for r in table.rows)
    assert {r["group"] for r in table.rows} == set(tables.GROUPS)
    assert table.row("base", "all", "all") is not None
    assert table.row("base", "etiology", "als")["utterances"] == 48


def test_every_grouping_sums_to_all(table):
    for system in ("base", "moe"):
        whole = table.row(system)
        for group in ("cohort", "speaker"):
            parts = [r for r in table.rows if r["system"] == system and r["group"] == group]
            for key in ("utterances", "words", "errors"):
                assert sum(r[key] for r in parts) == whole[key]
        assert whole["wer"] == whole["errors"] / whole["words"]
        assert whole["wer_low"] <= whole["wer"] <= whole["wer_high"]
        assert whole["cer"] == pytest.approx(whole["wer"] / 5)


def test_a_system_on_its_own_speaker_only_is_marked_and_counts_only_these(table):
    assert table.partial == {"lora_B1": (12, 72)}
    assert table.row("lora_B1")["utterances"] == 12
    assert table.row("lora_B1", "cohort", "slow") is None
    text = table.to_markdown()
    assert f"| lora_B1 {tables.MARK} |" in text and "lora_B1 12 of 72" in text


def test_speakers_stand_cohort_by_cohort_in_the_order_asked_for():
    rows = utterances("base", 0.5, speakers=("C1", "A1", "B1", "A2"))
    built = tables.build(rows, cohorts=("typical", "slow"), draws=10)
    assert built.names("cohort") == ["typical", "slow", "tremor"]
    assert built.names("speaker") == ["A1", "A2", "C1", "B1"]
    head = built.to_markdown().splitlines()[2]
    assert head == (
        "| system | all (48) | typical (24) | slow (12) | tremor (12) "
        "| typical: A1 (12) | typical: A2 (12) | slow: C1 (12) | tremor: B1 (12) |"
    )


def test_differences_are_against_both_baselines_and_read_rightly(table):
    found = {(d["system"], d["against"]): d for d in table.differences}
    assert ("lora_total", "lora_total") not in found
    assert ("moe", "lora") in found and ("lora_B1", "lora_total") in found
    assert tables.verdict(found["base", "lora_total"]) == "worse"
    assert tables.verdict(found["lora_total", "lora"]) == "better"
    assert tables.verdict(found["moe", "lora_total"]) == "no difference shown"
    assert found["lora_B1", "lora"]["difference"] == 0.0 and found["lora_B1", "lora"]["utterances"] == 12


def test_csv_has_fractions_and_markdown_percent(table):
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert tuple(rows[0]) == tables.COLUMNS
    wer = table.row("base")["wer"]
    assert float(rows[0]["wer"]) == pytest.approx(wer, abs=1e-6) and wer < 1
    assert f"| base | {100 * wer:.1f} [" in table.to_markdown()
    assert "WER in percent" in table.to_markdown()


def test_csv_is_read_back(table):
    found = tables.from_csv(table.to_csv())
    assert (found.systems, found.groups, found.partial) == (table.systems, table.groups, table.partial)
    assert found.sizes == table.sizes
    for ours, theirs in zip(found.rows, table.rows, strict=True):
        assert ours == {k: pytest.approx(v, rel=1e-5) if isinstance(v, float) else v for k, v in theirs.items()}


def test_more_speakers_than_fit_across_are_rows_and_named_systems_their_columns():
    speakers = [f"{cohort}{i:02d}" for i in range(5) for cohort in "CAB"]
    rows = utterances("base", 0.5, speakers=speakers) + utterances("moe", 0.2, speakers=speakers)
    rows += [r | {"system": "lora_B01"} for r in utterances("lora", 0.3, speakers=speakers) if r["speaker"] == "B01"]
    built = tables.build(rows, cohorts=("typical", "slow", "tremor"), draws=10)
    lines = built.to_markdown(["moe"]).splitlines()
    # the etiology of the sample is that of two cohorts together: a group of its own
    assert lines[2] == "| system | all (180) | typical (60) | slow (60) | tremor (60) | etiology: als (120) |"
    start = lines.index("## Speakers") + 2
    assert lines[start] == "| speaker | cohort | utterances | moe |"
    assert [x.split(" | ")[0] for x in lines[start + 2 : start + 17]] == [
        f"| {c}{i:02d}" for c in "ACB" for i in range(5)
    ]
    assert "| speaker | cohort | utterances | base | moe |" in built.to_markdown(), "systems that scored everything"
    assert max(line.count("|") for line in lines) == 7


def test_an_etiology_that_is_a_cohort_by_another_name_is_not_shown_twice():
    speakers = [f"{cohort}{i:02d}" for i in range(7) for cohort in "AB"]
    lines = tables.build(utterances("base", 0.5, speakers=speakers), draws=10).to_markdown().splitlines()
    assert lines[2] == "| system | all (168) | typical (84) | tremor (84) |"


def test_dict_is_json_even_where_a_figure_is_undefined():
    row = utterances("base", 0.5)[0] | {"words": 0, "chars": 0}
    built = tables.build([row], draws=10)
    assert math.isnan(built.rows[0]["wer"])
    assert json.loads(json.dumps(built.to_dict(), allow_nan=False))["rows"][0]["wer"] is None
    assert "| base | - [-, -] |" in built.to_markdown()
    assert built.to_csv().splitlines()[1].startswith("base,all,all,1,0,")


def test_selecting_keeps_figures(table):
    part = table.select(["moe", "base", "absent"])
    assert part.systems == ["moe", "base"]
    assert part.row("moe") == table.row("moe")
    assert {d["system"] for d in part.differences} == {"moe", "base"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r[:1] * 2, "'A1-0' appears twice for system 'base'"),
        (lambda r: [r[0], r[0] | {"system": "moe", "words": 99}], "8 and 99 reference words in two systems"),
        (lambda r: [{k: v for k, v in r[0].items() if k != "chars"}], "a row lacks chars"),
    ],
)
def test_bad_rows_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        tables.build(change(utterances("base", 0.5)), draws=10)


def test_references_without_words_are_scored_counted_and_shown():
    rows = utterances("base", 0.1) + utterances("moe", 0.1)
    rows = [r | {"words": 0, "chars": 0, "errors": 2} if r["id"] == "A1-0" else r for r in rows]
    built = tables.build(rows, draws=50)
    assert built.empty == ("A1-0",) and built.select(["moe"]).empty == ("A1-0",)
    assert built.row("base")["utterances"] == 72 and built.row("base", "speaker", "A1")["errors"] >= 2
    assert (
        "1 utterance has no words left in the reference after normalisation; words heard there" in built.to_markdown()
    )
    assert built.to_dict()["empty_references"] == ["A1-0"]
    assert "no words left" not in tables.build(utterances("base", 0.1), draws=50).to_markdown()
