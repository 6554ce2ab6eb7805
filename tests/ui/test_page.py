"""The HTML of answers: nothing of a text is markup, and what is shown is what the transcript has."""

import base64
import dataclasses
import html.parser
import json
import re

import numpy as np
import pytest
from tiny_model import sound

from moejax.diarize import said
from moejax.diarize.turns import Turn
from moejax.text.transcript import Segment, Transcript, Word
from moejax.ui import answers, differences, marks
from moejax.ui.marks import Sound

EVIL = "</button><script>alert(1)</script>${1+1}{{value}}`\"'&"


class Parsed(html.parser.HTMLParser):
    """Tags with their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text, self.said = [], [], "", ""
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data
        self.said += data if self.open and self.open[-1] == "button" else ""  # of words alone

    def of(self, name):
        return [attrs for _, attrs in self.tags if name in (attrs.get("class") or "").split()]


def transcript(*texts, route=None, probabilities=(0.95, 0.8, 0.6, 0.2)):
    """A segment for each text, a second for each word."""
    segments, at = [], 0.0
    for text in texts:
        words = []
        for word in text.split():
            words.append(Word(at, at + 0.8, f" {word}", probabilities[len(words) % len(probabilities)]))
            at += 1.0
        segments.append(Segment(words[0].start, words[-1].end, f" {text}", words=words, route=route))
    return Transcript(" ".join(texts), segments, "en", route=route)


def shown(found, seconds=6.0, **options):
    sounds = Sound("/sounds/x", sound(seconds), seconds)
    return Parsed(answers.answer(found, sounds, name=options.pop("name", "talk"), **options))


def test_words_have_their_time_and_the_colour_of_their_confidence():
    page = shown(transcript("one two three four", "five"))
    words = page.of("mj-word")
    assert [word["data-at"] for word in words] == ["0.000", "1.000", "2.000", "3.000", "4.000"]
    assert [word["class"].split()[1] for word in words] == ["mj-c0", "mj-c1", "mj-c2", "mj-c3", "mj-c0"]
    assert [word["tabindex"] for word in words] == ["0", "-1", "-1", "-1", "-1"]  # one is reached by Tab
    assert "80% sure, at 1.00 s" in words[1]["title"]
    patches = [attrs for tag, attrs in page.tags if tag == "rect"]
    assert len(patches) == 5 and float(patches[3]["x"]) == pytest.approx(500, abs=0.1)


def test_without_times_of_words_a_segment_is_one():
    segments = [Segment(0.0, 2.0, " ba do", avg_logprob=-0.5), Segment(2.0, 3.0, " ki", avg_logprob=-3.0)]
    page = shown(Transcript("ba do ki", segments, "en"))
    assert [(word["data-at"], word["class"][-1]) for word in page.of("mj-word")] == [("0.000", "2"), ("2.000", "3")]
    assert "2 words" not in page.text


def test_text_is_never_markup():
    found = transcript(EVIL.replace(" ", ""))
    page = shown(found, name=EVIL, notes=[EVIL], title=EVIL)
    assert EVIL.replace(" ", "") in page.text and not any(tag == "script" for tag, _ in page.tags)
    raw = marks.escaped(EVIL)
    assert not re.search(r"[<>{}$`\"']", raw)
    for text in (marks.refusal(EVIL), marks.told(EVIL), marks.growing(EVIL)):
        assert EVIL in Parsed(text).text
    both = differences.compared(found, transcript("b"), (EVIL, EVIL))
    assert not any(tag == "script" for tag, _ in Parsed(both).tags)


def test_downloads_hold_the_files():
    found = transcript("one two", "three")
    links = [attrs for tag, attrs in shown(found).tags if tag == "a"]
    assert [link["download"] for link in links] == ["talk.txt", "talk.srt", "talk.vtt", "talk.json"]
    files = {link["download"][5:]: base64.b64decode(link["href"].partition("base64,")[2]).decode() for link in links}
    assert files["txt"] == "one two\nthree\n" and files["vtt"].startswith("WEBVTT")
    assert files["srt"].startswith("1\n00:00:00,000 --> 00:00:01,800\none two\n")
    assert json.loads(files["json"])["text"] == "one two three"


def widths(page):
    return [attrs["style"] for tag, attrs in page.tags if tag == "i"]


def test_gate_weights_are_bars_of_each_segment():
    page = shown(transcript("one", "two", route=[0.7, 0.2, 0.1]))
    bars = page.of("mj-bars")
    assert len(bars) == 2 and bars[0]["aria-label"] == "gate weights: expert 0 0.70, expert 1 0.20, expert 2 0.10"
    assert widths(page)[:3] == ["width:70.0%", "width:20.0%", "width:10.0%"]
    own = transcript("one", "two", route=[0.5, 1.0])  # weights that do not sum to 1: the largest of all is a whole bar
    own.segments[1] = dataclasses.replace(own.segments[1], route=[0.5, 2.0])
    assert widths(shown(own)) == ["width:25.0%", "width:50.0%", "width:25.0%", "width:100.0%"]
    assert answers.BARS in page.text
    plain = shown(transcript("one"))
    assert not plain.of("mj-bars") and answers.BARS not in plain.text


def test_a_transcript_without_words_says_so():
    page = shown(Transcript("", [], "en", dropped={"silence": 1}))
    assert "No words were found" in page.text and "withheld as invented (silence): 1" in page.text
    assert not page.of("mj-files") and [tag for tag, _ in page.tags].count("audio") == 1


@pytest.mark.parametrize("size", [0, 1, 599, 600, 601, 16000, 123457])
def test_peaks_are_the_loudest_of_equal_parts(size):
    wave = np.random.default_rng(0).uniform(-0.5, 0.5, size).astype(np.float32)
    found = answers.peaks(wave)
    assert found.shape == (600,) and 0 <= found.min() <= found.max() <= 1
    if size >= 600:
        assert found.max() == pytest.approx(1)
        quiet = wave.copy()
        quiet[size // 2 :] = 0
        assert answers.peaks(quiet)[301:].max() == 0


def test_many_words_do_not_cover_the_waveform():
    page = shown(transcript("a " * 2001))
    assert len(page.of("mj-word")) == 2001 and not any(tag == "rect" for tag, _ in page.tags)
    assert any(tag == "rect" for tag, _ in shown(transcript("a " * 2000)).tags)


def test_differences_are_marked_on_both_sides():
    first, second = transcript("The cat sat there"), transcript("the bat sat, there now")
    page = Parsed(differences.compared(first, second, ("a", "b")))
    assert "They differ at 2 of 5 words." in page.text
    html_ = differences.compared(first, second, ("a", "b"))
    assert re.findall("<mark>(.*?)</mark>", html_) == ["cat", "bat", "now"]
    same = differences.compared(first, transcript("the cat, sat there."), ("a", "b"))
    assert "agree in every word" in same and "<mark>" not in same
    none = Transcript("", [], "en")
    assert "differ at 4 of 4" in differences.compared(none, first, ("a", "b"))
    assert "agree in every word" in differences.compared(none, none, ("a", "b"))
    spaces = transcript("... cat -- !")
    assert "agree" in differences.compared(spaces, spaces, ("a", "b"))


def test_who_speaks_when_is_lanes_and_names():
    turns = [Turn(0.0, 2.5, "speaker1"), Turn(2.0, 4.0, "speaker2"), Turn(5.0, 9.0, "speaker1")]
    named = said.attributed(transcript("one two three four", "five"), turns)
    page = shown(named, turns=turns)
    assert [attrs["aria-label"].split(";")[0] for attrs in page.of("mj-turns")] == [
        "speaker1, 6.5 s in 2 turns",
        "speaker2, 2.0 s in 1 turn",
    ]
    blocks = [attrs for tag, attrs in page.tags if tag == "rect" and "fill" in attrs]
    places = [(float(one["x"]), float(one["width"])) for one in blocks]  # of 1000 for 6 s; nothing beyond the end
    assert places == [(0.0, 416.7), (833.3, 166.7), (333.3, 333.3)]
    assert "2 speakers" in page.text and (page.text.count("speaker1"), page.text.count("speaker2")) == (2, 3)
    links = {a["download"]: a["href"] for tag, a in page.tags if tag == "a"}
    files = {name: base64.b64decode(link.partition("base64,")[2]).decode() for name, link in links.items()}
    assert turns_of(files["talk.rttm"]) == sorted(turns) and "speaker1: one two" in files["talk.srt"]
    assert {word["speaker"] for one in json.loads(files["talk.json"])["segments"] for word in one["words"]} == {
        "speaker1",
        "speaker2",
    }
    assert not shown(transcript("one")).of("mj-lanes") and "hears nobody" in shown(transcript("one"), turns=[]).text
    assert shown(Transcript("", [], "en"), turns=turns).of("mj-files")  # who speaks is known without a word
    evil = shown(transcript("one"), turns=[Turn(0.0, 1.0, EVIL.replace(" ", ""))])
    assert EVIL.replace(" ", "") in evil.text and not any(tag == "script" for tag, _ in evil.tags)


def turns_of(text) -> list:
    """The turns of an RTTM file."""
    found = [line.split() for line in text.splitlines()]
    assert all(fields[:2] == ["SPEAKER", "talk"] for fields in found)
    return sorted(Turn(float(f[3]), round(float(f[3]) + float(f[4]), 3), f[7]) for f in found)
