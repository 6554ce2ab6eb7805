"""Embeddings of every utterance: pooled states of the unadapted encoder."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from moejax.cohorts import gradients, hearing
from moejax.cohorts.hearing import States
from moejax.data.pipeline import FILLER, bucket_of, eval_batches, loader
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.ops.pooling import POOLINGS
from moejax.runtime import faults, processes, shares
from moejax.runtime.files import replacing
from moejax.runtime.sharding import shard_batch
from moejax.tasks import asr
from moejax.work.context import Context
from moejax.work.fields import BATCH, SIZE, Field
from moejax.work.stage import Stage


def _each_once(key, layers):
    names = layer_names(layers)
    if len(set(names)) < len(names):
        raise BadValue(f"config key {key!r} is {tuple(layers)}: a layer stands there twice")


SECTIONS = {
    "embed": {
        "layers": Field(
            (-1,),
            "Encoder states that are pooled, side by side.\n"
            "0 after the convolutions, 1 after the first block, ..., -1 the encoder's output.",
            limits=(-1, 1000),
            needed=True,
            rule=_each_once,
        ),
        "pooling": Field(
            "mean",
            "How states become one vector.\nmean, or mean_std: mean and standard deviation.",
            choices=tuple(POOLINGS),
        ),
        "trim_silence": Field(
            True, "Whether only frames with speech are pooled; False pools all frames of the utterance."
        ),
        "batch_size": Field(32, "Utterances in a batch, over all devices.", limits=BATCH),
        "signals": Field(
            (),
            "Further signals of the sample, for cluster.signal.\ngradient costs a training step of the sample.",
            choices=("gradient",),
        ),
        "gradient": {
            "targets": Field(
                ("encoder/layers/*/*",),
                "Layers on which the adapter sits that is differentiated, as patterns.\n"
                "The encoder is where voices differ.",
                needed=True,
            ),
            "rank": Field(4, "Rank of that adapter.", limits=SIZE),
            "dims": Field(256, "Random directions that its gradient is projected onto.", limits=(1, 1_000_000)),
            "batch_size": Field(32, "Utterances in a batch when gradients are computed.", limits=BATCH),
        },
    },
}


def layer_names(layers) -> list[str]:
    """By which names the layers of `embed.layers` are known to `cluster.layers`."""
    return [f"h{layer}" if layer >= 0 else "output" for layer in layers]


def check_layers(layers, depth: int) -> None:
    """BadValue for the first of `embed.layers` that an encoder of this depth does not have."""
    if wrong := [layer for layer in layers if layer > depth]:
        raise BadValue(
            f"config key 'embed.layers' has {wrong[0]}; this encoder has layers 0 to {depth}, -1 is its output"
        )


def options(cfg) -> asr.Embedding:
    return asr.Embedding(tuple(cfg.embed.layers), cfg.embed.pooling, cfg.embed.trim_silence)


def run(cfg, work) -> dict:
    """Writes W/embed/embeddings.npz: id [N], embedding [N, U] float32, layer_names, of all utterances of all splits.
    Several processes pool a share each.
    """
    context = Context(cfg, work)
    check_layers(cfg.embed.layers, context.base.config.encoder_layers)
    found = []
    for rows, pooled_BU in _of_windows(context) if context.base.times else _of_pieces(context):
        found.append((np.asarray(rows), pooled_BU))
        faults.point("embed.batch")
    found = found or [(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))]  # more processes than batches
    out = shares.merged(work.path("embed"), *(np.concatenate(parts) for parts in zip(*found, strict=True)))
    if not np.isfinite(out).all():
        bad = context.corpus.manifest.column("id")[np.flatnonzero(~np.isfinite(out).all(1))[0]]
        raise BadValue(f"embedding of utterance {bad!r} is not finite")
    names = np.array(layer_names(cfg.embed.layers))
    if processes.first():
        with replacing(work.path("embed", "embeddings.npz")) as temporary, open(temporary, "wb") as file:
            np.savez(file, id=context.corpus.manifest.column("id").astype(str), embedding=out, layer_names=names)
            faults.point("embed.partial")
    more = gradients.write(context) if "gradient" in cfg.embed.signals else {}
    return {"utterances": len(out), "width": int(out.shape[1]), **more}


def _of_pieces(context: Context) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(rows, their embeddings), batch after batch, of a base that hears utterances in buckets."""
    cfg, work = context.cfg, context.work
    graphdef, _ = functional.abstract(asr.build(context.base.config))
    embed, params = asr.make_embed(graphdef, options(cfg)), context.base.params
    names = context.corpus.manifest.column("id")
    batches = eval_batches(
        context.corpus.samples, context.buckets, cfg.embed.batch_size, multiple=context.multiple, names=names
    )
    batches = processes.share(batches)
    stream = loader(batches, _Audio(context.corpus.audio), workers=cfg.runtime.workers)
    for (_, index), batch in zip(batches, work.progress(stream, total=len(batches), desc="embed"), strict=False):
        placed = shard_batch(batch, context.mesh)
        pooled_BU = np.asarray(embed(params, placed["audio_BS"], placed["samples_B"]))
        yield index[index >= 0], pooled_BU[index >= 0]


def _of_windows(context: Context) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The same of a base that hears whole windows."""
    rows = range(len(context.corpus.manifest))
    return _pooled(context, context.corpus.audio, rows, lambda: hearing.utterances(context), "embed")


def of_windows(context: Context, audio, numbers: Sequence[int], states: Callable[[], States | None]) -> np.ndarray:
    """Embeddings [W, U] of joined windows, as the gate hears them when a recording is read.

    Not the mean of their utterances': states depend on how much is said before. On speechocean762 in tiny.en a window
    of six utterances lies three deviations of speakers from that mean, nearly all of it the same for all speakers.

    Args:
      audio: [number] -> samples [S] of a window to the end of what is said. numbers: 0 to W - 1.
      states: gives their encoder states where they are kept. Asked only where these are what is pooled.
    """
    found = list(_pooled(context, audio, numbers, states, "embeddings of windows"))
    found = found or [(np.zeros(0, np.int64), np.zeros((0, 0), np.float32))]  # more processes than batches
    rows, values = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return shares.merged(context.work.path(), rows, values)


def _pooled(context: Context, audio, names: Sequence[int], states, what: str):
    """(names, their embeddings), this process' share: of the kept states where they are what is pooled, else of a pass
    of its own. One window at a time on a processor, whose caches hold no more.
    """
    pooled, config = options(context.cfg), context.base.config
    graphdef, _ = functional.abstract(asr.build(config))
    embed, of_states = asr.make_embed(graphdef, pooled), asr.make_pooled(pooled, config.hop)
    kept = states() if pooled.layers == (-1,) else None
    rows = np.asarray(names)
    size = 1 if jax.default_backend() == "cpu" else context.cfg.embed.batch_size
    batches = processes.share([rows[at : at + size] for at in range(0, len(rows), size)])
    for batch in context.work.progress(batches, total=len(batches), desc=what):
        filled = np.concatenate([batch, np.full(size - len(batch), FILLER)])
        heard = _Audio(_Shown(context, audio))(context.window, filled)
        inputs = heard["audio_BS"], heard["samples_B"]
        if kept is not None:
            pooled_BU = of_states(np.stack([kept(row) for row in np.maximum(filled, 0)]), *inputs)
        else:
            pooled_BU = embed(
                context.base.params, *inputs, _features(context, [audio[int(row)] for row in batch], size)
            )
        yield batch, np.asarray(pooled_BU)[: len(batch)]


def _features(context: Context, waves: Sequence[np.ndarray], size: int) -> np.ndarray:
    """Features [size, N, M] of recordings and zeros behind them, as a window shows them."""
    config = context.base.config
    mel_BNM = np.zeros((size, context.window // config.hop, config.num_mel_bins), np.float32)
    for b, wave_S in enumerate(waves):
        mel_NM = hearing.window_of(context, wave_S).mel_NM
        mel_BNM[b, : len(mel_NM)] = mel_NM
    return mel_BNM


def of_recordings(context: Context) -> Callable[[Sequence[np.ndarray]], np.ndarray]:
    """`waves -> embeddings [N, U]` of recordings that no corpus has, heard as the stage hears its own: what its gates
    were trained on. No wave is longer than `context.window`.
    """
    graphdef, _ = functional.abstract(asr.build(context.base.config))
    embed = asr.make_embed(graphdef, options(context.cfg))

    def one(wave_S):
        if context.base.times:
            heard = _Audio(_Shown(context, [wave_S]))(context.window, [0])
            return embed(context.base.params, *heard.values(), _features(context, [wave_S], 1))
        bucket = context.buckets[int(bucket_of([len(wave_S)], context.buckets)[0])]
        return embed(context.base.params, *_Audio([wave_S])(bucket, [0]).values())

    return lambda waves: np.concatenate([np.asarray(one(wave_S), np.float32) for wave_S in waves])


@dataclasses.dataclass(frozen=True)
class _Shown:
    """[row] -> samples [S] that a window shows of a recording."""

    context: Context
    audio: Any

    def __getitem__(self, row: int) -> np.ndarray:
        return hearing.audible(self.context, self.audio[row])


@dataclasses.dataclass(frozen=True)
class _Audio:
    """Audio and lengths only; row -1 is filler of one sample."""

    cache: Any  # [row] -> samples [S]

    def __call__(self, bucket, rows):
        audio_BS = np.zeros((len(rows), bucket), np.float32)
        samples_B = np.ones(len(rows), np.int32)
        for b, row in enumerate(rows):
            if row >= 0:
                wave = self.cache[int(row)]
                audio_BS[b, : len(wave)], samples_B[b] = wave, len(wave)
        return {"audio_BS": audio_BS, "samples_B": samples_B}


STAGE = Stage(
    "embed",
    run,
    needs=("describe", "base"),
    reads=("model.weights", "embed"),
    switch="gate.num_experts",
    shared=True,
    sections=SECTIONS,
)
