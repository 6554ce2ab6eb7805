"""What a page shows of a transcript, as HTML: words by confidence, a waveform, the gate's weights, files to keep.

Every text is escaped here. `page.js` makes words and waveform play, by the attributes that stand in this HTML.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from moejax.diarize.turns import Turn
from moejax.text import languages, writers
from moejax.text.transcript import Segment, Transcript
from moejax.ui import timeline
from moejax.ui.marks import Sound, escaped, file_link, refusal

LEVELS = (0.9, 0.7, 0.5)  # confidence from which on a word is of level 0, 1, 2; below, of 3
MEANING = ("sure, from 90 %", "from 70 %", "from 50 %", "doubtful, below 50 %")
BARS = "The bars: how much each expert of the mixture weighs, by its number, as the gate says of what it heard there."
PEAKS = 600
HEIGHT, WIDTH = 80, 1000  # of the waveform's picture, in its own units
DRAWN = 2000  # words beyond which the waveform is not coloured: a line each would be all of it
FILES = {"txt": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt", "json": "application/json"}


class Said(NamedTuple):
    """A word, or where a model times none a whole segment: seconds, text, confidence between 0 and 1."""

    start: float
    end: float
    text: str
    confidence: float
    apart: bool = True  # a space stands before it, as between words of many languages
    overlapped: bool = False  # somebody else speaks, too


def said(segment: Segment) -> list[Said]:
    """The words of a segment."""
    if segment.words:
        words = [word for word in segment.words if word.word.strip()]
        return [Said(w.start, w.end, w.word.strip(), w.probability, w.word[:1].isspace(), w.overlapped) for w in words]
    text = segment.text.strip()
    return [Said(segment.start, segment.end, text, math.exp(min(segment.avg_logprob, 0.0)))] if text else []


def level(confidence: float) -> int:
    """0 for what is sure, to 3 for what is doubtful."""
    return next((number for number, least in enumerate(LEVELS) if confidence >= least), len(LEVELS))


def peaks(wave_S: np.ndarray, count: int = PEAKS) -> np.ndarray:
    """The largest size in each of `count` equal parts, [count] between 0 and 1: the loudest is 1."""
    if not len(wave_S):
        return np.zeros(count, np.float32)
    starts = np.arange(count) * len(wave_S) // count
    found = np.maximum.reduceat(np.abs(wave_S), starts)
    return found / max(float(found.max()), 1e-6)


def answer(
    transcript: Transcript,
    sound: Sound,
    *,
    name: str,
    notes: Sequence[str] = (),
    title: str = "",
    turns: Sequence[Turn] | None = None,
) -> str:
    """All that is shown of one transcript. `name`: what its files are called; `notes`: a line each, below it;
    `turns`: who speaks when, where that was asked.
    """
    words = [word for segment in transcript.segments for word in said(segment)]
    language = languages.NAMES.get(transcript.language, transcript.language or "")
    known = timeline.speakers(turns or ())
    facts = [f"{sound.seconds:.1f} s", *([language] if language else []), f"{len(words)} words"]
    timed = any(segment.words for segment in transcript.segments)
    facts = facts if timed or not words else facts[:-1]
    facts += [f"{len(known)} speaker{'s' * (len(known) != 1)}"] if known else []
    lines = [*notes, *(f"withheld as invented ({guard}): {n}" for guard, n in transcript.dropped.items())]
    lines += [timeline.NOBODY] if turns is not None and not known else []
    parts = [
        f'<section class="mj-answer" aria-label="{escaped(title or "the transcript")}">',
        f"<h3>{escaped(title)}</h3>" if title else "",
        f'<p class="mj-facts">{escaped(", ".join(facts))}</p>',
        _text(transcript, known) if words else refusal("No words were found in this recording."),
        waveform(sound, words),
        timeline.lanes(turns or (), sound),
        f'<audio controls preload="auto" src="{escaped(sound.address)}"></audio>',
        legend(MEANING, "Confidence") if words else "",
        f'<p class="mj-note">{escaped(BARS)}</p>' if any(segment.route for segment in transcript.segments) else "",
        "".join(f'<p class="mj-note">{escaped(line)}</p>' for line in lines),
        downloads(transcript, name, turns or ()) if words or known else "",
        "</section>",
    ]
    return "".join(parts)


def waveform(sound: Sound, words: Sequence[Said]) -> str:
    """The recording as a picture, a patch in the colour of its confidence behind each word."""
    middle, step = HEIGHT / 2, WIDTH / PEAKS
    sizes = peaks(sound.wave_S) * (middle - 4) + 0.5
    above = "".join(f"L{i * step:.1f} {middle - size:.1f}" for i, size in enumerate(sizes))
    below = "".join(f"L{i * step:.1f} {middle + sizes[i]:.1f}" for i in range(PEAKS - 1, -1, -1))
    scale = WIDTH / max(sound.seconds, 1e-3)
    patches = "".join(
        f'<rect class="mj-c{level(word.confidence)}" x="{word.start * scale:.1f}" y="0" height="{HEIGHT}" '
        f'width="{max(word.end - word.start, 0) * scale:.1f}"></rect>'
        for word in (words if len(words) <= DRAWN else ())
    )
    return (
        f'<svg class="mj-wave" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="waveform; a click plays from there" data-seconds="{sound.seconds:.3f}">{patches}'
        f'<path d="M0 {middle:.1f}{above}{below}Z"></path>'
        f'<line class="mj-head" x1="0" x2="0" y1="0" y2="{HEIGHT}"></line></svg>'
    )


def bars(weights: Sequence[float], full: float = 1.0) -> str:
    """The experts' weights in one segment; a whole bar is `full`. They need not sum to 1: where each expert is
    weighed by itself an undecided gate gives 1 to all (`ops/routing.py`).
    """
    rows = "".join(
        f'<span class="mj-bar" title="expert {number}: {weight:.2f}"><i style="width:{100 * weight / full:.1f}%"></i>'
        f"<b>{number}</b><em>{weight:.2f}</em></span>"
        for number, weight in enumerate(weights)
    )
    words = ", ".join(f"expert {number} {weight:.2f}" for number, weight in enumerate(weights))
    return f'<div class="mj-bars" role="img" aria-label="gate weights: {words}">{rows}</div>'


def downloads(transcript: Transcript, name: str, turns: Sequence[Turn] = ()) -> str:
    """Links that hold the files; with turns those of who speaks when, too."""
    links = [file_link(f"{name}.{form}", media, writers.render(transcript, form)) for form, media in FILES.items()]
    links += [timeline.download(turns, name)] if turns else []
    return f'<p class="mj-files">Download: {" ".join(links)}</p>'


def _text(transcript: Transcript, known: Sequence[str]) -> str:
    """The words, each a button; one of them is reached by Tab, the others by the arrows. `known`: the speakers."""
    parts, first = [], True
    full = max([1.0, *(weight for segment in transcript.segments for weight in segment.route or ())])
    for segment in transcript.segments:
        words = []
        for word in said(segment):
            hint = f"{word.confidence:.0%} sure, at {word.start:.2f} s"
            hint += "; somebody else speaks, too" if word.overlapped else ""
            words.append(
                f"{' ' if word.apart else ''}"
                f'<button type="button" class="mj-word mj-c{level(word.confidence)}" data-at="{word.start:.3f}" '
                f'data-to="{word.end:.3f}" tabindex="{0 if first else -1}" title="{hint}">{escaped(word.text)}</button>'
            )
            first = False
        if words:
            time = writers.timestamp(segment.start, hours=False, point=".")[:-4]
            gate = "" if segment.route is None else bars(segment.route, full)
            text = "".join(words)
            if segment.speaker is not None:
                time += f"<b>{timeline.dot(segment.speaker, known)}{escaped(segment.speaker)}</b>"
            parts.append(f'<div class="mj-segment"><span class="mj-time">{time}</span><p>{text}</p>{gate}</div>')
    return f'<div class="mj-said" role="group" aria-label="what was said; Enter plays a word">{"".join(parts)}</div>'


def legend(meaning: Sequence[str], what: str) -> str:
    """What the colours say, from level 0 to level 3."""
    marks = "".join(f'<span class="mj-c{number}">{escaped(text)}</span>' for number, text in enumerate(meaning))
    return f'<p class="mj-legend">{escaped(what)}: {marks} A word plays: click it, or Enter.</p>'
