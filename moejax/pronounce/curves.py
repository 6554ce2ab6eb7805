"""Curves of tones as pictures: how high a voice is over each final, beside the shape that a textbook gives the tone.

The shapes are Chao's, five levels of a speaker's range (A Grammar of Spoken Chinese, 1968): 55, 35, 214, 51, and 21 of
a third tone that does not end its phrase. They say how a tone moves, not how high it lies in somebody's voice.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from moejax.pronounce.judging import Part, Word
from moejax.training.goodness import TONE

SHAPES = {"1": (5, 5), "2": (3, 5), "3": (2, 1, 4), "4": (5, 1)}  # the neutral tone has none of its own
LOW = (2, 1)  # a third tone before another syllable
LEVEL = 2.5  # semitones between two of the five levels: a range of ten
LEAST, MOST = 7.0, 14.0  # semitones on either side of the middle that a picture shows
WIDTH, HEIGHT = 84, 56
YOURS, REFERENCE = "#1f77d0", "#d9731a"
KEY = "Blue: the voice, over its middle height; dashed: the shape of the tone in textbooks."
KEY_REFERENCE = (
    "Blue: your voice; orange: the reference, each over its own middle height; dashed: the shape in textbooks."
)


def drawn(words: Sequence[Word], reference: Sequence[Word] = ()) -> str:
    """HTML: a picture for each syllable whose voice can be followed, "" where there is none. `reference`: the same text
    by somebody else.
    """
    others = reference if len(reference) == len(words) else [None] * len(words)
    tones = [(word, _tone(word), other and _tone(other)) for word, other in zip(words, others, strict=True)]
    if not any(part for _, part, _ in tones):
        return ""
    heights = [height for _, *parts in tones for part in parts if part for height in part.curve]
    half = float(np.clip(np.abs(heights).max(), LEAST, MOST))
    figures = [
        _figure(word, part, other, half, last=place + 1 == len(tones))
        for place, (word, part, other) in enumerate(tones)
    ]
    key = KEY_REFERENCE if any(other for *_, other in tones) else KEY
    row = f'<div style="display:flex;flex-wrap:wrap;gap:.3rem .5rem">{"".join(figures)}</div>'
    return f'<div class="tones" role="group" aria-label="curves of the tones">{row}<p class="soft">{key}</p></div>'


def _tone(word: Word) -> Part | None:
    return next((part for part in word.parts if part.kind == TONE and part.curve), None)


def _figure(word: Word, part: Part | None, other: Part | None, half: float, *, last: bool) -> str:
    caption = html.escape(word.text)
    lines = [
        f'<line x1="0" x2="{WIDTH}" y1="{HEIGHT / 2}" y2="{HEIGHT / 2}" stroke="currentColor" opacity=".25"></line>'
    ]
    if part is None:
        told = f"{caption}: no voice to follow"
    else:
        shape = LOW if part.text == "3" and not last else SHAPES.get(part.text, ())
        lines.append(_line([(level - 3) * LEVEL for level in shape], half, "currentColor", ' stroke-dasharray="4 3"'))
        lines.append(_line(other.curve, half, REFERENCE, ' stroke-width="2"') if other else "")
        lines.append(_line(part.curve, half, YOURS, ' stroke-width="2.5"'))
        heard = f", sounds like tone {part.heard}" if part.heard != part.text else ""
        told = f"{caption}: tone {part.text}, {part.score:.0f} of 100{heard}"
    return (
        f'<figure style="margin:0;width:{WIDTH}px;font-size:.8rem;text-align:center">'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{told}" '
        f'style="border:1px solid currentColor;border-radius:4px">'
        f"<title>{told}</title>{''.join(lines)}</svg><figcaption>{caption}<div>{_verdict(part)}</div></figcaption></figure>"
    )


def _verdict(part: Part | None) -> str:
    if part is None:
        return "no voice"
    return f"like tone {part.heard}" if part.heard != part.text else f"{part.score:.0f} of 100"


def _line(heights: Sequence[float], half: float, colour: str, more: str) -> str:
    if not len(heights):
        return ""
    x = np.linspace(6, WIDTH - 6, len(heights))
    y = HEIGHT / 2 - np.clip(np.asarray(heights) / half, -1, 1) * (HEIGHT / 2 - 3)
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    return f'<polyline points="{points}" fill="none" stroke="{colour}" opacity=".9"{more}></polyline>'
