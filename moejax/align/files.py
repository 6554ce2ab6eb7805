"""Alignments as files: TextGrid (Praat), CTM (NIST), JSON; and as references, TextGrid and CTM read back."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from moejax.errors import BadValue
from moejax.tasks.forced import Placed
from moejax.text import phones

Border = tuple[str, float, float]  # text, start and end in seconds
SILENCE = ("", "sil", "sp", "spn", "<eps>", "<unk>")


def textgrid(placed: Sequence[Placed], seconds: float, name: str, units: str = "letters") -> str:
    """Praat's long text format: a tier of words, and one of their units where these are known. What no word covers is
    an empty interval, as Praat wants it: a tier has no holes.
    """
    del name
    tiers = {"words": [(one.text, one.start, one.end) for one in placed]}
    if parts := inside(placed):
        tiers[units] = parts
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {seconds:.4f}"]
    lines += ["tiers? <exists>", f"size = {len(tiers)}", "item []:"]
    for number, (tier, marks) in enumerate(tiers.items(), 1):
        intervals = _without_holes(marks, seconds)
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{tier}"']
        lines += ["        xmin = 0", f"        xmax = {seconds:.4f}", f"        intervals: size = {len(intervals)}"]
        for place, (text, start, end) in enumerate(intervals, 1):
            quoted = text.replace('"', '""')
            lines += [
                f"        intervals [{place}]:",
                f"            xmin = {start:.4f}",
                f"            xmax = {end:.4f}",
            ]
            lines += [f'            text = "{quoted}"']
    return "\n".join(lines) + "\n"


def _without_holes(marks: list[Border], seconds: float) -> list[Border]:
    """Intervals from 0 to the end; those of no length, which Praat refuses, are left out."""
    found, at = [], 0.0
    for text, start, end in marks:
        start, end = round(max(start, at), 4), round(min(end, seconds), 4)
        if end <= start:
            continue
        if start > at:
            found.append(("", at, start))
        found.append((text, start, end))
        at = end
    if at < seconds:
        found.append(("", at, seconds))
    return found


def inside(placed: Sequence[Placed]) -> list[Border]:
    """The units of all words."""
    return [(part.text, part.start, part.end) for one in placed for part in one.letters]


def ctm(placed: Sequence[Placed], seconds: float, name: str, units: str = "letters") -> str:
    """A line a word: recording, channel, start, duration, word, confidence."""
    del seconds, units
    lines = [f"{name} 1 {w.start:.3f} {w.end - w.start:.3f} {w.text} {w.probability:.3f}" for w in placed]
    return "".join(f"{line}\n" for line in lines)


def as_json(placed: Sequence[Placed], seconds: float, name: str, units: str = "letters") -> str:
    """Words with their letters, or phones."""
    words = [_plain(word, units) for word in placed]
    return json.dumps({"recording": name, "seconds": round(seconds, 4), "words": words}, indent=1, ensure_ascii=False)


def _plain(one: Placed, units: str) -> dict:
    found = {"text": one.text, "start": round(one.start, 4), "end": round(one.end, 4)}
    found["probability"] = round(one.probability, 4)
    return {**found, units: [_plain(part, units) for part in one.letters]} if one.letters else found


TIERS = {"words": (".TextGrid", ".ctm", ".wrd"), "phones": (".TextGrid", ".phn")}  # what `reference` reads of each
FORMATS = {"textgrid": (".TextGrid", textgrid), "ctm": (".ctm", ctm), "json": (".json", as_json)}


def reference(file: Path, tier: str = "words") -> list[Border]:
    """What a reference says of a tier: a TextGrid's whose name ends so, a CTM, or TIMIT's .wrd and .phn (samples at
    16 kHz; TIMIT's phones come as IPA, other names as they are, a closure belongs to its burst).
    """
    text = _decoded(file)
    try:
        if file.suffix.lower() == ".textgrid":
            return _of_textgrid(text, tier, file)
        if file.suffix == ".ctm":
            rows = [line.split() for line in text.splitlines() if line.strip()]
            return [(row[4], float(row[2]), float(row[2]) + float(row[3])) for row in rows]
        rows = [line.split(maxsplit=2) for line in text.splitlines() if line.strip()]
        found = [(word, int(start) / 16000, int(end) / 16000) for start, end, word in rows]
        return _bursts(found) if file.suffix == ".phn" else found
    except (IndexError, ValueError) as error:
        raise BadValue(f"{file} is no TextGrid, CTM, .wrd or .phn: {error}") from None


def _bursts(rows: list[Border]) -> list[Border]:
    """Phones as IPA; one behind a closure begins with it, and a closure without a burst is the stop itself."""
    found: list[Border] = []
    closure: Border | None = None
    for name, start, end in [*rows, ("h#", 0.0, 0.0)]:
        sound = phones.of_timit(name)
        if closure is not None:
            stops = {"d": ("d", "jh"), "t": ("t", "ch")}.get(closure[0], (closure[0],))
            if name in stops:
                start = closure[1]
            else:
                found.append((phones.of_timit(closure[0]), *closure[1:]))
            closure = None
        if name.endswith("cl"):
            closure = (name[:-2], start, end)
        elif sound:
            found.append((sound, start, end))
    return found


def _decoded(file: Path) -> str:
    data = file.read_bytes()
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def _of_textgrid(text: str, tier: str, file: Path) -> list[Border]:
    """Long and short format alike: what counts are the strings and numbers, in their order."""
    body = text.split("<exists>", 1)[-1]
    tokens = re.findall(r'"(?:[^"]|"")*"|(?<![\w\[])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?(?![\w\]])', body)
    at, names = 1, []
    while at < len(tokens):
        kind, name, count = tokens[at], tokens[at + 1].strip('"'), int(float(tokens[at + 4]))
        at, width = at + 5, 3 if kind == '"IntervalTier"' else 2
        rows = [tokens[at + width * row : at + width * (row + 1)] for row in range(count)]
        at, names = at + width * count, [*names, name]
        if width == 3 and name.lower().endswith(tier):
            words = [(row[2][1:-1].replace('""', '"'), float(row[0]), float(row[1])) for row in rows]
            return [word for word in words if word[0].strip().lower() not in SILENCE]
    raise BadValue(f"{file} has no tier {tier!r}; it has {', '.join(names)}")
