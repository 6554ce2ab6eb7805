"""Answers in the forms of OpenAI's audio API; subtitles as `text.writers` writes them."""

import dataclasses
import json
import math
from typing import Any

from moejax.text import languages, writers
from moejax.text.transcript import Transcript

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
MEDIA = {"text": "text/plain; charset=utf-8", "srt": "text/plain; charset=utf-8", "vtt": "text/vtt; charset=utf-8"}
GRANULARITIES = ("segment", "word")
_SEGMENT = ("id", "seek", "start", "end", "text", "tokens", "temperature")
_SEGMENT += ("avg_logprob", "compression_ratio", "no_speech_prob")


@dataclasses.dataclass(frozen=True)
class Heard:
    """What is said about a recording beside its transcript."""

    task: str
    seconds: float
    flaws: tuple[str, ...] = ()


def render(transcript: Transcript, form: str, heard: Heard, granularities: tuple[str, ...]) -> tuple[str, str]:
    """(media type, content) of an answer in one of FORMATS."""
    if form == "text":
        return MEDIA[form], transcript.text.strip() + "\n"
    if form in ("srt", "vtt"):
        return MEDIA[form], writers.render(transcript, form)
    short: dict[str, Any] = {"text": transcript.text.strip()}
    found = short if form == "json" else _verbose(transcript, heard, granularities)
    found["usage"] = {"type": "duration", "seconds": math.ceil(heard.seconds)}
    return "application/json", json.dumps(found, ensure_ascii=False)


def _verbose(transcript: Transcript, heard: Heard, granularities: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "task": heard.task,
        "language": languages.NAMES.get(transcript.language, transcript.language),
        "duration": round(heard.seconds, 3),
        "text": transcript.text.strip(),
    }
    if "word" in granularities:
        words = [word for segment in transcript.segments for word in segment.words or ()]
        found["words"] = [{"word": word.word.strip(), "start": word.start, "end": word.end} for word in words]
    if "segment" in granularities:
        found["segments"] = [
            {name: getattr(segment, name) for name in _SEGMENT}
            | ({"route": segment.route} if segment.route is not None else {})
            for segment in transcript.segments
        ]
    if transcript.route is not None:
        found["route"] = transcript.route
    if transcript.dropped:
        found["dropped"] = transcript.dropped
    return found | ({"flaws": list(heard.flaws)} if heard.flaws else {})


def event(kind: str, **content: Any) -> str:
    """A server-sent event, such as `transcript.text.delta`."""
    return f"data: {json.dumps({'type': kind, **content}, ensure_ascii=False)}\n\n"


def failure(body: dict) -> str:
    """The event that ends a stream which could not be finished."""
    return f"event: error\ndata: {json.dumps(body, ensure_ascii=False)}\n\n"
