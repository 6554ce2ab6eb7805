"""`moejax transcribe --diarize`: what it asks for by itself, and what it cannot be asked with."""

import numpy as np
import pytest

from moejax.commands import inputs, transcribe, transcribe_options, tree
from moejax.diarize.turns import Turn
from moejax.errors import BadValue
from moejax.text.transcript import Segment, Transcript, Word


def asked(*argv):
    return transcribe_options.asked(*tree.parsed(["transcribe", "a.wav", "--model", "M", *argv]))


def test_it_turns_word_times_on():
    assert asked("--diarize", "W").options == {"word_timestamps": True} and asked("--diarize", "W").diarize == "W"
    assert asked().diarize is None and asked().options == {}
    with pytest.raises(BadValue, match="leave --word_timestamps False out"):
        asked("--diarize", "W", "--word_timestamps", "False")
    with pytest.raises(BadValue, match="--translate_to writes others: ask for one of them"):
        asked("--diarize", "W", "--translate_to", "de")


def test_known_voices_are_of_a_diarizer():
    assert asked("--diarize", "W", "--profiles", "anna,ben").profiles == "anna,ben" and asked().profiles is None
    with pytest.raises(BadValue, match="--profiles names the voices that --diarize WORKDIR tells apart"):
        asked("--profiles", "all")


class Told:
    """A recognizer that heard two words in everything."""

    def read(self, path, warn=None):
        return np.full(16000, len(path.name), np.float32)

    def stream(self, waves, progress, **options):
        assert options["word_timestamps"]
        for place, _ in enumerate(waves):
            words = [Word(0, 0.4, " one", 1.0), Word(0.5, 0.9, " two", 1.0)]
            yield place, Transcript(" one two", [Segment(0, 1, " one two", words=words)], "en")


def test_every_file_gets_the_turns_of_its_own_recording(tmp_path, capsys):
    """The command's own loop, with who speaks told by the length of a name in place of networks."""
    for name in ("a.wav", "bb.wav"):
        (tmp_path / name).touch()
    want = asked("--diarize", "W", "--format", "srt", "--output_dir", str(tmp_path / "out"))
    sources, _ = inputs.find([str(tmp_path / "a.wav"), str(tmp_path / "bb.wav")])

    def diarizer(wave):
        return [Turn(0, 0.45, "ann"), Turn(0.45, 1, "bob" if wave[0] > 5 else "ann")]

    assert transcribe.Job(want, sources, {}, Told(), None, None, diarizer).run() == 0
    first, second = ((tmp_path / "out" / name).read_text() for name in ("a.srt", "bb.srt"))
    assert "\nann: one two\n" in first and "bob" not in first
    assert "\nann: one\n" in second and "\nbob: two\n" in second
