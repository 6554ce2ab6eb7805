"""The base on windows of joined utterances, with times: one phase for each window length, short ones first."""

import dataclasses
from typing import Any

import numpy as np

from moejax.audio.constants import SAMPLE_RATE, STRIDE
from moejax.data.pack import Packer, Recipe, WindowPlan
from moejax.errors import BadValue
from moejax.tasks import asr, windows
from moejax.training import fitting
from moejax.work.context import bucket_samples
from moejax.work.fields import BATCH, SHARE, STEPS, Field, above, below

_OTHERS = ("prompt_tokens", "enrolled", "phrases", "pause", "new")  # a phase's own; those of `training.timed`
_RECIPE = tuple(field.name for field in dataclasses.fields(Recipe) if field.name not in _OTHERS)


def _lowest_highest(key, value):
    if value[0] > value[1]:
        raise BadValue(f"config key {key!r} is {tuple(value)}; it takes (lowest, highest)")


# Utterances joined into windows as published models hear them; what windows are made of is `data.pack.Recipe`.
SECTION = {
    "seconds": Field(
        (),
        "Window lengths in seconds, one training phase for each, shortest first; (): every utterance alone, no times.\n"
        "The last is what the model will hear (30.0 for published ones).",
        kind=float,
        limits=(0.1, 30.0),
    ),
    "steps": Field((), "Optimizer steps of each phase; () for base.steps in all.", kind=int, limits=STEPS),
    "batch_sizes": Field(
        (), "Windows in a batch of each phase; () for base.batch_size in all.", kind=int, limits=BATCH
    ),
    "learning_rates": Field(
        (),
        "Learning rate of each phase; () for base.learning_rate in all.",
        kind=float,
        limits=(above(0), 1.0),
    ),
    "prompt_tokens": Field(
        (),
        "Longest previous text in each phase, in tokens, 0 for none; () is 223 in all.",
        kind=int,
        limits=(0, 1000),
    ),
    "guide": Field(
        0.0,
        "Weight of the penalty on attention away from where the times say that a token is heard.\n"
        "Guided attention (moejax.tasks.windows.guided); 0: none.",
        limits=(0.0, 1000.0),
    ),
    "one_speaker": Field(
        Recipe.one_speaker, "Whether all utterances of a window are of one speaker; False: of anybody."
    ),
    "plain": Field(
        Recipe.plain, "Share of windows without times (<|notimestamps|>); 1 for none with times.", limits=SHARE
    ),
    "prompt": Field(
        Recipe.prompt, "Share of windows with the end of a previous text before the start token.", limits=SHARE
    ),
    "nospeech": Field(
        Recipe.nospeech,
        "Share of windows of silence, noise or tones, whose target after the start token is <|nospeech|>.",
        limits=SHARE,
    ),
    "empty": Field(
        Recipe.empty,
        "Share of these that are taught to write nothing after language and task are given.",
        limits=SHARE,
    ),
    "most": Field(
        Recipe.most,
        "Utterances that are written at most of a window with times, then the time of the next; 0 for all.\n"
        "Decoders go on from there: a small model need not know 30 s by heart.",
    ),
    "full": Field(
        Recipe.full,
        "Share of windows filled to the end; the others end anywhere, with silence behind.",
        limits=SHARE,
    ),
    "cut": Field(
        Recipe.cut, "Share of the full windows with a last utterance that the window's end cuts.", limits=SHARE
    ),
    "abrupt": Field(
        Recipe.abrupt,
        "Share of windows whose speech begins at once; elsewhere base.pack.lead comes first.",
        limits=SHARE,
    ),
    "lead": Field(
        Recipe.lead,
        "Lowest and highest seconds before the first utterance.",
        limits=(0.0, 30.0),
        length=2,
        rule=_lowest_highest,
    ),
    "gap": Field(
        Recipe.gap,
        "Lowest and highest seconds between two utterances.",
        limits=(0.0, 30.0),
        length=2,
        rule=_lowest_highest,
    ),
    "speed": Field(
        Recipe.speed,
        "A window is played within 1 +- this of its speed; pitch changes along.",
        limits=(0.0, below(0.5)),
    ),
    "gain": Field(Recipe.gain, "Most decibels by which an utterance is made louder or softer.", limits=(0.0, 100.0)),
    "noise": Field(Recipe.noise, "Share of windows with speech that have a noise under all of it.", limits=SHARE),
    "noise_level": Field(
        Recipe.noise_level,
        "Lowest and highest root mean square of that noise, drawn on a logarithmic scale; full scale is 1.",
        limits=(above(0), 1.0),
        length=2,
        rule=_lowest_highest,
    ),
}


@dataclasses.dataclass(frozen=True)
class Phase:
    """One window length: how long, in which batches, how fast."""

    name: str
    seconds: float
    steps: int
    batch_size: int
    learning_rate: float
    prompt_tokens: int


def phases(section) -> list[Phase]:
    """The phases of `base.pack`. Errors: a list of another length than `seconds`, lengths that do not ascend."""
    pack, count = section.pack, len(section.pack.seconds)
    if list(pack.seconds) != sorted(set(pack.seconds)) or not 0 < pack.seconds[0] <= pack.seconds[-1] <= 30:
        raise BadValue(f"base.pack.seconds is {tuple(pack.seconds)}; needs ascending lengths of at most 30 s")
    columns = []
    for name, usual in (
        ("steps", section.steps),
        ("batch_sizes", section.batch_size),
        ("learning_rates", section.learning_rate),
        ("prompt_tokens", 223),
    ):
        values = tuple(pack[name]) or (usual,) * count
        if len(values) != count:
            raise BadValue(f"base.pack.{name} has {len(values)} entries for {count} window lengths (pack.seconds)")
        columns.append(values)
    return [Phase(f"{s:g}s", float(s), *row) for s, row in zip(pack.seconds, zip(*columns, strict=True), strict=True)]


def check(cfg, config) -> None:
    """Errors, one line each: keys of `base` and a network that windows cannot be trained with."""
    section = cfg.base
    phases(section)
    for name in ("ctc", "short_steps", "finetune_steps"):
        if section[name]:
            raise BadValue(f"base.{name} does not go with base.pack; its phases are pack.seconds and pack.steps")
    if section.pack.guide and not section.timestamps:
        raise BadValue("base.pack.guide needs base.timestamps: they say where a token is heard")
    if section.warp_time and section.timestamps:
        raise BadValue("base.warp_time would falsify the times of base.timestamps; base.pack.speed moves them along")
    if config.mask_padding:
        raise BadValue(
            "base.pack needs a model that hears its padding, as published ones do: model.sizes.mask_padding=False"
        )
    limit = config.max_source_positions * STRIDE * config.hop / SAMPLE_RATE
    if section.pack.seconds[-1] > limit:
        raise BadValue(f"base.pack.seconds ends at {section.pack.seconds[-1]}; the model hears {limit} s")


def fit(context, config, params, tokenizer, sources):
    """All phases in turn; each resumes from W/base/<seconds>s/checkpoints. `sources`: .cache .samples .texts .speakers
    of the training part.
    """
    section = context.cfg.base
    fresh = not params
    graphdef, params = asr.init(asr.build(config, seed=context.cfg.seed), params)
    if fresh and section.timestamps:
        params = windows.ordered_times(params, tokenizer.timestamp_begin)
    for phase in phases(section):
        packer = _packer(context.cfg, config, tokenizer, sources, phase)
        context.work.log(
            f"  windows of {phase.seconds:g} s: {phase.steps} steps of {phase.batch_size}, "
            f"{len(packer)} windows an epoch, {packer.length} tokens, {packer.scored} scored"
        )
        row = asr.Row(scored=packer.scored, **fitting.row_options(section))
        loss_fn = asr.make_loss(graphdef, row)
        if section.pack.guide:
            begin = tokenizer.timestamp_begin
            loss_fn = windows.guided(graphdef, row, weight=section.pack.guide, hop=config.hop, timestamp_begin=begin)
        options = changed(section, steps=phase.steps, batch_size=phase.batch_size, learning_rate=phase.learning_rate)
        params = fitting.train(
            context,
            fitting.Training(
                "base",
                loss_fn,
                ("backbone",),
                options,
                sub=(phase.name,),
                fetch=packer,
                plan=WindowPlan(packer.window, phase.batch_size, context.multiple),
            ),
            params,
        )
    return params


def _packer(cfg, config, tokenizer, sources, phase) -> Packer:
    """Windows of one phase out of all utterances that fit; none may be too long for the last phase."""
    pack = cfg.base.pack
    (window,) = bucket_samples((phase.seconds,), config.hop)
    fits = np.flatnonzero(sources.samples <= window)
    if not len(fits):
        raise BadValue(f"base.pack.seconds: no utterance is as short as {phase.seconds} s")
    if phase.seconds == pack.seconds[-1] and len(fits) < len(sources.samples):
        longest = sources.samples.max() / SAMPLE_RATE
        raise BadValue(f"base.pack.seconds end at {phase.seconds} s; the training part has one of {longest:.2f} s")
    values = {name: pack[name] for name in _RECIPE}
    if not cfg.base.timestamps:
        values["plain"] = 1.0
    return Packer(
        audio=Picked(sources.cache, fits),
        samples=sources.samples[fits],
        texts=[sources.texts[i] for i in fits],
        speakers=[sources.speakers[i] for i in fits],
        tokenizer=tokenizer,
        language=cfg.data.language,
        window=window,
        room=config.max_target_positions,
        recipe=Recipe(prompt_tokens=phase.prompt_tokens, **values),
        seed=cfg.seed,
    )


@dataclasses.dataclass(frozen=True)
class Picked:
    """Audio of number index[i] of a cache; pickles for loader processes."""

    cache: Any  # [number] -> samples [S]
    index: np.ndarray

    def __call__(self, i):
        return self.cache[int(self.index[i])]


def changed(section, **values):
    """A training section with other values."""
    other = section.copy_and_resolve_references()
    with other.unlocked():
        other.update(values)
    return other
