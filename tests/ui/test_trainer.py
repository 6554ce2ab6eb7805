"""The tab of pronunciation, without a page: what `moejax.pronounce` says is shown, what is wrong is one sentence."""

import json
import re

import numpy as np
import pytest
import soundfile
from judges import judge
from paging import desk
from test_desk import refused
from test_page import Parsed
from tiny_model import RATE, record, sound

from moejax.errors import BadValue, NotAFolder, NotThere
from moejax.pronounce import curves, files, page
from moejax.pronounce.judging import Judged, Part, Word
from moejax.serve.models import Which
from moejax.ui import judgement, trainer
from moejax.ui.answers import Sound
from moejax.ui.trainer import Trainer


@pytest.fixture(scope="module")
def ours(models, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trainer")
    sung(folder / "phrases" / "one.wav", (200, 300))
    (folder / "phrases" / "one.txt").write_text("ma1 ma2")
    recognizer = models.get(Which("timed"))
    found = {"letters": judge(recognizer), "syllables": judge(recognizer, mandarin=True, rated=False)}
    found["scores"] = judge(recognizer, head=False)
    with desk(models, folder) as there:
        yield Trainer(there, found, trainer.sentences(folder / "phrases"))


def sung(path, hz, seconds=1.2):
    """A voice that glides between two heights."""
    path.parent.mkdir(exist_ok=True)
    phase = 2 * np.pi * np.cumsum(np.linspace(*hz, round(seconds * RATE))) / RATE
    soundfile.write(path, sum(0.2 / k * np.sin(k * phase) for k in range(1, 6)), RATE)
    return str(path)


@pytest.fixture
def talk(tmp_path):
    return str(record(tmp_path / "talk.wav", 2.0))


def shown(text) -> Parsed:
    page = Parsed(text)
    assert not page.of("mj-wrong"), page.text
    return page


def test_what_is_shown_is_what_the_command_says(ours, talk):
    page = shown(ours.judge(talk, "letters", "  ba   do "))
    wanted = ours.judges["letters"](sound(2.0), "ba do")
    words = page.of("mj-word")
    assert [word["data-told"].split(":")[0] for word in words] == ["ba", "do"]
    for word, one in zip(words, wanted.words, strict=True):
        assert float(word["data-at"]) == pytest.approx(one.start, abs=1e-3)
        told = [int(score) for score in re.findall(r"letter \w: (\d+)", word["data-told"])]
        assert told == pytest.approx([part.score for part in one.parts], abs=1.5)  # of 16 bits
    assert [word["tabindex"] for word in words] == ["0", "-1"]
    for name, (score, _) in wanted.scores.items():
        assert re.search(rf"{name}{score:.0f}|{name}{score:.1f}"[:-1], page.text)
    assert "of 0 to 10" in page.text and [tag for tag, _ in page.tags].count("audio") == 1


def test_without_a_sentence_what_is_heard_counts_and_that_is_said(ours, talk):
    assert "what the model heard" in shown(ours.judge(talk, "letters", " ")).text
    assert "what the model heard" not in shown(ours.judge(talk, "letters", "ba")).text
    page = shown(ours.judge(talk, "scores", ""))
    assert page.of("mj-scores") and not page.of("mj-word") and "has no head" in page.text


def test_curves_of_tones_are_compared_with_the_reference_of_the_sentence(ours, tmp_path):
    spoken, own = sung(tmp_path / "spoken.wav", (300, 200)), sung(tmp_path / "own.wav", (250, 260))
    plain = shown(ours.judge(spoken, "syllables", "ma1 ma2"))
    assert lines(plain) == {curves.YOURS} and "textbook" in plain.text
    assert lines(shown(ours.judge(spoken, "syllables", "ma1 ma2", 0))) == {curves.YOURS, curves.REFERENCE}
    assert lines(shown(ours.judge(spoken, "syllables", "ma1 ma3", 0))) == {curves.YOURS}  # it says something else
    assert lines(shown(ours.judge(spoken, "syllables", "ma1 ma3", 0, own))) == {curves.YOURS, curves.REFERENCE}
    (tmp_path / "letter.txt").write_text("no sound")
    page = Parsed(ours.judge(spoken, "syllables", "ma1", None, str(tmp_path / "letter.txt")))
    assert "The reference: The recording is unreadable" in page.text and page.of("mj-word")
    assert not lines(shown(ours.judge(spoken, "letters", "ba do", 0, own)))


def test_files_and_the_page_without_a_server_have_the_curves_too(ours, tmp_path):
    wave_S = ours.desk.heard(sung(tmp_path / "spoken.wav", (300, 200))).wave_S
    found = ours.judges["syllables"](wave_S, "ma1 ma2")
    kept = json.loads(files.as_json("spoken", found))
    tones = [part for word in kept["words"] for part in word["parts"] if part["kind"] == "tone"]
    assert tones and all(len(part["semitones"]) == 40 for part in tones)
    assert not any("semitones" in part for word in kept["words"] for part in word["parts"] if part not in tones)
    assert curves.YOURS in page.page({"spoken": found}, {"spoken": wave_S}, "x")


def lines(page) -> set:
    """Colours of the curves."""
    return {attrs["stroke"] for tag, attrs in page.tags if tag == "polyline"} - {"currentColor"}


def test_a_curve_goes_as_the_voice_does():
    def heights(rise):
        part = Part("tone", "2", 80.0, 0.0, 1.0, "4", tuple(np.linspace(-rise, rise, 40)))
        page = Parsed(curves.drawn([Word("ma2", 80.0, 0.0, 1.0, (part,))]))
        assert "sounds like tone 4" in page.text
        (points,) = [attrs["points"] for tag, attrs in page.tags if attrs.get("stroke") == curves.YOURS]
        return [float(pair.split(",")[1]) for pair in points.split()]

    assert heights(3)[0] > curves.HEIGHT / 2 > heights(3)[-1] and heights(-3)[0] < heights(-3)[-1]
    assert min(heights(40)) >= 0 and max(heights(40)) <= curves.HEIGHT
    assert curves.drawn([Word("a", 1.0, 0.0, 1.0, (Part("letter", "a", 1.0, 0.0, 1.0),))]) == ""


def test_a_third_tone_ends_high_only_where_the_sentence_ends():
    def shape(words):
        page = Parsed(curves.drawn(words))
        dashed = [a["points"].split() for tag, a in page.tags if tag == "polyline" and "stroke-dasharray" in a]
        return [float(points[-1].split(",")[1]) < curves.HEIGHT / 2 for points in dashed]

    third = Word("ma3", 80.0, 0.0, 1.0, (Part("tone", "3", 80.0, 0.0, 1.0, "3", (0.0,) * 40),))
    assert shape([third, third]) == [False, True]


def test_colours_are_those_of_the_score_and_text_is_never_markup():
    words = [Word(f"<b>{n}", score, n, n + 1.0, ()) for n, score in enumerate((95.0, 75.0, 55.0, 5.0, None))]
    found = judgement.judgement(
        Judged(5.0, "x", True, {}, tuple(words)), Sound("/sounds/x", sound(5.0), 5.0), ranges={}, head=True
    )
    page = Parsed(found)
    kinds = [word["class"].split()[1] for word in page.of("mj-word")]
    assert kinds == ["mj-c0", "mj-c1", "mj-c2", "mj-c3", "mj-unknown"]
    assert "<b>0" in page.text and "no letter of it is known" in page.of("mj-word")[4]["title"]


def test_what_is_wrong_is_one_sentence(ours, tmp_path, talk):
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "long.flac", sound(60.5), RATE)
    for path, model, text, words in (
        (None, "letters", "ba", "There is no recording yet"),
        (str(tmp_path / "silent.wav"), "letters", "ba", "it is silent"),
        (str(tmp_path / "long.flac"), "letters", "ba", "longer than 60 s"),
        (talk, "letters", "ba " * 400, "1000 are the most"),
        (talk, "letters", "ba do ki mu " * 40, "does not fit"),
        (talk, "syllables", "hello", "no syllable of Mandarin"),
        (talk, "syllables", "ma1 20", "can be read in several ways"),
        (talk, "nobody", "ba", "No model 'nobody' judges here; there are: letters, syllables, scores."),
    ):
        assert words in refused(ours.judge(path, model, text)), (model, text)
    assert "pinyin" in ours.hint("syllables") and "needs no sentence" in ours.hint("scores")


def test_sentences_are_a_folder_with_texts(ours, tmp_path):
    text, heard = ours.example(0)
    assert text == "ma1 ma2" and [tag for tag, _ in Parsed(heard).tags] == ["p", "audio"]
    assert ours.example(None) == ours.example(7) == ("", "") == (ours.reference(None),) * 2
    with pytest.raises(NotAFolder, match="--sentences .*no such folder"):
        trainer.sentences(tmp_path / "x")
    with pytest.raises(NotThere, match="no recording in it"):
        trainer.sentences(tmp_path)
    record(tmp_path / "a.wav", 0.5)
    with pytest.raises(BadValue, match="no texts; metadata.csv"):
        trainer.sentences(tmp_path)
