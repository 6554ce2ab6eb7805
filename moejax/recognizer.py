"""The public face: load a model, give it audio, get text. Numpy in, numpy out."""

import copy
import dataclasses
import functools
import logging
import numbers
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import numpy as np

from moejax.audio import read as audio_io
from moejax.audio.constants import SAMPLE_RATE, WINDOW_SECONDS
from moejax.audio.flaws import Rejected
from moejax.convert import find, openai_whisper, peft_lora, whisper_folder
from moejax.decode.alignment import Aligner
from moejax.decode.alignment_heads import PUBLISHED
from moejax.decode.chunked import transcribe_chunked
from moejax.decode.decoder import Decoder
from moejax.decode.longform import Progress, Reading, transcribe_sequential
from moejax.decode.pieces import transcribe_pieces
from moejax.decode.request import Request, request
from moejax.errors import BadValue, NotThere, UnknownName
from moejax.nn import functional
from moejax.nn.quantize import quantize
from moejax.nn.whisper import WhisperConfig
from moejax.runtime import allocator, compilation
from moejax.systems.system import Network, Opened, System
from moejax.tasks import asr, recognition
from moejax.text import languages
from moejax.text.tokenizer import Tokenizer
from moejax.text.transcript import Transcript
from moejax.types import Array

log = logging.getLogger(__name__)


def load(
    path: str | Path,
    system: str | None = None,
    weights: str = "",
    vocabulary: str | Path | None = None,
    adapters: str | Path | Sequence[str | Path] = (),
    route: Sequence[float] | None = None,
) -> "Recognizer":
    """Recognizer from a moejax workdir, a Whisper folder of Hugging Face or faster-whisper, an OpenAI checkpoint (.pt),
    or the name of a published model.

    Args:
      path: a name such as "tiny.en" or "openai/whisper-tiny" is looked for in the Hugging Face cache, then in installed
        packages, then on the hub, from which it is downloaded (`convert.find`; `moejax models` lists names).
      system: a system of a workdir's table (`base`, `lora`, `moe`, ...); the default is the best trained one there is:
        `moe`, then `moe_frozen`, then `base`.
      weights: how the backbone is kept: float32, bfloat16 or int8 (`nn.quantize`); "" as the run did, or float32.
      vocabulary: of an OpenAI checkpoint, which has none in it: a tiktoken file, or a folder with one or with
        tokenizer.json; None looks beside it and in an installed openai-whisper.
      adapters: PEFT folders with LoRAs of a published model, which are merged into its weights.
      route: their weights, such as (0.5, 0.5); one adapter alone has weight 1.

    Errors: FileNotFoundError naming what was looked for; KeyError for an unknown system; ValueError for a broken file.
    """
    allocator.keep_pages()  # before JAX starts its threads, so that they share what one of them has freed
    compilation.keep_programs()
    place = Path(path).expanduser()
    if (place / "base" / "model.json").is_file() and (place / "config.json").is_file():
        if adapters:
            known = f"such as the one that {path}/base/model.json names"
            raise BadValue(f"{path} is a workdir; adapters are added to a published model or its like, {known}")
        return _from_workdir(place, system, weights)
    place = find.model(path)
    if place.is_dir() and not (place / "config.json").is_file():
        raise NotThere(f"{path} is {find.NEITHER}")
    if system not in (None, "base"):
        raise UnknownName(f"a published model has no system {system!r}; it has base")
    if place.is_file():
        config, params = openai_whisper.load(place)
        tokenizer = openai_whisper.vocabulary(place, config, vocabulary).open()
        params = _adapted(params, config, adapters, route)
        return _published(config, params, tokenizer, weights, heads=PUBLISHED.get(place.stem))
    config, params = whisper_folder.load(place)
    params = _adapted(params, config, adapters, route)
    writes_times = whisper_folder.settings(place).get("timestamps", True)
    heads, tokenizer = whisper_folder.alignment_heads(place), Tokenizer.from_hf_folder(place)
    return _published(config, params, tokenizer, weights, heads=heads, writes_times=writes_times)


def _adapted(params, config, adapters, route):
    """The weights with the adapters of `load` merged into them."""
    if not adapters:
        if route is not None:
            raise BadValue("a route is the weights of adapters, and there are none")
        return params
    folders = [adapters] if isinstance(adapters, str | Path) else list(adapters)
    return peft_lora.merged(params, config, folders, route)


def _published(config, params, tokenizer, weights, *, heads=None, writes_times=True) -> "Recognizer":
    graphdef, params = asr.init(asr.build(config), quantize(params, weights))
    longest = min(WINDOW_SECONDS, config.max_source_positions * 2 * config.hop / SAMPLE_RATE)
    shorter = [s for s in (2.0, 4.0, 8.0, 16.0) if s < longest] if config.mask_padding else []
    timed = writes_times and _has_times(config, tokenizer) and longest == WINDOW_SECONDS and not config.mask_padding
    return Recognizer(
        System("base", "base", "base").opened(Network(graphdef, params, config), 0),
        tokenizer,
        seconds=(*shorter, longest),
        language=None if timed else "en",
        timestamps=timed,
        can_time=writes_times and _has_times(config, tokenizer) and not config.mask_padding,
        heads=heads,
    )


def _has_times(config, tokenizer) -> bool:
    return config.vocab_size > tokenizer.timestamp_begin


def _from_workdir(path: Path, system: str | None, weights: str) -> "Recognizer":
    # Imported here: the stages lie above this module and only a workdir needs them.
    from moejax.job.opening import open_workdir

    return Recognizer(**open_workdir(path, system, weights))


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
        batch_size, guards.

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

    def enroll(self, audio: str | Path | np.ndarray | list | tuple, *, rate: int = SAMPLE_RATE) -> "Recognizer":
        """A Recognizer for the speaker of these recordings (paths or arrays, as `transcribe` takes them; a few
        utterances are enough, and nobody need know what is said): the gate, or the hypernetwork, hears their mean
        embedding in place of each window's own, which also holds the text.

        Errors: ValueError for a system that nobody's voice changes (`base`, an adapter) and for recordings in which
        nothing can be heard; else as `transcribe`.
        """
        network = self.network
        if network.route != "gate":
            raise BadValue("a speaker is enrolled in a mixture or a hypernetwork; this system treats everybody alike")
        items, _ = _items(audio)
        waves = [self.read(item, rate) for item in items]
        pieces = [wave[start:stop] for wave in waves for start, stop in _cut(wave, self.seconds[-1])]
        if not pieces:
            raise BadValue(f"nothing can be heard in the {len(items)} recordings to enroll a speaker from")
        assert network.embedding is not None  # what every gate hears
        embed, found = asr.make_embed(network.graphdef, network.embedding), []
        for piece in pieces:
            window = next(samples for samples in self.samples if samples >= len(piece))
            audio_BS = np.pad(piece, (0, window - len(piece)))[None]
            found.append(np.asarray(embed(network.params, audio_BS, np.array([len(piece)], np.int32)))[0])
        other = copy.copy(self)
        for compiled in ("decoder", "_logits"):
            other.__dict__.pop(compiled, None)
        logits_NE = np.asarray(asr.make_gate(network.graphdef)(network.params, np.mean(found, axis=0)[None]))
        other.system = dataclasses.replace(self.system, network=dataclasses.replace(network, logits_NE=logits_NE))
        return other

    def stream(
        self, waves: Iterable[np.ndarray], *, progress: Progress | None = None, **options: Any
    ) -> Iterator[tuple[int, Transcript]]:
        """(place, Transcript) of each wave as it is finished; waves are what `read` gives, options those of
        `transcribe`.

        The iterable is read only when there is room in a batch: a generator that reads files keeps few in memory.
        """
        asked = self.check(**options)
        decoder = copy.copy(self.decoder)  # the compiled programs are shared
        decoder.batch_size = asked.batch_size or self.batch_size
        if asked.algorithm != "pieces":
            # With times a model hears all of its window, however short its pieces are.
            decoder.samples = (2 * self.config.max_source_positions * self.config.hop,)
        align = self._aligner(asked.decoding.task) if asked.longform.word_timestamps else None
        reading = Reading(
            model=decoder,
            tokenizer=self.tokenizer,
            config=self.config,
            decoding=asked.decoding,
            options=asked.longform,
            window_seconds=self.seconds[-1] if asked.algorithm == "pieces" else decoder.samples[-1] / SAMPLE_RATE,
            align=align,
            progress=progress,
        )
        if asked.algorithm == "sequential":
            return transcribe_sequential(waves, reading)
        return (transcribe_chunked if asked.algorithm == "chunked" else transcribe_pieces)(waves, reading, _cut)

    def check(self, **options: Any) -> Request:
        """What these options of `transcribe` come to. Errors: as `transcribe` raises them, before any work."""
        if options.get("language"):
            options["language"] = languages.code_of(options["language"])
        asked = request(
            options,
            timed=self.timestamps,
            can_time=self.can_time,
            language=self.language,
            context=self.config.max_target_positions,
        )
        language = asked.decoding.language or ("en" if not self.tokenizer.languages else self.tokenizer.languages[0])
        self.tokenizer.prefix(language, asked.decoding.task)
        asked.longform.clips(0, self.config.hop)
        if asked.longform.hallucination_silence_threshold is not None and not asked.longform.word_timestamps:
            raise BadValue("hallucination_silence_threshold needs word_timestamps")
        return asked

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
