"""Transcripts with times of the corpora that have no RTTM: TextGrid, ICSI's MRT, CHiME's JSON, LibriCSS' table.

A segment in which no word is said (a laugh, a noise) is nobody's turn.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from moejax.diarize.recipes.place import lines_of
from moejax.diarize.turns import Said
from moejax.errors import BadValue

_ITEM = re.compile(r'(name|text|mark)\s*=\s*"((?:[^"]|"")*)"|(xmin|xmax)\s*=\s*([-+.\deE]+)')
_MARKS = re.compile(r"\[[^\]]*\]|<[^>]*>")
_UNSAID = ("Comment", "VocalSound", "NonVocalSound", "Pause")


def text_grid(path: Path) -> list[Said]:
    """Praat's, long form: every interval tier is a speaker. Errors: BadValue for a file without a tier."""
    data = path.read_bytes()
    try:
        text = data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadValue(f"{path} is neither UTF-8 nor UTF-16: {error}") from error
    speaker, times, found = None, {}, []
    for what, words, time, seconds in _ITEM.findall(text):
        if what == "name":
            speaker = words.strip()
        elif time:
            times[time] = _seconds(path, seconds)
        elif speaker is not None and _said(words):
            if not times.get("xmin", 0.0) < times.get("xmax", 0.0):
                raise BadValue(f"{path}: {words[:40]!r} of {speaker} ends before it begins")
            found.append(Said(times["xmin"], times["xmax"], speaker, " ".join(words.replace('""', '"').split())))
    if speaker is None:
        raise BadValue(f"{path} is no TextGrid: it has no tier with a name")
    return sorted(found)


def mrt(path: Path) -> list[Said]:
    """ICSI's XML: a Segment has StartTime, EndTime and, where a person speaks, a Participant."""
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise BadValue(f"{path} is not XML: {error}") from error
    found = []
    for segment in root.iter("Segment"):
        who, words = segment.get("Participant"), " ".join(_spoken(segment).split())
        if who is None or not _said(words):
            continue
        start, end = (_seconds(path, segment.get(key, "")) for key in ("StartTime", "EndTime"))
        if end > start:
            found.append(Said(start, end, who, words))
    return sorted(found)


def _spoken(element) -> str:
    """The text of an element without what its inner marks say of noises."""
    parts = [element.text or ""]
    for child in element:
        parts += [] if child.tag in _UNSAID else [_spoken(child)]
        parts.append(child.tail or "")
    return " ".join(parts)


def chime(path: Path) -> list[Said]:
    """CHiME-6's JSON. Errors: BadValue for CHiME-5's, whose devices are not on one clock."""
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadValue(f"{path} is not JSON: {error}") from error
    found = []
    for number, record in enumerate(records, 1):
        where = f"{path} segment {number}"
        if missing := [key for key in ("start_time", "end_time", "speaker", "words") if key not in record]:
            raise BadValue(f"{where} has no {missing[0]}")
        if isinstance(record["start_time"], dict):
            raise BadValue(f"{where} has a time for each device: that is CHiME-5; CHiME-6 is its synchronised form")
        start, end = (_clock(where, record[key]) for key in ("start_time", "end_time"))
        if end > start and _said(record["words"]):  # a few end before they begin
            words = " ".join(_MARKS.sub(" ", record["words"]).split())
            found.append(Said(start, end, record["speaker"], words))
    return sorted(found)


def meeting_info(path: Path) -> list[Said]:
    """LibriCSS': start, end, speaker, utterance and words between tabs, under a line of names."""
    found = []
    for row, (where, line) in enumerate(lines_of(path)):
        fields = line.split("\t")
        if len(fields) != 5:
            raise BadValue(
                f"{where}: {len(fields)} fields between tabs; it takes start, end, speaker, utterance, words"
            )
        if row:
            found.append(Said(_seconds(where, fields[0]), _seconds(where, fields[1]), fields[2], fields[4].strip()))
    return sorted(found)


def _said(words: str) -> bool:
    return any(letter.isalnum() for letter in _MARKS.sub("", words))


def _clock(where, text: str) -> float:
    """Seconds of H:MM:SS.ss."""
    hours, minutes, seconds = (["0", "0", *text.split(":")])[-3:]
    return round(_seconds(where, hours) * 3600 + _seconds(where, minutes) * 60 + _seconds(where, seconds), 6)


def _seconds(where, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise BadValue(f"{where}: {text!r} is not a number of seconds") from None
