"""A speaker's own phrases in front of what is read: enrolment in the decoder's context, nothing trained.

A published Whisper hears 30 s and a phrase lasts three. So a few phrases of the speaker stand at the beginning of every
window, a pause after each, and their texts are the decoder's first tokens, as if it had written them. What it writes
next is read with that voice in its ears (speech-based in-context learning: Wang et al., ICASSP 2024, "Can Whisper
perform speech-based in-context learning?").

A recording that is read so is a generator like any other (`together`): `in_context` stands between it and the decoder,
puts the phrases in front of its windows and takes their time off the times that come back.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.audio.constants import SAMPLE_RATE, TIMESTAMP_STEP, WINDOW_SECONDS
from moejax.decode.alignment import Asked
from moejax.decode.decoder import Window
from moejax.decode.fallback import compression_ratio
from moejax.decode.results import Decoding
from moejax.decode.together import Hear, Listening
from moejax.errors import BadValue

PAUSE_SECONDS = 0.5  # after each phrase
# That stand in front unless somebody says otherwise. Of 40 development speakers of speechocean762 (tiny.en, 120
# utterances) errors are 34.0 % with none, 29.9 with one, 27.1 with three, 24.3 with five, 24.6 with eight; which they
# are (shortest, longest, worst read, most alike) makes no difference that so many people show.
PHRASES = 5
LEAST_NEW_SECONDS = 8.0  # of a window that are left for what is read


@dataclasses.dataclass(frozen=True)
class Context:
    """Phrases of one speaker and their texts. `audio_S` float32 [S], 16 kHz, ends with a pause.

    `spans`: (start, end) of each phrase in it, in samples.
    """

    audio_S: np.ndarray
    texts: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def seconds(self) -> float:
        """What it takes of every window: a multiple of 20 ms."""
        return len(self.audio_S) / SAMPLE_RATE

    def leaving(self, seconds: float) -> "Context":
        """As many of the first phrases as leave so many seconds of a window; where even one leaves less, those that
        leave half of it: every window of a long recording has them in front again.

        A recording that a window holds is not cut for a third phrase: without times the cut falls anywhere, and words
        are lost there (base on 45 cut clips of LibriSpeech: 32 errors more, on 25 whole ones 6 fewer).
        """
        for room in (seconds, WINDOW_SECONDS / 2):
            for count in range(len(self.spans), 0, -1):
                if self._end(count) / SAMPLE_RATE + room <= WINDOW_SECONDS:
                    return self._first(count)
        return self

    def within(self, tokens: int, tokenizer, timed: bool) -> "Context":
        """As many of the first phrases as are so many tokens at most, one at least."""
        counts = range(len(self.spans), 1, -1)
        fits = (count for count in counts if len(self._first(count).tokens(tokenizer, timed)) <= tokens)
        return self._first(next(fits, 1))

    def _end(self, count: int) -> int:
        """Samples of the first `count` phrases, their pauses with them."""
        return self.spans[count][0] if count < len(self.spans) else len(self.audio_S)

    def _first(self, count: int) -> "Context":
        return Context(self.audio_S[: self._end(count)], self.texts[:count], self.spans[:count])

    def tokens(self, tokenizer, timed: bool) -> list[int]:
        """What the decoder has said already: the texts, each between its times where the model writes such."""
        ids = []
        for text, (start, end) in zip(self.texts, self.spans, strict=True):
            said = tokenizer.encode(" " + text.strip())
            ids += [_time(tokenizer, start), *said, _time(tokenizer, end)] if timed else said
        return ids


def joined(phrases: Sequence[np.ndarray], texts: Sequence[str], pause: float = PAUSE_SECONDS) -> Context:
    """The phrases [S], 16 kHz, one after the other. Errors: BadValue for phrases that fill the window."""
    if len(phrases) != len(texts):
        raise BadValue(f"{len(phrases)} phrases and {len(texts)} texts; every phrase needs its own")
    step = round(TIMESTAMP_STEP * SAMPLE_RATE)
    gap, parts, spans, at = round(pause * SAMPLE_RATE), [], [], 0
    for phrase in phrases:
        spans.append((at, at + len(phrase)))
        rest = -(len(phrase) + gap) % step  # to whole timestamps, so that times come back exactly
        parts += [np.asarray(phrase, np.float32), np.zeros(gap + rest, np.float32)]
        at += len(phrase) + gap + rest
    most = WINDOW_SECONDS - LEAST_NEW_SECONDS
    if at > most * SAMPLE_RATE:
        raise BadValue(
            f"{len(phrases)} phrases with pauses last {at / SAMPLE_RATE:.1f} s; at most {most:g} s of a window"
        )
    return Context(np.concatenate([np.zeros(0, np.float32), *parts]), tuple(texts), tuple(spans))


def fitting(phrases: Sequence[np.ndarray], count: int = PHRASES, pause: float = PAUSE_SECONDS) -> list[int]:
    """Places of at most `count` phrases [S], 16 kHz, in the order given, that leave a window its least new audio."""
    room, chosen = (WINDOW_SECONDS - LEAST_NEW_SECONDS) * SAMPLE_RATE, []
    for place, phrase in enumerate(phrases):
        size = len(phrase) + (pause + TIMESTAMP_STEP) * SAMPLE_RATE
        if len(chosen) < count and size <= room:
            chosen.append(place)
            room -= size
    return chosen


def front(phrases: Sequence[np.ndarray], texts: Sequence[str], count: int = PHRASES) -> Context | None:
    """At most `count` of the phrases, those that fit, joined; None where none does."""
    places = fitting(phrases, count)
    return joined([phrases[i] for i in places], [texts[i] for i in places]) if places else None


def in_context(listening: Listening, context: Context, features, tokenizer, timed: bool) -> Listening:
    """The same recording, every window of it behind the phrases. One of which nothing is read so is read without them.

    (Slow speakers: the model may take what is behind the phrases for the beginning of something that the window's end
    cuts, of which published Whispers write the time alone. And what it says of silence, it says of the phrases, too.)

    Args:
      listening: as `together.run_together` takes it; its windows leave `context.seconds` of the model's free.
      features: audio [S] -> `features.Features`. timed: the windows are decoded with timestamps.
    """
    ids, own = context.tokens(tokenizer, timed), context.tokens(tokenizer, timed=False)
    steps = round(context.seconds / TIMESTAMP_STEP)
    answer, alone = None, False
    while True:
        try:
            question = listening.send(answer)
        except StopIteration as end:
            return end.value
        if isinstance(question, Hear):
            assert question.window.audio_S is not None  # whoever reads recordings hands in their audio
            audio_S = np.concatenate([context.audio_S, question.window.audio_S])
            heard = features(audio_S)
            size = len(context.audio_S) // heard.hop + len(question.window.mel_NM)
            window = Window(heard.slice(0, size), audio_S)
            found = yield question._replace(window=window, before=ids, earliest=steps)
            alone = not found.text.strip()
            answer = (yield question) if alone else _without(found, steps, tokenizer)
        elif isinstance(question, Asked) and not alone:
            frames = question.frames + len(context.audio_S) // heard.hop
            words = yield question._replace(tokens=[*own, *question.tokens], frames=frames)
            answer = _own_words(words, len(own), context.seconds)
        else:
            answer = yield question


def _without(found: Decoding, steps: int, tokenizer) -> Decoding:
    """A window's decoding with times from where the phrases end."""
    begin = tokenizer.timestamp_begin
    tokens = [token if token < begin else max(token - steps, begin) for token in found.tokens]
    text = tokenizer.decode(tokens)
    return dataclasses.replace(found, tokens=tokens, text=text, compression_ratio=compression_ratio(text))


def _own_words(words, spoken: int, seconds: float):
    """The words behind the first `spoken` tokens, with times from where the phrases end."""
    left = []
    for word in words:
        if spoken > 0:
            spoken -= len(word.tokens)
            continue
        start, end = (max(0.0, time - seconds) for time in (word.start, word.end))
        left.append(dataclasses.replace(word, start=start, end=end))
    return left


def _time(tokenizer, samples: int) -> int:
    return tokenizer.timestamp_begin + round(samples / SAMPLE_RATE / TIMESTAMP_STEP)
