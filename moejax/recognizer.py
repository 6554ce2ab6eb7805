"""The public face: load a model, give it audio, get text. Numpy in, numpy out."""

import copy
import dataclasses
import functools
import logging
import numbers
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np

from moejax.audio import read as audio_io
from moejax.audio.constants import SAMPLE_RATE, WINDOW_SECONDS
from moejax.audio.flaws import Rejected
from moejax.decode.alignment import Aligner
from moejax.decode.chunked import transcribe_chunked
from moejax.decode.decoder import Decoder
from moejax.decode.enrolled import Context, joined
from moejax.decode.longform import Progress, Reading, Said, transcribe_sequential
from moejax.decode.pieces import transcribe_pieces
from moejax.decode.request import Request, request
from moejax.enrolment import voice
from moejax.errors import BadValue, NotThere, Remark
from moejax.nn import functional
from moejax.nn.whisper import WhisperConfig
from moejax.systems.system import Network, Opened
from moejax.tasks import recognition
from moejax.text import languages
from moejax.text.sentence import sentence
from moejax.text.tokenizer import Tokenizer
from moejax.text.transcript import Transcript
from moejax.types import Array

log = logging.getLogger(__name__)


def has_times(config: WhisperConfig, tokenizer: Tokenizer) -> bool:
    """Whether the vocabulary has timestamps that the network can write."""
    return config.vocab_size > tokenizer.timestamp_begin


class Recognizer:
    """Transcribes audio with one system. Shapes are few and fixed; a recording's batch neighbours never change its
    text.
    """

    def __init__(
        self,
        system: Opened,
        tokenizer: Tokenizer,
        *,
        seconds: Sequence[float],
        language: str | None = "en",
        timestamps: bool = False,
        can_time: bool | None = None,
        heads: Sequence[Sequence[int]] | None = None,
        batch_size: int = 8,
        seed: int = 0,
    ):
        """`system`: opened; the other settings say how it listens. `seconds`: window lengths. `language`: the default,
        None detects it. `timestamps`: the model writes them and hears 30 s, so long audio is read as the reference
        reads it. `can_time`: it writes them where an algorithm is asked for that needs them; None: as `timestamps`.
        `heads`: (layer, head) pairs for word times.
        """
        self.system, self.tokenizer = system, tokenizer
        self.seconds = tuple(sorted(seconds))
        self.language, self.batch_size, self.seed = language, batch_size, seed
        self.timestamps, self.heads = timestamps, heads
        self.can_time = timestamps if can_time is None else can_time
        self.context: Context | None = None  # an enrolled speaker's phrases

    @property
    def network(self) -> Network:
        """What is run, and on which route."""
        return self.system.network

    @property
    def config(self) -> WhisperConfig:
        """Sizes of the network."""
        return self.network.config

    @property
    def params(self) -> dict:
        """Its parameters."""
        return self.network.params

    @overload
    def transcribe(
        self, audio: list | tuple, *, rate: int = ..., progress: Progress | None = ..., **options: Any
    ) -> list[Transcript]: ...
    @overload
    def transcribe(
        self, audio: str | Path | np.ndarray, *, rate: int = ..., progress: Progress | None = ..., **options: Any
    ) -> Transcript: ...
    def transcribe(
        self,
        audio: str | Path | np.ndarray | list | tuple,
        *,
        rate: int = SAMPLE_RATE,
        progress: Progress | None = None,
        **options: Any,
    ) -> Transcript | list[Transcript]:
        """Transcript of a path or an array [S] or [S, channels] at `rate` Hz, or a list of Transcripts of a list.

        Integer arrays are scaled by their type. What can be heard of a damaged recording is heard, and a warning is
        logged (logger `moejax.recognizer`); so is one where nothing can be heard, which gives empty text. `progress` is
        called with (place in the list, seconds done, seconds in all).

        Options, with names and defaults of openai-whisper's `transcribe` (see `decode.request`): language (its code or
        English name), task, beam_size, patience, length_penalty, temperature, best_of, hotwords, word_timestamps,
        initial_prompt, condition_on_previous_text, thresholds ...; and algorithm ("sequential", "chunked"),
        batch_size, guards, target (what the task translate writes, of a system that learnt to: `training.st`).

        Errors: ValueError naming what is wrong (unreadable, many NaN, wrong scale, unknown language); TypeError for an
        unknown option; FileNotFoundError.
        """
        items, several = _items(audio)
        self.check(**options)
        waves = (self.read(item, rate) for item in items)
        if any(not isinstance(item, str | Path) for item in items):
            waves = iter(list(waves))  # a wrong array is a bug of the caller's: found before work starts
        found: dict[int, Transcript] = {}
        for place, transcript in self.stream(waves, progress=progress, **options):
            found[place] = transcript
        return [found[place] for place in range(len(items))] if several else found[0]

    def enroll(
        self,
        audio: str | Path | np.ndarray | list | tuple,
        texts: str | Sequence[str] | None = None,
        *,
        rate: int = SAMPLE_RATE,
    ) -> "Recognizer":
        """A Recognizer for the speaker of these recordings (paths or arrays, as `transcribe` takes them).

        With what is said in them (`texts`, one each; three phrases of a few seconds are enough): they stand in front of
        every window (`decode.enrolled`), with any model that hears 30 s. Texts in capitals are written as sentences.
        Without texts, of a mixture or a hypernetwork: the gate hears their mean embedding in place of each window's
        own, which also holds the text.

        Errors: ValueError for a system that nobody's voice changes when there are no texts, for phrases that leave no
        room in the window, and for recordings in which nothing can be heard; else as `transcribe`.
        """
        items, _ = _items(audio)
        waves, other = [self.read(item, rate) for item in items], copy.copy(self)
        if texts is not None:
            if self.samples[-1] < WINDOW_SECONDS * SAMPLE_RATE:
                raise BadValue(f"phrases with texts need a model that hears 30 s; this hears {self.seconds[-1]:g} s")
            said = [texts] if isinstance(texts, str) else texts
            silent = [str(place + 1) for place, wave in enumerate(waves) if not len(wave)]
            if silent:
                raise BadValue(f"nothing can be heard in phrase {', '.join(silent)} of {len(waves)}")
            other.context = joined(waves, [sentence(text) for text in said])
            return other
        if self.network.route != "gate":
            raise BadValue(
                "a speaker is enrolled by voice in a mixture or a hypernetwork; this system treats everybody alike: "
                "give the texts of the recordings, then they stand in front of what it hears"
            )
        pieces = [wave[start:stop] for wave in waves for start, stop in _cut(wave, self.seconds[-1])]
        if not pieces:
            raise BadValue(f"nothing can be heard in the {len(items)} recordings to enroll a speaker from")
        return self.on_route(voice.logits(self.network, pieces, self.samples)[0])

    def on_route(self, logits_E: np.ndarray) -> "Recognizer":
        """The same with these logits in place of what the gate of a mixture says, whatever is heard."""
        logits_E = np.asarray(logits_E, np.float32)
        network = dataclasses.replace(self.network, logits_NE=logits_E[None])
        other, decoder = self.of_system(dataclasses.replace(self.system, network=network)), copy.copy(self.decoder)
        encode = decoder.programs.encode
        encode = encode.func if isinstance(encode, functools.partial) else encode  # of somebody else's route
        encode = functools.partial(encode, given=True, logits_E=logits_E)
        decoder.programs = dataclasses.replace(decoder.programs, encode=encode)
        other.__dict__["decoder"] = decoder  # what is compiled is shared
        return other

    def of_system(self, system: Opened) -> "Recognizer":
        """The same ears and settings with another system of this base."""
        other = copy.copy(self)
        for compiled in ("decoder", "_logits"):
            other.__dict__.pop(compiled, None)
        other.system = system
        return other

    @functools.lru_cache(maxsize=2)  # noqa: B019 - as `_aligner`
    def _into(self, target: str) -> "Recognizer":
        """The same, writing translations."""
        other = self.of_system(dataclasses.replace(self.system, network=self.network.into(target)))
        other.tokenizer = self.tokenizer.into(target)
        return other

    def with_params(self, params: dict) -> "Recognizer":
        """The same with other parameters of the same shapes and types; compiled programs are shared."""
        other, params = copy.copy(self), functional.materialise(params)
        other.system = dataclasses.replace(self.system, network=dataclasses.replace(self.network, params=params))
        other.__dict__["decoder"] = copy.copy(self.decoder)
        other.decoder.params = params
        return other

    def stream(
        self,
        waves: Iterable[np.ndarray | None],
        *,
        progress: Progress | None = None,
        said: Said | None = None,
        contexts: Sequence[Context | None] | None = None,
        **options: Any,
    ) -> Iterator[tuple[int, Transcript]]:
        """(place, Transcript) of each wave as it is finished; waves are what `read` gives, options those of
        `transcribe`. `contexts`: the phrases of each wave's speaker; None: those of whom `enroll` was told.

        `said` is called with (place, text so far) after each window, where windows follow on one another.

        The iterable is read only when there is room in a batch: a generator that reads files keeps few in memory. None
        says that nobody waits just now: it is asked again after the next windows, and was all if there are none.
        """
        asked = self.check(**options)
        if asked.target and any(one is not None for one in (*(contexts or ()), self.context)):
            raise BadValue("phrases with texts stand in front of what is written as said; translate without them")
        if asked.target and not self.network.target:
            return self._into(asked.target).stream(waves, progress=progress, said=said, contexts=contexts, **options)
        decoder = copy.copy(self.decoder)  # the compiled programs are shared
        decoder.batch_size = asked.batch_size or self.batch_size
        if asked.algorithm != "pieces":
            # With times a model hears all of its window, however short its pieces are.
            decoder.samples = (2 * self.config.max_source_positions * self.config.hop,)
        # Compiled when the first words are asked for; without that option, for repetitions alone.
        align = self._aligner(asked.decoding.task)
        reading = Reading(
            model=decoder,
            tokenizer=self.tokenizer,
            config=self.config,
            decoding=asked.decoding,
            options=asked.longform,
            window_seconds=self.seconds[-1] if asked.algorithm == "pieces" else decoder.samples[-1] / SAMPLE_RATE,
            align=align,
            progress=progress,
            said=said,
            contexts=(lambda _: self.context) if contexts is None else contexts.__getitem__,
        )
        if asked.algorithm == "pieces" and any(one is not None for one in (*(contexts or ()), self.context)):
            raise BadValue("phrases stand in front of windows of 30 s; this model hears shorter pieces")
        if asked.algorithm == "sequential":
            return transcribe_sequential(waves, reading)
        return (transcribe_chunked if asked.algorithm == "chunked" else transcribe_pieces)(waves, reading, _cut)

    def check(self, **options: Any) -> Request:
        """What these options of `transcribe` come to. Errors: as `transcribe` raises them, before any work."""
        if isinstance(options.get("language"), str):
            options["language"] = languages.code_of(options["language"])
        asked = request(
            options,
            timed=self.timestamps,
            can_time=self.can_time,
            language=self.language,
            context=self.config.max_target_positions,
            writes=self.system.writes,
        )
        tokenizer = self.tokenizer.into(asked.target) if asked.target else self.tokenizer
        language = asked.decoding.language or ("en" if not self.tokenizer.languages else self.tokenizer.languages[0])
        tokenizer.prefix(language, asked.decoding.task)
        if asked.longform.hallucination_silence_threshold is not None and not asked.longform.word_timestamps:
            raise BadValue("hallucination_silence_threshold needs word_timestamps")
        asked.decoding.banned(self.tokenizer)
        if asked.decoding.emotion and not self.tokenizer.emotions:
            raise BadValue(f"emotion: {self.system.name} has no tokens of emotions; the stage emotion teaches them")
        self._remark_on_prompt(asked.longform.initial_prompt)
        return asked

    def _remark_on_prompt(self, prompt):
        room, size = self.config.max_target_positions // 2 - 1, len(self.tokenizer.encode(prompt)) if prompt else 0
        if size > room:
            message = f"initial_prompt has {size} tokens; the model takes {room}, and sees the last {room} of them"
            warnings.warn(message, Remark, stacklevel=3)

    def read(self, item: Any, rate: int = SAMPLE_RATE, warn: Callable[[str], None] | None = None) -> np.ndarray:
        """Mono samples [S] at 16 kHz of a path, of a file's bytes or seekable stream, or of an array at `rate`; none
        where it is silent. Files are read block by block, so memory holds what is returned and no more.

        `warn` is called with one line for each thing that is wrong with what is read all the same (a cut download, a
        few values that are no numbers, silence); None logs it. Errors: FileNotFoundError; `audio.flaws.Rejected`, a
        ValueError, for what cannot be used.
        """
        if isinstance(item, str | Path) and not Path(item).exists():
            raise NotThere(f"no audio file {item}")
        warn = warn or functools.partial(log.warning, "%s: %s", _name(item))
        limits: dict[str, Any] = {"min_seconds": 0.0, "max_seconds": float("inf"), "whole": False}
        file = isinstance(item, str | Path | bytes) or hasattr(item, "read")
        try:
            checked = audio_io.load(item, **limits) if file else audio_io.gate(np.asarray(item), rate, **limits)
        except Rejected as rejected:
            if rejected.reason == "silent" or (rejected.reason == "empty" and not file):
                warn(f"{rejected.reason}: {rejected.what}")
                return np.zeros(0, np.float32)
            raise
        for flaw in checked.flaws:
            warn(flaw)
        return checked.samples

    def encode(self, mel_BMN: Array) -> np.ndarray:
        """Encoder states [B, T, D] of the *base* for log-mel features [B, M, N] (Hugging Face's layout), float32."""
        mel_BNM = np.asarray(mel_BMN, np.float32).transpose(0, 2, 1)
        return np.asarray(self._encode(self.params, mel_BNM), np.float32)

    def logits(self, mel_BMN: Array, tokens_BL: Array) -> np.ndarray:
        """Next-token logits [B, L, V] for features and decoder inputs, teacher forced, float32; a mixture routes by its
        gate.
        """
        mel_BNM = np.asarray(mel_BMN, np.float32).transpose(0, 2, 1)
        return np.asarray(self._logits(self.params, mel_BNM, np.asarray(tokens_BL, np.int32)), np.float32)

    @property
    def samples(self) -> tuple[int, ...]:
        """Window lengths in samples, whole encoder frames."""
        step = 2 * self.config.hop
        return tuple(-(-round(s * SAMPLE_RATE) // step) * step for s in self.seconds)

    def _logits_E(self):
        """What stands in place of the gate's logits for everybody, or None."""
        return None if self.network.logits_NE is None else self.network.logits_NE[0]

    @functools.cached_property
    def decoder(self) -> Decoder:
        """The `decode.decoder.Decoder` of this system, for windows of audio or of features."""
        return recognition.make_decoder(
            self.network.graphdef,
            self.params,
            self.config,
            self.tokenizer,
            samples=self.samples,
            route=self.network.route,
            mixture=self.network.mixture,
            embedding=self.network.embedding,
            batch_size=self.batch_size,
            label=self.network.label,
            seed=self.seed,
            logits_E=self._logits_E(),
        )

    @functools.lru_cache(maxsize=2)  # noqa: B019 - a recognizer lives as long as the program
    def _aligner(self, task):
        return Aligner(self.network.graphdef, self.params, self.config, self.tokenizer, heads=self.heads, task=task)

    @functools.cached_property
    def _encode(self):
        return jax.jit(lambda params, mel_BNM: functional.merge(self.network.graphdef, params).encode(mel_BNM))

    @functools.cached_property
    def _logits(self):
        return recognition.make_logits(
            self.network.graphdef,
            route=self.network.route,
            mixture=self.network.mixture,
            embedding=self.network.embedding,
            label=self.network.label,
            logits_E=self._logits_E(),
        )


def _name(item) -> str:
    """What a warning calls a recording."""
    return Path(item).name if isinstance(item, str | Path) else "the recording"


def _items(audio) -> tuple[list, bool]:
    """The recordings of what `transcribe` was given, and whether it was a list of them: one of numbers is an array."""
    several = isinstance(audio, list | tuple) and not (audio and isinstance(audio[0], numbers.Real))
    return (list(audio) if several else [audio]), several


def _cut(audio_S, seconds):
    """Pieces at silences; none of nothing."""
    return audio_io.chunks(audio_S, seconds) if len(audio_S) else []
