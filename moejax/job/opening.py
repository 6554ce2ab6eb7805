"""Open a workdir for use: the parts of a `Recognizer` for one of its systems."""

from pathlib import Path

from ml_collections import ConfigDict

from moejax.audio.constants import SAMPLE_RATE, WINDOW_SECONDS
from moejax.convert import whisper_folder
from moejax.errors import BadValue
from moejax.job import config as configs
from moejax.job import graph
from moejax.runtime.files import read_json
from moejax.systems import answering, offline_translator, registry
from moejax.tasks import translation
from moejax.work.context import Context
from moejax.work.folder import Work
from moejax.work.stage import ABOUT


def open_context(path, weights: str = "") -> Context:
    """The context of a workdir, by the config that the newest command was given (`W/config.json`); `weights` is the
    format of its backbone instead.
    """
    saved = read_json(path / "config.json")["config"]
    config = configs.resolve(ConfigDict(configs.of_this_version(saved)))
    return Context(config, Work(path, quiet=True), weights)


def as_trained(context: Context, system: str) -> Context:
    """The context of a workdir by the config that the stages behind a system were run with, whatever W/config.json
    says.

    Errors: UnknownName for a system that was not trained there; BadValue where one of these stages is not finished, or
    was made from another result of the stage before it than the one that stands there now.
    """
    return _by_stages(context, registry.find(context.work, system).stage, system)


def _by_stages(context, last: str, system: str):
    """The context by the config that a stage and all behind it were run with, which are made from one another."""
    work, config, done = context.work, configs.resolve(context.cfg), {}
    waiting = [last]
    while waiting:
        name = waiting.pop()
        done[name] = work.finished(name)
        if done[name] is None:
            raise BadValue(f"{work.root}: {system} needs stage {name}, which is not finished; run it again")
        waiting += [need for need in _needs(done[name]) if need not in done]
    for name in (stage for stage in ABOUT if stage in done):
        for need, made_from in _needs(done[name]).items():
            if made_from != graph.passed_on(done[need]):
                raise BadValue(
                    f"{work.root}: {system} needs stage {name}, which was made from another {need} than stands there "
                    f"now; run it again"
                )
        config = configs.changed(config, configs.of_this_version(done[name].get("config", {})))
    return context if config.to_dict() == context.cfg.to_dict() else Context(config, work, context.weights)


def _needs(done: dict) -> dict[str, str]:
    """{stage: what it passed on} of the stages that a finished one was made from."""
    return {key.removeprefix("stage "): value for key, value in done["inputs"].items() if key.startswith("stage ")}


def open_workdir(path, system: str | None = None, weights: str = "", task: str = "transcribe") -> dict:
    """Keyword arguments of `recognizer.Recognizer`. Errors: UnknownName for a system that was not trained there."""
    context = open_context(path, weights)
    name = system or registry.best(context.work, task).name
    if registry.find(context.work, name).answers:
        raise BadValue(f"{name} is a language model that hears: its rows are in the tables, no recogniser runs it")
    context = as_trained(context, name)
    opened = registry.open_system(context, name)
    if opened.network.logits_NE is not None:
        raise BadValue(
            f"{name} is {opened.of} on another route than its own, for the table alone; load {opened.of} instead"
        )
    published, can_time = context.base.times > 0, _can_time(context)
    timed = published or (can_time and context.cfg.base.timestamps and _hears_window(context))
    return {
        "system": opened,
        "tokenizer": opened.network.tokenizer or context.base.tokenizer,
        # A model that hears padding was trained to hear all of its window.
        "seconds": (WINDOW_SECONDS,) if timed else context.cfg.model.buckets,
        "timestamps": timed,
        "can_time": can_time,
        # What reads as the published model does finds the language as that does, and draws as that draws.
        "language": None if published else context.cfg.data.language,
        **({} if published else {"seed": context.cfg.seed}),
        "heads": whisper_folder.alignment_heads(context.base.folder),
    }


def open_answerer(path, system: str | None = None, weights: str = "") -> answering.Asked:
    """A workdir's language model that hears, by default the last that it has of salmonn.KINDS.

    Errors: UnknownName for a system that was not trained there, BadValue for one that answers no questions.
    """
    context = open_context(path, weights)
    there = [known.name for known in registry.known(context.work).values() if known.answers]
    if not there:
        raise BadValue(f"{path}: no language model that hears was trained there (config key salmonn.systems)")
    name = system or there[-1]
    if not registry.find(context.work, name).answers:
        raise BadValue(f"{name} is a recogniser, which answers no questions; {', '.join(there)} do")
    context = as_trained(context, name)
    return answering.asked(context, registry.open_system(context, name))


def _can_time(context) -> bool:
    """Whether the base is a published model, or was trained on windows, with times in their targets: it writes times
    where it is asked to, if not as well as systems that were trained to keep doing so.
    """
    config, base = context.base.config, context.base
    learnt = context.cfg.base.timestamps or context.cfg.model.pretrained
    return bool(learnt) and config.vocab_size > base.tokenizer.timestamp_begin and not config.mask_padding


def _hears_window(context) -> bool:
    return context.window == WINDOW_SECONDS * SAMPLE_RATE


def open_translator(path, name: str = "offline") -> tuple[translation.Offline, str]:
    """(the translator that the workdir's `translate` stage trained, the language that it writes); `name`: offline or
    offline_tuned.
    """
    # Of the stages before it, `translate` reads the corpus' own texts only: nothing that was trained since matters.
    context = _by_stages(open_context(Path(path)), "translate", "the translator")
    model = offline_translator.load(context.cfg, context.work.path("translate", offline_translator.FOLDERS[name]))
    return model.translator(), context.cfg.translate.target
