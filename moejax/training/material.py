"""What the base is trained on: real utterances and readings of their texts, and windows joined of both."""

import dataclasses

import numpy as np

from moejax.audio.cache import AudioCache
from moejax.audio.constants import SAMPLE_RATE
from moejax.data.collate import Collator, Utterances
from moejax.errors import BadValue
from moejax.training import packed, timed
from moejax.work.context import bucket_samples


class Sources:
    """Real utterances, then readings: `cache[i]` the audio, `samples`, `texts`, `speakers` ("" for readings)."""

    def __init__(self, context, rows, readings):
        files, column = context.corpus.manifest.paths(), context.corpus.manifest.column
        paths = [path for _, path in readings]
        self.rows, self.real = rows, len(rows)
        self.cache = AudioCache([files[r] for r in rows] + paths, context.cfg.runtime.audio_cache_bytes)
        self.samples = np.concatenate([context.corpus.samples[rows], _lengths(paths)])
        self.texts = [str(text) for text in column("text")[rows]] + [text for text, _ in readings]
        self.names = [str(name) for name in column("id")[rows]] + [f"reading of {text!r}" for text, _ in readings]
        self.speakers = [str(name) for name in column("speaker")[rows]] + [""] * len(readings)


class Material:
    """Utterances one by one, behind one index: first the real ones, then the readings."""

    def __init__(self, context, config, tokenizer, sources, times):
        window = 2 * config.max_source_positions * config.hop
        self.buckets = (window,) if times else bucket_samples(context.cfg.model.buckets, config.hop)
        lengths, texts, real = sources.samples, sources.texts, sources.real
        # A slow reading may outlast the largest bucket; real rows may not
        keep = np.flatnonzero(lengths <= self.buckets[-1])
        if (long := np.flatnonzero(lengths[:real] > self.buckets[-1])).size:
            name, end = context.corpus.manifest.column("id")[sources.rows[long[0]]], self.buckets[-1] / SAMPLE_RATE
            raise BadValue(
                f"utterance {name!r} lasts {lengths[long[0]] / SAMPLE_RATE:.2f} s, but model.buckets end at {end:g} s; "
                f"{long.size} of {real} training utterances are longer"
            )
        self.index, self.real = keep, int(np.sum(keep < real))
        prefix = tokenizer.prefix(context.cfg.data.language, "transcribe")
        tokens = [prefix + tokenizer.encode(texts[i]) + [tokenizer.eot] for i in keep]
        self.samples, self.names = lengths[keep], np.array([sources.names[i] for i in keep])
        audio = packed.Picked(sources.cache, keep)
        self.collate = Collator(Utterances(audio, self.samples, tokens, len(prefix), tokenizer.eot), self.buckets)
        self.times, self.joined = times, None
        if times:
            self.joined = timed.join(
                audio=audio,
                samples=self.samples,
                texts=[texts[i] for i in keep],
                groups=[sources.speakers[i] for i in keep],
                tokenizer=tokenizer,
                language=context.cfg.data.language,
                window=window,
                room=config.max_target_positions,
                seed=context.cfg.seed,
                enrolled=context.cfg.model.enrolled,
            )

    def order(self, repeat: int) -> np.ndarray:
        """Collator indices of one epoch: the real part `repeat` times, every reading once. repeat 0: the real part."""
        real = np.arange(self.real)
        return real if repeat == 0 else np.concatenate([np.tile(real, repeat), np.arange(self.real, len(self.index))])


@dataclasses.dataclass(frozen=True)
class Reordered:
    """A collator seen through an order with repetitions; filler stays filler."""

    collate: Collator
    order: np.ndarray

    def __call__(self, bucket, rows):
        return self.collate(bucket, np.where(rows < 0, -1, self.order[rows]))


def _lengths(paths) -> np.ndarray:
    import soundfile

    return np.array([soundfile.info(path).frames for path in paths], np.int64)
