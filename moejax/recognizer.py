"""The public face: load a model, give it audio, get text. Numpy in, numpy out."""

import functools
from pathlib import Path

import jax
import numpy as np

from moejax.convert import hf_whisper
from moejax.data import audio as audio_io
from moejax.data.tokenizer import Tokenizer
from moejax.nn import functional
from moejax.nn.quantize import quantize
from moejax.ops.audio import SAMPLE_RATE
from moejax.tasks import asr
from moejax.transcript import Segment, Transcript


def load(path, system: str | None = None, weights: str = "") -> "Recognizer":
    """Recognizer from a moejax workdir or a Hugging Face Whisper folder.

    `weights` is how the backbone is kept: float32, bfloat16 or int8 (`nn.quantize`); "" as the run did, or float32.

    `system` names a system of a workdir's table (`base`, `lora`, `moe`, ...); the default is the best trained one there
    is: `moe`, then `moe_frozen`, then `base`. Errors: FileNotFoundError for a path that is neither; KeyError for an
    unknown system.
    """
    path = Path(path)
    if (path / "base" / "model.json").is_file() and (path / "config.json").is_file():
        return _from_workdir(path, system, weights)
    if not (path / "config.json").is_file():
        raise FileNotFoundError(
            f"{path} is neither a moejax workdir (base/model.json) nor a Hugging Face folder (config.json)"
        )
    if system not in (None, "base"):
        raise KeyError(f"a Hugging Face folder has no system {system!r}; it has base")
    config, params = hf_whisper.load(path)
    graphdef, params = asr.init(asr.build(config), quantize(params, weights))
    longest = min(30.0, config.max_source_positions * 2 * config.hop / SAMPLE_RATE)
    shorter = [s for s in (2.0, 4.0, 8.0, 16.0) if s < longest] if config.mask_padding else []
    seconds = (*shorter, longest)
    return Recognizer(graphdef, params, config, Tokenizer.from_hf_folder(path), seconds=seconds)


def _from_workdir(path: Path, system: str | None, weights: str) -> "Recognizer":
    # Imported here: the stages lie above this module and only a workdir needs them.
    from moejax.stages.opening import open_workdir

    opened = open_workdir(path, system, weights)
    return Recognizer(**opened)


class Recognizer:
    """Transcribes audio with one system. Shapes are few and fixed; a recording's batch neighbours never change its
    text.
    """

    def __init__(
        self, graphdef, params, config, tokenizer, *, seconds, route="none", mixture=None, embedding=None, label=0,
        language="en", batch_size=8, seed=0,
    ):  # fmt: skip
        self.graphdef, self.params, self.config, self.tokenizer = graphdef, params, config, tokenizer
        self.seconds = tuple(sorted(seconds))
        self.route, self.mixture, self.embedding, self.label = route, mixture, embedding, label
        self.language, self.batch_size, self.seed = language, batch_size, seed

    def transcribe(self, audio, *, rate: int = SAMPLE_RATE, language: str | None = None, batch_size: int | None = None):
        """Transcript of a path or an array [S] at `rate` Hz, or a list of Transcripts of a list of them.

        Integer arrays are scaled by their type; longer recordings than the largest window are cut at silences. Audio in
        which nothing can be heard gives empty text. Errors: ValueError naming what is wrong (unreadable, NaN, wrong
        scale).
        """
        single = not isinstance(audio, list | tuple)
        language = language or self.language
        waves = [self._read(item, rate) for item in ([audio] if single else audio)]
        pieces = [(i, start, stop) for i, wave in enumerate(waves) for start, stop in self._spans(wave)]
        cut = [waves[i][start:stop] for i, start, stop in pieces]
        texts = self._decode(cut, language, batch_size or self.batch_size)
        found = [[] for _ in waves]
        for (i, start, stop), (text, route) in zip(pieces, texts, strict=True):
            found[i].append(Segment(start / SAMPLE_RATE, stop / SAMPLE_RATE, text, route))
        transcripts = [_join(segments, language) for segments in found]
        return transcripts[0] if single else transcripts

    def encode(self, mel_BMN) -> np.ndarray:
        """Encoder states [B, T, D] of the *base* for log-mel features [B, M, N] (Hugging Face's layout), float32."""
        mel_BNM = np.asarray(mel_BMN, np.float32).transpose(0, 2, 1)
        return np.asarray(self._encode(self.params, mel_BNM), np.float32)

    def logits(self, mel_BMN, tokens_BL) -> np.ndarray:
        """Next-token logits [B, L, V] for features and decoder inputs, teacher forced, float32; a mixture routes by its
        gate.
        """
        mel_BNM = np.asarray(mel_BMN, np.float32).transpose(0, 2, 1)
        return np.asarray(self._logits(self.params, mel_BNM, np.asarray(tokens_BL, np.int32)), np.float32)

    @functools.cached_property
    def _encode(self):
        return jax.jit(lambda params, mel_BNM: functional.merge(self.graphdef, params).encode(mel_BNM))

    @functools.cached_property
    def _logits(self):
        return asr.make_logits(
            self.graphdef, route=self.route, mixture=self.mixture, embedding=self.embedding, label=self.label
        )

    @functools.lru_cache(maxsize=4)  # noqa: B019 - a recognizer lives as long as the program
    def _predict(self, language):
        prefix = self.tokenizer.prefix(language)
        room = self.config.max_target_positions
        return asr.make_predict(
            self.graphdef, prefix=prefix, eot=self.tokenizer.eot, route=self.route, mixture=self.mixture,
            embedding=self.embedding, max_tokens=(room // 2 if room > 128 else room) - len(prefix) + 1,
        )  # fmt: skip

    def _read(self, item, rate):
        if isinstance(item, str | Path):
            if not Path(item).is_file():
                raise FileNotFoundError(f"no audio file {item}")
            samples, rate = audio_io.read(item)
        else:
            samples = np.asarray(item)
        try:
            return audio_io.gate(samples, rate, min_seconds=0.0, max_seconds=float("inf")).samples
        except audio_io.Rejected as rejected:
            if rejected.reason in ("silent", "empty", "too_short"):
                return np.zeros(0, np.float32)
            raise

    def _spans(self, wave):
        return audio_io.chunks(wave, self.seconds[-1]) if len(wave) else []

    def _decode(self, waves, language, batch_size):
        """(text, route) of each wave; waves are batched by window length, results come back in order."""
        windows = [next(s for s in self.samples if len(wave) <= s) for wave in waves]
        results: list[tuple[str, list[float] | None] | None] = [None] * len(waves)
        for window in sorted(set(windows)):
            members = [i for i, w in enumerate(windows) if w == window]
            for at in range(0, len(members), batch_size):
                rows = members[at : at + batch_size]
                batch = self._batch([waves[i] for i in rows], window, language, batch_size)
                for i, result in zip(rows, batch, strict=True):
                    results[i] = result
        return results

    @property
    def samples(self):
        """Window lengths in samples, whole encoder frames."""
        step = 2 * self.config.hop
        return tuple(-(-round(s * SAMPLE_RATE) // step) * step for s in self.seconds)

    def _batch(self, waves, window, language, batch_size):
        rows = batch_size if len(waves) > 1 else 1
        audio_BS, samples_B = np.zeros((rows, window), np.float32), np.ones(rows, np.int32)
        for b, wave in enumerate(waves):
            audio_BS[b, : len(wave)], samples_B[b] = wave, len(wave)
        label_B = np.full(rows, self.label, np.int32)
        predict, key = self._predict(language), jax.random.key(self.seed)
        decoded, weight_BE = predict(self.params, audio_BS, samples_B, label_B, key)
        tokens_BL, lengths_B = np.asarray(decoded.tokens_BL), np.asarray(decoded.lengths_B)
        texts = [self.tokenizer.decode(tokens_BL[b, : lengths_B[b]]) for b in range(len(waves))]
        weights = [None] * len(waves) if weight_BE is None else np.asarray(weight_BE).astype(float).tolist()
        return list(zip(texts, weights, strict=False))  # weights of filler rows are left over


def _join(segments, language) -> Transcript:
    text = " ".join(segment.text for segment in segments if segment.text)
    routes = [segment.route for segment in segments if segment.route is not None]
    return Transcript(text, segments, language, np.mean(routes, axis=0).tolist() if routes else None)
