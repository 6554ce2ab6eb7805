"""The base on windows of joined utterances, with times: one phase for each window length, short ones first."""

import dataclasses

import numpy as np

from moejax.audio.constants import SAMPLE_RATE, STRIDE
from moejax.data.pack import Packer, Recipe, WindowPlan
from moejax.errors import BadValue
from moejax.tasks import asr, windows
from moejax.training import fitting
from moejax.work.context import bucket_samples

_RECIPE = tuple(field.name for field in dataclasses.fields(Recipe) if field.name != "prompt_tokens")
DEFAULTS = {
    # Window lengths in seconds, one training phase for each, shortest first; the last is what the model will hear
    # (30.0 for published ones). (): every utterance alone, no times
    "seconds": (),
    # One for each phase, or () for base.steps, base.batch_size, base.learning_rate in all
    "steps": (),
    "batch_sizes": (),
    "learning_rates": (),
    "prompt_tokens": (),  # longest previous text in each phase, 0 for none; () is 223 in all
    # Weight of the penalty on attention away from where the times say that a token is heard (tasks.windows.guided)
    "guide": 0.0,
    **{field.name: field.default for field in dataclasses.fields(Recipe) if field.name in _RECIPE},
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

    cache: object
    index: np.ndarray

    def __call__(self, i):
        return self.cache[int(self.index[i])]


def changed(section, **values):
    """A training section with other values."""
    other = section.copy_and_resolve_references()
    with other.unlocked():
        other.update(values)
    return other
