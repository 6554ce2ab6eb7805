"""What the page does, without a page: every wrong input is one sentence, every answer that of the recogniser."""

import concurrent.futures

import numpy as np
import pytest
import soundfile
from judges import diarizer
from paging import desk
from serving import PLAIN
from test_page import Parsed
from tiny_model import RATE, record, sound

from moejax.enrolment import profiles
from moejax.ui.answers import said
from moejax.ui.desk import Choice, Phrase

TIMED = Choice("timed")


@pytest.fixture(scope="module")
def ours(models, tmp_path_factory):
    with desk(models, tmp_path_factory.mktemp("desk")) as found:
        yield found


@pytest.fixture
def talk(tmp_path):
    return str(record(tmp_path / "talk.wav", 3.0))


def last(found) -> str:
    *_, answer = found
    return answer


def refused(found) -> str:
    """The one sentence of what was refused."""
    page = Parsed(last(found) if not isinstance(found, str) else found)
    (wrong,) = page.of("mj-wrong")
    assert wrong["role"] == "alert" and page.text.count(". ") <= 1 and page.text.endswith(".")
    return page.text


def expected(models, path, name="timed", **options) -> str:
    """As the recogniser itself writes it, without blanks."""
    recognizer = models.get(models.which(name, system=None, route=None, task="transcribe"))
    options = {"word_timestamps": True, **PLAIN, **options}
    found = recognizer.transcribe(path, **options)
    return "".join("".join(word.text for segment in found.segments for word in said(segment)).split())


def shown(text) -> str:
    """What stands in the words of an answer, without blanks."""
    found = Parsed(text)
    assert not found.of("mj-wrong"), found.text
    return "".join(found.said.split())


def test_an_answer_is_what_the_recogniser_writes_and_its_sound_is_there(ours, models, talk):
    steps = list(ours.read(talk, TIMED))
    assert all("mj-growing" in step for step in steps[:-1]) and len(steps) > 1
    page = Parsed(steps[-1])
    assert shown(steps[-1]) == expected(models, talk) and page.of("mj-word")
    (audio,) = [attrs for tag, attrs in page.tags if tag == "audio"]
    wave, _ = soundfile.read(ours.sounds.find(audio["src"].removeprefix("/sounds/")), dtype="float32")
    assert np.allclose(wave, sound(3.0), atol=1e-4)


def test_what_is_wrong_with_a_recording_is_one_sentence(ours, tmp_path, talk):
    (tmp_path / "text.wav").write_text("no sound at all")
    (tmp_path / "empty.wav").touch()
    soundfile.write(tmp_path / "none.wav", np.zeros(0), RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE), RATE)
    soundfile.write(tmp_path / "long.flac", sound(61.0), RATE)
    (tmp_path / "large.wav").write_bytes(bytes(8 * 1024 * 1024 + 1))
    assert refused(ours.read(None, TIMED)) == "There is no recording yet: choose a file, or record one."
    for name, words in (
        ("text.wav", "unreadable"),
        ("empty.wav", "empty"),
        ("none.wav", "empty"),
        ("silent.wav", "Nothing can be heard in this recording: it is silent."),
        ("long.flac", "longer than 60 s"),
        ("large.wav", "larger than 8 MB"),
    ):
        found = refused(ours.read(str(tmp_path / name), TIMED))
        assert words in found and str(tmp_path) not in found, (name, found)
    assert "no speaker 'nobody' is enrolled" in refused(ours.read(talk, Choice("timed", speaker="nobody"))).lower()
    assert "no system" in refused(ours.read(talk, Choice("timed", system="moe")))


def test_a_bug_is_told_to_the_log_alone(ours, talk, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("at /home/somebody")

    monkeypatch.setattr(ours.sounds, "keep", fail)
    assert refused(ours.read(talk, TIMED)) == "This failed by a fault of ours; the log says more."
    assert "/home/somebody" in caplog.text


def test_choices_are_those_that_the_model_has(ours):
    assert ours.systems("timed") == [("as published", "")]
    assert ours.tasks("timed") == [("transcribe", ""), ("translate into English", "en")]
    assert ours.languages("timed") == [("by itself", ""), ("English", "en"), ("German", "de")]
    assert ours.report("timed") is None


def test_what_is_chosen_is_what_is_done(ours, models, talk):
    for choice, options in (
        (Choice("timed", language="de"), {"language": "de"}),
        (Choice("timed", target="en"), {"task": "translate"}),
        (Choice("micro"), {"name": "micro"}),  # what it says fills its decoder
    ):
        page = last(ours.read(talk, choice))
        assert shown(page) == expected(models, talk, **options), choice
        assert " words" in Parsed(page).text, choice  # not whole segments in their place


def test_two_are_compared(ours, talk):
    page = Parsed(last(ours.compare(talk, TIMED, Choice("timed", language="de"))))
    assert len(page.of("mj-compared")) == 1 and len(page.of("mj-answer")) == 2
    assert "both are the same" in refused(ours.compare(talk, TIMED, TIMED)).lower()
    assert "no recording" in refused(ours.compare(None, TIMED, Choice("micro")))
    assert "no model 'x'" in refused(ours.compare(talk, TIMED, Choice("x"))).lower()


def test_a_voice_is_kept_and_chosen(ours, models, talk, tmp_path):
    phrase = str(record(tmp_path / "phrase.wav", 2.0, seed=5))
    assert "write down" in ours.phrase(phrase, " ", [])[1].lower()
    assert "no recording" in ours.phrase(None, "ba do", [])[1]
    short = str(record(tmp_path / "short.wav", 0.1))
    assert "between 0.3 and 20" in ours.phrase(short, "ba", [])[1]
    spoken, text = ours.phrase(phrase, " ba do ", [])
    assert "Ba do." in text and "2.0 s" in text and spoken[0].text == "ba do"
    for name, given, words in (
        ("", spoken, "a name"),
        ("a b", spoken, "letters, digits"),
        ("ui.eva", [], "phrase first"),
    ):
        kept, text = ours.enroll(name, given, False)
        assert not kept and words in text
    kept, text = ours.enroll(" ui.eva ", spoken, False)
    assert kept and "1 of 1 phrases" in text and ("ui.eva", "ui.eva") in ours.speakers()
    kept, text = ours.enroll("ui.eva", spoken, False)
    assert not kept and "already" in text
    assert ours.enroll("ui.eva", spoken, True)[0]
    assert profiles.load("ui.eva").texts == ("ba do",)
    assert shown(last(ours.read(talk, Choice("timed", speaker="ui.eva"))))


def test_who_comes_from_elsewhere_learns_no_names_and_replaces_nobody(models, tmp_path):
    spoken = [Phrase(sound(2.0), "ba do")]
    with desk(models, tmp_path / "private") as private:
        private.enroll("ui.ida", spoken, True)
    with desk(models, tmp_path / "public", private=False) as public:
        assert public.speakers() == [("anybody", "")]
        assert not public.enroll("ui.ida", spoken, True)[0]
        assert ("ui.ida", "ui.ida") in public.speakers(["ui.ida"])


def test_many_at_once_are_told_each_their_own(ours, models, tmp_path):
    paths = [str(record(tmp_path / f"{seed}.wav", 1.0 + seed, seed=seed)) for seed in range(4)]
    alone = [expected(models, path) for path in paths]
    assert len(set(alone)) > 1
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: shown(last(ours.read(paths[i % 4], TIMED))), range(8)))
    assert found == [alone[i % 4] for i in range(8)]


def test_who_leaves_is_not_read(ours, talk):
    reading = ours.read(talk, TIMED)
    next(reading)
    reading.close()  # as a page does that is closed
    assert shown(last(ours.read(talk, TIMED)))


def test_who_speaks_when_is_what_the_diarizer_says(models, talk, tmp_path):
    found = diarizer()
    with desk(models, tmp_path / "who", diarizer=found) as asked:
        turns = found(asked.heard(talk).wave_S, 2)
        assert 0 < sum(turn.end - turn.start for turn in turns) < 5  # random weights: not nothing, and not all
        assert asked.talkers() == [("any", "0"), ("1", "1"), ("2", "2"), ("do not ask", "")]
        page = Parsed(last(asked.read(talk, Choice("timed", talkers="2"))))
        told = [attrs for tag, attrs in page.tags if tag == "rect" and "fill" in attrs]
        assert [float(one["x"]) for one in told] == pytest.approx(
            [1000 * turn.start / 3 for turn in sorted(turns, key=lambda turn: (turn.speaker, turn.start))], abs=0.1
        )
        assert Parsed(last(asked.read(talk, Choice("timed", talkers="0")))).of("mj-turns")
        assert not Parsed(last(asked.read(talk, TIMED))).of("mj-turns")
        assert "tells 2 apart" in refused(asked.read(talk, Choice("timed", talkers="3")))
