"""Stage `clips`: what classifiers hear, made once for all folds and epochs.

    W/clips/labels.json         classes, and of every labelled row of the manifest its number there, class, group, fold
    W/clips/waves-<digest>/     16-bit waves at clips.rate, cut or padded to clips.seconds, read from the recordings
                                themselves: what describe keeps ends at 8 kHz
    W/clips/states-<digest>/    of a probe: all layers of the frozen encoder, in means of clips.segment frames
    W/clips/frames-<digest>/    and how many frames each mean is of

The folders say what they were made of, so another model or front end makes its own and a killed run goes on.
"""

import dataclasses
import functools

import numpy as np

from moejax.audio import read
from moejax.audio.constants import SAMPLE_RATE
from moejax.audio.flaws import Rejected
from moejax.convert import whisper_folder
from moejax.data import blocks, folds
from moejax.data.blocks import Blocks
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.ops.sound_mel import Mel
from moejax.runtime import watchdog
from moejax.runtime.files import read_json, write_json
from moejax.tasks import asr, classification
from moejax.tasks.classification import NETS
from moejax.training import base, describe
from moejax.work.context import Context
from moejax.work.fields import SIZE, Field, above
from moejax.work.folder import digest
from moejax.work.stage import Stage

HEARD_AT_ONCE = 4  # clips, by an encoder on a processor
SECTIONS = {
    "clips": {
        "rate": Field(22050, "Samples per second of what the networks from scratch hear.", limits=(4000, 96000)),
        "seconds": Field(
            4.0,
            "Seconds that the networks from scratch hear of a clip: longer ones are cut, shorter ones end in zeros.",
            limits=(above(0), 30.0),
        ),
        "n_fft": Field(2048, "Samples of a window of their log-mel images.", limits=(64, 16384)),
        "hop": Field(512, "Samples between two windows.", limits=(16, 16384)),
        "mels": Field(64, "Mel bands of the images, up to half the rate.", limits=(8, 512)),
        "hears": Field(
            0.0,
            "Seconds that a probe's encoder hears of a clip, zeros behind it; 0: the longest clip, in whole seconds.\n"
            "30 is all of a published model's window, at six times the cost of 5.",
            limits=(0.0, 30.0),
        ),
        "segment": Field(
            10, "Encoder frames (20 ms) whose mean state is kept as one; a probe attends to these.", limits=SIZE
        ),
    }
}


@dataclasses.dataclass(frozen=True)
class Clips:
    """The labelled clips: `rows` of the manifest, their class numbers, groups and folds, and what they sound like."""

    rows: np.ndarray
    classes: tuple[str, ...]
    label_U: np.ndarray
    groups: list[str]
    folds: list[str]
    ids: list[str]
    waves: Blocks
    states: Blocks
    frames: Blocks

    def __len__(self) -> int:
        return len(self.rows)


def run(cfg, work) -> dict:
    """Writes W/clips. Errors: BadValue for clips without a label, fewer than two classes, folds that leak."""
    context, probed = Context(cfg, work), "probe" in cfg.folds.models
    found = _labelled(context)
    folds.made(found["folds"], found["groups"], cfg.folds.count)  # refused before hours of hearing
    found["encoder"] = base.content(base.pretrained(cfg)) if probed else ""
    write_json(work.path("clips", "labels.json"), found)
    clips = opened(context)
    work.log(f"  waves of {len(clips)} clips at {cfg.clips.rate} Hz")
    _write_waves(context, clips)
    if probed:
        _write_states(context, clips, base.pretrained(cfg))
    content = digest([clips.waves.folder.name, clips.states.folder.name if probed else "", found])
    return {"clips": len(clips), "classes": len(clips.classes), "content": content}


def opened(context: Context) -> Clips:
    """The clips of a workdir, as far as they were made."""
    cfg, found = context.cfg, read_json(context.work.path("clips", "labels.json"))
    corpus = (context.work.finished("describe") or {}).get("passes", "")
    waves = digest([corpus, found["rows"], cfg.clips.rate, cfg.clips.seconds])
    states = digest([corpus, found["rows"], cfg.clips.hears, cfg.clips.segment, found["encoder"], cfg.model.dtype])
    return Clips(
        rows=np.array(found["rows"]),
        classes=tuple(found["classes"]),
        label_U=np.array(found["labels"]),
        groups=found["groups"],
        folds=found["folds"],
        ids=found["ids"],
        waves=Blocks(context.work.path("clips", f"waves-{waves}")),
        states=Blocks(context.work.path("clips", f"states-{states}")),
        frames=Blocks(context.work.path("clips", f"frames-{states}")),
    )


def mel(cfg) -> Mel:
    """The front end of the networks from scratch."""
    c = cfg.clips
    return Mel(rate=c.rate, samples=round(c.rate * c.seconds), n_fft=c.n_fft, hop=c.hop, mels=c.mels)


def _labelled(context: Context) -> dict:
    manifest = context.corpus.manifest
    labels = [str(label) for label in manifest.column("label")]
    rows = [row for row, label in enumerate(labels) if label]
    if not rows:
        raise BadValue("no clip has a label: map data.columns.label, or take a source that has classes")
    classes = sorted({labels[row] for row in rows})
    if len(classes) < 2:
        raise BadValue(f"all clips have the label {classes[0]!r}: there is nothing to tell apart")
    columns = {name: manifest.column(name) for name in ("speaker", "fold", "id")}
    return {
        "classes": classes,
        "rows": rows,
        "labels": [classes.index(labels[row]) for row in rows],
        "groups": [str(columns["speaker"][row]) for row in rows],
        "folds": [str(columns["fold"][row]) for row in rows],
        "ids": [str(columns["id"][row]) for row in rows],
    }


def _write_waves(context: Context, clips: Clips) -> None:
    """16-bit waves [S] of every clip, from the recordings themselves."""
    cfg, front = context.cfg, mel(context.cfg)
    sources = {utterance.id: utterance.audio for utterance in describe.load(cfg)}

    def wave(number):
        try:
            heard = read.load(sources[clips.ids[number]], target_rate=front.rate, **read.ANYTHING).samples
        except (KeyError, Rejected) as error:
            raise BadValue(f"clip {clips.ids[number]!r} is not what describe heard any more: {error}") from error
        wave_S = np.zeros(front.samples, np.int16)
        heard = np.clip(np.rint(heard[: front.samples] * 32767), -32768, 32767)
        wave_S[: len(heard)] = heard
        return wave_S

    def waves(numbers: range) -> tuple[np.ndarray]:
        return (np.stack([wave(number) for number in numbers]),)

    blocks.fill(context.work, "waves", len(clips), (clips.waves,), waves)


def _write_states(context: Context, clips: Clips, folder: str) -> None:
    """Encoder states of every clip. The model is opened if a block is missing."""
    cfg, work = context.cfg, context.work

    @functools.cache
    def encoder():
        config, graphdef, params, size = encoder_of(context, clips, folder)
        work.log(f"  encoder states of {len(clips)} clips, {size / SAMPLE_RATE:g} s each")
        hear = classification.make_hear(graphdef, config.num_mel_bins, config.hop, cfg.clips.segment)
        return size, hear, params

    def heard(numbers: range) -> tuple[np.ndarray, np.ndarray]:
        size, hear, params = encoder()
        found = []
        for at in range(0, len(numbers), HEARD_AT_ONCE):
            some = numbers[at : at + HEARD_AT_ONCE]
            audio_BS, samples_B = audio(context, clips.rows[some], size, HEARD_AT_ONCE)
            found.append([np.asarray(x)[: len(some)] for x in hear(params, audio_BS, samples_B)])
            watchdog.beat()
        states, frames = zip(*found, strict=True)
        return np.concatenate(states), np.concatenate(frames)

    blocks.fill(work, "encoder states", len(clips), (clips.states, clips.frames), heard)


def encoder_of(context: Context, clips: Clips, folder: str):
    """`(config, graphdef, params, samples that are heard of a clip)` of the Whisper that a probe hears with."""
    cfg = context.cfg
    config, params = whisper_folder.load(folder, dtype=cfg.model.dtype)
    config = dataclasses.replace(config, dtype=cfg.model.dtype)
    longest = int(np.ceil(context.corpus.samples[clips.rows].max() / SAMPLE_RATE))
    seconds, step = min(cfg.clips.hears or longest, 30.0), 2 * config.hop
    size = min(-(-round(seconds * SAMPLE_RATE) // step), config.max_source_positions) * step
    graphdef, _ = functional.abstract(asr.build(config))
    return config, graphdef, params, size


def audio(context: Context, rows: np.ndarray, size: int, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Waves [room, size] of rows of the manifest at 16 kHz and how long they are, silence where rows are fewer."""
    audio_BS, samples_B = np.zeros((room, size), np.float32), np.ones(room, np.int32)
    for b, row in enumerate(rows):
        wave_S = context.corpus.audio[int(row)][:size]
        audio_BS[b, : len(wave_S)], samples_B[b] = wave_S, len(wave_S)
    return audio_BS, samples_B


def _outside(cfg) -> str | None:
    """Of the encoder's weights, where a probe hears them. Errors: none are named, or no network at all."""
    if not cfg.folds.models:
        raise BadValue(f"config key 'folds.models' is empty; a cross-validation takes any of {', '.join(NETS)}")
    if "probe" not in cfg.folds.models:
        return None
    if not cfg.model.pretrained:
        raise BadValue("folds.models has probe, and model.pretrained names no Whisper whose encoder it could hear")
    return base.inputs(cfg)


STAGE = Stage(
    "clips",
    run,
    needs=("describe",),
    reads=("clips", "folds.models", "folds.count", "model.pretrained", "model.dtype"),
    outside=_outside,
    keeps=True,
    apart=True,
    sections=SECTIONS,
)
