"""What a recipe reads and gives: a corpus' folder that names what it lacks, recordings of talks, utterances."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from moejax.diarize.turns import Said, Span, Turn, read_rttm, read_uem
from moejax.errors import BadValue, NotThere


@dataclasses.dataclass(frozen=True)
class Recording:
    """A talk: who speaks when, what is scored (None: all of it), and what is said where the corpus says it. `group`:
    the condition that results are told apart by.
    """

    name: str
    part: str
    audio: Path
    turns: list[Turn]
    spans: list[Span] | None = None
    said: list[Said] = dataclasses.field(default_factory=list)
    group: str = ""


@dataclasses.dataclass(frozen=True)
class Utterance:
    """What one speaker says; `start` and `seconds` where it is a piece of its file."""

    audio: Path
    speaker: str
    part: str
    text: str = ""
    gender: str = ""
    start: float = 0.0
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Place:
    """The folder of a corpus called `name`; `layout` says in a line what ought to lie there."""

    name: str
    root: Path
    layout: str

    def __post_init__(self):
        if not self.root.is_dir():
            raise NotThere(f"no folder {self.root}; {self.expected()}")

    def expected(self) -> str:
        return f"{self.name} has {self.layout}"

    def file(self, *choices: str) -> Path:
        """The first of these paths that there is. Errors: NotThere naming them."""
        return self._first(choices, Path.is_file)

    def folder(self, *choices: str) -> Path:
        return self._first(choices, Path.is_dir)

    def has(self, *choices: str) -> bool:
        return any((self.root / choice).exists() for choice in choices)

    def files(self, *patterns: str) -> list[Path]:
        """In the order of their names: those of the first pattern that any file matches; none where none does."""
        for pattern in patterns:
            if found := sorted(path for path in self.root.glob(pattern) if path.is_file()):
                return found
        return []

    def _first(self, choices, there) -> Path:
        for choice in choices:
            if there(self.root / choice):
                return self.root / choice
        others = f" (nor {', '.join(choices[1:])})" if choices[1:] else ""
        raise NotThere(f"{self.root} has no {choices[0]}{others}; {self.expected()}")


def turns_in(path: Path, name: str) -> list[Turn]:
    """Of one recording in an RTTM file. Errors: BadValue where the file is of others."""
    found = read_rttm(path)
    if name not in found and len(found) == 1:  # some corpora call it otherwise inside
        return next(iter(found.values()))
    if found and name not in found:
        raise BadValue(f"{path} has no turns of {name}; it has {', '.join(sorted(found)[:5])}")
    return found.get(name, [])


def spans_in(path: Path, name: str) -> list[Span] | None:
    """Of one recording in a UEM file, as `turns_in`; None where it says nothing of it."""
    found = read_uem(path)
    return found.get(name) or (next(iter(found.values())) if len(found) == 1 else None)


def turns_said(said: list[Said]) -> list[Turn]:
    """When somebody speaks, by what is said."""
    return sorted(Turn(one.start, one.end, one.speaker) for one in said if one.end > one.start)


def lines_of(path: Path) -> Iterator[tuple[str, str]]:
    """("FILE line N", line) of those that are not empty. Errors: BadValue for what is not UTF-8."""
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"{path} line {number}"
        try:
            text = line.decode("utf-8").rstrip("\r")
        except UnicodeDecodeError as error:
            raise BadValue(f"{where} is not UTF-8: {error}") from error
        if text.strip():
            yield where, text
