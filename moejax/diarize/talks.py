"""Stage `talks`: talks that nobody held, of the corpus' speakers, and what a diarizer hears of them.

W/talks/<part>.rttm, .uem      who speaks when in each talk of train, dev and test; speakers are of that part alone
W/talks/cards.json             what the talks are like (`simulate.Card`), and the group of each
W/talks/heard-<digest>/<part>  the states of all layers of a frozen Whisper encoder in means of 0.1 s, or EEND's
                               features; the folder says what it was made of, and a killed run goes on
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from moejax.audio.constants import SAMPLE_RATE
from moejax.convert import whisper_folder
from moejax.data import blocks
from moejax.data.blocks import Blocks
from moejax.diarize import features, rhythm, simulate
from moejax.diarize.turns import Turn, read_rttm, write_rttm, write_uem
from moejax.diarize.voices import Voices
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.runtime.files import read_json, write_json
from moejax.tasks import asr, classification
from moejax.training import base
from moejax.work.context import Context
from moejax.work.fields import COUNT, SHARE, Field, above
from moejax.work.folder import digest
from moejax.work.stage import Stage

PARTS = ("train", "dev", "test")
HEARS = ("whisper", "logmel")
RATE = 10.0  # frames a second of what is heard and said
SEGMENT = 5  # encoder frames (20 ms) in one of these
AT_ONCE = 4  # talks, by an encoder on a processor

SECTIONS = {
    "talks": {
        "train": Field(600, "Talks of the training speakers.", limits=COUNT),
        "dev": Field(60, "Talks of the dev speakers, who choose.", limits=COUNT),
        "test": Field(60, "Talks of the test speakers.", limits=COUNT),
        "seconds": Field(30.0, "Length of a conversation; a Whisper encoder hears 30.", limits=(above(0), 600.0)),
        "speakers": Field((1, 2, 3, 4), "Numbers of speakers, of which each talk draws one.", limits=(1, 64)),
        "kind": Field(
            "conversation",
            "How talks are made.\n"
            "conversation: turn by turn in a rhythm (Landini et al. 2022); mixture: independently, as EEND's recipe,"
            " cut to talks.seconds.",
            choices=("conversation", "mixture"),
        ),
        "rhythm": Field(
            "",
            "Folder of RTTM files whose lengths of turns, pauses and overlaps conversations have; empty: AMI's.",
            location=True,
        ),
        "beta": Field(2.0, "Of mixtures: seconds of silence between a speaker's utterances, in the mean."),
        "within": Field(
            "",
            "Column of the manifest whose value the speakers of a talk share; empty: anybody talks with anybody.\n"
            "Speakers of two corpora are told apart by their microphones, which is nothing to learn.",
            choices=("", "cohort", "etiology", "accent", "gender"),
        ),
        "level": Field(6.0, "Greatest difference of a speaker's loudness either way, in decibels.", limits=(0.0, 40.0)),
        "reverberant": Field(0.5, "Share of the speakers who are heard through a room.", limits=SHARE),
        "noises": Field(
            (10.0, 15.0, 20.0, 25.0),
            "Signal-to-noise ratios in decibels, of which each talk draws one; () for no noise.",
            limits=(-20.0, 120.0),
        ),
        "colour": Field(
            6.0, "Greatest gain or loss of a talk's microphone at an octave, in decibels.", limits=(0.0, 40.0)
        ),
        "telephone": Field(0.25, "Share of the talks that come through a telephone (300 to 3400 Hz).", limits=SHARE),
        "hears": Field(
            "whisper",
            "What a diarizer hears.\n"
            "whisper: the layers of the encoder of model.pretrained; logmel: EEND's features, 345 at 8 kHz.",
            choices=HEARS,
        ),
    }
}


@dataclasses.dataclass(frozen=True)
class Part:
    """The talks of one part: `turns` and `group` of each, and what is heard of it, `heard[i]` [T, ...]."""

    turns: list[list[Turn]]
    groups: list[str]
    seconds: float
    heard: Blocks

    def __len__(self) -> int:
        return len(self.turns)


def run(cfg, work) -> dict:
    """Writes W/talks. Errors: BadValue for a part with too few speakers, or talks that the encoder cannot hold."""
    context = Context(cfg, work)
    folder = _folder(context)
    hear = functools.cache(lambda: listener(cfg, work))
    cards = {}
    for part in PARTS:
        make, count = maker(context, part), getattr(cfg.talks, part)
        turns: list[Any] = [None] * count
        groups = [""] * count

        def heard(rows, make=make, turns=turns, groups=groups):
            found = [make(row) for row in rows]
            for row, talk in zip(rows, found, strict=True):
                turns[row], groups[row] = talk.turns, talk.group
            return (hear()(np.stack([talk.wave_S for talk in found])),)

        work.log(f"  {part}: {count} talks")
        grown(Blocks(folder / part), count)
        blocks.fill(work, f"talks of {part}", count, (Blocks(folder / part),), heard)
        before = [row for row in range(count) if turns[row] is None]  # of blocks that an earlier run has written
        for row in work.progress(before, len(before), f"turns of talks of {part}"):
            talk = make(row)
            turns[row], groups[row] = talk.turns, talk.group
        names = [_name(row) for row in range(count)]
        write_rttm(work.path("talks", f"{part}.rttm"), dict(zip(names, map(_written, turns), strict=True)))
        write_uem(work.path("talks", f"{part}.uem"), {name: [(0.0, cfg.talks.seconds)] for name in names})
        card = simulate.card([(some, cfg.talks.seconds) for some in turns])
        work.log(f"    {card.line()}")
        cards[part] = {**dataclasses.asdict(card), "groups": groups}
    write_json(work.path("talks", "cards.json"), cards)
    counts = {part: cards[part]["talks"] for part in PARTS}
    return {"talks": counts, "folder": folder.name, "content": digest([folder.name, counts])}


def grown(held: Blocks, count: int) -> None:
    """Removes the block that ended a part of another number of talks: all others are heard once, however many come."""
    for rows in blocks.blocks_of(count):
        if not held.missing(rows) and held.rows(rows) != len(rows):
            held.remove(rows)


def opened(context: Context, part: str) -> Part:
    """The talks of a part of a workdir where the stage is finished."""
    cfg, work = context.cfg, context.work
    turns = read_rttm(work.path("talks", f"{part}.rttm"))
    cards = read_json(work.path("talks", "cards.json"))[part]
    every = [turns.get(_name(row), []) for row in range(cards["talks"])]
    # As it was written: a stage that trains may have another seed than the talks
    folder = (work.finished("talks") or {}).get("summary", {}).get("folder") or _folder(context).name
    return Part(every, cards["groups"], cfg.talks.seconds, Blocks(work.path("talks", folder) / part))


def _name(row: int) -> str:
    return f"talk{row:05d}"


def _written(turns: list[Turn]) -> list[Turn]:
    return [turn._replace(speaker="_".join(turn.speaker.split())) for turn in turns]


def _folder(context: Context) -> Path:
    """Where what is heard lies, by all that it is made of."""
    cfg, work = context.cfg, context.work
    keys = {name: cfg.talks[name] for name in SECTIONS["talks"] if name not in ("rhythm", *PARTS)}
    corpus = (work.finished("describe") or {}).get("passes", "")
    made = [corpus, {**keys, "speakers": list(cfg.talks.speakers), "noises": list(cfg.talks.noises)}, cfg.seed]
    made += [repr(rhythm_of(cfg)), encoder_content(cfg), cfg.model.dtype if cfg.talks.hears == "whisper" else ""]
    return work.path("talks", f"heard-{digest(made)}")


def rhythm_of(cfg) -> rhythm.Rhythm:
    """Of the folder that the config names, or AMI's."""
    return rhythm.of_folder(cfg.talks.rhythm) if cfg.talks.rhythm else rhythm.MEETING


def encoder_content(cfg) -> str:
    """A digest of the frozen encoder's weights; "" where none is heard."""
    return _content(base.pretrained(cfg)) if cfg.talks.hears == "whisper" else ""


@functools.cache
def _content(folder: str) -> str:
    return base.content(folder)


def voices_of(context: Context, part: str) -> Voices:
    """The speakers of a part. Errors: BadValue where utterances have no speaker."""
    corpus, within = context.corpus, context.cfg.talks.within
    manifest, rows = corpus.manifest, corpus.rows(part)
    speakers = [str(name) for name in manifest.column("speaker")[rows]]
    if "" in speakers:
        raise BadValue("talks are made of speakers with a name: map data.columns.speaker")
    utterances: dict[str, list[int]] = {}
    for row, speaker in zip(rows.tolist(), speakers, strict=True):
        utterances.setdefault(speaker, []).append(row)
    groups = {}
    if within:
        column = manifest.column(within)
        groups = {speaker: str(column[some[0]]) for speaker, some in utterances.items()}
    return Voices(utterances, lambda row: corpus.audio[row], groups)


def maker(context: Context, part: str) -> Callable[[int], simulate.Talk]:
    """`make(i) -> Talk` number i of a part, cut or filled to talks.seconds."""
    c, voices = context.cfg.talks, voices_of(context, part)
    sound = simulate.Sound(c.level, c.reverberant, tuple(c.noises), c.colour, c.telephone)
    seed = context.cfg.seed * len(PARTS) + PARTS.index(part)
    if c.kind == "conversation":
        by = rhythm_of(context.cfg)
        return lambda row: simulate.conversation(voices, seed, row, c.speakers, c.seconds, by, sound)

    def mixed(row: int) -> simulate.Talk:
        speakers = int(np.random.default_rng([seed, row, 1]).choice(list(c.speakers)))
        talk = simulate.mixture(voices, seed, row, speakers, c.beta, sound=sound)
        size = round(c.seconds * SAMPLE_RATE)
        wave_S = np.zeros(size, np.float32)
        wave_S[: len(talk.wave_S)] = talk.wave_S[:size]
        turns = [turn._replace(end=min(turn.end, c.seconds)) for turn in talk.turns if turn.start < c.seconds]
        return simulate.Talk(wave_S, turns, talk.group)

    return mixed


def frames_of(samples: int) -> int:
    """Frames that so many samples at 16 kHz reach."""
    return -(-samples // round(SAMPLE_RATE / RATE))


def listener(cfg, work) -> Callable[[np.ndarray], np.ndarray]:
    """`hear(waves [B, S]) -> [B, T, ...]`, ten frames a second, float16 states or float32 features."""
    size = round(cfg.talks.seconds * SAMPLE_RATE)
    if cfg.talks.hears == "logmel":
        return lambda waves: np.stack([logmel(wave_S)[: frames_of(size)] for wave_S in waves])
    hear, longest = encoder(base.pretrained(cfg), cfg.model.dtype)
    if size > longest:
        raise BadValue(
            f"config key 'talks.seconds' is {cfg.talks.seconds:g}; the encoder of model.pretrained hears"
            f" {longest / SAMPLE_RATE:g} s at most"
        )
    work.log("  the encoder is opened")
    return lambda waves: np.concatenate([hear(waves[at : at + AT_ONCE]) for at in range(0, len(waves), AT_ONCE)])


def logmel(wave_S: np.ndarray) -> np.ndarray:
    """EEND's features [T, 345] of samples at 16 kHz."""
    return features.features(soxr.resample(wave_S, SAMPLE_RATE, features.RATE))


def encoder(folder: str | Path, dtype: str) -> tuple[Callable[[np.ndarray], np.ndarray], int]:
    """(`hear(waves [B, S]) -> states float16 [B, T, layers, D]`, samples of its window). The waves are heard with zeros
    up to the window, as `moejax transcribe` does, and cut to their own frames.
    """
    config, params = whisper_folder.load(folder, dtype=dtype)
    config = dataclasses.replace(config, dtype=dtype)
    size = 2 * config.max_source_positions * config.hop
    graphdef, _ = functional.abstract(asr.build(config))
    segment = round(SEGMENT * 320 / (2 * config.hop)) or 1
    run_encoder = classification.make_hear(graphdef, config.num_mel_bins, config.hop, segment)

    def hear(waves: np.ndarray) -> np.ndarray:
        real, samples = len(waves), waves.shape[1]
        audio_BS = np.zeros((AT_ONCE if real > 1 else 1, size), np.float32)
        audio_BS[:real, :samples] = waves
        states, _ = run_encoder(params, audio_BS, np.full(len(audio_BS), samples, np.int32))
        return np.asarray(states)[:real, : frames_of(samples)].astype(np.float16)

    return hear, size


def _outside(cfg) -> str | None:
    """Of the encoder's weights, where they are heard. Errors: none are named."""
    if cfg.talks.hears != "whisper":
        return None
    if not cfg.model.pretrained:
        raise BadValue("talks.hears is 'whisper', and model.pretrained names no Whisper whose encoder could be heard")
    return base.inputs(cfg)


STAGE = Stage(
    "talks",
    run,
    needs=("describe",),
    reads=("talks", "model.pretrained", "model.dtype"),
    outside=_outside,
    keeps=True,
    apart=True,
    sections=SECTIONS,
)
