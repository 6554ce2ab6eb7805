"""`moejax personalize --record`: what is asked, kept and refused. The microphone is the one thing that is not here: its
recordings are made by hand, or come from a module that stands for sounddevice.
"""

import csv
import sys
import types

import numpy as np
import pytest
import soundfile

from moejax.audio import microphone
from moejax.commands import record
from moejax.errors import BadValue

RATE = 16000
REST = np.random.default_rng(0).normal(0, 1e-3, RATE // 4).astype(np.float32)


def spoken(seconds=1.0, level=0.2, rest=REST):
    tone = level * np.sin(2 * np.pi * 220 * np.arange(round(seconds * RATE)) / RATE)
    return np.concatenate([rest, tone.astype(np.float32), rest])


GOOD = spoken()


@pytest.mark.parametrize(
    ("wave", "said"),
    [
        (GOOD, None),
        (GOOD[:1000], "shorter than 0.3 s"),
        (np.clip(spoken(level=1.5), -1, 1), "too loud"),
        (spoken(level=0.003), "too quiet"),
        (np.zeros(RATE, np.float32), "too quiet"),
        (GOOD[RATE // 4 :], "very beginning"),
        (GOOD[: -RATE // 4], "very end"),
    ],
)
def test_what_is_wrong_with_a_recording_is_said(wave, said):
    found = microphone.flaw(wave)
    assert found is None if said is None else said in found


class Person:
    """Answers what is asked, and says what is next when a recording runs."""

    def __init__(self, answers, waves):
        self.answers, self.waves, self.asked = list(answers), list(waves), []

    def ask(self, question):
        self.asked.append(question)
        return self.answers.pop(0)

    def record(self, until):
        until()
        return self.waves.pop(0)


def rows(folder):
    with open(folder / "metadata.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_session_records_asks_again_leaves_out_and_goes_on_later(tmp_path):
    texts, folder = ["one, two", "three", "four", "five"], tmp_path / "voice"
    # one: too quiet, once more; three is left out; then that is all
    first = Person(["", "", "", "", "", "s", "q"], [spoken(level=0.003), GOOD])
    assert record.session(texts, folder, first.record, first.ask, lambda _: None) == 1
    assert any("too quiet" in question for question in first.asked) and not first.waves
    assert rows(folder) == [{"file": "001.flac", "text": "one, two"}]
    shown = []
    # three; four is clipped and kept; five is left out
    second = Person(["", "", "", "", "k", "s"], [GOOD, np.clip(spoken(level=1.5), -1, 1)])
    assert record.session(texts, folder, second.record, second.ask, shown.append) == 3
    assert not any("one, two" in line for line in shown) and not second.answers
    assert [row["text"] for row in rows(folder)] == ["one, two", "three", "four"]
    heard, rate = soundfile.read(folder / "002.flac", dtype="float32")
    assert rate == RATE
    np.testing.assert_allclose(heard, GOOD, atol=1e-4)


def test_other_sentences_later_take_no_file_that_is_there(tmp_path):
    for text in ("one", "two"):
        person = Person(["", ""], [GOOD])
        record.session([text], tmp_path, person.record, person.ask, lambda _: None)
    assert [row["text"] for row in rows(tmp_path)] == ["one", "two"]
    assert len({row["file"] for row in rows(tmp_path)}) == 2


def test_our_sentences_are_short_and_none_comes_twice(tmp_path):
    assert len(set(record.SENTENCES)) == 40 and all(4 <= len(text.split()) <= 12 for text in record.SENTENCES)
    (tmp_path / "own.txt").write_text("Guten  Morgen.\n\nGute Nacht.\n", encoding="utf-8")
    assert record.sentences(str(tmp_path / "own.txt")) == ["Guten Morgen.", "Gute Nacht."]
    for name, text in (("none.txt", None), ("empty.txt", "\n")):
        if text is not None:
            (tmp_path / name).write_text(text)
        with pytest.raises(BadValue, match=name):
            record.sentences(str(tmp_path / name))


def test_a_table_of_something_else_is_not_written_over(tmp_path):
    (tmp_path / "metadata.csv").write_text("id,words\n1,two\n")
    with pytest.raises(BadValue, match="another folder"):
        record.session(["one"], tmp_path, lambda until: GOOD, lambda _: "q", lambda _: None)


def test_the_microphone_gives_what_it_heard_while_it_was_open(monkeypatch):
    opened = []

    class InputStream:
        def __init__(self, *, samplerate, channels, dtype, callback):
            opened.append((samplerate, channels, dtype))
            self.callback = callback

        def __enter__(self):
            self.callback(np.full((3, 1), 0.5, np.float32), 3, None, None)

        def __exit__(self, *_):
            self.callback(np.full((2, 1), 0.25, np.float32), 2, None, None)

    module = types.SimpleNamespace(InputStream=InputStream, PortAudioError=OSError)
    monkeypatch.setitem(sys.modules, "sounddevice", module)
    np.testing.assert_array_equal(microphone.record(lambda: None), np.float32([0.5, 0.5, 0.5, 0.25, 0.25]))
    assert opened == [(RATE, 1, "float32")]
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(BadValue, match=r"moejax\[record\]"):
        microphone.record(lambda: None)
