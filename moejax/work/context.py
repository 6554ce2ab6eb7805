"""What training and scoring stages begin with: the manifest, the base and its tokenizer, the mesh, the collator."""

import dataclasses
import functools

import jax
import numpy as np

from moejax.audio.cache import AudioCache
from moejax.audio.constants import SAMPLE_RATE
from moejax.convert import hf_whisper
from moejax.data.collate import Collator
from moejax.data.manifest import Manifest
from moejax.errors import BadValue
from moejax.nn.quantize import quantize
from moejax.runtime import processes, sharding
from moejax.runtime.files import read_json
from moejax.text.tokenizer import Tokenizer


class Corpus:
    """One run's data and base, read lazily: `cfg` is the resolved config, `work` the workdir.

    `weights` is the format of the frozen backbone, model.weights unless given.
    """

    def __init__(self, cfg, work, weights: str = ""):
        self.cfg, self.work = cfg, work
        self.alone = processes.alone()
        self.weights = weights or cfg.model.weights

    @functools.cached_property
    def manifest(self) -> Manifest:
        return Manifest.load(self.work.path("describe", "manifest.parquet"), root=self.work.root)

    @functools.cached_property
    def base_folder(self):
        """Hugging Face folder of the base: the pretrained one, or the one that the base stage wrote."""
        pointer = read_json(self.work.path("base", "model.json"))["path"]
        return self.work.path(pointer) if not str(pointer).startswith("/") else pointer

    @functools.cached_property
    def base(self):
        """`(WhisperConfig, params)`; activations and weights in the configured types."""
        return self.network(self.base_folder)

    def network(self, folder):
        """`(WhisperConfig, params)` of a Hugging Face folder, as `base`."""
        dtype = self.cfg.model.dtype
        config, params = hf_whisper.load(folder, dtype="float32" if self.weights else dtype)
        return dataclasses.replace(config, dtype=dtype), quantize(params, self.weights, others=dtype)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        return Tokenizer.from_hf_folder(self.base_folder)

    @functools.cached_property
    def mesh(self):
        """All devices; where one of several processes works alone, its own, all along `data`."""
        if self.alone:
            return sharding.make_mesh({"data": -1}, jax.local_devices())
        return sharding.make_mesh(self.cfg.mesh.to_dict())

    @functools.cached_property
    def cohorts(self) -> list[str]:
        """Names of the cohorts in the manifest, sorted; for tables and load matrices only."""
        return sorted(set(self.manifest.column("cohort")))

    @functools.cached_property
    def audio(self) -> AudioCache:
        return AudioCache(self.manifest.audio_paths(), self.cfg.runtime.audio_cache_bytes)

    @property
    def samples(self):
        """Samples of every row."""
        return np.round(self.manifest.column("seconds") * SAMPLE_RATE).astype(np.int64)

    @property
    def buckets(self) -> tuple[int, ...]:
        """Fixed audio lengths in samples, multiples of an encoder frame."""
        return bucket_samples(self.cfg.model.buckets, self.base[0].hop)

    @property
    def multiple(self) -> int:
        """Rows of a batch are a multiple of this on the configured mesh."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def rows(self, split=None, select=None) -> np.ndarray:
        """Row numbers of a split, and of the column values in `select` ({"cohort": ["A"]})."""
        equal = dict(select or {})
        equal = {name: list(value) if isinstance(value, tuple) else value for name, value in equal.items()}
        rows = self.manifest.indices(**equal, **({} if split is None else {"split": split}))
        if not len(rows):
            raise BadValue(f"no utterance in split {split!r} with {equal or 'no selection'}; cohorts: {self.cohorts}")
        return rows

    def prefix(self) -> list[int]:
        return self.tokenizer.prefix(self.cfg.data.language, "transcribe")

    def cohort_index(self, rows) -> np.ndarray:
        return np.searchsorted(self.cohorts, self.manifest.column("cohort")[rows])

    def collator(self, rows, labels=None, gate_in=None, states=None) -> Collator:
        """Batches of these rows; `labels` and `gate_in` are aligned with `rows`. Index i of the collator is rows[i].
        `states(row)` gives encoder states of a row of the manifest in place of its audio.
        """
        prefix, tokenizer = self.prefix(), self.tokenizer
        texts = self.manifest.column("text")[rows]
        tokens = [prefix + tokenizer.encode(text) + [tokenizer.eot] for text in texts]
        limit = self.base[0].max_target_positions
        for row, ids in zip(rows, tokens, strict=True):
            if len(ids) - 1 > limit:
                name = self.manifest.column("id")[row]
                raise BadValue(f"utterance {name!r} has {len(ids)} tokens; the model takes {limit}")
        return Collator(
            audio=_Rows(self.audio, rows),
            samples=self.samples[rows],
            tokens=tokens,
            prefix=len(prefix),
            eot=tokenizer.eot,
            buckets=self.buckets,
            labels=labels,
            gate_in=gate_in,
            cohorts=self.cohort_index(rows),
            states=None if states is None else _Rows(states, rows),
            stride=2 * self.base[0].hop,
        )

    def max_tokens(self) -> int:
        """Tokens to decode at most: half the model's room, as in the reference, or all of a micro model's."""
        room = self.base[0].max_target_positions
        return (room // 2 if room > 128 else room) - len(self.prefix()) + 1


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Audio (or encoder states) of row number `rows[i]`; pickles for loader processes."""

    cache: object
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
