"""Open a workdir for use: the parts of a `Recognizer` for one of its systems."""

from pathlib import Path

from ml_collections import ConfigDict

from moejax.audio.constants import SAMPLE_RATE
from moejax.cohorts.embed import options as embedding_options
from moejax.convert import hf_whisper
from moejax.errors import BadValue, UnknownName
from moejax.job import config as configs
from moejax.job import graph
from moejax.runtime.files import read_json
from moejax.systems import evaluate
from moejax.tasks import translation
from moejax.text.tokenizer import Tokenizer
from moejax.train.checkpoint import load_params
from moejax.training import hyper
from moejax.work.context import Corpus
from moejax.work.folder import Work

WINDOW_SECONDS = 30.0


def open_corpus(path, weights: str = "") -> Corpus:
    """The corpus of a workdir, by the config that the newest command was given (`W/config.json`); `weights` is the
    format of its backbone instead.
    """
    config = configs.resolve(ConfigDict(read_json(path / "config.json")["config"]))
    return Corpus(config, Work(path, quiet=True), weights)


def as_trained(corpus: Corpus, system: str) -> Corpus:
    """The corpus of a workdir by the config that the stages behind a system were run with, whatever W/config.json says.

    Errors: KeyError for a system that was not trained there, naming those that were; ValueError where one of these
    stages is not finished, or was made from another result of the stage before it than the one that stands there now.
    """
    known = evaluate.known_systems(corpus.work)
    if system not in known:
        raise UnknownName(f"no system {system!r} in this workdir; it has {', '.join(known)}")
    return _by_stages(corpus, graph.closure([stage_of(system)]), system)


def _by_stages(corpus, names, system):
    """The corpus by the config that these stages were run with, which are finished and made from one another."""
    work = corpus.work
    done = {name: work.finished(name) for name in names}
    config = configs.resolve(corpus.cfg)
    for name in names:
        if done[name] is None:
            raise BadValue(f"{work.root}: {system} needs stage {name}, which is not finished; run it again")
        for need in set(graph.STAGES[name].needs) & done.keys():
            if done[name]["inputs"].get(f"stage {need}") != graph.passed_on(done[need]):
                raise BadValue(
                    f"{work.root}: {system} needs stage {name}, which was made from another {need} than stands there "
                    f"now; run it again"
                )
        config = configs.changed(config, done[name].get("config", {}))
    return corpus if config.to_dict() == corpus.cfg.to_dict() else Corpus(config, work, corpus.weights)


def stage_of(system: str) -> str:
    """The stage that leaves a system."""
    if hyper.trained_name(system):
        return "hyper"
    known = {"base": "base", "moe_frozen": "experts"}
    return known.get(system) or ("joint" if system.startswith("moe") else "adapters")


def open_workdir(path, system: str | None = None, weights: str = "") -> dict:
    """Keyword arguments of `recognizer.Recognizer`. Errors: KeyError for a system that was not trained there."""
    corpus = open_corpus(path, weights)
    known = evaluate.known_systems(corpus.work)
    name = system or next(s for s in ("moe", "moe_frozen", "base") if s in known)
    corpus = as_trained(corpus, name)
    opened = evaluate.open_system(corpus, name)
    if opened.control != "none":
        other = hyper.trained_name(name) or "moe"
        raise BadValue(f"{name} is {other} on another route than its own, for the table alone; load {other} instead")
    timed = _writes_times(corpus)
    return {
        "graphdef": opened.graphdef,
        "params": opened.params,
        "config": corpus.base[0],
        "tokenizer": corpus.tokenizer,
        # A model that hears padding was trained to hear all of its window.
        "seconds": (WINDOW_SECONDS,) if timed else corpus.cfg.model.buckets,
        "timestamps": timed,
        "route": opened.route,
        "mixture": opened.mixture,
        "embedding": embedding_options(corpus.cfg),
        "label": opened.label,
        "language": corpus.cfg.data.language,
        "seed": corpus.cfg.seed,
        "heads": hf_whisper.alignment_heads(corpus.base_folder),
    }


def _writes_times(corpus) -> bool:
    """Whether the base was trained on windows like the published ones, with times in their targets."""
    config = corpus.base[0]
    window = 2 * config.max_source_positions * config.hop == WINDOW_SECONDS * SAMPLE_RATE
    return bool(corpus.cfg.base.get("timestamps", False)) and window and not config.mask_padding


def open_translator(path) -> tuple[translation.Offline, str]:
    """(the translator that the workdir's `translate` stage trained, the language that it writes)."""
    # Of the stages before it, `translate` reads the corpus' own texts only: nothing that was trained since matters.
    corpus = _by_stages(open_corpus(Path(path)), ["translate"], "the translator")
    cfg, folder = corpus.cfg, corpus.work.path("translate", "model")
    section = cfg.translate
    tokenizer = Tokenizer.from_hf_folder(folder / "tokenizer")
    params, _ = load_params(folder / "params.safetensors")
    length = params["backbone"]["decoder"]["positions"].shape[0]
    config = translation.configure(
        tokenizer.vocab_size, width=section.width, layers=section.layers, heads=section.heads, max_tokens=length
    )
    graphdef, params = translation.init(config, cfg.seed, params)
    prefix = tokenizer.prefix(section.target, "translate")
    return translation.Offline(graphdef, params, tokenizer, prefix=prefix, length=length), section.target
