"""Encoder states on disk, for training that leaves the encoder and what it hears as they are.

Where no expert sits in the encoder and nothing is augmented, an utterance has the same states in every epoch and for
every system: they are computed once and read from a file in W/states, which all such stages of a workdir share. A step
is then the decoder alone. `why_not` says when that is; runtime.encoder_cache_bytes = 0 turns it off. States come from
another program than the step's own encoder and may differ from it in the last digit.
"""

import dataclasses
import json
import time
from pathlib import Path

import jax
import numpy as np

from moejax.data.pipeline import bucket_of, eval_batches, loader
from moejax.nn import functional
from moejax.runtime import processes
from moejax.runtime.files import replacing, write_json
from moejax.runtime.sharding import shard_batch
from moejax.tasks import asr, recognition
from moejax.work.context import Context
from moejax.work.folder import digest

BLOCK = 32  # utterances encoded at once


@dataclasses.dataclass(frozen=True)
class States:
    """`states(row) -> [T, D]` of a row of the manifest; T are its real frames, or all of its bucket where the model
    hears padding. Reads a memory map, so it pickles for loader processes and costs no memory.
    """

    path: str
    dtype: str
    width: int
    start: dict  # {row: (first frame, frames)}

    def __call__(self, row):
        first, frames = self.start[int(row)]
        kind = jax.numpy.dtype(self.dtype)
        file = np.memmap(self.path, kind, "r", offset=first * self.width * kind.itemsize, shape=(frames, self.width))
        return np.array(file)


def why_not(row: asr.Row, mixture: asr.Mixture) -> str | None:
    """What makes the encoder's states change from step to step; None where nothing does."""
    targets = [target if isinstance(target, str) else target[0] for target in mixture.targets]
    if any(target[0] in "*?[" or target.startswith("enc") for target in targets):
        return "experts sit in the encoder"
    changed = [name for name in ("dropout", "spec", "warp_time", "warp_freq", "level") if getattr(row, name)]
    return f"{changed[0]} changes what it hears" if changed else None


def opened(context: Context) -> States | None:
    """The states of the training part, computed now if they were not; None where they would not fit the limit."""
    rows = context.corpus.rows("train")
    made = {"ids": digest(context.corpus.manifest.column("id")[rows].tolist())}
    samples = context.corpus.samples[rows]
    return _kept(context, rows, samples, lambda context: context.collator(rows), made, "utterances")


def opened_windows(context: Context, windows) -> States | None:
    """The states of joined windows (`timed.Joined`), by their numbers; else as `opened`."""
    made = {"ids": digest(context.corpus.manifest.column("id").tolist()), "windows": windows.digest()}
    return _kept(context, np.arange(len(windows)), windows.samples, lambda _: windows.collator(), made, "windows")


def _kept(context, rows, samples, collator, made, what) -> States | None:
    """States of utterances or windows: `rows` are the numbers that they are asked for by, `collator(context)` batches
    of them, `made` says which they are.
    """
    work, config, _ = context.work, context.base.config, context.base.params
    step = 2 * config.hop
    bucket_N = np.asarray(context.buckets)[bucket_of(samples, context.buckets)]
    frames_N = -(-(samples if config.mask_padding else bucket_N) // step)
    kind = jax.numpy.dtype(config.dtype)
    size, limit = int(frames_N.sum()) * config.d_model * kind.itemsize, context.cfg.runtime.encoder_cache_bytes
    if size > limit:
        if limit:
            work.log(f"  encoder states would take {size / 1e9:.1f} GB, over runtime.encoder_cache_bytes: not cached")
        return None
    made = {"base": work.finished("base")["digest"], "weights": context.weights, "dtype": str(kind)} | made
    made |= {"buckets": list(context.buckets)}
    path = work.path("states", f"{digest(made)}.bin")
    first_N = np.concatenate([[0], np.cumsum(frames_N)])
    start = {int(r): (int(f), int(n)) for r, f, n in zip(rows, first_N, frames_N, strict=False)}
    states = States(str(path), str(kind), config.d_model, start)
    if processes.first() and not _whole(path, size):
        with processes.working(together=processes.count() == 1):
            own = Context(context.cfg, work, context.weights) if processes.alone() else context
            _write(own, (rows, samples, collator(own), what), states, path, size)
    processes.agree()  # nobody reads what is being written
    return states


def _whole(path: Path, size: int) -> bool:
    note = path.with_suffix(".json")
    return path.exists() and note.exists() and path.stat().st_size == size == json.loads(note.read_text())["bytes"]


def _write(context, material, states, path, size) -> None:
    rows, samples, collate, what = material
    work, config, params = context.work, context.base.config, context.base.params
    begun = time.perf_counter()
    graphdef, _ = functional.abstract(asr.build(config))
    encode = recognition.make_encode(graphdef)
    batches = eval_batches(samples, context.buckets, BLOCK, multiple=context.multiple)
    stream = loader(batches, collate, workers=context.cfg.runtime.workers)
    shape = (size // _row_bytes(states), states.width)
    shown = work.progress(stream, total=len(batches), desc="encoder states")
    with replacing(path) as unfinished:
        file = np.memmap(unfinished, jax.numpy.dtype(states.dtype), "w+", shape=shape)
        for (_, index), batch in zip(batches, shown, strict=True):
            placed = shard_batch(batch, context.mesh)
            states_BTD = np.asarray(encode(params, placed.audio_BS, placed.samples_B, placed.label_B)[0])
            for b, i in enumerate(index):
                if i >= 0:
                    first, frames = states.start[int(rows[i])]
                    file[first : first + frames] = states_BTD[b, :frames]
        file.flush()
        del file
    seconds = time.perf_counter() - begun
    write_json(path.with_suffix(".json"), {"bytes": size, what: len(rows), "seconds": round(seconds, 2)})
    work.log(f"  encoder states of {len(rows)} {what} kept: {size / 1e6:.0f} MB, {seconds:.1f} s; no step encodes")


def _row_bytes(states: States) -> int:
    return states.width * jax.numpy.dtype(states.dtype).itemsize
