"""Files of transcripts: their content to the byte, and whole or absent on disk."""

import dataclasses
import json

import pytest

from moejax.text import writers
from moejax.text.transcript import Segment, Transcript, Word
from moejax.text.writers import Layout


def spoken(text, start=0.0, step=0.4, gap=0.1):
    """Words of a text, evenly timed."""
    return [
        Word(round(start + i * step, 2), round(start + (i + 1) * step - gap, 2), f" {word}", 0.9)
        for i, word in enumerate(text.split())
    ]


def transcript(*segments, **changes):
    text = "".join(segment.text for segment in segments)
    return Transcript(**{"text": text, "segments": list(segments), "language": "en", **changes})


PLAIN = transcript(
    Segment(0.0, 2.5, " Grüße\tan --> alle", id=0, tokens=[1, 2], avg_logprob=-0.5, compression_ratio=0.8),
    Segment(3599.9996, 3661.25, " zwei", id=1, seek=3000),
)
TIMED = transcript(
    Segment(0.0, 2.0, " one two three four five", words=spoken("one two three four five")),
    Segment(8.0, 9.2, " six seven eight", words=spoken("six seven eight", 8.0)),
)


def test_txt_is_a_line_for_each_segment():
    assert writers.render(PLAIN, "txt") == "Grüße\tan --> alle\nzwei\n"


def test_tsv_is_milliseconds_and_has_no_tab_in_its_text():
    assert writers.render(PLAIN, "tsv") == "start\tend\ttext\n0\t2500\tGrüße an --> alle\n3600000\t3661250\tzwei\n"


def test_srt_has_hours_and_commas_vtt_hours_only_when_needed_and_points():
    assert writers.render(PLAIN, "srt") == (
        "1\n00:00:00,000 --> 00:00:02,500\nGrüße\tan -> alle\n\n2\n01:00:00,000 --> 01:01:01,250\nzwei\n\n"
    )
    assert writers.render(PLAIN, "vtt") == (
        "WEBVTT\n\n00:00.000 --> 00:02.500\nGrüße\tan -> alle\n\n01:00:00.000 --> 01:01:01.250\nzwei\n\n"
    )


def test_json_has_the_references_keys_and_ours_only_where_there_is_something():
    found = json.loads(writers.render(PLAIN, "json"))
    assert list(found) == ["text", "segments", "language"]
    assert list(found["segments"][0]) == [
        *("id", "seek", "start", "end", "text", "tokens", "temperature", "avg_logprob"),
        *("compression_ratio", "no_speech_prob"),
    ]
    assert "\\u00fc" in writers.render(PLAIN, "json")
    routed = dataclasses.replace(TIMED, route=[0.25, 0.75], dropped={"silence": 1})
    found = json.loads(writers.render(routed, "json"))
    assert found["route"] == [0.25, 0.75] and found["dropped"] == {"silence": 1}
    assert list(found["segments"][0]["words"][0]) == ["word", "start", "end", "probability"]


def shown(layout, format="vtt"):
    """[(start, end, text)] of a timed transcript's subtitles."""
    blocks = writers.render(TIMED, format, layout).split("\n\n")[1:-1]
    return [(*block.split("\n", 1)[0].split(" --> "), block.split("\n", 1)[1]) for block in blocks]


def test_words_make_the_same_text_however_they_are_arranged():
    for width in (None, 1, 8, 12):
        for lines in (None, 1, 2):
            for most in (None, 1, 2, 3):
                words = " ".join(text for _, _, text in shown(Layout(width, lines, most))).split()
                assert words == "one two three four five six seven eight".split()


def test_lines_are_as_wide_as_asked_and_subtitles_as_high():
    for width in (5, 8, 14):
        for lines in (1, 2):
            for _, _, text in shown(Layout(width, lines)):
                assert len(text.split("\n")) <= lines and max(map(len, text.split("\n"))) <= width


def test_without_a_line_count_segments_keep_apart_and_with_one_a_long_pause_parts_them():
    assert [text for *_, text in shown(Layout())] == ["one two three four five", "six seven eight"]
    assert [text for *_, text in shown(Layout(100, 1))] == ["one two three four five", "six seven eight"]
    assert [text for *_, text in shown(Layout(max_words_per_line=2))] == [
        *("one two", "three four", "five", "six seven", "eight")
    ]


def test_highlighted_words_follow_on_one_another():
    cues = shown(Layout(highlight_words=True))
    assert [text for *_, text in cues if "<u>" in text][:2] == [
        *("<u>one</u> two three four five", "one <u>two</u> three four five"),
    ]
    first = [cue for cue in cues if "one" in cue[2]]
    assert all(end == start for (_, end, _), (start, _, _) in zip(first, first[1:], strict=False))


def test_nothing_heard_is_an_empty_file_of_each_kind(tmp_path):
    empty = transcript()
    paths = writers.write(empty, tmp_path / "deep" / "a.b", writers.FORMATS)
    assert [path.name for path in paths] == ["a.b.txt", "a.b.vtt", "a.b.srt", "a.b.tsv", "a.b.json"]
    assert [path.read_text() for path in paths] == [
        *("", "WEBVTT\n\n", "", "start\tend\ttext\n", '{"text": "", "segments": [], "language": "en"}')
    ]


def test_a_file_is_whole_or_not_there(tmp_path):
    backwards = transcript(Segment(-1.0, 2.0, " no"))
    with pytest.raises(ValueError, match="not negative"):
        writers.write(backwards, tmp_path / "a", ["srt"])
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(IsADirectoryError):
        writers.write(PLAIN, tmp_path / "b", ["txt"])
    assert [path.name for path in tmp_path.iterdir()] == ["b.txt"]


def test_an_unknown_format_names_the_known_ones():
    with pytest.raises(ValueError, match="'doc'; known: txt, vtt, srt, tsv, json"):
        writers.render(PLAIN, "doc")
    with pytest.raises(ValueError, match="max_line_width is 0"):
        Layout(max_line_width=0)
