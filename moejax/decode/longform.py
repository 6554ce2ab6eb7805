"""Recordings of any length, window after window: the sequential algorithm of the reference.

Follows `transcribe` of openai/whisper (whisper/transcribe.py): features floored by the whole recording, the next window
starts where the last finished segment of this one ends, previous text is the next window's prompt. Different here: many
recordings share batches, memory holds the audio and nothing that grows with it, and `guards` may withhold a window.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.decode import clips, hallucination, values
from moejax.decode.alignment import Align, Asked
from moejax.decode.decoder import Window
from moejax.decode.enrolled import Context, in_context
from moejax.decode.features import BLOCK, Features
from moejax.decode.guards import SILENT, Guards
from moejax.decode.options import DecodingOptions
from moejax.decode.prefix import most_before
from moejax.decode.repetition import sounded
from moejax.decode.segments import Draft, cut_at_timestamps, last_end
from moejax.decode.together import Detect, Hear, Listening, Model, numbered, run_together
from moejax.decode.words import APPENDED, PREPENDED, add_words, text_tokens
from moejax.errors import BadValue
from moejax.text.transcript import Transcript

Progress = Callable[[int, float, float], None]  # (place of the recording, seconds done, seconds in all)
Said = Callable[[int, str], None]  # (place of the recording, its text so far)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LongformOptions:
    """How a long recording is read; names and defaults as in openai-whisper's `transcribe`.

    Attributes:
      condition_on_previous_text: what was said before is the next window's prompt, until a window needed a temperature
        above 0.5 (sequential only).
      initial_prompt: text said before the recording; `carry_initial_prompt` repeats it before every window.
      word_timestamps, prepend_punctuations, append_punctuations: word times and which marks join a word.
      clip_timestamps: seconds start, end, start, end ... or such a string with commas, in order; a last end left out is
        the recording's. Parts outside are not heard, and no segment ends outside its clip.
      hallucination_silence_threshold: with word times, skip silences longer than this many seconds around text that
        looks invented (sequential only).
      guards: which windows are withheld; `Guards.reference()` for the reference's behaviour.
    """

    condition_on_previous_text: bool = True
    initial_prompt: str | None = None
    carry_initial_prompt: bool = False
    word_timestamps: bool = False
    prepend_punctuations: str = PREPENDED
    append_punctuations: str = APPENDED
    clip_timestamps: str | tuple[float, ...] = ()
    hallucination_silence_threshold: float | None = None
    guards: Guards = Guards()

    def __post_init__(self):
        clips.parsed(self.clip_timestamps)
        for name in ("condition_on_previous_text", "carry_initial_prompt", "word_timestamps"):
            values.flag(name, getattr(self, name))
        values.text("initial_prompt", self.initial_prompt)
        for name in ("prepend_punctuations", "append_punctuations"):
            values.text(name, getattr(self, name), unset=False)
        values.number("hallucination_silence_threshold", self.hallucination_silence_threshold, least=0)

    def clips(self, frames: int, hop: int) -> list[tuple[int, int]]:
        """Start and end of the parts to hear, in mel frames, within a recording of `frames`.

        Errors: BadValue for a clip that begins after the recording's end.
        """
        return clips.within(clips.parsed(self.clip_timestamps), frames, SAMPLE_RATE / hop)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading:
    """How recordings are read: by which model, and what was asked for.

    Attributes:
      model: `Decoder`, or anything with the methods of `together.Model`.
      tokenizer: `text.tokenizer.Tokenizer`. config: `nn.whisper.WhisperConfig`.
      decoding: per-window options; `language` None is detected (on each recording's first window in which something
        is heard, or each piece).
      window_seconds: window length if shorter than the model's (30 s for published ones).
      align: `alignment.Aligner`, needed for word times; a repetition is cut by it (`repetition`) where there is one.
      progress: told after every window.
      said: told the text so far after every window (sequential only).
      contexts: place of a recording -> its speaker's phrases, which stand in front of every window.

    Errors: ValueError for word times without `align`, BadValue for a silence threshold without word times.
    """

    model: Model
    tokenizer: Any
    config: Any
    decoding: DecodingOptions = DecodingOptions()
    options: LongformOptions = LongformOptions()
    window_seconds: float | None = None
    align: Align | None = None
    progress: Progress | None = None
    said: Said | None = None
    contexts: Callable[[int], Context | None] | None = None

    def __post_init__(self):
        if self.options.word_timestamps and self.align is None:
            raise ValueError("word_timestamps needs `align`, an alignment.Aligner of the same model")
        if self.options.hallucination_silence_threshold is not None and not self.options.word_timestamps:
            raise BadValue("hallucination_silence_threshold needs word_timestamps")

    @property
    def frames(self) -> int:
        """Mel frames of a window: the model's context, or `window_seconds` if that is shorter."""
        most, seconds = 2 * self.config.max_source_positions, self.window_seconds
        return most if seconds is None else min(most, int(seconds * SAMPLE_RATE) // self.config.hop)

    def features(self, audio_S) -> Features:
        """Log-mel features of a recording, or of a piece that is one by itself."""
        block = self.frames if self.frames < BLOCK // 2 else BLOCK  # one for all whose windows phrases shorten
        return Features(audio_S, n_mels=self.config.num_mel_bins, hop=self.config.hop, block=block)

    def of(self, place: int, samples: int) -> "Reading":
        """How recording `place` of so many samples is read: with the window that its speaker's phrases leave."""
        context = None if self.contexts is None else self.contexts(place)
        if context is None:
            return dataclasses.replace(self, contexts=None)
        whole = self.frames * self.config.hop / SAMPLE_RATE
        most, timed = most_before(self.config.max_target_positions), not self.decoding.without_timestamps
        context = context.leaving(samples / SAMPLE_RATE).within(most, self.tokenizer, timed)
        return dataclasses.replace(self, window_seconds=whole - context.seconds, contexts=lambda _: context)

    def behind(self, listening: Listening) -> Listening:
        """A recording of `of(place)` with its speaker's phrases in front of every window."""
        context = None if self.contexts is None else self.contexts(0)
        if context is None:
            return listening
        whole = dataclasses.replace(self, window_seconds=None)
        timed = not self.decoding.without_timestamps
        return in_context(listening, context, whole.features, self.tokenizer, timed)

    def prompt(self) -> list[int]:
        """Tokens of `initial_prompt`."""
        return self.tokenizer.encode(self.options.initial_prompt) if self.options.initial_prompt else []


def transcribe_sequential(
    recordings: Iterable[np.ndarray | None], reading: Reading
) -> Iterator[tuple[int, Transcript]]:
    """(place, Transcript) of each recording, in the order in which they are finished.

    `recordings`: float32 mono audio [S] at 16 kHz; read one by one as batches have room, so a generator that loads
    files keeps at most `model.batch_size` of them in memory; None where nobody comes just now (`together`). Errors:
    ValueError for several channels.
    """

    def listenings():
        for place, audio_S in numbered(recordings):
            if audio_S is None:
                yield None
                continue
            mine = reading.of(place, len(audio_S))
            yield mine.behind(_Sequential(place, mine.features(audio_S), mine).listen())

    return run_together(listenings(), reading.model, reading.decoding, reading.align)


def mean_route(drafts) -> list[float] | None:
    """Experts' weights averaged over segments; None without a mixture."""
    routes = [draft.found.route for draft in drafts if draft.found.route is not None]
    return np.mean(routes, axis=0).tolist() if routes else None


def mean_emotion(drafts) -> dict[str, float] | None:
    """Probabilities of emotions averaged over segments; None where the model knows none."""
    found = [draft.found.emotion for draft in drafts if draft.found.emotion is not None]
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]} if found else None


class _Sequential:
    """One recording's state; times in seconds, `seek` in mel frames."""

    def __init__(self, place, features, reading: Reading):
        self.place, self.features, self.tokenizer, self.window = place, features, reading.tokenizer, reading.frames
        self.decoding, self.options, self.progress = reading.decoding, reading.options, reading.progress
        self.tell = reading.said
        self.hop, self.language = reading.config.hop, reading.decoding.language
        self.guessed: str | None = None  # where nothing is ever heard, the first window's language is all there is
        self.begins = bool(reading.decoding.prefix)
        self.aligned = reading.align is not None
        self.masks_padding = reading.config.mask_padding
        self.seek, self.last_speech, self.reset = 0, 0.0, 0
        self.drafts: list[Draft] = []
        self.dropped: collections.Counter = collections.Counter()
        self.initial = reading.prompt()
        self.said = list(self.initial)
        self.room = reading.config.max_target_positions // 2 - 1 - len(self.initial)

    def seconds(self, frames: int) -> float:
        return frames * self.hop / SAMPLE_RATE

    def frames_of(self, seconds: float) -> int:
        return round(seconds * SAMPLE_RATE / self.hop)

    def listen(self) -> Listening:
        """The recording as a generator of questions; returns its Transcript."""
        if not self.features.frames:
            self.dropped[SILENT] += 1
        for start, end in self.options.clips(self.features.frames, self.hop):
            self.seek, first = start, len(self.drafts)
            while self.seek < end:
                self.seek = max(self.seek, start)
                before = self.seek
                yield from self._hear(min(self.window, end - self.seek))
                if self.seek <= before:  # a lone <|0.00|> pair: the reference would hear the same window for ever
                    self.seek = before + min(self.window, end - before)
                if self.progress is not None:
                    done = min(self.seek, self.features.frames)
                    self.progress(self.place, self.seconds(done), self.seconds(self.features.frames))
                if self.tell is not None:
                    self.tell(self.place, self._text())
            if self.options.clip_timestamps:
                self._keep_within(self.drafts[first:], self.seconds(start), self.seconds(end))
        return Transcript(
            text=self._text(),
            segments=[draft.finished(id, self.hop) for id, draft in enumerate(self.drafts)],
            language=self.language or self.guessed or "en",
            route=mean_route(self.drafts),
            dropped=dict(self.dropped),
            emotion=mean_emotion(self.drafts),
        )

    def _text(self):
        return self.tokenizer.decode(self.said[len(self.initial) :], strip=False)

    @staticmethod
    def _keep_within(drafts, start, end):
        """A network knows windows of 30 s and may claim times after the end of a shorter clip."""
        for one in (timed for draft in drafts for timed in (draft, *(draft.words or ()))):
            one.start, one.end = (min(max(time, start), end) for time in (one.start, one.end))

    def _find_language(self, seek, size):
        """Asks for the language of a window where it is not known; the window's text decides whether it holds."""
        if self.language is not None or not self.tokenizer.is_multilingual:
            return self.language or "en"
        # Published models know the silence after a short recording as such; the reference shows it to them here.
        stop = seek + (self.window if seek + size == self.features.frames and not self.masks_padding else size)
        if stop == seek + size:
            return None  # the same window: its decoding finds the language, and it is encoded once
        return (yield Detect(Window(self.features.slice(seek, stop), self.features.audio(seek, stop))))

    def _prompt(self):
        if self.options.carry_initial_prompt:
            rest = self.said[max(len(self.initial), self.reset) :]
            return self.initial + (rest[-self.room :] if self.room > 0 else [])
        return self.said[self.reset :]

    def _hear(self, size):
        """One window of `size` frames; moves `seek` and appends segments."""
        seek, seconds = self.seek, self.seconds(size)
        audio_S = self.features.audio(seek, seek + size)
        self.seek += size
        reason = self.options.guards.before(audio_S)
        if reason is not None:
            self.dropped[reason] += 1
            return
        language = yield from self._find_language(seek, size)
        window = Window(self.features.slice(seek, seek + size), audio_S)
        found = yield Hear(window, self._prompt(), language, self.begins)
        self.begins = False
        reason = self.options.guards.after(found, seconds)
        if reason is None and found.text.strip():
            self.language = self.language or found.language
        self.guessed = self.guessed or found.language
        if reason is not None:
            self.dropped.update([reason] if found.text.strip() else [])
            return
        if self.aligned:
            found = yield from sounded(found, size, self.tokenizer, seconds)
        offset = self.seconds(seek)
        cut = cut_at_timestamps(found, self.tokenizer, seek=seek, offset=offset, seconds=seconds)
        if cut.consumed is not None:
            self.seek = seek + self.frames_of(cut.consumed)
        drafts = cut.drafts
        if self.options.word_timestamps:
            keep = yield from self._add_words(cut, seek, size)
            if not keep:
                return
        for draft in drafts:
            draft.clear_if_empty()
        self.drafts += drafts
        self.said += [token for draft in drafts for token in draft.tokens]
        # A repetition as the next window's prompt would make it go on.
        if not self.options.condition_on_previous_text or found.temperature > 0.5 or found.steady:
            self.reset = len(self.said)

    def _add_words(self, cut, seek, size):
        """Words of a window's segments, and where to go on from; False if the window is to be heard again later."""
        options, offset, drafts = self.options, self.seconds(seek), cut.drafts
        tokens = [token for part in text_tokens(drafts, self.tokenizer.eot) for token in part]
        words = (yield Asked(tokens, self.language or "en", size)) if tokens else []
        add_words(
            drafts,
            words,
            eot=self.tokenizer.eot,
            offset=offset,
            last_speech=self.last_speech,
            prepended=options.prepend_punctuations,
            appended=options.append_punctuations,
        )
        end = last_end(drafts)
        if not cut.ends_silent and end is not None and end > offset:
            self.seek = self.frames_of(end)
        threshold = options.hallucination_silence_threshold
        if threshold is not None and not self._skip_invented(cut, seek, size, threshold):
            return False
        end = last_end(drafts)
        self.last_speech = self.last_speech if end is None else end
        return True

    def _skip_invented(self, cut, seek, size, threshold):
        """Moves `seek` over silence around text that looks invented; False if nothing of the window is kept."""
        stretch = hallucination.Stretch(
            start=self.seconds(seek),
            end=self.seconds(seek + self.window),
            seconds=self.seconds(size),
            total=self.seconds(self.features.frames),
            last_speech=self.last_speech,
        )
        end = last_end(cut.drafts)
        if not cut.ends_silent and end is not None and end > stretch.start:
            self.seek = self.frames_of(end) if stretch.end - end > threshold else seek + size
        gap = hallucination.leading_gap(cut.drafts, stretch, threshold)
        if gap is not None:
            self.seek = seek + self.frames_of(gap)
            return False
        onward = hallucination.drop_surrounded(cut.drafts, stretch, threshold)
        if onward is not None:
            self.seek = self.features.frames if onward == float("inf") else self.frames_of(onward)
        return True
