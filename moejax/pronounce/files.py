"""Judgements as files: a table of all recordings, and JSON of each with its words and sounds."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping

from moejax.pronounce.judging import Judged, Part, Word


def table(judged: Mapping[str, Judged]) -> str:
    """CSV: a line a recording; scores of the rater, mean score of the words, the weakest word, the text."""
    names = list(dict.fromkeys(name for one in judged.values() for name in one.scores))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["file", "seconds", *names, "sounds", "weakest", "text", "text_given"])
    for file, one in judged.items():
        scores = [f"{one.scores[name][0]:.2f}" if name in one.scores else "" for name in names]
        known = [word for word in one.words if word.score is not None]
        weakest = min(known, key=lambda word: word.score or 0.0).text if known else ""
        sounds = "" if one.sounds is None else f"{one.sounds:.1f}"
        writer.writerow([file, f"{one.seconds:.2f}", *scores, sounds, weakest, one.text, one.given])
    return out.getvalue()


def as_json(file: str, one: Judged) -> str:
    """One recording whole."""
    found = {"recording": file, "seconds": round(one.seconds, 3), "text": one.text, "text_given": one.given}
    found["scores"] = {
        name: {"score": round(score, 3), "usual_error": round(error, 3)} for name, (score, error) in one.scores.items()
    }
    found["words"] = [_word(word) for word in one.words]
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _word(word: Word) -> dict:
    found = {"text": word.text, "score": None if word.score is None else round(word.score, 1)}
    return found | {"start": round(word.start, 3), "end": round(word.end, 3), "parts": [_part(p) for p in word.parts]}


def _part(part: Part) -> dict:
    found = {"kind": part.kind, "text": part.text, "score": round(part.score, 1)}
    found |= {"start": round(part.start, 3), "end": round(part.end, 3)}
    found |= {"heard": part.heard} if part.heard else {}
    return found | ({"semitones": [round(height, 2) for height in part.curve]} if part.curve else {})
