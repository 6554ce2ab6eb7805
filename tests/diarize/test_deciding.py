"""From probabilities to turns, over windows to one recording, and from turns to who said what."""

import dataclasses

import numpy as np
import pytest

from moejax.diarize import said, stitching
from moejax.diarize.deciding import Deciding
from moejax.diarize.turns import Turn
from moejax.errors import BadValue
from moejax.text import writers
from moejax.text.transcript import Segment, Transcript, Word


def runs(*pairs):
    """A column of zeros and ones: (value, frames) ..."""
    return np.concatenate([np.full(count, float(value)) for value, count in pairs])


def test_thresholds_filters_and_shortest_turns():
    noisy = runs((0, 10), (1, 10), (0, 1), (1, 10), (0, 10), (1, 2), (0, 10))[:, None]
    plain = Deciding(median=1).turns(noisy, 10)
    assert [(turn.start, turn.end) for turn in plain] == [(1.0, 2.0), (2.1, 3.1), (4.1, 4.3)]
    assert [(t.start, t.end) for t in Deciding(median=5).turns(noisy, 10)] == [(1.0, 3.1)]
    assert len(Deciding(median=1, shortest_on=3).turns(noisy, 10)) == 2
    assert [(t.start, t.end) for t in Deciding(median=1, shortest_off=2).turns(noisy, 10)] == [(1.0, 3.1), (4.1, 4.3)]
    assert Deciding(0.5, 1).turns(0.45 * noisy, 10) == [] != Deciding(0.4, 1).turns(0.45 * noisy, 10)
    assert Deciding().turns(np.zeros((20, 0)), 10) == []
    three = np.tile([0.9, 0.8, 0.7], (20, 1))
    assert Deciding(most=2, median=1).active(three).sum(1).tolist() == [20, 20, 0]
    late = np.stack([runs((0, 30), (1, 10)), runs((1, 20), (0, 20))], 1)
    assert [(turn.speaker, turn.start) for turn in Deciding().turns(late, 10)] == [("speaker1", 0), ("speaker2", 3)]
    with pytest.raises(BadValue, match="odd number of frames, not 4"):
        Deciding(median=4)


def talk(frames=200, speakers=3, seed=0):
    """Activity as probabilities [T, S], one speaker after the other, and their voices."""
    rng = np.random.default_rng(seed)
    prob_TS = np.zeros((frames, speakers))
    for at in range(0, frames, 10):
        prob_TS[at : at + 10, rng.integers(speakers)] = 1
    return prob_TS, np.eye(speakers, 8)


def cut(prob_TS, voice_SD, starts, size, rng):
    """Windows whose speakers are numbered anew, silent ones left out."""
    windows = []
    for at in starts:
        part_TS = prob_TS[at : at + size]
        there = rng.permutation(np.flatnonzero(part_TS.any(0)))
        windows.append(stitching.Window(at, part_TS[:, there], voice_SD[there]))
    return windows


def as_set(prob_TS):
    return {tuple(row) for row in np.asarray(prob_TS).T.round(3) if row.any()}


def test_windows_are_stitched_whatever_their_speakers_are_called():
    prob_TS, voice_SD = talk()
    for seed in range(10):
        windows = cut(prob_TS, voice_SD, (0, 40, 80, 120, 140), 60, np.random.default_rng(seed))
        assert as_set(stitching.stitched(windows, 200)) == as_set(prob_TS)
    # who was silent where windows meet is known by his voice, and without one he is somebody else
    gap_TS = np.stack([runs((1, 40), (0, 120), (1, 40)), runs((0, 40), (1, 120), (0, 40))], 1)
    asked = (gap_TS, np.eye(2, 8), (0, 40, 80, 120, 140), 60)
    windows = cut(*asked, np.random.default_rng(0))
    assert as_set(stitching.stitched(windows, 200)) == as_set(gap_TS)
    deaf = [
        dataclasses.replace(one, voice_SD=np.random.default_rng(at).normal(size=(one.prob_TS.shape[1], 8)))
        for at, one in enumerate(windows)
    ]
    assert stitching.stitched(deaf, 200, alike=1.1).shape[1] == 3
    assert stitching.stitched(deaf, 200, most=2, alike=1.1).shape[1] == 2
    assert stitching.stitched([], 5).shape == (5, 0)


def test_a_voice_is_heard_where_its_speaker_is_alone():
    frames_TD = np.concatenate([np.tile([1.0, 0], (10, 1)), np.tile([5.0, 5], (10, 1)), np.tile([0, 1.0], (10, 1))])
    prob_TS = np.stack([runs((1, 20), (0, 10)), runs((0, 10), (1, 20))], 1)
    np.testing.assert_allclose(stitching.voices(prob_TS, frames_TD), np.eye(2), atol=1e-3)


def word(start, end, text=" w"):
    return Word(start, end, text, 1.0)


TURNS = [Turn(0, 2, "a"), Turn(1.5, 4, "b"), Turn(6, 7, "c")]


def test_words_go_to_who_speaks_and_those_in_overlap_are_flagged():
    words = [word(0, 1), word(1.2, 1.8), word(1.6, 1.9), word(2.5, 3), word(4.2, 4.4), word(5.5, 5.8), word(8, 9)]
    found = said.assigned(words, TURNS)
    assert [one.speaker for one in found] == ["a", "a", "a", "b", "b", "c", "c"]
    assert [one.overlapped for one in found] == [False, False, True, False, False, False, False]
    # of a tie the speaker of the word before, else the turn whose middle is near
    both = [Turn(0, 10, "a"), Turn(2, 3, "b")]
    assert [one.speaker for one in said.assigned([word(2.2, 2.8)], both)] == ["b"]
    assert [one.speaker for one in said.assigned([word(0, 1), word(2.2, 2.8)], both)] == ["a", "a"]


def transcript():
    words = [word(0, 1, " one"), word(1, 1.4, " two"), word(2.5, 3, " three."), word(3, 3.5, " Four")]
    segments = [
        Segment(0, 3, " one two three.", words=words[:3], id=0),
        Segment(3, 3.5, " Four", words=words[3:], id=1),
    ]
    return Transcript(" one two three. Four", segments, "en")


def test_a_transcript_is_cut_where_the_speaker_changes_and_every_file_says_who():
    found = said.attributed(transcript(), TURNS)
    assert [(one.id, one.speaker, one.text, one.start, one.end) for one in found.segments] == [
        (0, "a", " one two", 0, 1.4),
        (1, "b", " three.", 2.5, 3),
        (2, "b", " Four", 3, 3.5),
    ]
    assert said.words_of(found) == [("one", "a"), ("two", "a"), ("three.", "b"), ("Four", "b")]
    assert writers.render(found, "txt") == "a: one two\nb: three.\nb: Four\n"
    assert "\na: one two\n\n2\n00:00:02,500 --> 00:00:03,000\nb: three.\n" in writers.render(found, "srt")
    assert "\n<v a>one two\n" in writers.render(found, "vtt")
    assert writers.render(found, "tsv").splitlines()[:2] == ["start\tend\ttext\tspeaker", "0\t1400\tone two\ta"]
    held = writers.as_dict(found)["segments"]
    assert (
        held[0]["speaker"] == "a" and held[0]["words"][0]["speaker"] == "a" and "overlapped" not in held[0]["words"][0]
    )
    # cues that run on over segments end where somebody else speaks
    layout = writers.Layout(max_line_width=40, max_line_count=2)
    assert writers.render(found, "srt", layout).count(" --> ") == 2
    assert writers.render(found, "srt", layout).count("\nb: three. Four\n") == 1
    lit = writers.render(found, "srt", writers.Layout(highlight_words=True))
    assert all(line.startswith(("a: ", "b: ")) for line in lit.splitlines() if "<u>" in line)


def test_without_turns_nothing_changes_and_without_times_it_is_refused():
    plain = transcript()
    assert said.attributed(plain, []) == plain
    for name in writers.FORMATS:
        assert "speaker" not in writers.render(plain, name) and "a:" not in writers.render(plain, name)
    untimed = dataclasses.replace(plain, segments=[dataclasses.replace(plain.segments[0], words=None)])
    with pytest.raises(BadValue, match="word_timestamps=True"):
        said.attributed(untimed, TURNS)
