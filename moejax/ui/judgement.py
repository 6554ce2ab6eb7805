"""What a page shows of a judged recording, as HTML: its scores, each word by how well it fits, curves of tones.

The words stand as those of a transcript do (`answers`), with the same colours, and play by the same `page.js`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from moejax.pronounce import curves
from moejax.pronounce.judging import Judged, Word
from moejax.pronounce.page import told
from moejax.ui import answers
from moejax.ui.answers import Said
from moejax.ui.marks import Sound, escaped

MEANING = ("as it should be, from 90", "from 70", "from 50", "rather another sound, below 50")
HEARD = "The sentence is what the model heard, and it mends what was said wrongly: write down what should be said."
NO_HEAD = "This model scores whole recordings; it has no head that judges words."
NO_TEXT = "No word was heard in this recording: write down what should be said."


def judgement(
    one: Judged, sound: Sound, *, ranges: Mapping[str, tuple[float, float]], head: bool, reference: Sequence[Word] = ()
) -> str:
    """All that is shown of one recording. `ranges`: which scores the experts gave; `head`: whether there is one that
    judges words; `reference`: the words of the same text in a reference, for their curves.
    """
    notes = [*([] if head else [NO_HEAD]), *([HEARD] if one.words and not one.given else [])]
    notes += [NO_TEXT] if head and not one.words else []
    # A word of which nothing is known is as doubtful as one that is as likely wrong as right
    patches = [Said(word.start, word.end, word.text, _share(word)) for word in one.words]
    return "".join(
        [
            '<section class="mj-answer mj-judged" aria-label="how it was pronounced">',
            _scores(one, ranges),
            _words(one.words) if one.words else "",
            answers.waveform(sound, patches),
            f'<audio controls preload="auto" src="{escaped(sound.address)}"></audio>',
            answers.legend(MEANING, "Scores of 100") if one.words else "",
            curves.drawn(one.words, reference),
            "".join(f'<p class="mj-note">{escaped(note)}</p>' for note in notes),
            "</section>",
        ]
    )


def _scores(one: Judged, ranges: Mapping[str, tuple[float, float]]) -> str:
    """Of the whole recording."""
    found = []
    for name, (score, error) in one.scores.items():
        low, high = ranges[name]
        hint = f"experts gave {low:g} to {high:g}; it is usually off by {error:.1f}"
        found.append(f'<div><dt>{escaped(name)}</dt><dd title="{hint}"><b>{score:.1f}</b> ± {error:.1f}</dd>')
        found.append(f"<dd>of {low:g} to {high:g}</dd></div>")
    if one.sounds is not None:
        found.append(f"<div><dt>words</dt><dd><b>{one.sounds:.0f}</b></dd><dd>of 100, their mean</dd></div>")
    return f'<dl class="mj-scores">{"".join(found)}</dl>' if found else ""


def _words(words: Sequence[Word]) -> str:
    """Each a button that plays it; below them a line that says the sounds of the one that was pressed."""
    found = []
    for place, word in enumerate(words):
        kind = "mj-unknown" if word.score is None else f"mj-c{answers.level(_share(word))}"
        score = "" if word.score is None else f"<sub>{word.score:.0f}</sub>"
        found.append(
            f'<button type="button" class="mj-word {kind}" data-at="{word.start:.3f}" data-to="{word.end:.3f}" '
            f'data-told="{escaped(f"{word.text}: {told(word)}")}" tabindex="{-1 if place else 0}" '
            f'title="{escaped(told(word))}">{escaped(word.text)}{score}</button>'
        )
    text = " ".join(found)
    hint = "Click a word, or press Enter on it: it is played, and its sounds are named here."
    return (
        f'<p class="mj-sentence" role="group" aria-label="the sentence; Enter plays a word">{text}</p>'
        f'<p class="mj-parts" role="status">{hint}</p>'
    )


def _share(word: Word) -> float:
    return 0.5 if word.score is None else word.score / 100
