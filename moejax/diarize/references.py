"""References beside recordings: turns (.rttm), what is scored (.uem), words (.stm), and how an answer compares."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

from moejax.diarize.turns import Span, Turn, read_rttm, read_stm, read_uem
from moejax.errors import BadValue
from moejax.score import diarization
from moejax.text import normalize

Said = list[tuple[str, str]]  # word, speaker


@dataclasses.dataclass(frozen=True)
class Reference:
    """Of one recording; `said` None where there is no .stm."""

    turns: list[Turn]
    spans: list[Span] | None
    said: Said | None

    def compared(self, turns: Sequence[Turn], **options) -> tuple[diarization.Errors, diarization.Errors]:
        """(errors of these turns, of one speaker who always speaks); `options` of `score.diarization.compare`."""
        always = diarization.constant(self.spans or [(0.0, max((turn.end for turn in self.turns), default=0.0))])
        found = [diarization.compare(self.turns, one, self.spans, **options) for one in (turns, always)]
        return found[0], found[1]


def beside(folder: str | Path, recordings: Iterable[Path]) -> dict[Path, Reference]:
    """{recording: its reference} by the names of files in a folder and below it: NAME.rttm, NAME.uem, NAME.stm.

    Errors: BadValue for a recording without .rttm.
    """
    files: dict[str, Path] = {}
    for path in sorted(Path(folder).rglob("*")):
        files.setdefault(path.name, path)
    found = {}
    for recording in recordings:
        stem = recording.stem
        if f"{stem}.rttm" not in files:
            raise BadValue(f"--against {folder} has no {stem}.rttm for {recording}")
        uem, stm = (files.get(f"{stem}.{kind}") for kind in ("uem", "stm"))
        found[recording] = Reference(
            sorted(turn for some in read_rttm(files[f"{stem}.rttm"]).values() for turn in some),
            None if uem is None else [span for some in read_uem(uem).values() for span in some],
            None
            if stm is None
            else said_of([(one.text, one.speaker) for some in read_stm(stm).values() for one in some]),
        )
    return found


def said_of(texts: Iterable[tuple[str, str]]) -> Said:
    """(word, speaker) of texts in order, in lower case and without marks."""
    return [(word, speaker) for text, speaker in texts for word in normalize.lower(text).split()]
