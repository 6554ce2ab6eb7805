"""Turns of speakers, and the files of the field that hold them: RTTM (NIST) and UEM (what is scored)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from moejax.errors import BadValue, NotThere
from moejax.runtime.files import write_text

# Of NIST's RT-09 plan; all but the first say nothing of who speaks when
TYPES = (
    *("SPEAKER", "SPKR-INFO", "NON-SPEECH", "NON-LEX", "NOSCORE", "NO_RT_METADATA", "LEXEME", "SEGMENT"),
    *("FILLER", "EDIT", "SU", "CB", "IP", "A/P"),
)


class Turn(NamedTuple):
    """Seconds from the beginning of the recording, and who speaks."""

    start: float
    end: float
    speaker: str


class Said(NamedTuple):
    """What is said in a turn."""

    start: float
    end: float
    speaker: str
    text: str


Span = tuple[float, float]  # seconds
Turns = dict[str, list[Turn]]  # {recording: in order of their starts}


def merged(turns: Iterable[Turn], gap: float = 0.0) -> list[Turn]:
    """Turns in order, those of one speaker joined where they meet or overlap, or lie at most `gap` seconds apart.

    References in which somebody overlaps himself are read in different ways by different tools; merged ones in one.
    """
    last: dict[str, Turn] = {}
    found = []
    for turn in sorted(turns):
        before = last.get(turn.speaker)
        if before is not None and turn.start <= before.end + gap:
            last[turn.speaker] = before._replace(end=max(before.end, turn.end))
            continue
        if before is not None:
            found.append(before)
        last[turn.speaker] = turn
    return sorted([*found, *last.values()])


def read_rttm(path: Path | str) -> Turns:
    """Of an RTTM file. Turns of no length are left out. Errors: BadValue naming the line; NotThere."""
    found: Turns = {}
    for where, fields in _lines(path):
        if fields[0] not in TYPES:
            raise BadValue(f"{where}: unknown type {fields[0]!r}; known: {', '.join(TYPES)}")
        if fields[0] != "SPEAKER":
            continue
        if not 8 <= len(fields) <= 10:
            wanted = "SPEAKER recording channel start duration <NA> <NA> speaker <NA> [<NA>]"
            raise BadValue(f"{where}: {len(fields)} fields; it takes 9 or 10: {wanted}")
        start, duration = _seconds(where, "start", fields[3]), _seconds(where, "duration", fields[4])
        if duration:
            found.setdefault(fields[1], []).append(Turn(start, round(start + duration, 9), fields[7]))
    return {recording: sorted(turns) for recording, turns in found.items()}


def rttm(turns: Mapping[str, Iterable[Turn]]) -> str:
    """The text of an RTTM file, milliseconds. Errors: BadValue for a name with a blank in it, which would end there."""
    lines = []
    for recording, some in turns.items():
        for turn in sorted(some):
            for name in (recording, turn.speaker):
                if not name or len(name.split()) != 1 or name != name.strip():
                    raise BadValue(f"RTTM has no place for the name {name!r}: write it without blanks")
            start = round(turn.start, 3)
            length = round(turn.end, 3) - start
            if length > 0:
                lines.append(f"SPEAKER {recording} 1 {start:.3f} {length:.3f} <NA> <NA> {turn.speaker} <NA> <NA>\n")
    return "".join(lines)


def write_rttm(path: Path | str, turns: Mapping[str, Iterable[Turn]]) -> None:
    """Whole or not at all."""
    write_text(Path(path), rttm(turns))


def read_uem(path: Path | str) -> dict[str, list[Span]]:
    """{recording: the spans that are scored, in order and merged}. Errors: as `read_rttm`."""
    found: dict[str, list[Turn]] = {}
    for where, fields in _lines(path):
        if len(fields) != 4:
            raise BadValue(f"{where}: {len(fields)} fields; it takes 4: recording channel start end")
        start, end = _seconds(where, "start", fields[2]), _seconds(where, "end", fields[3])
        if end <= start:
            raise BadValue(f"{where}: the end {end:g} is not after the start {start:g}")
        found.setdefault(fields[0], []).append(Turn(start, end, ""))
    return {recording: [(turn.start, turn.end) for turn in merged(spans)] for recording, spans in found.items()}


def read_stm(path: Path | str) -> dict[str, list[Said]]:
    """{recording: what is said in it, in order} of NIST's STM. Errors: as `read_rttm`."""
    found: dict[str, list[Said]] = {}
    for where, fields in _lines(path):
        if len(fields) < 5:
            raise BadValue(f"{where}: {len(fields)} fields; it takes recording channel speaker start end and words")
        start, end = _seconds(where, "start", fields[3]), _seconds(where, "end", fields[4])
        words = fields[5:]
        if words and words[0].startswith("<") and words[0].endswith(">"):
            words = words[1:]  # labels of the segment
        found.setdefault(fields[0], []).append(Said(start, end, fields[2], " ".join(words)))
    return {recording: sorted(some) for recording, some in found.items()}


def write_stm(path: Path | str, said: Mapping[str, Iterable[Said]]) -> None:
    """Whole or not at all; milliseconds."""
    lines = [
        f"{name} 1 {one.speaker} {one.start:.3f} {one.end:.3f} {' '.join(one.text.split())}\n"
        for name, some in said.items()
        for one in sorted(some)
    ]
    write_text(Path(path), "".join(lines))


def write_uem(path: Path | str, spans: Mapping[str, Iterable[Span]]) -> None:
    """Whole or not at all."""
    lines = [f"{name} 1 {start:.3f} {end:.3f}\n" for name, some in spans.items() for start, end in sorted(some)]
    write_text(Path(path), "".join(lines))


def _lines(path) -> Iterator[tuple[str, list[str]]]:
    """("FILE line N", fields) of every line that is neither empty nor a comment (;;)."""
    path = Path(path)
    if not path.is_file():
        raise NotThere(f"no file {path}")
    for number, line in enumerate(path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        where = f"{path} line {number}"
        try:
            fields = line.decode("utf-8").split()
        except UnicodeDecodeError as error:
            raise BadValue(f"{where} is not UTF-8: {error}") from error
        if fields and not fields[0].startswith((";", "#")):
            yield where, fields


def _seconds(where: str, what: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise BadValue(f"{where}: {what} is {text!r}, not a number of seconds") from None
    if not 0 <= value < 1e7:  # a third of a year; nan and infinity too
        raise BadValue(f"{where}: {what} is {text}; it takes seconds, 0 or more")
    return value
