"""What the tab of pronunciation does: asks `moejax.pronounce` of a recording and a sentence, gives HTML."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from moejax.enrolment import folder
from moejax.errors import BadValue, NotAFolder, NotThere
from moejax.pronounce.judging import Judge, Judged, Word
from moejax.ui import judgement, marks
from moejax.ui.desk import Desk, reason

LONGEST = 60.0  # seconds of a sentence
LETTERS = 1000  # of one
SOUNDS = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a", ".mp4", ".webm")


class Sentence(NamedTuple):
    """Something to say, and how somebody says it."""

    text: str
    reference: Path


class Trainer:
    """Safe to use from any thread. `judges`: {name: what judges}; `sentences`: what is offered."""

    def __init__(self, desk: Desk, judges: Mapping[str, Judge], sentences: tuple[Sentence, ...] = ()):
        self.desk, self.judges, self.sentences = desk, dict(judges), sentences
        self._one = threading.Lock()  # at a time: they share the cores with who transcribes

    @property
    def names(self) -> list[str]:
        """Of the models, in the order of the command line."""
        return list(self.judges)

    def hint(self, model: str) -> str:
        """How a sentence is written for a model."""
        judge = self.judges[model]
        if judge.mandarin:
            return "hanzi, or pinyin with tones: ni3 hao3. Another reading stands behind a character: 还{huan2}"
        if judge.curves:
            return "left empty, what the model hears counts, which mends what was said wrongly"
        return "this model scores whole recordings and needs no sentence"

    def example(self, number: int | None) -> tuple[str, str]:
        """(text, HTML that plays its reference) of a sentence that is offered."""
        if number is None or not 0 <= number < len(self.sentences):
            return "", ""
        return self.sentences[number].text, self.reference(str(self.sentences[number].reference))

    def reference(self, path: str | None) -> str:
        """HTML that plays a reference, or says why not."""
        if not path:
            return ""
        try:
            address = marks.escaped(self.desk.sound(self.desk.heard(path, LONGEST)).address)
            return (
                f'<p class="mj-facts">The reference:</p><audio class="mj-reference" controls src="{address}"></audio>'
            )
        except Exception as error:
            return marks.refusal(f"The reference: {reason(error)}")

    def judge(self, path: str | None, model: str, text: str, number: int | None = None, own: str | None = None) -> str:
        """HTML of how a recording is pronounced, or the sentence that says why not. Curves of tones are compared with
        `own`, a reference of the user's, or with that of sentence `number` while `text` is its text.
        """
        try:
            judge, text = self._judge(model), " ".join(text.split())
            if len(text) > LETTERS:
                raise BadValue(f"the sentence has {len(text)} letters; {LETTERS} are the most")
            recording = self.desk.heard(path, LONGEST)
            with self._one:
                found = judge(recording.wave_S, text or None)
            sound, note, reference = self.desk.sound(recording), "", ()
            if judge.tone is not None and found.words:
                try:
                    reference = self._compared(judge, found, number, own)
                except (ValueError, OSError) as error:
                    note = marks.refusal(f"The reference: {reason(error)}")
            ranges = judge.rater.ranges if judge.rater is not None else {}
            head = bool(judge.curves)
            return note + judgement.judgement(found, sound, ranges=ranges, head=head, reference=reference)
        except Exception as error:
            return marks.refusal(reason(error))

    def _judge(self, model: str) -> Judge:
        if model not in self.judges:
            raise BadValue(f"no model {model!r} judges here; there are: {', '.join(self.judges)}")
        return self.judges[model]

    def _compared(self, judge: Judge, found: Judged, number: int | None, own: str | None) -> tuple[Word, ...]:
        """The words of the reference, none where there is none of this text."""
        offered = self.sentences[number] if number is not None and 0 <= number < len(self.sentences) else None
        path = own or (str(offered.reference) if offered is not None and offered.text == found.text else None)
        if path is None:
            return ()
        wave_S = self.desk.heard(path, LONGEST).wave_S
        with self._one:
            return judge(wave_S, found.text).words


def sentences(place: str | Path) -> tuple[Sentence, ...]:
    """Of a folder of recordings with their texts, as `moejax pronounce` takes them, in order of their names.

    Errors: NotAFolder; NotThere where no recording lies; BadValue where a recording has no text.
    """
    root = Path(place).expanduser()
    if not root.is_dir():
        raise NotAFolder(f"--sentences {place}: there is no such folder")
    recordings = sorted(path for path in root.rglob("*") if path.suffix.lower() in SOUNDS and path.is_file())
    if not recordings:
        raise NotThere(f"--sentences {place}: no recording in it; it takes {', '.join(SOUNDS)}")
    texts = folder.texts(recordings)
    if texts is None:
        raise BadValue(
            f"--sentences {place}: no texts; metadata.csv (columns file, text), or a .txt beside each recording"
        )
    return tuple(Sentence(" ".join(t.split()), path) for t, path in zip(texts, recordings, strict=True))
