"""What a caller of `Recognizer.transcribe` asks for: one flat set of options, checked, with the model's defaults."""

import dataclasses
import difflib
from collections.abc import Sequence
from typing import Any

from moejax.decode.guards import Guards
from moejax.decode.longform import LongformOptions
from moejax.decode.options import LADDER, DecodingOptions
from moejax.errors import BadType, BadValue
from moejax.text import languages

ALGORITHMS = ("sequential", "chunked")
GUARDS = ("all", "reference", "none")
_DECODING = {field.name for field in dataclasses.fields(DecodingOptions)} - {"prompt"}  # `initial_prompt` says it
_LONGFORM = {field.name for field in dataclasses.fields(LongformOptions)} - {"guards"}
OPTIONS = (*sorted(_DECODING | _LONGFORM), "algorithm", "batch_size", "guards", "target")


@dataclasses.dataclass(frozen=True)
class Request:
    """`algorithm` is sequential, chunked, or pieces (`decode.pieces`). `target`: the language that a model writes which
    learnt to translate into it; "" for what every model can do.
    """

    algorithm: str
    decoding: DecodingOptions
    longform: LongformOptions
    batch_size: int | None
    target: str = ""


def request(
    options: dict[str, Any],
    *,
    timed: bool,
    can_time: bool,
    language: str | None,
    context: int,
    writes: Sequence[str] = (),
) -> Request:
    """The request that `options` make of a model.

    Args:
      options: of OPTIONS, those of `DecodingOptions` and `LongformOptions` and: algorithm, of ALGORITHMS; batch_size;
        target, the language that the task translate writes; guards, of GUARDS or a `Guards`: which windows' text is
        withheld, with `no_speech_threshold` and `logprob_threshold` in it. None for language, algorithm, batch_size,
        target and guards is the default.
      timed: the model writes timestamps and hears 30 s: defaults as in the reference's `transcribe`, sequential. Else
        one greedy pass over pieces cut at silences, nothing suppressed or withheld: what it was evaluated with.
      can_time: it writes timestamps where it is asked to: the algorithms that need them are to be had.
      language: its default. context: its number of token positions. writes: languages that it learnt to translate into,
        the first of which is its default target.

    Errors: TypeError for an unknown option, ValueError for a value.
    """
    unknown = sorted(options.keys() - set(OPTIONS))
    if unknown:
        close = difflib.get_close_matches(unknown[0], OPTIONS, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise BadType(f"transcribe has no option {unknown[0]!r}; {hint}known: {', '.join(OPTIONS)}")
    algorithm = _algorithm(options.get("algorithm"), timed, can_time)
    asked = {name: value for name, value in options.items() if name in _DECODING}
    asked["language"] = options.get("language") or language
    for name, kind in (("temperature", (list, tuple)), ("hotwords", list)):
        if isinstance(asked.get(name), kind):
            asked[name] = tuple(asked[name])
    longform = {name: value for name, value in options.items() if name in _LONGFORM}
    if algorithm != "sequential":
        _check_pieces(longform)
    return Request(
        algorithm=algorithm,
        decoding=DecodingOptions(**(_defaults(algorithm, context) | asked)),
        longform=LongformOptions(**longform, guards=_guards(options, algorithm)),
        batch_size=_batch_size(options.get("batch_size")),
        target=_target(options, tuple(writes)),
    )


def _target(options, writes) -> str:
    asked = options.get("target")
    if options.get("task", "transcribe") != "translate":
        if asked:
            raise BadValue(f"target is {asked!r}, and the task is to transcribe: say task='translate'")
        return ""
    if not asked:
        return writes[0] if writes else ""
    code = languages.code_of(asked) or ""
    if code not in (writes or ("en",)):  # what learnt another language gives the tokens of English another meaning
        known = ", ".join(writes or ("en",))
        raise BadValue(f"target is {asked!r}; this system translates into {known} (config section 'st' trains others)")
    return code if writes else ""


def _check_pieces(longform):
    """Refuses what only windows that follow on one another can do."""
    if longform.get("condition_on_previous_text") is True:
        raise BadValue("condition_on_previous_text=True needs the sequential algorithm; a piece sees no text before it")
    if longform.get("hallucination_silence_threshold") is not None:
        raise BadValue("hallucination_silence_threshold needs the sequential algorithm; pieces are cut at silences")


def _algorithm(asked, timed, can_time):
    if asked is not None and asked not in ALGORITHMS:
        raise BadValue(f"algorithm is {asked!r}; known: {', '.join(ALGORITHMS)}")
    if asked == "sequential" and not can_time:
        raise BadValue(
            "the sequential algorithm needs timestamps, which this model does not write; use chunked, which cuts at"
            " silences"
        )
    if timed:
        return asked or "sequential"
    return asked if asked and can_time else "pieces"


def _defaults(algorithm: str, context: int) -> dict[str, Any]:
    if algorithm != "pieces":
        return {"temperature": LADDER}
    # A decoder of few positions was trained to fill them; a published one may use half, the rest is for prompts.
    room = context if context <= 128 else None
    return {"without_timestamps": True, "suppress_tokens": None, "suppress_blank": False, "sample_len": room}


def _guards(options, algorithm) -> Guards:
    asked = options.get("guards") or _default_guards(options, algorithm)
    if isinstance(asked, Guards):
        return asked
    if asked not in GUARDS:
        raise BadValue(f"guards is {asked!r}; known: {', '.join(GUARDS)}")
    if asked == "none":
        return Guards.reference(no_speech=None)
    limits = options.get("no_speech_threshold", 0.6), options.get("logprob_threshold", -1.0)
    if asked == "reference":
        return Guards.reference(*limits)
    return Guards(no_speech=limits[0], no_speech_logprob=limits[1])


def _default_guards(options, algorithm) -> str:
    """Models of short windows know no no-speech token, unless somebody who knows his model sets its threshold."""
    if algorithm != "pieces":
        return "all"
    return "reference" if options.get("no_speech_threshold") is not None else "none"


def _batch_size(asked):
    if asked is not None and (not isinstance(asked, int) or isinstance(asked, bool) or asked < 1):
        raise BadValue(f"batch_size is {asked!r}, must be a whole number from 1 on")
    return asked
