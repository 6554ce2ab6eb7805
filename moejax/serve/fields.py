"""The fields of a form: those of OpenAI's audio API, and ours (speaker, route, system, target)."""

import dataclasses
import difflib
import math
from collections.abc import Iterable
from typing import Any

from moejax.serve.declined import Declined
from moejax.serve.formats import FORMATS, GRANULARITIES

ONE = ("model", "language", "prompt", "response_format", "temperature", "speaker", "route", "system")
TRANSCRIPTION = (*ONE, "stream", "timestamp_granularities", "keywords", "chunking_strategy")
TRANSLATION = (*ONE, "target")
SEVERAL = ("timestamp_granularities", "keywords", "route")
LONGEST = {"prompt": 20000, "keywords": 2000}  # characters; of all others:
LONG = 500


@dataclasses.dataclass(frozen=True)
class Asked:
    """A form, read. `chosen` are model, system, speaker and route, `options` those of `Recognizer.transcribe`."""

    chosen: dict[str, Any]
    options: dict[str, Any]
    form: str = "json"
    granularities: tuple[str, ...] = ("segment",)
    stream: bool = False


def asked(items: Iterable[tuple[str, str]], *, translate: bool) -> Asked:
    """What the text fields of a form ask for. Errors: Declined, with the field at fault."""
    values = _values(items, TRANSLATION if translate else TRANSCRIPTION)
    if "model" not in values:
        raise Declined(400, "missing_field", "the field 'model' is missing: which model reads it", "model")
    chosen: dict[str, Any] = {name: values[name][0] for name in ("model", "system", "speaker") if name in values}
    if "route" in values:
        chosen["route"] = _route(values["route"])
    options: dict[str, Any] = {"task": "translate"} if translate else {}
    for name, option in (("language", "language"), ("prompt", "initial_prompt"), ("target", "target")):
        if name in values:
            options[option] = values[name][0]
    if "keywords" in values:
        options["hotwords"] = tuple(word.strip() for word in values["keywords"] if word.strip())
    if temperature := _temperature(values.get("temperature")):  # 0 climbs by the thresholds, as it does without
        options["temperature"] = (temperature,)
    form = _known("response_format", values.get("response_format", ["json"]), FORMATS)[-1]
    granularities = _known("timestamp_granularities", values.get("timestamp_granularities", ["segment"]), GRANULARITIES)
    if "timestamp_granularities" in values and form != "verbose_json":
        message = "timestamp_granularities need response_format=verbose_json"
        raise Declined(400, "invalid_value", message, "timestamp_granularities")
    if "word" in granularities:
        options["word_timestamps"] = True
    stream = _known("stream", [values.get("stream", ["false"])[0].lower()], ("true", "false"))[0] == "true"
    if stream and form not in ("json", "text"):
        raise Declined(400, "invalid_value", f"stream goes with response_format json, not {form}", "response_format")
    return Asked(chosen, options, form, granularities, stream)


def _values(items, known) -> dict[str, list[str]]:
    """{field: values}; brackets behind a name (`keywords[]`, `chunking_strategy[type]`) are how clients write lists."""
    found: dict[str, list[str]] = {}
    for name, value in items:
        plain = name.partition("[")[0]
        if plain not in known:
            close = difflib.get_close_matches(plain, known, n=1)
            hint = f"did you mean {close[0]}? " if close else ""
            message = f"unknown field {plain[:50]!r}; {hint}known: file, {', '.join(known)}"
            raise Declined(400, "unknown_field", message, plain[:50])
        if len(value) > LONGEST.get(plain, LONG):
            message = f"{plain} has {len(value)} characters; at most {LONGEST.get(plain, LONG)}"
            raise Declined(400, "invalid_value", message, plain)
        if "\0" in value or any("\ud800" <= letter <= "\udfff" for letter in value):
            raise Declined(400, "invalid_value", f"{plain} is no text", plain)
        if value:
            found.setdefault(plain, []).append(value)
    for name, values in found.items():
        if len(values) > 1 and name not in (*SEVERAL, "chunking_strategy"):
            raise Declined(400, "invalid_value", f"{name} is given {len(values)} times", name)
        if len(values) > 100:
            raise Declined(400, "invalid_value", f"{name} is given {len(values)} times; at most 100", name)
    return found


def _known(name, values, known) -> tuple[str, ...]:
    for value in values:
        if value not in known:
            raise Declined(400, "invalid_value", f"{name} is {value!r}; known: {', '.join(known)}", name)
    return tuple(dict.fromkeys(values))


def _temperature(values) -> float:
    if not values:
        return 0.0
    found = _number("temperature", values[0])
    if not 0 <= found <= 1:
        raise Declined(400, "invalid_value", f"temperature is {found:g}; between 0 and 1", "temperature")
    return found


def _route(values) -> tuple[float, ...]:
    return tuple(_number("route", part) for value in values for part in value.strip(" []").split(","))


def _number(name, text) -> float:
    try:
        found = float(text)
    except ValueError as error:
        raise Declined(400, "invalid_value", f"{name} is {text!r}, which is no number", name) from error
    if not math.isfinite(found):
        raise Declined(400, "invalid_value", f"{name} is {text!r}, which is not finite", name)
    return found
