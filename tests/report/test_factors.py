"""Where errors occur: what was planted in a corpus is what the report names, in sentences with intervals."""

import base64
import csv
import io
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from scored_workdir import WORDS, Folder, complete, evaluated, settings, spoil

from moejax.report import factors
from moejax.report import stage as report
from moejax.score import bleu

SPEAKERS, EACH = 40, 20
SYSTEMS = {"base": (0.0, 0.0), "moe": (-0.15, 0.1)}  # added to the rate of errors: majority accent, typical speech


def planted(root, rng) -> Folder:
    """A workdir of two systems that read ALS, telephones and the noisiest third worse. The first ten speakers are
    typical: moe reads them worse than base does, and of the others those better who have the accent of four fifths.
    """
    work, rows, rates = Folder(root), [], []
    people = np.arange(SPEAKERS)
    device = np.array(["laptop", "telephone", "tablet"])[rng.permutation(people % 3)]
    gender = np.array(["f", "m"])[rng.permutation(people % 2)]
    accent = np.array(["us", "us", "us", "us", "uk"])[rng.permutation(people % 5)]
    own = rng.normal(0, 0.02, SPEAKERS)
    for p in people:
        etiology = "" if p < 10 else ("als", "parkinson", "stroke")[p % 3]
        for u in range(EACH):
            text = " ".join(rng.choice(WORDS, rng.integers(4, 12)))
            about = {"id": f"s{p}-{u}", "text": text, "speaker": f"s{p:02d}", "etiology": etiology, "split": "test"}
            about |= {"cohort": "typical" if p < 10 else "atypical", "device": device[p], "gender": gender[p]}
            about |= {"accent": accent[p], "audio": f"describe/audio/s{p}-{u}.flac"}
            about |= {"snr": float(rng.uniform(0, 45)), "silence": float(rng.uniform(0.1, 0.4))}
            rows.append(about | {"seconds": float(rng.uniform(2, 8))})
            worse = 0.25 * (etiology == "als") + 0.2 * (device[p] == "telephone") + 0.2 * (about["snr"] < 15)
            rates.append(0.25 + worse + own[p])
    work.path("describe").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), work.path("describe", "manifest.parquet"))
    for system, (gain, harm) in SYSTEMS.items():
        lines = []
        for row, rate in zip(rows, rates, strict=True):
            change = harm if row["cohort"] == "typical" else gain * (row["accent"] == "us")
            said = spoil(row["text"], rate + change, rng)
            lines.append({"id": row["id"], "reference": row["text"], "hypothesis": said})
        work.put(f"evaluate/{system}.jsonl", lines)
    work.put("evaluate/systems.json", {s: {"trainable": 1, "total": 2, "group": None} for s in SYSTEMS})
    translated = [{"id": x["id"], "hypothesis": x["hypothesis"], "reference": x["reference"]} for x in lines]
    work.put("translate/moe.offline.jsonl", translated)
    whole = bleu.score([x["hypothesis"] for x in translated], [x["reference"] for x in translated])
    work.put("translate/summary.json", {"moe.offline": whole})
    return work


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Folder:
    work = planted(tmp_path_factory.mktemp("planted"), np.random.default_rng(5))
    report.run(settings(figures=False, draws=400), work)
    return work


@pytest.fixture(scope="module")
def summary(work) -> dict:
    return json.loads(work.path("report", "summary.json").read_text())["factors"]


@pytest.fixture(scope="module")
def rows(work) -> dict:
    found = csv.DictReader(io.StringIO(work.path("report", "factors.csv").read_text()))
    return {tuple(r[k] for k in ("system", "measure", "factor", "level")): r for r in found}


@pytest.mark.parametrize(
    ("system", "worse"),
    [
        ("base", {"etiology": ["als"], "device": ["telephone"], "SNR": ["up to 15.4 dB"]}),
        ("moe", {"etiology": ["als", "(none)"], "device": ["telephone"], "SNR": ["up to 15.4 dB"], "accent": ["uk"]}),
    ],
)
def test_the_planted_effects_are_found_and_the_intervals_of_others_cover_zero(summary, system, worse):
    model = summary["models"][system]
    named = {f["factor"]: f["effects"] for f in model["factors"] if f["p_holm"] < 0.05}
    found = {factor: sorted(e["level"] for e in of if e["low"] > 0) for factor, of in named.items()}
    assert found == {factor: sorted(levels) for factor, levels in worse.items()}
    free = [f for f in model["factors"] if f["factor"] not in ("etiology", "device", "SNR", "accent")]
    assert {f["factor"] for f in free} == {"gender", "silence", "words", "speaking rate"}
    assert all(f["p_holm"] > 0.05 for f in free)
    covers = [e["low"] < 0 < e["high"] for f in free for e in f["effects"]]
    assert covers.count(False) <= 1  # of eleven 95 % intervals; test_effects counts them over many corpora
    assert model["confounded"] == ["typical speech"]  # those without an etiology


def test_the_sentences_name_them_and_answer_for_typical_speech_and_the_majority_accent(work, summary):
    text = " ".join(summary["sentences"])
    for named in ("by etiology: als +", "by device: telephone +", "by SNR: up to "):
        assert f"`moe` makes more errors {named}" in text
    assert "Not told apart from the factors before them: typical speech." in text
    typical, found = summary["typical"]["moe"], summary["majority"]["moe"]
    assert 0 < typical["low"] < typical["difference"] < typical["high"] and typical["utterances"] == 10 * EACH
    assert "Does adaptation hurt typical speech? yes: `moe` against `base` +" in text
    assert found["accent"] == "us" and found["share"] == pytest.approx(0.8)
    assert found["inside"]["high"] < 0 < found["apart"]["low"] and found["outside"]["high"] > 0
    assert "majority accent (us, 80 %)? a gain is shown there alone: `moe` against `base` -" in text
    assert "the others gain less." in text
    page, errors = (work.path("report", name).read_text() for name in ("report.html", "errors.md"))
    assert "Where the errors occur</h" in page and "What explains them</h" in page
    for sentence in summary["sentences"]:
        assert f"- {sentence}" in errors
        shown = re.sub("`([^`]*)`", r"<code>\1</code>", sentence.replace("<0", "&lt;0"))
        assert f"<li>{shown}</li>" in page


def test_rates_by_level_add_up_and_their_intervals_hold_them(work, rows):
    total = int(next(csv.DictReader(io.StringIO(work.path("report", "table.csv").read_text())))["utterances"])
    factors = {key[2] for key in rows if key[1] == "wer"}
    assert factors == {
        *("etiology", "typical speech", "device", "accent", "gender"),
        *("SNR", "silence", "words", "seconds", "speaking rate"),
    }
    for factor in factors:
        of = [r for (system, measure, f, _), r in rows.items() if (system, measure, f) == ("moe", "wer", factor)]
        assert sum(int(r["utterances"]) for r in of) == total == SPEAKERS * EACH
        assert all(float(r["low"]) < float(r["value"]) < float(r["high"]) for r in of)
    thirds = [int(r["utterances"]) for (s, m, f, _), r in rows.items() if (s, m, f) == ("moe", "wer", "SNR")]
    assert thirds == [267, 266, 267]
    worst = rows["moe", "wer", "device", "telephone"]
    assert float(worst["difference_low"]) > 0 and float(worst["difference"]) > 0.1


def test_bleu_by_level_is_that_of_its_utterances(work, rows):
    lines = [json.loads(x) for x in work.path("translate", "moe.offline.jsonl").read_text().splitlines()]
    manifest = {r["id"]: r for r in pq.read_table(work.path("describe", "manifest.parquet")).to_pylist()}
    for device in ("laptop", "telephone", "tablet"):
        members = [x for x in lines if manifest[x["id"]]["device"] == device]
        expected = bleu.score([x["hypothesis"] for x in members], [x["reference"] for x in members])["bleu"]
        row = rows["moe.offline", "bleu", "device", device]
        assert float(row["value"]) == pytest.approx(expected, abs=1e-3)
        assert float(row["low"]) < expected < float(row["high"])
    assert float(rows["moe.offline", "bleu", "device", "telephone"]["difference_high"]) < 0
    assert "BLEU of `moe.offline`" in work.path("report", "errors.md").read_text()


def test_a_manifest_that_tells_nothing_leaves_length_alone(tmp_path):
    work = evaluated(tmp_path, rates={"base": 0.5}, adapters=False)
    report.run(settings(figures=False, typical=""), work)
    rows = list(csv.DictReader(io.StringIO(work.path("report", "factors.csv").read_text())))
    assert {r["factor"] for r in rows} == {"etiology", "words"}
    assert "Does adaptation hurt" not in work.path("report", "errors.md").read_text()


def test_many_names_become_few_levels_and_many_numbers_thirds():
    names = np.array([f"phone {i % 40}" for i in range(200)] + ["laptop"] * 50 + [factors.NONE] * 10)
    level_U, order = factors._named(names)
    assert len(order) == factors.MOST_LEVELS + 1 and order[-2:] == ["others", factors.NONE]
    assert (level_U == "laptop").sum() == 50 and (level_U == factors.NONE).sum() == 10 and len(level_U) == 260
    level_U, order = factors._named(np.array([*map(str, np.arange(30) / 7), factors.NONE]))
    assert order == ["up to 1.38", "over 1.38 up to 2.76", "over 2.76", factors.NONE]
    assert [(level_U == level).sum() for level in order] == [10, 10, 10, 1]


def test_the_worst_utterances_are_played_from_the_page_where_that_is_asked(tmp_path):
    work = complete(evaluated(tmp_path, rates={"base": 0.5, "moe": 0.3}, adapters=False))
    table = pq.read_table(work.path("describe", "manifest.parquet"))
    names = [f"describe/audio/{name}.{'wav' if i % 2 else 'flac'}" for i, name in enumerate(table["id"].to_pylist())]
    pq.write_table(table.append_column("audio", pa.array(names)), work.path("describe", "manifest.parquet"))
    rng = np.random.default_rng(0)
    work.path("describe", "audio").mkdir()
    for name in names[:-1]:  # one went since
        soundfile.write(work.path(*name.split("/")), 0.1 * rng.standard_normal(1600), 16000)
    report.run(settings(figures=False), work)
    assert "<audio" not in work.path("report", "report.html").read_text()
    worst = [
        line.split("|")[1:] for line in work.path("report", "errors.md").read_text().split("## Worst")[1].splitlines()
    ]
    paths = [cells[-2].strip() for cells in worst if len(cells) > 2 and "describe/audio" in cells[-2]]
    assert 0 < len(paths) <= 20 and set(paths) <= set(names)
    report.run(settings(figures=False, embed_audio=True), work)
    page = work.path("report", "report.html").read_text()
    sounds = re.findall(r'<audio controls preload="none" src="data:audio/(flac|wav);base64,([^"]+)">', page)
    assert [kind for kind, _ in sounds] == [path.rsplit(".", 1)[1] for path in paths if path != names[-1]]
    for (_, data), path in zip(sounds, [path for path in paths if path != names[-1]], strict=True):
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(data)))
        assert rate == 16000 and np.array_equal(samples, soundfile.read(work.path(*path.split("/")))[0])
