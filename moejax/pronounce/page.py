"""A page of judged recordings: scores, words in colours that light up as they sound. One file, nothing loaded."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping

import numpy as np
import soundfile

from moejax.audio.constants import SAMPLE_RATE
from moejax.pronounce import curves
from moejax.pronounce.judging import Judged, Part, Word
from moejax.report.markup import document

MOST = 100  # recordings on a page, each with its sound
DOUBT = 50.0  # as likely another sound (`tasks.calibration`)
STYLE = """<style>
.take audio{width:100%;margin:.3em 0}.take .said{font-size:1.25rem;line-height:2.1}
.take .word{border:0;border-radius:4px;padding:.12em .25em;cursor:pointer;color:#1d2126;font:inherit}
.take .word.wrong{text-decoration:underline dotted}
.take .word sub{font-size:.6em;display:inline-block;margin-left:.25em}
.take .word.now{outline:2px solid #1f5fa8}.take .parts{font-size:.86rem;color:var(--soft);min-height:1.5em}
.scores b{font-size:1.2rem}
</style>"""
SCRIPT = """<script>
"use strict";
for (const take of document.querySelectorAll(".take")) {
  const audio = take.querySelector("audio"), parts = take.querySelector(".parts");
  const words = [...take.querySelectorAll(".word")];
  let until = null;
  const show = () => {
    const t = audio.currentTime;
    if (until !== null && t >= until) {
      audio.pause();
      audio.currentTime = until - 0.01; // at the end of its word, not at the beginning of the next
      until = null;
    }
    for (const word of words) word.classList.toggle("now", t >= +word.dataset.start && t < +word.dataset.end);
    if (!audio.paused) requestAnimationFrame(show);
  };
  for (const event of ["play", "seeked", "timeupdate", "ended"]) audio.addEventListener(event, show);
  for (const word of words) word.addEventListener("click", () => {
    parts.textContent = word.title;
    audio.currentTime = +word.dataset.start;
    until = +word.dataset.end;
    audio.play();
  });
}
</script>"""
KEY = (
    "Of 100; green: as it should be; yellow: doubtful; red and dotted: rather another sound. Click a word, or press "
    "Enter on it, to hear it and to see its sounds."
)


def page(judged: Mapping[str, Judged], sounds: Mapping[str, np.ndarray], title: str) -> str:
    """HTML of recordings, each with its samples [S] at 16 kHz; at most `MOST` of them, the first."""
    shown = list(judged.items())[:MOST]
    lead = KEY if any(one.words for _, one in shown) else "Scores of the rater."
    if len(shown) < len(judged):
        lead += f" The first {MOST} of {len(judged)} recordings; the table has all."
    sections = {file: _take(one, sounds[file]) for file, one in shown}
    return document(title, lead, sections).replace("</main>", f"</main>{STYLE}{SCRIPT}")


def _take(one: Judged, audio_S: np.ndarray) -> str:
    out = io.BytesIO()
    soundfile.write(out, audio_S, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    source = f"data:audio/flac;base64,{base64.b64encode(out.getvalue()).decode()}"
    told = [
        f"{html.escape(name)} <b>{score:.1f}</b> &plusmn; {error:.1f}" for name, (score, error) in one.scores.items()
    ]
    if one.sounds is not None:
        told.append(f"words <b>{one.sounds:.0f}</b> of 100")
    text = f'<p class="said">{" ".join(map(_word, one.words))}</p><p class="parts"></p>' if one.words else ""
    text += curves.drawn(one.words)
    if one.words and not one.given:
        text += '<p class="soft">The text is what the model heard: it mends what was said wrongly.</p>'
    return (
        f'<div class="take"><p class="scores">{" &middot; ".join(told)}</p>'
        f'<audio controls preload="metadata" src="{source}"></audio>{text}</div>'
    )


def _word(word: Word) -> str:
    kind = "word wrong" if word.score is not None and word.score < DOUBT else "word"
    score = "" if word.score is None else f"<sub>{word.score:.0f}</sub>"
    return (
        f'<button type="button" class="{kind}" style="background:{colour(word.score)}" data-start="{word.start:.3f}" '
        f'data-end="{word.end:.3f}" title="{html.escape(told(word))}">{html.escape(word.text)}{score}</button>'
    )


def told(word: Word) -> str:
    """Its sounds and what they were scored, in words."""
    return "; ".join(map(_part, word.parts)) or "no letter of it is known"


def _part(part: Part) -> str:
    heard = f", heard as {part.heard}" if part.heard and part.heard != part.text else ""
    return f"{part.kind} {part.text}: {part.score:.0f}{heard}"


def colour(score: float | None) -> str:
    """From red (0) over yellow (50) to green (100); grey where nothing is known."""
    return "#e6e8eb" if score is None else f"hsl({1.2 * score:.0f} 70% {84 - 8 * abs(score - 50) / 50:.0f}%)"
