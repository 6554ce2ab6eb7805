"""Cascaded speech translation: every system's hypotheses through every translator, scored against references.

Translators: DeepL by its official client, which says what it costs before it is asked, plain and as the config
customises it; a folder that CTranslate2 runs (OPUS-MT, NLLB, M2M100); and an offline transformer trained here on the
corpus' own parallel text, as it is or fine-tuned on what was recognised. Systems that translate speech themselves are
rows of the same table. References that the same translator made are never scored (the manifest's `translation_source`
decides). Several processes translate a share each; DeepL is asked by the first alone, so that nobody pays twice.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from moejax.errors import BadValue
from moejax.mt import deepl_options
from moejax.runtime import processes, watchdog
from moejax.runtime.files import read_jsonl, write_json, write_text
from moejax.score import bleu, comet, translations, wer
from moejax.systems import end_to_end, offline_translator, published, shared_texts, translators
from moejax.training import fitting, salmonn, st
from moejax.types import Config
from moejax.work import fields
from moejax.work.context import Context
from moejax.work.fields import COUNT, STEPS, Field, above
from moejax.work.folder import Work
from moejax.work.normalizer import normalizer
from moejax.work.stage import Stage

TRANSCRIPT = "transcript"  # the true texts, as if they were a system's
KEPT = {  # folders that translators need
    "offline": (offline_translator.PLAIN,),
    "offline_tuned": (offline_translator.PLAIN, offline_translator.TUNED),
}
AGAINST = ("lora_total", "lora", "base")  # of translate.against: what a table is held against by itself


def run(cfg: Config, work: Work) -> dict:
    """Writes W/translate/<system>.<translator>.jsonl, table.csv, table.md, summary.json, or why there is nothing."""
    context = Context(cfg, work)
    rows = context.corpus.rows(cfg.evaluate.split)
    names = translators.asked(cfg, any(context.corpus.manifest.column("translation")[rows]))
    opened = translators.opened(context, names)
    if processes.first():
        offline_translator.forget(work, {folder for name in names for folder in KEPT.get(name, ())})
    hypotheses = list(_hypotheses(context, rows)) if names else []
    every = list(dict.fromkeys(text for _, texts in hypotheses for text in texts.values()))
    for name in [name for name in translators.BILLED if name in opened]:  # all costs first
        work.log(f"  {'' if name == 'deepl' else f'{name}: '}{opened[name].costs(every)}")
        if cfg.translate.dry_run:
            opened.pop(name)
    if cfg.translate.dry_run:
        work.log("  translate.dry_run: nothing is sent")
    scored, written = [], set()
    for system, translator, texts, translated in _translations(context, rows, hypotheses, opened, every):
        if not processes.first():
            continue
        records = list(_records(context, texts, translated))
        file = work.path("translate", f"{translations.name_of(system, translator)}.jsonl")
        write_text(file, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records))
        written.add(file)
        scored.append(_row(context, system, translator, records))
    if not processes.first():
        return {}
    if not (names or written):
        said = "translate.backends is none" if "none" in cfg.translate.backends else "the corpus has no translations"
        work.log(f"  nothing to translate: {said}")
    folder = work.path("translate")
    for file in {*folder.glob("*.jsonl"), *folder.glob("*.share")} - written:  # of another config
        file.unlink()
    found = _table(cfg, work, scored)
    return {"translators": list(opened), "rows": len(found)} | ({"dry_run": True} if cfg.translate.dry_run else {})


def _hypotheses(context: Context, rows: np.ndarray) -> Iterator[tuple[str, dict[str, str]]]:
    """(system, {id: text}) of every configured system that was evaluated, of published models, and of the true
    transcripts.
    """
    cfg = context.cfg
    if cfg.translate.reference_text:
        manifest = context.corpus.manifest
        yield TRANSCRIPT, {str(manifest.column("id")[r]): str(manifest.column("text")[r]) for r in rows}
    for system in systems(cfg):
        file = context.work.path("evaluate", f"{system}.jsonl")
        if not file.exists():
            context.work.log(f"  {system}: not evaluated, left out of translation")
            continue
        yield system, {line["id"]: line["hypothesis"] for line in read_jsonl(file)}


def systems(cfg: Config) -> list[str]:
    """The rows of `evaluate` that are translated: those of `translate.systems`, published models behind `base`."""
    theirs = [system.name for system in published.systems(cfg.evaluate.published).values()]
    ours = list(cfg.translate.systems)
    at = ours.index("base") + 1 if "base" in ours else 0
    return list(dict.fromkeys([*ours[:at], *theirs, *ours[at:]]))


def _translations(
    context: Context, rows: np.ndarray, hypotheses: list, opened: Mapping[str, Any], every: list[str]
) -> Iterator[tuple[str, str, dict[str, str], list[str]]]:
    """(system, translator, {id: text}, translations in its order), one translator after the other; in all processes
    alike, but for translators that cost something.
    """
    for name, translator in opened.items():
        if name in translators.BILLED:  # with a cache of its own
            found = translator.translate(every)
        else:
            file = context.work.path("translate", f"{name}.{translators.made_of(context, name)}")
            found = shared_texts.translated(file, translator.translate, every)
        known = dict(zip(every, found, strict=True))  # a text that several recognised: once
        watchdog.beat()
        for system, said in hypotheses:
            yield system, name, said, [known[text] for text in said.values()]
    with processes.working(False):  # each by itself
        alone = Context(context.cfg, context.work, context.cfg.evaluate.weights)
        direct = list(end_to_end.translations(alone, rows))
    for system, said in direct:
        yield system, translations.END_TO_END, dict.fromkeys(said, ""), list(said.values())


def _records(context: Context, texts: dict[str, str], translated: list[str]) -> Iterator[dict]:
    place = {str(name): i for i, name in enumerate(context.corpus.manifest.column("id"))}
    columns = {name: context.corpus.manifest.column(name) for name in ("translation", "translation_source")}
    for (name, source), hypothesis in zip(texts.items(), translated, strict=True):
        row = place[name]
        more = {column: str(values[row]) for column, values in columns.items()}
        yield {"id": name, "source": source, "hypothesis": hypothesis, "reference": more.pop("translation"), **more}


def _row(context: Context, system: str, translator: str, records: list[dict]) -> translations.Translated:
    """Of the records that have a reference."""
    scored = [record for record in records if record["reference"].strip()]
    ids, manifest = tuple(record["id"] for record in scored), context.corpus.manifest
    spoken = dict(zip(map(str, manifest.column("id")), map(str, manifest.column("text")), strict=True))
    return translations.Translated(
        system,
        translator,
        ids,
        hypotheses=[record["hypothesis"] for record in scored],
        references=[record["reference"] for record in scored],
        made_by=[record["translation_source"] for record in scored],
        spoken=[spoken[one] for one in ids],
        wer=_wer(context, system, ids, spoken),
        taught_by=_teachers(context, system) if translator == translations.END_TO_END else (),
    )


def _teachers(context: Context, system: str) -> tuple[str, ...]:
    """The translators, not people or a grammar, that made what a system of the stage st or salmonn learnt."""
    learnt = st.index_of(context.work) | salmonn.index_of(context.work)
    taught = learnt.get(system, {}).get("taught_by", ())
    made = {bleu.made_by(source) for source in taught}
    return tuple(sorted(made & {translations.MADE_BY.get(name, name) for name in translators.NAMES}))


def _wer(context: Context, system: str, ids: tuple[str, ...], spoken: dict[str, str]) -> float | None:
    """Of the system on these utterances, a fraction; None where it was not evaluated, or not on all of them."""
    file = context.work.path("evaluate", f"{system}.jsonl")
    heard = spoken if system == TRANSCRIPT else {}
    if file.exists() and system != TRANSCRIPT:
        heard = {line["id"]: line["hypothesis"] for line in read_jsonl(file)}
    if not ids or not heard.keys() >= set(ids):
        return None
    rule = normalizer(context.cfg.report)
    return wer.rate(wer.count([rule(spoken[one]) for one in ids], [rule(heard[one]) for one in ids]))


def _table(cfg: Config, work: Work, rows: list[translations.Translated]) -> dict[str, dict]:
    """Writes the table and its summary, and logs its rows."""
    section = cfg.translate
    fair = translations.fair(rows, lambda line: work.log(f"  {line}"))
    against = section.against or translations.against(fair, AGAINST)
    if fair and against not in (row.name for row in fair):
        work.log(f"  no p-values: translate.against is {against!r}; scored: {', '.join(row.name for row in fair)}")
    found = translations.figures(fair, against, samples=section.bootstrap_samples, seed=section.bootstrap_seed)
    if section.comet and fair:
        _add_comet(section, fair, found, work.log)
    for name, figures in found.items():
        work.log(f"  {name}: BLEU {figures['bleu']:.1f}  chrF {figures['chrf']:.1f}")
    write_text(work.path("translate", "table.csv"), translations.to_csv(found))
    lines = translations.to_markdown(found) or ["Nothing is scored."]
    write_text(work.path("translate", "table.md"), "\n".join(["# Translations", "", *lines, ""]))
    write_json(work.path("translate", "summary.json"), found)
    return found


def _add_comet(section: Config, rows: list[translations.Translated], found: dict[str, dict], log: Callable) -> None:
    """COMET of every row, or none and one line that says why."""
    made: dict[str, float] = {}
    try:
        for ids in dict.fromkeys(row.ids for row in rows):
            alike = [row for row in rows if row.ids == ids]
            made |= comet.scores(
                {row.name: row.hypotheses for row in alike},
                alike[0].references,
                alike[0].spoken,
                model=section.comet,
                command=section.comet_command,
                alive=watchdog.beat,
            )
    except BadValue as error:
        log(f"  COMET is left out: {error}")
        return
    for name, score in made.items():
        found[name]["comet"] = score


SECTIONS = {
    "translate": {
        **fields.but(fitting.PLAIN, steps=600, batch_size=64),  # of the offline translator
        "backends": Field(
            ("auto",),
            "Translators of the hypotheses, each a row of the table for every system.\n"
            "auto: offline where the corpus has translations, else none; offline: trained here on the corpus' parallel"
            " text; offline_tuned: the same, fine-tuned on recognised text; deepl: the service, whose key is read from"
            " the environment variable DEEPL_AUTH_KEY, and beside it deepl_custom: as the keys deepl_... customise it,"
            " where any is set; ctranslate2: the model of translate.folder.",
            choices=translators.NAMES,
            needed=True,
        ),
        "folder": Field(
            "",
            "For ctranslate2: a folder of OPUS-MT, NLLB or M2M100, as ct2-transformers-converter writes it.\n"
            "Its SentencePiece lies beside the model.",
            later=True,
        ),
        "target": Field("de", "Language that is translated into, by its code.", needed=True),
        "systems": Field(
            ("base", "lora", "lora_total", "moe_frozen", "moe"),
            "Systems whose hypotheses are translated, where they were evaluated; evaluate.published always are.",
        ),
        "reference_text": Field(
            True, "Whether the true transcripts are translated too: what perfect recognition would score."
        ),
        "against": Field(
            "",
            'Row that all others are tested against: SYSTEM.TRANSLATOR, such as "lora_total.offline".\n'
            '"": the first of lora_total, lora, base that there is, by the first translator.',
        ),
        "bootstrap_samples": Field(bleu.SAMPLES, "Samples of the paired bootstrap.", limits=(1, 1_000_000)),
        "bootstrap_seed": Field(
            bleu.SEED, "Seed of the paired bootstrap, as sacrebleu's SACREBLEU_SEED.", limits=(1, 2**31 - 1)
        ),
        "comet": Field(
            "",
            'Model of COMET: a checkpoint (.ckpt), or a name that is downloaded; "": no COMET.\n'
            "Such as Unbabel/wmt22-comet-da. The table has no such column where the command or the model is not there.",
        ),
        "comet_command": Field(
            comet.COMMAND, "The command of unbabel-comet, which wants an environment of its own.", needed=True
        ),
        "tuned_system": Field(
            "base",
            "System whose hypotheses of the training part offline_tuned learns from.\n"
            "base has learnt least of these utterances, so that its errors are most like those on new ones.",
            needed=True,
        ),
        "tuned_utterances": Field(2000, "Training utterances that are decoded for it at most.", limits=COUNT),
        "tuned_steps": Field(200, "Steps of its fine-tuning.", limits=STEPS),
        "tuned_learning_rate": Field(1e-3, "Highest learning rate of its fine-tuning.", limits=(above(0), 1.0)),
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
    reads=("translate", "report.normalizer", "report.spelling", "salmonn.beams", "salmonn.most"),
    together=True,
    keeps=True,
    outside=translators.outside,
    sections=SECTIONS,
)
