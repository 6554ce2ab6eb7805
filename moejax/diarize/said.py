"""Who said what: the words of a transcript go to the speakers of turns."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np

from moejax.diarize.turns import Turn
from moejax.errors import BadValue
from moejax.text.transcript import Segment, Transcript, Word


def attributed(transcript: Transcript, turns: Sequence[Turn]) -> Transcript:
    """The transcript with a speaker for every word; segments are cut where the speaker changes. Nothing changes where
    nobody speaks in the turns. Errors: BadValue for a transcript without word times.
    """
    if any(segment.words is None for segment in transcript.segments if segment.text.strip()):
        raise BadValue("words are given to speakers by their times: transcribe with word_timestamps=True")
    if not turns:
        return transcript
    words = [word for segment in transcript.segments for word in segment.words or ()]
    known = iter(assigned(words, turns))
    segments = [part for segment in transcript.segments for part in _parts(segment, known)]
    numbered = [dataclasses.replace(segment, id=number) for number, segment in enumerate(segments)]
    return dataclasses.replace(transcript, segments=numbered)


def assigned(words: Sequence[Word], turns: Sequence[Turn]) -> list[Word]:
    """Each word goes to whoever speaks during most of it; of several alike to whom the word before went, then to the
    one whose turn's middle is nearest; where nobody speaks, to the nearest turn. `overlapped` says that somebody else
    speaks during more than half of it.
    """
    starts, ends = np.array([turn.start for turn in turns]), np.array([turn.end for turn in turns])
    names = sorted({turn.speaker for turn in turns})
    row = np.array([names.index(turn.speaker) for turn in turns])
    found, before = [], None
    for word in words:
        middle = (word.start + word.end) / 2
        length = max(word.end - word.start, 1e-3)
        during = np.minimum(ends, middle + length / 2) - np.maximum(starts, middle - length / 2)
        spoken_S = np.zeros(len(names))
        np.add.at(spoken_S, row, np.maximum(during, 0.0))
        if spoken_S.max() <= 0:
            distance = np.maximum(starts - middle, middle - ends)
            speaker = names[row[int(distance.argmin())]]
        else:
            tied = np.flatnonzero(spoken_S >= spoken_S.max() - 1e-6)
            if before is not None and before in [names[place] for place in tied]:
                speaker = before
            else:
                away = np.where(np.isin(row, tied) & (during > 0), np.abs((starts + ends) / 2 - middle), np.inf)
                speaker = names[row[int(away.argmin())]]
        others = sum(spoken > length / 2 for name, spoken in zip(names, spoken_S, strict=True) if name != speaker)
        found.append(dataclasses.replace(word, speaker=speaker, overlapped=bool(others)))
        before = speaker
    return found


def _parts(segment: Segment, known) -> list[Segment]:
    """The segment with the next words of `known` in place of its own, one for each run of a speaker."""
    words = [next(known) for _ in segment.words or ()]
    runs = [list(run) for _, run in itertools.groupby(words, key=lambda word: word.speaker)]
    if len(runs) < 2:
        return [dataclasses.replace(segment, words=words, speaker=runs[0][0].speaker if runs else None)]
    return [
        dataclasses.replace(
            segment,
            start=run[0].start,
            end=run[-1].end,
            text="".join(word.word for word in run),
            words=run,
            speaker=run[0].speaker,
        )
        for run in runs
    ]


def words_of(transcript: Transcript) -> list[tuple[str, str]]:
    """(word, speaker) of an attributed transcript in order, as `score.attributed` takes them."""
    return [(word.word.strip(), word.speaker or "") for segment in transcript.segments for word in segment.words or ()]
