"""Transcripts as files: txt, json, srt, vtt, tsv, byte for byte as openai-whisper 20250625 writes them.

Whoever has a program that reads those files keeps it. JSON gains a key only where moejax has more to say: `route` (the
experts' weights), `emotion` (probabilities), `dropped` (what the guards withheld), a segment's `language` and the
`speaker` of segments and words. Where there are speakers, lines of txt and cues of srt begin with "NAME: ", those of
vtt with a voice tag, tsv has a column more, and no cue runs from one speaker to another. A cue of no length, which no
player shows, is left out of srt and vtt.
"""

import dataclasses
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from moejax.errors import BadValue
from moejax.runtime.files import replacing
from moejax.text.transcript import Segment, Transcript, Word

LONG_PAUSE = 3.0  # seconds between the starts of two words that end a subtitle of several lines


@dataclasses.dataclass(frozen=True)
class Layout:
    """How srt and vtt arrange words; all of it needs word times (the reference's --max_line_width and its siblings).

    With both `max_line_width` (characters) and `max_line_count` (lines) subtitles run on over segments; otherwise each
    segment begins a new one. `max_words_per_line` cuts segments. `highlight_words` repeats a subtitle for each of its
    words, underlined while it is spoken.
    """

    max_line_width: int | None = None
    max_line_count: int | None = None
    max_words_per_line: int | None = None
    highlight_words: bool = False

    def __post_init__(self):
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadValue(f"{name} is {value}, must be at least 1")


def write(transcript: Transcript, stem, formats, layout: Layout | None = None) -> list[Path]:
    """Writes `stem`.txt, `stem`.srt, ... for each of `formats`, each whole or not at all; their paths."""
    written = []
    for name in formats:
        text, path = render(transcript, name, layout), Path(f"{stem}.{name}")
        with replacing(path) as partial:
            partial.write_bytes(text.encode())
        written.append(path)
    return written


def render(transcript: Transcript, format: str, layout: Layout | None = None) -> str:
    """The content of a file of this format. Errors: ValueError for an unknown one."""
    if format not in FORMATS:
        raise BadValue(f"unknown format {format!r}; known: {', '.join(FORMATS)}")
    return FORMATS[format](transcript, layout or Layout())


def as_dict(transcript: Transcript) -> dict:
    """The reference's result dictionary, keys in its order."""
    found = {
        "text": transcript.text,
        "segments": [_segment_dict(segment) for segment in transcript.segments],
        "language": transcript.language,
    }
    if transcript.route is not None:
        found["route"] = transcript.route
    if transcript.emotion is not None:
        found["emotion"] = transcript.emotion
    return found | ({"dropped": transcript.dropped} if transcript.dropped else {})


def timestamp(seconds: float, *, hours: bool, point: str) -> str:
    """[HH:]MM:SS.mmm, with hours always or only from the first hour on. Errors: ValueError for negative times."""
    if seconds < 0:
        raise ValueError(f"a time of {seconds} s; times are not negative")
    rest, milliseconds = divmod(round(seconds * 1000), 1000)
    rest, second = divmod(rest, 60)
    hour, minute = divmod(rest, 60)
    lead = f"{hour:02d}:" if hours or hour else ""
    return f"{lead}{minute:02d}:{second:02d}{point}{milliseconds:03d}"


def _segment_dict(segment: Segment) -> dict:
    names = ("id", "seek", "start", "end", "text", "tokens", "temperature")
    names += ("avg_logprob", "compression_ratio", "no_speech_prob")
    found = {name: getattr(segment, name) for name in names}
    if segment.language is not None:
        found["language"] = segment.language
    if segment.speaker is not None:
        found["speaker"] = segment.speaker
    if segment.emotion is not None:
        found["emotion"] = segment.emotion
    if segment.words is not None:
        found["words"] = [_word_dict(word) for word in segment.words]
    return found | ({"route": segment.route} if segment.route is not None else {})


def _word_dict(word: Word) -> dict:
    found = {key: getattr(word, key) for key in ("word", "start", "end", "probability")}
    if word.speaker is not None:
        found["speaker"] = word.speaker
    return found | ({"overlapped": True} if word.overlapped else {})


def _named(speaker: str | None) -> str:
    """What a line of this speaker begins with."""
    return "" if speaker is None else f"{speaker}: "


def _voice(speaker: str | None) -> str:
    """The same in WebVTT."""
    return "" if speaker is None else f"<v {re.sub(r'[<>&]', '', speaker)}>"


def _txt(transcript, layout) -> str:
    return "".join(f"{_named(segment.speaker)}{segment.text.strip()}\n" for segment in transcript.segments)


def _json(transcript, layout) -> str:
    return json.dumps(as_dict(transcript))


def _tsv(transcript, layout) -> str:
    rows = [
        f"{round(1000 * segment.start)}\t{round(1000 * segment.end)}\t" + segment.text.strip().replace("\t", " ")
        for segment in transcript.segments
    ]
    head = "start\tend\ttext"
    if any(segment.speaker is not None for segment in transcript.segments):
        head += "\tspeaker"
        rows = [f"{row}\t{one.speaker or ''}" for row, one in zip(rows, transcript.segments, strict=True)]
    return "".join(f"{row}\n" for row in [head, *rows])


def _vtt(transcript, layout) -> str:
    cues = _cues(transcript, layout, lambda seconds: timestamp(seconds, hours=False, point="."), _voice)
    return "WEBVTT\n\n" + "".join(f"{start} --> {end}\n{text}\n\n" for start, end, text in cues)


def _srt(transcript, layout) -> str:
    cues = _cues(transcript, layout, lambda seconds: timestamp(seconds, hours=True, point=","), _named)
    return "".join(f"{i}\n{start} --> {end}\n{text}\n\n" for i, (start, end, text) in enumerate(cues, 1))


def _cues(transcript, layout, show: Callable[[float], str], by: Callable) -> Iterator[tuple[str, str, str]]:
    """(start, end, text) of each subtitle that lasts; `by(speaker)` stands in front of its text."""
    return (cue for cue in _all_cues(transcript, layout, show, by) if cue[0] != cue[1])


def _all_cues(transcript, layout, show: Callable[[float], str], by: Callable) -> Iterator[tuple[str, str, str]]:
    segments = transcript.segments
    if not segments or segments[0].words is None:
        for segment in segments:
            # An arrow inside the text would end the cue for a reader of the file.
            text = by(segment.speaker) + segment.text.strip().replace("-->", "->")
            yield show(segment.start), show(segment.end), text
        return
    for cue in _subtitles(segments, layout):
        words, texts = zip(*cue, strict=True)
        name = by(words[0].speaker)
        if layout.highlight_words:
            for start, end, text in _highlighted(words, texts, show):
                yield start, end, name + text
        else:
            yield show(words[0].start), show(words[-1].end), name + "".join(texts)


def _highlighted(words, texts, show):
    """The subtitle once for each word, and once plain for each pause between two."""
    last = show(words[0].start)
    for i, word in enumerate(words):
        start, end = show(word.start), show(word.end)
        if last != start:
            yield last, start, "".join(texts)
        marked = re.sub(r"^(\s*)(.*)$", r"\1<u>\2</u>", texts[i])
        yield start, end, "".join((*texts[:i], marked, *texts[i + 1 :]))
        last = end


def _subtitles(segments, layout: Layout) -> Iterator[list[tuple[Word, str]]]:
    """Words of one subtitle at a time, each with its text as it is shown: line breaks in, blanks at line starts out."""
    running = layout.max_line_width is not None and layout.max_line_count is not None
    width, lines = layout.max_line_width or 1000, layout.max_line_count
    cue, used, count, last = [], 0, 1, _first_start(segments)
    for word, first in _marked(segments, layout.max_words_per_line or 1000):
        pause = running and word.start - last > LONG_PAUSE
        fresh = bool(cue) and (first and not running or word.speaker != cue[-1][0].speaker)
        text, last = word.word, word.start
        if used > 0 and used + len(text) <= width and not pause and not fresh:
            used += len(text)
            cue.append((word, text))
            continue
        text = text.strip()
        if fresh or (cue and lines is not None and (pause or count >= lines)):
            yield cue
            cue, count = [], 1
            shown = text
        else:
            shown = f"\n{text}" if used > 0 else text
            count += used > 0
        used = len(text)
        cue.append((word, shown))
    if cue:
        yield cue


def _marked(segments, most: int) -> Iterator[tuple[Word, bool]]:
    """Each word, and whether it is the first of its segment or of the next `most` words in it."""
    for segment in segments:
        for i, word in enumerate(segment.words or ()):
            yield word, i % most == 0


def _first_start(segments) -> float:
    return next((word.start for segment in segments for word in segment.words or ()), segments[0].start)


FORMATS: dict[str, Callable[[Transcript, Layout], str]] = {
    "txt": _txt,
    "vtt": _vtt,
    "srt": _srt,
    "tsv": _tsv,
    "json": _json,
}
