"""What training and scoring stages begin with: the manifest, the base and its tokenizer, the mesh, the collator."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from moejax.audio.cache import AudioCache
from moejax.audio.constants import SAMPLE_RATE
from moejax.convert import whisper_folder
from moejax.data.collate import Collator, Tokens, Utterances, token_counts
from moejax.data.manifest import Manifest
from moejax.data.strings import codes
from moejax.errors import BadValue
from moejax.nn.quantize import quantize
from moejax.runtime import processes, sharding
from moejax.runtime.files import read_json
from moejax.text.tokenizer import Tokenizer
from moejax.work.folder import digest
from moejax.work.heard import Heard


class Corpus:
    """The material: the manifest of a workdir and the audio that it names, read lazily."""

    def __init__(self, work, audio_cache_bytes: int):
        self._work, self._bytes = work, audio_cache_bytes

    @functools.cached_property
    def manifest(self) -> Manifest:
        return Manifest.load(self._work.path("describe", "manifest.parquet"), root=self._work.root)

    @functools.cached_property
    def audio(self) -> AudioCache:
        return AudioCache(self.manifest.paths(), self._bytes)

    @property
    def cohorts(self) -> list[str]:
        """Names of the cohorts in the manifest, sorted; for tables and load matrices only."""
        return self._cohorts[1]

    @functools.cached_property
    def _cohorts(self) -> tuple[np.ndarray, list[str]]:
        """(cohort of every row, by its place among the names; the names)."""
        numbers, names = codes(self.manifest.table.column("cohort"))
        return numbers.astype(np.int32), names

    @functools.cached_property
    def samples(self) -> np.ndarray:
        """Samples of every row, int32: what is kept of each row is what a corpus of millions takes in memory."""
        return np.round(self.manifest.table.column("seconds").to_numpy() * SAMPLE_RATE).astype(np.int32)

    def rows(self, split=None, select=None) -> np.ndarray:
        """Row numbers of a split, and of the column values in `select` ({"cohort": ["A"]})."""
        equal = dict(select or {})
        equal = {name: list(value) if isinstance(value, tuple) else value for name, value in equal.items()}
        rows = self.manifest.indices(**equal, **({} if split is None else {"split": split}))
        if not len(rows):
            raise BadValue(f"no utterance in split {split!r} with {equal or 'no selection'}; cohorts: {self.cohorts}")
        return rows

    def cohort_index(self, rows) -> np.ndarray:
        return self._cohorts[0][rows]


class Base:
    """The frozen network: the pretrained folder, or the one that the base stage wrote; read lazily."""

    def __init__(self, work, dtype: str, weights: str):
        self._work, self._dtype, self._weights = work, dtype, weights

    @functools.cached_property
    def folder(self):
        """Hugging Face folder of the base."""
        pointer = read_json(self._work.path("base", "model.json"))["path"]
        return self._work.path(pointer) if not str(pointer).startswith("/") else pointer

    @functools.cached_property
    def _loaded(self):
        return self.network(self.folder)

    @property
    def config(self):
        """`nn.whisper.WhisperConfig`, with activations of the configured type."""
        return self._loaded[0]

    @property
    def params(self) -> dict:
        """Weights in the configured format."""
        return self._loaded[1]

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_hf_folder(self.folder)

    @functools.cached_property
    def times(self) -> float:
        """Share of training batches that are joined windows with times (`model.times`), where the base is a published
        model that writes them; else 0: utterances alone, read in pieces.
        """
        return float(read_json(self._work.path("base", "model.json")).get("times", 0.0))

    @functools.cached_property
    def enrolled(self) -> float:
        """Share of these windows that are of an enrolled speaker (`model.enrolled`)."""
        return float(read_json(self._work.path("base", "model.json")).get("enrolled", 0.0))

    def network(self, folder):
        """`(WhisperConfig, params)` of another Hugging Face folder, in the same types."""
        config, params = whisper_folder.load(folder, dtype="float32" if self._weights else self._dtype)
        return dataclasses.replace(config, dtype=self._dtype), quantize(params, self._weights, others=self._dtype)


class Context:
    """What a stage works in: the resolved config, the workdir, the material, the base, and the devices.

    `weights` is the format of the frozen backbone, model.weights unless given.
    """

    def __init__(self, cfg, work, weights: str = ""):
        self.cfg, self.work = cfg, work
        self.alone = processes.alone()
        self.weights = weights or cfg.model.weights

    @functools.cached_property
    def corpus(self) -> Corpus:
        return Corpus(self.work, self.cfg.runtime.audio_cache_bytes)

    @functools.cached_property
    def base(self) -> Base:
        return Base(self.work, self.cfg.model.dtype, self.weights)

    @functools.cached_property
    def heard(self) -> Heard:
        """Encoder states of the base by what was heard, in W/states: shared by all stages of these weights, and by all
        runs of a study, whose workdirs lie below W/variants.
        """
        config = self.base.config
        made = {"base": self.work.finished("base")["digest"], "weights": self.weights, "dtype": config.dtype}
        path = self.work.study.joinpath("states", digest(made))
        return Heard(path, config.d_model, config.dtype, self.cfg.runtime.encoder_cache_bytes)

    @functools.cached_property
    def mesh(self):
        """All devices; where one of several processes works alone, its own, all along `data`."""
        if self.alone:
            return sharding.own_mesh()
        return sharding.make_mesh(self.cfg.mesh.to_dict())

    @property
    def buckets(self) -> tuple[int, ...]:
        """Fixed audio lengths in samples, multiples of an encoder frame. A base that writes times hears all of its
        window, in training as in use: what it is trained on in shorter ones it loses there.
        """
        if self.base.times:
            return (self.window,)
        return bucket_samples(self.cfg.model.buckets, self.base.config.hop)

    @property
    def window(self) -> int:
        """Samples that the base hears at most, 30 s in published ones."""
        return 2 * self.base.config.max_source_positions * self.base.config.hop

    @property
    def multiple(self) -> int:
        """Rows of a batch are a multiple of this on the configured mesh."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def prefix(self, target: str = "") -> list[int]:
        """What the decoder is given of every utterance; of one that is to be translated with a `target`."""
        if target:
            return self.base.tokenizer.into(target).prefix(task="translate")
        return self.base.tokenizer.prefix(self.cfg.data.language, "transcribe")

    def collator(self, rows, labels=None, gate_in=None, states=None, written=None) -> Collator:
        """Batches of these rows; `labels` and `gate_in` are aligned with `rows`. Index i of the collator is rows[i].
        `states(row)` gives encoder states of a row of the manifest in place of its audio. `written`: (prefix, text) of
        each; else what was said.
        """
        prefix, tokenizer, corpus = self.prefix(), self.base.tokenizer, self.corpus
        if written is None:
            tokens = Tokens(corpus.manifest.strings("text", rows), prefix, tokenizer)
        else:
            tokens = [before + tokenizer.encode(text) + [tokenizer.eot] for before, text in written]
        limit = self.base.config.max_target_positions
        if (long := np.flatnonzero(token_counts(tokens) - 1 > limit)).size:
            name = corpus.manifest.strings("id")[int(rows[long[0]])]
            raise BadValue(f"utterance {name!r} has {len(tokens[long[0]])} tokens; the model takes {limit}")
        utterances = Utterances(
            audio=_Rows(corpus.audio, rows),
            samples=corpus.samples[rows],
            tokens=tokens,
            prefix=len(prefix) if written is None else [len(before) for before, _ in written],
            eot=tokenizer.eot,
            states=None if states is None else _Rows(states, rows),
            stride=2 * self.base.config.hop,
        )
        index = corpus.cohort_index(rows)
        return Collator(utterances, self.buckets, labels=labels, gate_in=gate_in, cohorts=index)

    def max_tokens(self, target: str = "") -> int:
        """Tokens to decode at most: half the model's room, as in the reference, or all of a micro model's."""
        room = self.base.config.max_target_positions
        return (room // 2 if room > 128 else room) - len(self.prefix(target)) + 1


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Audio (or encoder states) of row number `rows[i]`; pickles for loader processes."""

    cache: Any  # [row] -> samples [S]; or, called with it, encoder states
    rows: np.ndarray

    def __call__(self, index):
        row = int(self.rows[index])
        return self.cache(row) if callable(self.cache) else self.cache[row]


def bucket_samples(seconds, hop: int) -> tuple[int, ...]:
    """Audio lengths in samples, rounded up to whole encoder frames."""
    step = 2 * hop
    return tuple(sorted({-(-round(s * SAMPLE_RATE) // step) * step for s in seconds}))


def embeddings(work) -> dict:
    """{"id": [N], "embedding": [N, U]} of the embed stage."""
    with np.load(work.path("embed", "embeddings.npz")) as file:
        return {"id": file["id"], "embedding": file["embedding"]}


def key_of(cfg, name: str):
    """The random key of a stage: the run's seed and the stage's name, so that no two stages share their noise."""
    return jax.random.fold_in(jax.random.key(cfg.seed), int.from_bytes(name.encode()[:4].ljust(4), "big") % 2**31)
