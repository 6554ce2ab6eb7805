"""Cascaded speech translation: every system's hypotheses through a text translator, scored against references.

Three back ends: DeepL by its official client, which says what it costs before it is asked; a folder that CTranslate2
runs (OPUS-MT, NLLB, M2M100); and an offline transformer trained here on the corpus' own parallel text.
References that the same translator made are never scored (the manifest's `translation_source` decides).
"""

import json
import os

import numpy as np

from moejax import mt
from moejax.data.pipeline import BatchPlan
from moejax.errors import BadValue
from moejax.mt import ctranslate2_folder, deepl_glossary, deepl_options
from moejax.runtime import processes
from moejax.runtime.files import read_jsonl, write_json, write_text
from moejax.score import bleu
from moejax.tasks import translation
from moejax.text.tokenizer import Tokenizer
from moejax.train.params_file import save_params
from moejax.training import fitting
from moejax.types import Config
from moejax.work import fields
from moejax.work.context import Context
from moejax.work.fields import Field
from moejax.work.folder import Work
from moejax.work.stage import Stage

LEARNT = "learnt"  # the value of deepl_glossary


def run(cfg: Config, work: Work) -> dict:
    """Writes W/translate/<system>.<mt>.jsonl and summary.json, or says why there is nothing to translate."""
    context = Context(cfg, work)
    rows = context.corpus.rows(cfg.evaluate.split)
    references = context.corpus.manifest.column("translation")[rows]
    backend = cfg.translate.backend
    if backend == "auto":
        backend = "offline" if any(references) else "none"
    if backend == "none":
        work.log("  nothing to translate: the corpus has no reference translations")
        write_json(work.path("translate", "summary.json"), {})
        return {"backend": "none"}
    if not processes.first() and backend != "offline":  # nobody is paid twice
        return {}
    translator = BACKENDS[backend](context)
    if not processes.first():
        return {}
    summary, hypotheses = {}, list(_hypotheses(context, rows))
    if backend == "deepl":
        every = [text for _, texts in hypotheses for text in texts.values()]
        work.log(f"  {translator.costs(every)}")
        if cfg.translate.dry_run:
            work.log("  translate.dry_run: nothing is sent")
            write_json(work.path("translate", "summary.json"), {})
            return {"backend": backend, "dry_run": True}
        translator.translate(every)  # in the requests that were said; system by system they come from the cache
    for system, texts in hypotheses:
        translated = translator.translate(list(texts.values()))
        records = list(_records(context, texts, translated))
        name = f"{system}.{backend}"
        lines = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
        write_text(work.path("translate", f"{name}.jsonl"), lines)
        scored = [r for r in records if r["reference"]]
        if scored:
            summary[name] = bleu.score(
                [r["hypothesis"] for r in scored],
                [r["reference"] for r in scored],
                system=backend,
                translation_sources=[r["translation_source"] for r in scored],
            )
            work.log(f"  {name}: BLEU {summary[name]['bleu']:.1f}  chrF {summary[name]['chrf']:.1f}")
    write_json(work.path("translate", "summary.json"), summary)
    return {"backend": backend, "systems": len(summary)}


def _hypotheses(context: Context, rows: np.ndarray):
    """(system, {id: text}) of every configured system that was evaluated, and of the true transcripts."""
    if context.cfg.translate.reference_text:
        manifest = context.corpus.manifest
        yield "transcript", {str(manifest.column("id")[r]): str(manifest.column("text")[r]) for r in rows}
    for system in context.cfg.translate.systems:
        file = context.work.path("evaluate", f"{system}.jsonl")
        if not file.exists():
            context.work.log(f"  {system}: not evaluated, left out of translation")
            continue
        yield system, {line["id"]: line["hypothesis"] for line in read_jsonl(file)}


def _records(context: Context, texts: dict[str, str], translated: list[str]):
    place = {str(name): i for i, name in enumerate(context.corpus.manifest.column("id"))}
    columns = {name: context.corpus.manifest.column(name) for name in ("translation", "translation_source")}
    for (name, source), hypothesis in zip(texts.items(), translated, strict=True):
        row = place[name]
        more = {column: str(values[row]) for column, values in columns.items()}
        yield {"id": name, "source": source, "hypothesis": hypothesis, "reference": more.pop("translation"), **more}


def _deepl(context: Context):
    cfg = context.cfg
    glossary: str | dict[str, str] | None = cfg.translate.deepl_glossary
    if glossary == LEARNT:
        pairs = _parallel(context)
        glossary = deepl_glossary.learn(pairs)
        context.work.log(f"  glossary: {len(glossary)} terms learnt from {len(pairs)} sentence pairs")
    return _DeepL(_client(cfg, glossary), cfg.data.language, cfg.translate.target)


def _client(cfg: Config, glossary):
    section = cfg.translate
    return mt.get("deepl")(
        os.environ.get("DEEPL_AUTH_KEY"),
        section.deepl_server or None,
        os.path.expanduser(section.deepl_cache),
        glossary,
        section.deepl_formality,
        style_rule=section.deepl_style_rule,
        custom_instructions=section.deepl_instructions,
        translation_memory=section.deepl_memory,
        translation_memory_threshold=section.deepl_memory_threshold,
        tag_handling=section.deepl_tags,
    )


def check_deepl(cfg: Config) -> None:
    """BadValue naming what of the section `translate` DeepL lacks: a language, or an option for the target. Reads no
    file and sends nothing.
    """
    if cfg.translate.backend == "deepl":
        try:
            _client(cfg, None).check(cfg.data.language, cfg.translate.target)
        except BadValue as error:
            raise BadValue(f"config section 'translate': {error}") from error
    elif cfg.translate.backend == "ctranslate2" and not cfg.translate.folder:
        raise BadValue("translate.backend is ctranslate2: translate.folder names the model's folder")
    elif cfg.translate.dry_run:
        raise BadValue("translate.dry_run needs translate.backend = 'deepl'; the others cost nothing")


def outside(cfg: Config) -> str | None:
    """A digest of the glossary file's entries, or of CTranslate2's folder; None without one. Errors: it is not there,
    or is no such thing.
    """
    if cfg.translate.backend == "ctranslate2":
        return ctranslate2_folder.digest(cfg.translate.folder, cfg.data.language, cfg.translate.target)
    glossary = cfg.translate.deepl_glossary
    if cfg.translate.backend != "deepl" or glossary in ("", LEARNT) or not deepl_options.is_file(glossary):
        return None
    return deepl_glossary.digest(deepl_glossary.read(glossary))


class _DeepL:
    def __init__(self, client, source, target):
        self.client, self.source, self.target = client, source, target

    def translate(self, texts: list[str]) -> list[str]:
        return self.client.translate(texts, source=self.source, target=self.target)

    def costs(self, texts: list[str]) -> str:
        """In one line, before anything is billed."""
        plan = self.client.plan(texts, source=self.source, target=self.target)
        return f"{plan}{self.client.left() if plan.requests else ''}"


def _ctranslate2(context: Context):
    cfg = context.cfg
    return mt.get("ctranslate2")(cfg.translate.folder, cfg.data.language, cfg.translate.target)


def _offline(context: Context):
    """Trains the translator on the training part's parallel text, or resumes; a tenth of a minute on the embedded
    corpus.
    """
    cfg, work = context.cfg, context.work
    section = cfg.translate
    pairs = _pairs(context)
    languages = (cfg.data.language, section.target)
    tokenizer = Tokenizer.train([text for pair in pairs for text in pair], section.vocab_size, languages=languages)
    prefix = tokenizer.prefix(section.target, "translate")
    source = [tokenizer.encode(english) for english, _ in pairs]
    target = [prefix + tokenizer.encode(german) + [tokenizer.eot] for _, german in pairs]
    length = -(-(max(max(map(len, source)), max(map(len, target))) + 4) // 8) * 8
    config = translation.configure(
        tokenizer.vocab_size, width=section.width, layers=section.layers, heads=section.heads, max_tokens=length
    )
    graphdef, params = translation.init(config, cfg.seed)
    batches = translation.Pairs(source, target, len(prefix), tokenizer.eot, length)
    plan = BatchPlan(
        lengths=np.ones(len(pairs), np.int64),
        buckets=(1,),
        batch_size=section.batch_size,
        seed=cfg.seed,
        multiple=context.multiple,
    )
    params = fitting.train(
        context,
        fitting.Training(
            "translate",
            translation.make_loss(graphdef),
            ("backbone",),
            section,
            plan=plan,
            fetch=batches,
            sub=("model",),
        ),
        params,
    )
    save_params(work.path("translate", "model", "params.safetensors"), {"backbone": params["backbone"]})
    if processes.first():
        tokenizer.save(work.path("translate", "model", "tokenizer"))
    return translation.Offline(graphdef, params, tokenizer, prefix=prefix, length=length)


def _parallel(context: Context) -> list[tuple[str, str]]:
    """(text, translation) of the training part, each text once."""
    manifest, rows = context.corpus.manifest, context.corpus.rows("train")
    found = dict(zip(manifest.column("text")[rows], manifest.column("translation")[rows], strict=True))
    return [(str(text), str(german)) for text, german in found.items() if german]


def _pairs(context: Context) -> list[tuple[str, str]]:
    """Parallel text of the training part; for the embedded corpus also other sentences of its grammar."""
    manifest, cfg = context.corpus.manifest, context.cfg
    pairs = _parallel(context)
    found = {english for english, _ in pairs}
    if not pairs:
        raise BadValue("translate.backend is offline, but no training utterance has a translation; use deepl or none")
    if cfg.data.source == "builtin" and cfg.translate.extra_pairs:
        from moejax.speech import grammar

        held = set(manifest.column("text")[manifest.indices(split=["dev", "test"])])
        extra = grammar.sample(cfg.translate.extra_pairs, cfg.seed + 1)
        pairs += [(english, german) for english, german in extra if english not in held and english not in found]
    return pairs


BACKENDS = {"auto": None, "none": None, "offline": _offline, "deepl": _deepl, "ctranslate2": _ctranslate2}
SECTIONS = {
    "translate": {
        **fields.but(fitting.PLAIN, steps=600, batch_size=64),  # of the offline translator
        "backend": Field(
            "auto",
            "Translator of the hypotheses.\n"
            "auto: offline where the corpus has translations, else none; offline: trained here on the corpus' parallel"
            " text; deepl: the service, whose key is read from the environment variable DEEPL_AUTH_KEY; ctranslate2:"
            " the model of translate.folder.",
            choices=tuple(BACKENDS),
        ),
        "folder": Field(
            "",
            "Of backend ctranslate2: a folder of OPUS-MT, NLLB or M2M100, as ct2-transformers-converter writes it.\n"
            "Its SentencePiece lies beside the model.",
            later=True,
        ),
        "target": Field("de", "Language that is translated into, by its code.", needed=True),
        "systems": Field(
            ("base", "lora", "lora_total", "moe_frozen", "moe"),
            "Systems whose hypotheses are translated, where they were evaluated.",
        ),
        "reference_text": Field(
            True, "Whether the true transcripts are translated too: what perfect recognition would score."
        ),
        "width": Field(
            128, "Width of the offline translator's layers; it divides by translate.heads.", limits=(1, 65536)
        ),
        "layers": Field(2, "Layers of the offline translator, in encoder and decoder each.", limits=(1, 1000)),
        "heads": Field(4, "Attention heads of the offline translator.", limits=(1, 1000)),
        "vocab_size": Field(1000, "Most entries of the offline translator's vocabulary.", limits=(256, 1_000_000)),
        "extra_pairs": Field(
            6000,
            "Sentence pairs of its grammar that the builtin corpus adds to the offline translator's training.\n"
            "None of them is of another part than train.",
        ),
        "deepl_server": Field("", 'Address of the DeepL server; "" for the usual one.'),
        "deepl_cache": Field("~/.cache/moejax/deepl", "Folder in which what DeepL answered is kept."),
        "deepl_glossary": Field(
            "",
            "Glossary that DeepL keeps to: a TSV file (TERM<tab>TERM, one a line) or the id of one on the account.\n"
            "A file is uploaded once; learnt: terms that the training part always translates alike.",
            later=True,
        ),
        "deepl_formality": Field(
            "",
            "How formally DeepL writes, where the language has that; prefer_less and prefer_more are taken for all.",
            choices=("", *deepl_options.FORMALITIES),
            later=True,
        ),
        "deepl_style_rule": Field("", "Id of a style rule of the DeepL account.", later=True),
        "deepl_instructions": Field(
            (), "Custom instructions to DeepL: at most 10, each of at most 300 characters.", later=True
        ),
        "deepl_memory": Field("", "Id of a translation memory of the DeepL account.", later=True),
        "deepl_memory_threshold": Field(
            None,
            "Percent that a segment of deepl_memory must match; None: what DeepL does by itself.",
            limits=(0, 100),
            kind=int,
            later=True,
        ),
        "deepl_tags": Field(
            "",
            "Tags that the texts hold, which DeepL then keeps in their places.",
            choices=("", *deepl_options.TAGS),
            later=True,
        ),
        "dry_run": Field(
            False,
            "Whether DeepL is not asked: the log says what it would cost (characters, requests, what is cached).",
            later=True,
        ),
    },
}
STAGE = Stage(
    "translate",
    run,
    needs=("evaluate",),
    reads=("translate",),
    together=True,
    outside=outside,
    sections=SECTIONS,
)
