"""Many recordings at once: each asks for one window at a time, windows of different recordings are decoded together.

A recording (or an independent piece of one) is a generator: it yields `Detect`, `Hear` or `Asked` and is sent a
language, a `Decoding` or a list of words. It knows nothing of the others, so its result cannot depend on them; the
decoder's rows do not see each other either.

Windows of about the same length share a batch, because a search ends when its last row has: short recordings are opened
ahead for that, as many as hold the audio of a batch of whole windows.
"""

import dataclasses
from collections.abc import Generator, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

from moejax.audio.constants import SAMPLE_RATE, WINDOW_SECONDS
from moejax.decode.alignment import Align, Asked
from moejax.decode.decoder import Window
from moejax.decode.options import DecodingOptions
from moejax.decode.results import Decoding


class Detect(NamedTuple):
    """Asks for the language of a window."""

    window: Window


class Hear(NamedTuple):
    """Asks for the decoding of a window after a prompt; `language` None leaves it to the decoder. `begins`: the
    recording begins here, so that the options' `prefix` is its first words. `before`: what the decoder is to have said
    in this window already, ids; `earliest`: the timestamp, in steps, from which on it goes on.
    """

    window: Window
    prompt: list[int]
    language: str | None
    begins: bool = False
    before: list[int] = []
    earliest: int = 0


Listening = Generator[Detect | Hear | Asked, Any, Any]
_END: Any = object()  # of an iterable


class Model(Protocol):
    """What long audio needs of a model; `decode.decoder.Decoder` has it."""

    batch_size: int

    def encode(self, windows: list[Any]) -> Iterable[Any]:
        """Batches with `rows`, the places of the windows (`Window`, or samples)."""
        ...

    def search(
        self, encoded, prompts: list[list[int]] | None, options: DecodingOptions, *, before=None, earliest=None
    ) -> list[Decoding]:
        """Decodings in the order of `encoded.rows`."""
        ...

    def detect(self, encoded) -> list[dict[str, float]]:
        """Languages' probabilities in the order of `encoded.rows`."""
        ...


def numbered(recordings: Iterable[Any]) -> Iterator[tuple[int, Any]]:
    """(place, recording) of each; (-1, None) where nobody comes just now, which counts for none."""
    place = 0
    for recording in recordings:
        yield (-1, None) if recording is None else (place, recording)
        place += recording is not None


def run_together(
    listenings: Iterable[Listening | None], model: Model, options: DecodingOptions, align: Align | None = None
) -> Iterator[tuple[int, Any]]:
    """(place, result) of each generator, in the order in which they end. Open at a time: `model.batch_size`, or more
    short ones (see above).

    The iterable is read only when there is room, so that audio can be loaded as it is needed. Where it gives None,
    nobody comes just now: it is asked again after the next windows, and has ended if none is waiting.
    """
    waiting, source, place, exhausted = {}, iter(listenings), 0, False
    while True:
        nobody = exhausted
        while not nobody and _room(waiting, model.batch_size):
            listening = next(source, _END)
            if listening is None or listening is _END:
                nobody, exhausted = True, listening is _END
                break
            ended, question = _step(listening, None)
            if ended:
                yield place, question
            else:
                waiting[place] = (listening, question, _samples(question))
            place += 1
        if not waiting:
            return
        for group in _alike(waiting, model.batch_size, nobody):
            yield from _answer(group, waiting, model, options, align)


def _room(waiting, batch_size):
    heard = sum(longest for *_, longest in waiting.values())
    return len(waiting) < batch_size or heard < batch_size * WINDOW_SECONDS * SAMPLE_RATE


def _samples(question):
    """Length of a question's window; of one of features alone, the longest; words are asked of a window heard."""
    if isinstance(question, Asked):
        return 0
    audio_S = question.window.audio_S
    return WINDOW_SECONDS * SAMPLE_RATE if audio_S is None else len(audio_S)


def _step(listening, answer):
    """(False, next question) or (True, result)."""
    try:
        return False, listening.send(answer)
    except StopIteration as end:
        return True, end.value


def _alike(waiting, batch_size, exhausted):
    """Places whose questions can share batches (same kind, same language, all at the beginning or none),
    shortest windows first.

    What does not fill a batch waits for what comes next, unless nothing comes or nothing fills one.
    """
    groups = {}
    for place, (_, question, _) in waiting.items():
        kind = type(question).__name__, getattr(question, "language", None), getattr(question, "begins", None)
        groups.setdefault(kind, []).append(place)
    ordered = [sorted(group, key=lambda place: _samples(waiting[place][1])) for group in groups.values()]
    full = [group[: len(group) // batch_size * batch_size] for group in ordered]
    return ordered if exhausted or not any(full) else [group for group in full if group]


def _answer(places, waiting, model, options, align):
    """Answers one group: a decoding and then, from the same encoder states, the words of those who ask for them."""
    questions = [waiting[place][1] for place in places]
    for encoded in model.encode([question.window for question in questions]):
        mine = [places[row] for row in encoded.rows]
        asked = [questions[row] for row in encoded.rows]
        if isinstance(asked[0], Detect):
            answers = [max(found, key=found.get) for found in model.detect(encoded)]
        else:
            prefix = options.prefix if asked[0].begins else None
            spoken = dataclasses.replace(options, language=asked[0].language, prefix=prefix)
            said = {}
            if any(question.before for question in asked):
                said["before"] = [question.before for question in asked]
                said["earliest"] = [question.earliest for question in asked]
            answers = model.search(encoded, [question.prompt for question in asked], spoken, **said)
        yield from _send(dict(zip(mine, answers, strict=True)), waiting)
        while True:  # most ask for words once at most; where a repetition was cut, once more
            wanted = [waiting[place][1] if place in waiting else None for place in mine]
            wanted = [question if isinstance(question, Asked) else None for question in wanted]
            if not any(question is not None for question in wanted):
                break
            words = zip(mine, align(encoded, wanted), strict=True)
            answers = {place: found for (place, found), one in zip(words, wanted, strict=True) if one is not None}
            yield from _send(answers, waiting)


def _send(answers, waiting):
    for place, answer in answers.items():
        ended, question = _step(waiting[place][0], answer)
        if ended:
            del waiting[place]
            yield place, question
        else:
            listening, _, longest = waiting[place]
            waiting[place] = (listening, question, max(longest, _samples(question)))
