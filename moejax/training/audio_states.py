"""What the frozen encoders of a language model that hears say of utterances: heard once, kept in W/states, so that a
step is connector and language model alone.

Both encoders' states stand beside each other ([30 s: 1500, 1280 + 768] of large-v2 and BEATs: 6 MB in bfloat16, 12 in
float32), in the type of model.dtype, by what was heard and by the bytes of the encoders' files: systems, lessons and
runs of a study share them. runtime.encoder_cache_bytes bounds them; where they do not fit, each step hears anew.
"""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from moejax.cohorts import hearing
from moejax.cohorts.hearing import States
from moejax.tasks import audio_llm
from moejax.tasks.answers import Parts
from moejax.work.context import Context
from moejax.work.folder import digest
from moejax.work.heard import KEY, Heard

ENCODERS = ("whisper/*", "*.pt")  # their files in the folder
TOGETHER = 8  # windows in one call


def opened(context: Context, parts: Parts, rows: Sequence[int]) -> States | None:
    """The states of these rows of the manifest, heard now where they were not; None where they do not fit."""
    config, limit = parts.config, context.cfg.runtime.encoder_cache_bytes
    if not limit:
        return None
    made = {
        "encoders": content(context.cfg.salmonn.folder, ENCODERS),
        "weights": context.weights,
        "dtype": context.cfg.model.dtype,
    }
    path = context.work.study.joinpath("states", digest(made))
    store = Heard(path, config.width, context.cfg.model.dtype, limit)
    corpus, describe = context.corpus, context.work.finished("describe")
    known = {"rows": list(map(int, rows)), "corpus": describe and describe["digest"]}
    return hearing.kept(context, _Windows(corpus.audio, parts, rows), known, "utterances for salmonn", store)


def content(folder: str, patterns: Sequence[str]) -> str:
    """A digest of the bytes of these files, wherever they lie (a second for each GB)."""
    made = hashlib.blake2b(digest_size=16)
    for path in files(folder, patterns):
        with open(path, "rb") as file:
            made.update(str(path.relative_to(folder)).encode() + hashlib.file_digest(file, "blake2b").digest())
    return made.hexdigest()


def files(folder: str, patterns: Sequence[str]) -> list[Path]:
    """Those in the folder, in their order."""
    return sorted(file for pattern in patterns for file in Path(folder).glob(pattern) if file.is_file())


class _Windows:
    """Hears rows of the manifest in whole windows (`cohorts.hearing.Ear`)."""

    def __init__(self, audio, parts: Parts, rows: Sequence[int]):
        self.names: Sequence[int] = [int(row) for row in rows]
        self.frames = len(rows) * parts.config.frames
        self._audio, self._config, self._params = audio, parts.config, parts.params
        self._pick, self._run = audio_llm.make_states(parts.config)

    def key(self, name: int) -> bytes:
        return hashlib.blake2b(self._audio[name].data, digest_size=KEY).digest()

    def states(self, names: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        params = jax.device_put(self._pick(self._params), jax.local_devices()[0])
        for at in range(0, len(names), TOGETHER):
            some = names[at : at + TOGETHER]
            audio_BS, samples_B = np.zeros((TOGETHER, self._config.samples), np.float32), np.ones(TOGETHER, np.int32)
            for b, name in enumerate(some):
                wave_S = self._audio[name]
                audio_BS[b, : len(wave_S)], samples_B[b] = wave_S, len(wave_S)
            yield from zip(some, np.asarray(self._run(params, audio_BS, samples_B)), strict=False)  # the rest is filler
