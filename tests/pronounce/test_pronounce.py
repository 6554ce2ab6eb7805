"""Stages `rater` and `goodness`, and `moejax pronounce` with what they learnt, on a network of the published shape with
random weights. What real voices give is in docs/pronunciation.md.
"""

import contextlib
import csv
import json
import re
import shutil

import numpy as np
import pytest
import soundfile
import tiny_job
import tiny_model

import moejax
from moejax.__main__ import guarded
from moejax.errors import BadValue, NotThere
from moejax.pronounce import judging, page
from moejax.training import rater
from moejax.work.context import embeddings
from moejax.work.folder import Work

pytestmark = pytest.mark.job


def job_of(**changes):
    settings = dict(model__pretrained="weights", base__steps=0, base__timestamps=False, model__times=0.0)
    learnt = dict(ctc__steps=160, ctc__batch_size=16, ctc__learning_rate=1e-2, ctc__hidden=64, ctc__warmup=10)
    rated = dict(rater__scores=("clear", "low"), rater__draws=50, rater__folds=4, data__split="speaker_disjoint")
    apart = dict(test_speakers=("cem", "fay"), dev_speakers=("bob",))
    split = dict(data__split_options=apart, goodness__utterances=12)
    return tiny_job.config(**{**settings, **learnt, **rated, **split, **changes})


def write_scored(root):
    """The tiny corpus with two columns of experts: how little breath there is, and the share of the lowest word; one
    clip has no scores.
    """
    tiny_job.write_corpus(root, per_speaker=12)
    with open(root / "metadata.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    for number, row in enumerate(rows):
        noise = 0.2 * np.sin(7.0 * number)
        clear, low = 8 - 4 * (row[3] == "breathy") + noise, 10 * row[1].split().count("ba") / len(row[1].split())
        row += ["", ""] if number == 3 else [f"{clear:.2f}", f"{low:.2f}"]
    tiny_job.write_table(root, rows, columns=(*tiny_job.COLUMNS, "clear", "low"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """corpus/, weights/ and a workdir W/ with rater and calibrated head."""
    place = tmp_path_factory.mktemp("pronounce")
    with contextlib.chdir(place), tiny_job.quick():
        write_scored(place / "corpus")
        tiny_model.write(place / "weights", timed=True)
        moejax.run(job_of(), "W", quiet=True, stages=("goodness", "rater"))
    return place


@pytest.fixture(scope="module")
def judge(folder):
    with contextlib.chdir(folder):
        return judging.opened("W")


def rows_of(file):
    with open(file, newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_the_rater_hears_what_experts_heard_and_its_controls_do_not(folder):
    rows = {(r["score"], r["speakers"], r["what"]): r for r in rows_of(folder / "W/rater/table.csv")}
    assert len(rows) == 2 * 3 + 2 * 2
    for speakers in ("folds of speakers", "unseen speakers"):
        assert float(rows["clear", speakers, "encoder"]["correlation"]) > 0.9
        assert float(rows["low", speakers, "encoder"]["correlation"]) > 0.5
        assert float(rows["low", speakers, "tempo"]["correlation"]) < 0.3  # how long a clip is says nothing of it
    assert float(rows["low", "folds of speakers", "chance"]["correlation"]) < 0.2
    said = rows_of(folder / "W/rater/predictions.csv")
    assert {row["speaker"] for row in said if row["part"] == "unseen"} == {"cem", "fay"}
    assert not {row["speaker"] for row in said if row["part"] == "folds"} & {"cem", "fay"}
    assert "ann-003" not in " ".join(row["id"] for row in said)  # it has no scores
    assert "tempo alone" in (folder / "W/rater/table.md").read_text()


def test_speakers_are_apart_in_folds_and_chance_is_dealt_to_others():
    speakers = np.repeat(["a", "b", "c", "d"], [3, 2, 4, 1])
    score = np.arange(10.0)[:, None]
    dealt = rater.exchanged(score, speakers, 0)
    assert sorted(dealt[:, 0]) == sorted(score[:, 0]) and (dealt != score).mean() > 0.6
    # A speaker's own mark, which says nothing about others, does not help where folds keep speakers apart
    rng = np.random.default_rng(0)
    names = np.repeat([f"s{k}" for k in range(12)], 8)
    score = np.repeat(rng.standard_normal(12), 8)[:, None]
    mark = np.eye(12)[np.repeat(np.arange(12), 8)] + 0.01 * rng.standard_normal((96, 12))
    apart = rater.crossed(mark, score, names, 4)
    leaking = rater.crossed(mark, score, np.array([f"u{k}" for k in range(96)]), 4)
    assert np.corrcoef(apart[:, 0], score[:, 0])[0, 1] < 0.3 < 0.95 < np.corrcoef(leaking[:, 0], score[:, 0])[0, 1]


def test_a_changed_score_learns_again_and_nothing_else_runs(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "again")
    with contextlib.chdir(tmp_path / "again"), tiny_job.quick():
        table = tmp_path / "again/corpus/metadata.csv"
        before = (tmp_path / "again/W/log.txt").read_text()
        moejax.run(job_of(), "W", quiet=True, stages=("rater",))
        assert "[rater] finished before" in (tmp_path / "again/W/log.txt").read_text().removeprefix(before)
        table.write_text(re.sub(r",8\.", ",7.", table.read_text()))
        moejax.run(job_of(), "W", quiet=True, stages=("rater",))
        said = (tmp_path / "again/W/log.txt").read_text().rsplit("[describe]", 1)[1]
        assert "[embed] finished before" in said and "[rater] finished before" not in said


def test_the_command_scores_as_the_stage_does(folder, judge):
    """A clip alone, as the command hears it, against the embedding that the stage kept and its own regression."""
    work = Work(folder / "W")
    kept = embeddings(work)
    row = list(kept["id"]).index("wav/ann-005")
    p = judge.rater._params
    wanted_K = ((kept["embedding"][row] - p["mean"]) / p["scale"]) @ p["weight"] + p["bias"]
    found = judge(judge.recognizer.read(folder / "corpus/wav/ann-005.wav"), "ba do").scores
    np.testing.assert_allclose(
        [found[name][0] for name in ("clear", "low")], np.clip(wanted_K, p["lowest"], p["highest"]), atol=0.02
    )


def test_sounds_that_were_said_score_higher(folder, judge):
    """In the mouth of somebody whom the head knows: so little speech teaches a random encoder's head nothing else."""
    table = {row["file"]: row["text"] for row in rows_of(folder / "corpus/metadata.csv")}
    right, wrong = [], []
    for file in [name for name in table if "ann" in name and len(table[name].split()) > 1][:6]:
        audio_S = judge.recognizer.read(folder / "corpus" / file)
        words = table[file].split()
        right += [part.score for part in judge(audio_S, " ".join(words)).words[0].parts]
        other = next(word for word in tiny_job.WORDS if word != words[0])
        wrong += [part.score for part in judge(audio_S, " ".join([other, *words[1:]])).words[0].parts]
    assert np.mean(right) > np.mean(wrong) + 8
    text = (folder / "W/goodness/table.md").read_text()
    assert "speakers whom nothing was learnt of" in text and "| letter |" in text and "| word |" in text


def test_files_and_page(folder, tmp_path, capsys):
    (tmp_path / "broken.wav").write_bytes(b"RIFF")
    for name in ("cem-000", "cem-001"):
        shutil.copy(folder / f"corpus/wav/{name}.wav", tmp_path)
        (tmp_path / f"{name}.txt").write_text("ba <do>")
    (tmp_path / "broken.txt").write_text("x")
    argv = ["pronounce", str(tmp_path), "--model", str(folder / "W"), "--to", "csv,json,html", "--output"]
    with contextlib.chdir(folder):
        assert guarded([*argv, str(tmp_path / "out")]) == 1
    said = capsys.readouterr().out
    assert re.search(r"broken.wav: .+\n", said) and re.search(r"cem-000.wav: clear \d+\.\d \+- \d", said)
    rows = rows_of(tmp_path / "out/pronunciation.csv")
    assert [row["file"] for row in rows] == ["cem-000", "cem-001"] and rows[0]["text_given"] == "True"
    found = json.loads((tmp_path / "out/cem-000.json").read_text())
    assert [word["text"] for word in found["words"]] == ["ba", "<do>"]
    assert [part["text"] for part in found["words"][1]["parts"]] == ["d", "o"]
    assert 0 <= found["words"][0]["score"] <= 100 and set(found["scores"]) == {"clear", "low"}
    html = (tmp_path / "out/pronunciation.html").read_text()
    assert len(re.findall('class="word[ "]', html)) == 4 and "&lt;do&gt;" in html and "<do>" not in html
    assert "http" not in html.replace("http-equiv", "") and html.count("data:audio/flac") == 2


def test_colours_go_from_red_to_green():
    assert page.colour(None).startswith("#") and page.colour(0).startswith("hsl(0 ")
    assert page.colour(100).startswith("hsl(120 ") and page.colour(50).startswith("hsl(60 ")


def test_what_is_refused(folder, judge, tmp_path):
    with contextlib.chdir(folder):
        with pytest.raises(NotThere, match="has neither rater nor head"):
            judging.opened(str(tmp_path))
        with pytest.raises(BadValue, match="no column 'accent' .rater.scores.; it has file, text, .*clear, low"):
            moejax.run(job_of(rater__scores=("accent",)), tmp_path / "W", quiet=True, stages=("rater",))
        with pytest.raises(BadValue, match="row 1, 'text' is '.*'; a score is a number, or empty"):
            rater.scores(_config(), ["text"])
        with pytest.raises(BadValue, match="rater.scores are columns of a folder's table; data.source is 'builtin'"):
            moejax.run(job_of(data__source="builtin"), tmp_path / "W", quiet=True, stages=("rater",))
        with pytest.raises(BadValue, match="rater.folds is 9, and 4 speakers were scored"):
            rater.run(_config(rater__folds=9), Work(folder / "W", quiet=True))
        with pytest.raises(BadValue, match="rater.scores needs the stage embed"):
            moejax.run(
                job_of(gate__num_experts=0, adapters__kinds=("lora",)), tmp_path / "W", quiet=True, stages=("rater",)
            )
    assert not (tmp_path / "W").exists()
    with pytest.raises(BadValue, match="nothing can be heard"):
        judge(np.zeros(0, np.float32), "ba")
    with pytest.raises(BadValue, match="does not fit"):
        judge(tiny_job.speak("ba", 1, 0.001, 0), "ba do ki mu " * 20)
    quiet = tmp_path / "a.wav"
    soundfile.write(quiet, tiny_job.speak("ba", 1, 0.001, 0), 16000)
    for argv, code in ((["pronounce", str(quiet)], 1), (["pronounce"], 2)):
        assert guarded(argv) == code
    assert guarded(["pronounce", str(quiet), "--model", str(folder / "W"), "--to", "xml"]) == 1


def _config(**changes):
    from moejax.job import config as configs

    return configs.resolve(job_of(**changes))
