"""Encoder states of utterances and windows: heard once by the frozen encoder, kept on disk for whoever asks next.

A base that writes times hears all as recordings are read (`decode.longform`): the features of what is there, zeros
behind them. So embedding, training and evaluation take the same states of an utterance. Any other base hears
utterances in its buckets.
"""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from moejax.data.pipeline import bucket_of, eval_batches, loader
from moejax.decode.decoder import Window, content
from moejax.decode.features import Features
from moejax.nn import functional
from moejax.runtime import faults, processes, sharding
from moejax.runtime.files import write_bytes
from moejax.tasks import asr, recognition
from moejax.work.context import Context
from moejax.work.folder import digest
from moejax.work.heard import KEY, Heard

BLOCK = 32  # heard between two signs of life


@dataclasses.dataclass(frozen=True)
class States:
    """`states(name) -> [T, D]` of what was asked for; T are its real frames, or all of its bucket where the model hears
    padding. Reads a file, so it pickles for loader processes and costs no memory.
    """

    heard: Heard
    keys: dict[int, bytes]

    def __call__(self, name) -> np.ndarray:
        return self.heard(self.keys[int(name)])


class Ear(Protocol):
    """How a base hears things, which have numbers."""

    names: Sequence[int]
    frames: int  # of all their states together

    def key(self, name: int) -> bytes:
        """What its states are kept by."""
        ...

    def states(self, names: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """(name, states [T, D]) of each of these, in any order."""
        ...


def utterances(context: Context) -> States | None:
    """Of rows of the manifest, heard now where they were not: of all of them where the base writes times, else of the
    training part. None where they would not fit the limit.
    """
    manifest = context.corpus.manifest
    if context.base.times:
        rows = range(len(manifest))
        ear: Ear = Windows(context, rows, lambda row: window_of(context, context.corpus.audio[row]))
    else:
        ear = _Pieces(context)
    made = {"ids": manifest.column("id")[list(ear.names)].tolist(), "samples": context.corpus.samples.tolist()}
    return kept(context, ear, made, "utterances")


def hears_all(context: Context) -> bool:
    """Whether `shown` gives states of every utterance, not of the training part alone."""
    return bool(context.base.times) or not context.base.config.mask_padding


def shown(context: Context) -> States | None:
    """Of utterances as `align.placing` shows them to the encoder: whole windows of a base that writes times; of another
    published one the shortest of its buckets, zeros behind the features; else as `utterances`.
    """
    if context.base.times or context.base.config.mask_padding:
        return utterances(context)
    manifest, rows = context.corpus.manifest, range(len(context.corpus.manifest))
    ear = Windows(context, rows, lambda row: window_of(context, context.corpus.audio[row]), context.buckets)
    made = {"ids": manifest.column("id").tolist(), "samples": context.corpus.samples.tolist(), "in": context.buckets}
    return kept(context, ear, made, "utterances")


def kept(context: Context, ear: Ear, made: dict, what: str, store: Heard | None = None) -> States | None:
    """States of all that this ear can hear; `made` says what that is. Several processes hear a share each. `store`:
    where they are kept, with those of the base unless given.
    """
    work, store = context.work, store or context.heard
    size = ear.frames * store.row
    if size > store.limit:
        if store.limit:
            work.log(f"  encoder states would take {size / 1e9:.1f} GB, over runtime.encoder_cache_bytes: not cached")
        return None
    listed = store.path.with_name(f"{digest({'in': store.path.name, **made})}.keys")
    if not processes.agree(_whole(store, _read(listed, ear))):
        keys = _together(_hear(context, ear, what, store), len(ear.names), listed)
        write_bytes(listed, b"".join(keys))
    processes.meet()  # nobody reads what is being written
    store.refresh()
    keys = _read(listed, ear)
    if not _whole(store, keys):
        work.log("  runtime.encoder_cache_bytes has no room left for these encoder states: not cached")
        return None
    return States(store, dict(zip(ear.names, keys, strict=True)))


def _together(own: list[bytes], count: int, listed: Path) -> list[bytes]:
    """The keys of all `count` names from each process' own; [] where one had no room for what it heard."""
    share = listed.with_name(f"{listed.stem}.{processes.index()}.share")
    share.write_bytes(b"".join(own))
    if 0 in processes.meet(len(own)):
        return []
    keys, blocks = [b""] * count, [range(at, min(at + BLOCK, count)) for at in range(0, count, BLOCK)]
    for process in range(processes.count()):
        found = listed.with_name(f"{listed.stem}.{process}.share").read_bytes()
        places = [place for block in processes.share(blocks, process) for place in block]
        for number, place in enumerate(places):
            keys[place] = found[KEY * number : KEY * (number + 1)]
    processes.meet()
    share.unlink()
    return keys


def _read(listed, ear) -> list[bytes]:
    """The keys of all that the ear hears; [] where they are not known."""
    found = listed.read_bytes() if listed.exists() else b""
    return [found[at : at + KEY] for at in range(0, len(found), KEY)] if len(found) == KEY * len(ear.names) else []


def _whole(store, keys) -> bool:
    return bool(keys) and all(key in store for key in keys)


def _hear(context, ear, what, store) -> list[bytes]:
    """The keys of this process' share; [] where there is no room for their states."""
    work, begun, keys, new = context.work, time.perf_counter(), {}, 0
    blocks = processes.share([ear.names[at : at + BLOCK] for at in range(0, len(ear.names), BLOCK)])
    with processes.working(together=processes.count() == 1):
        for block in work.progress(blocks, total=len(blocks), desc=f"encoder states of {what}"):
            keys |= {name: ear.key(name) for name in block}
            missing = [name for name in block if keys[name] not in store]
            if not store.room(-(-ear.frames * len(missing) // len(ear.names))):
                return []
            if missing:
                store.add((keys[name], states_TD) for name, states_TD in ear.states(missing))
                new += len(missing)
            faults.point("states.block")
    work.log(
        f"  encoder states of {new} of {len(keys)} {what} heard: {store.row * ear.frames / 1e6:.0f} MB in all,"
        f" {time.perf_counter() - begun:.1f} s; no step encodes"
    )
    return list(keys.values())


def window_of(context: Context, audio_S: np.ndarray) -> Window:
    """A recording that one window holds, as `decode.longform` shows it to the decoder."""
    heard, size = _features(context, audio_S)
    return Window(heard.slice(0, size), heard.audio(0, size))


def audible(context: Context, audio_S: np.ndarray) -> np.ndarray:
    """As much of a recording as that window shows: whole frames of features."""
    heard, size = _features(context, audio_S)
    return heard.audio(0, size)


def _features(context: Context, audio_S: np.ndarray) -> tuple[Features, int]:
    """And how many of them a window holds."""
    config = context.base.config
    heard = Features(audio_S, n_mels=config.num_mel_bins, hop=config.hop)
    return heard, min(heard.frames, 2 * config.max_source_positions)


class Windows:
    """Hears whole windows with a decoder of the base."""

    def __init__(
        self,
        context: Context,
        names: Sequence[int],
        window: Callable[[int], Window],
        samples: Sequence[int] | None = None,
    ):
        """`samples`: lengths of which each window takes the shortest; None: all of what the base hears."""
        config = context.base.config
        self.names, self._window = names, functools.lru_cache(maxsize=BLOCK)(window)  # for its key and its states
        self.frames = len(names) * config.max_source_positions
        graphdef, _ = functional.abstract(asr.build(config))
        self._decoder = recognition.make_decoder(
            graphdef,
            context.base.params,
            config,
            context.base.tokenizer,
            samples=tuple(samples or (context.window,)),
            batch_size=8,
        )

    def key(self, name: int) -> bytes:
        return content(self._window(name))

    def states(self, names: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        for encoded in self._decoder.encode([self._window(name) for name in names]):
            states_BTD = np.asarray(encoded.states_BTD)
            yield from ((names[place], states_BTD[b]) for b, place in enumerate(encoded.rows))


class _Pieces:
    """Hears the training part in buckets, as its stages do without kept states."""

    def __init__(self, context: Context):
        config, self._context = context.base.config, context
        # In a stage that trains together, context.mesh has the devices of all processes
        self._mesh = context.mesh if processes.count() == 1 else sharding.own_mesh()
        self.names = context.corpus.rows("train").tolist()
        samples_N = context.corpus.samples[self.names]
        self._bucket_N = np.asarray(context.buckets)[bucket_of(samples_N, context.buckets)]
        frames_N = -(-(samples_N if config.mask_padding else self._bucket_N) // (2 * config.hop))
        self._bucket = dict(zip(self.names, self._bucket_N.tolist(), strict=True))
        self._frames = dict(zip(self.names, frames_N.tolist(), strict=True))
        self.frames = int(frames_N.sum())
        graphdef, _ = functional.abstract(asr.build(config))
        self._encode = recognition.make_encode(graphdef)

    def key(self, name: int) -> bytes:
        made = hashlib.blake2b(self._context.corpus.audio[name].data, digest_size=KEY)
        made.update(str(self._bucket[name]).encode())
        return made.digest()

    def states(self, names: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        context, rows = self._context, np.asarray(names)
        batches = eval_batches(context.corpus.samples[rows], context.buckets, BLOCK, multiple=self._mesh.size)
        stream = loader(batches, context.collator(rows), workers=0)
        for (_, index), batch in zip(batches, stream, strict=True):
            placed = sharding.shard_batch(batch, self._mesh)
            states_BTD = np.asarray(
                self._encode(context.base.params, placed.audio_BS, placed.samples_B, placed.label_B)[0]
            )
            yield from ((names[i], states_BTD[b, : self._frames[names[i]]]) for b, i in enumerate(index) if i >= 0)
