"""Open a workdir for use: the parts of a `Recognizer` for one of its systems."""

from pathlib import Path

from ml_collections import ConfigDict

from moejax.convert import hf_whisper
from moejax.data.tokenizer import Tokenizer
from moejax.ops.audio import SAMPLE_RATE
from moejax.stages import config as configs
from moejax.stages import evaluate
from moejax.stages.artifacts import Work, read_json
from moejax.stages.corpus import Corpus
from moejax.stages.embed import options as embedding_options
from moejax.tasks import translation
from moejax.train.checkpoint import load_params

WINDOW_SECONDS = 30.0


def open_corpus(path, weights: str = "") -> Corpus:
    """The corpus of a workdir, by the config that it was run with; `weights` is the format of its backbone instead."""
    config = configs.resolve(ConfigDict(read_json(path / "config.json")["config"]))
    return Corpus(config, Work(path, quiet=True), weights)


def open_workdir(path, system: str | None = None, weights: str = "") -> dict:
    """Keyword arguments of `recognizer.Recognizer`. Errors: KeyError for a system that was not trained there."""
    corpus = open_corpus(path, weights)
    known = evaluate.known_systems(corpus.work)
    name = system or next(s for s in ("moe", "moe_frozen", "base") if s in known)
    opened = evaluate.open_system(corpus, name)
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
    path = Path(path)
    cfg = configs.resolve(ConfigDict(read_json(path / "config.json")["config"]))
    section, folder = cfg.translate, path / "translate" / "model"
    tokenizer = Tokenizer.from_hf_folder(folder / "tokenizer")
    params, _ = load_params(folder / "params.safetensors")
    length = params["backbone"]["decoder"]["positions"].shape[0]
    config = translation.configure(
        tokenizer.vocab_size, width=section.width, layers=section.layers, heads=section.heads, max_tokens=length
    )
    graphdef, params = translation.init(config, cfg.seed, params)
    prefix = tokenizer.prefix(section.target, "translate")
    return translation.Offline(graphdef, params, tokenizer, prefix=prefix, length=length), section.target
