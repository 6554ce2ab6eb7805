"""The translator that a workdir trains on its corpus' own parallel text, and the same fine-tuned on recognised text.

Both are kept by what they were made of, so that another translator in the table trains neither of them again, and a run
that was killed goes on: at its checkpoint, or at the utterance that it was decoding.
"""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from moejax.data.pipeline import BatchPlan
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.runtime import processes
from moejax.runtime.files import read_json, read_jsonl, write_json
from moejax.systems import evaluate
from moejax.tasks import translation
from moejax.text import normalize
from moejax.text.tokenizer import Tokenizer
from moejax.train.params_file import load_params, save_params
from moejax.training import fitting
from moejax.types import Config, Params
from moejax.work.context import Context
from moejax.work.folder import Work, digest

PLAIN, TUNED = "model", "tuned"  # their folders in W/translate
FOLDERS = {"offline": PLAIN, "offline_tuned": TUNED}
PARAMS, TOKENIZER, MADE, HEARD = "params.safetensors", "tokenizer", "made.json", "heard.jsonl"
TEXTS = ("target", "width", "layers", "heads", "vocab_size", "extra_pairs")
FINE = ("tuned_utterances", "tuned_system", "tuned_steps", "tuned_learning_rate")

Pair = tuple[str, str]  # text, translation


@dataclasses.dataclass(frozen=True)
class Model:
    """The network and what its texts become: `length` tokens at most, behind a `prefix`."""

    graphdef: functional.GraphDef
    params: Params
    tokenizer: Tokenizer
    prefix: list[int]
    length: int

    def translator(self) -> translation.Offline:
        return translation.Offline(self.graphdef, self.params, self.tokenizer, prefix=self.prefix, length=self.length)


def trained(context: Context) -> Model:
    """Trains the translator on the training part's parallel text, or resumes; a tenth of a minute on the embedded
    corpus. Errors: BadValue where no training utterance has a translation.
    """
    cfg, work = context.cfg, context.work
    if processes.first():
        _claim(work, PLAIN, _made(context))
    folder = work.path("translate", PLAIN)
    if processes.agree((folder / PARAMS).exists()):
        return load(cfg, folder)
    section = cfg.translate
    pairs = _pairs(context)
    languages = (cfg.data.language, section.target)
    tokenizer = Tokenizer.train([text for pair in pairs for text in pair], section.vocab_size, languages=languages)
    source, target = _tokens(tokenizer, section.target, pairs)
    length = -(-(max(max(map(len, source)), max(map(len, target))) + 4) // 8) * 8
    model = _network(cfg, tokenizer, length)
    return _fitted(context, model, (source, target), section, PLAIN)


def tuned(context: Context) -> Model | None:
    """`trained`, fine-tuned on what `translate.tuned_system` recognises in the training part, as much of it again as
    said; None, with a line in the log, where nothing is left to learn from.
    """
    cfg, work, start = context.cfg, context.work, trained(context)
    rows = tuned_rows(context)
    if not len(rows):
        work.log("  offline_tuned is left out: no training utterance with a translation is free of dev's sentences")
        return None
    heard = _heard(context, rows)
    folder = work.path("translate", TUNED)
    if processes.agree((folder / PARAMS).exists()):
        return load(cfg, folder)
    recognised = [(heard[name], german) for name, german in _references(context, rows).items() if heard[name].strip()]
    section = cfg.translate.copy_and_resolve_references()
    with section.unlocked():
        section.steps, section.learning_rate = section.tuned_steps, section.tuned_learning_rate
    pairs = [*recognised, *_clean(context, len(recognised))]
    source, target = _tokens(start.tokenizer, section.target, pairs)
    fits = [i for i, tokens in enumerate(target) if len(tokens) <= start.length]
    texts = [source[i][: start.length] for i in fits], [target[i] for i in fits]
    work.log(f"  offline_tuned: {len(recognised)} recognised texts, {len(pairs) - len(recognised)} as they were said")
    return _fitted(context, start, texts, section, TUNED)


def load(cfg: Config, folder: Path) -> Model:
    """As `trained` and `tuned` left it in W/translate/model or tuned. Errors: FileNotFoundError."""
    tokenizer = Tokenizer.from_hf_folder(folder / TOKENIZER)
    params, _ = load_params(folder / PARAMS)
    length = params["backbone"]["decoder"]["positions"].shape[0]
    return _network(cfg, tokenizer, length, params)


def digest_of(work: Work, name: str) -> str:
    """What `offline` or `offline_tuned` in W/translate was made of."""
    return read_json(work.path("translate", FOLDERS[name], MADE))["digest"]


def tuned_rows(context: Context) -> np.ndarray:
    """Rows of the training part that `tuned` learns from: with a translation, and with no sentence of dev or test."""
    manifest, section = context.corpus.manifest, context.cfg.translate
    held, rows = _held(context), context.corpus.rows("train")
    texts, translations = manifest.column("text"), manifest.column("translation")
    free = np.array([row for row in rows if translations[row] and normalize.lower(str(texts[row])) not in held], int)
    drawn = np.random.default_rng(context.cfg.seed).permutation(len(free))[: section.tuned_utterances]
    return free[np.sort(drawn)]


def forget(work: Work, kept: set[str]) -> None:
    """Removes the models that are not asked for: whoever opens a workdir takes what stands there for its translator."""
    for name in {PLAIN, TUNED} - kept:
        shutil.rmtree(work.path("translate", name), ignore_errors=True)


def _network(cfg: Config, tokenizer: Tokenizer, length: int, saved: Params | None = None) -> Model:
    section = cfg.translate
    config = translation.configure(
        tokenizer.vocab_size, width=section.width, layers=section.layers, heads=section.heads, max_tokens=length
    )
    graphdef, params = translation.init(config, cfg.seed, saved)
    return Model(graphdef, params, tokenizer, tokenizer.prefix(section.target, "translate"), length)


def _tokens(tokenizer: Tokenizer, into: str, pairs: list[Pair]) -> tuple[list[list[int]], list[list[int]]]:
    prefix = tokenizer.prefix(into, "translate")
    source = [tokenizer.encode(english) for english, _ in pairs]
    return source, [prefix + tokenizer.encode(german) + [tokenizer.eot] for _, german in pairs]


def _fitted(context: Context, model: Model, texts: tuple[list, list], section: Any, folder: str) -> Model:
    """The model trained on these token lists, and saved to W/translate/<folder>."""
    source, target = texts
    plan = BatchPlan(
        lengths=np.ones(len(source), np.int64),
        buckets=(1,),
        batch_size=section.batch_size,
        seed=context.cfg.seed,
        multiple=context.multiple,
    )
    params = fitting.train(
        context,
        fitting.Training(
            "translate",
            translation.make_loss(model.graphdef),
            ("backbone",),
            section,
            plan=plan,
            fetch=translation.Pairs(source, target, len(model.prefix), model.tokenizer.eot, model.length),
            sub=(folder,),
        ),
        model.params,
    )
    place = context.work.path("translate", folder)
    if processes.first():
        model.tokenizer.save(place / TOKENIZER)
    save_params(place / PARAMS, {"backbone": params["backbone"]})  # last: it says that the rest is there
    return dataclasses.replace(model, params=params)


def _made(context: Context, **more) -> dict:
    """What a model depends on, beside its own steps the texts of the corpus."""
    cfg, done = context.cfg, context.work.finished("describe") or {}
    keys = [*TEXTS, *(key for key, field in fitting.PLAIN.items() if not field.no_result)]
    return {
        **{"seed": cfg.seed, "corpus": done.get("passes", done.get("digest")), "language": cfg.data.language},
        **{key: cfg.translate[key] for key in keys},
        **more,
    }


def _claim(work: Work, name: str, made: dict) -> None:
    """Removes what is left of a model that was made of something else; the first process alone does."""
    folder, said = work.path("translate", name), {"digest": digest(made)}
    if not (folder / MADE).exists() or read_json(folder / MADE) != said:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / MADE, said)


def _heard(context: Context, rows: np.ndarray) -> dict[str, str]:
    """{id: what the system recognises}; lines that were decoded before are kept."""
    cfg, work = context.cfg, context.work
    file = work.path("translate", TUNED, HEARD)
    with processes.working(False):  # each of several decodes a share
        alone = Context(cfg, work, cfg.evaluate.weights)
        system = evaluate.open_row(alone, cfg.translate.tuned_system)
        if processes.first():
            fine = {key: cfg.translate[key] for key in FINE}
            _claim(work, TUNED, _made(context, system=evaluate.made_of(alone, system, None, 0), **fine))
        evaluate.lines(alone, system, rows, None, file, shared=True)
    processes.meet()
    return {line["id"]: line["hypothesis"] for line in read_jsonl(file)}


def _references(context: Context, rows: np.ndarray) -> dict[str, str]:
    """{id: translation} of these rows."""
    manifest = context.corpus.manifest
    return {str(manifest.column("id")[row]): str(manifest.column("translation")[row]) for row in rows}


def _held(context: Context) -> set[str]:
    """The sentences of dev and test, in lower case and without punctuation."""
    manifest = context.corpus.manifest
    return {normalize.lower(str(text)) for text in manifest.column("text")[manifest.indices(split=["dev", "test"])]}


def _clean(context: Context, count: int) -> list[Pair]:
    """So many pairs as they were said: what the fine-tuned translator shall not forget."""
    held = _held(context)
    pairs = [pair for pair in _pairs(context) if normalize.lower(pair[0]) not in held]
    drawn = np.random.default_rng(context.cfg.seed + 1).permutation(len(pairs))[:count]
    return [pairs[i] for i in np.sort(drawn)]


def parallel(context: Context) -> list[Pair]:
    """(text, translation) of the training part, each text once."""
    manifest, rows = context.corpus.manifest, context.corpus.rows("train")
    found = dict(zip(manifest.column("text")[rows], manifest.column("translation")[rows], strict=True))
    return [(str(text), str(german)) for text, german in found.items() if german]


def _pairs(context: Context) -> list[Pair]:
    """Parallel text of the training part; for the embedded corpus also other sentences of its grammar."""
    manifest, cfg = context.corpus.manifest, context.cfg
    pairs = parallel(context)
    found = {english for english, _ in pairs}
    if not pairs:
        raise BadValue("translate.backends has offline, but no training utterance has a translation; use deepl or none")
    if cfg.data.source == "builtin" and cfg.translate.extra_pairs:
        from moejax.speech import grammar

        held = set(manifest.column("text")[manifest.indices(split=["dev", "test"])])
        extra = grammar.sample(cfg.translate.extra_pairs, cfg.seed + 1)
        pairs += [(english, german) for english, german in extra if english not in held and english not in found]
    return pairs
