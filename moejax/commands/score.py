"""`moejax score`: any models on any corpus, nothing trained, with and without enrolled phrases."""

import dataclasses
import functools
import sys
from pathlib import Path

from moejax.commands import parser, translate_options
from moejax.errors import BadValue

DESCRIPTION = """Scores models on a corpus of your own: word and character error rates by speaker and group, with
intervals over speakers and paired differences. Nothing is trained.

The corpus is a folder with a table: metadata.csv (tsv, jsonl) with columns file, text and, where they are known,
speaker, cohort, etiology, severity, accent, gender. --columns names others:
  --columns file=wav,text=transcript,speaker=who

--enroll 0,1,3,5 puts so many of a speaker's own phrases, with their texts, in front of every window; the phrases are
left out of every row's score, so that all rows are of the same utterances. --controls adds what tells voice from style:
another speaker's phrases, and the texts alone as a prompt.

--ways says what is done with these phrases, beside or in place of that:
  context   in front of every window
  route     the weights of a mixture's experts are fitted on them (systems with a gate, experts in the decoder)
  lora      a LoRA of rank 4 is trained on them, on the base or on the one LoRA of a workdir (forty steps or more)
  route+context, lora+context   both
A system that cannot be read in one of the ways has no row for it.

A workdir is a model, too: --model runs/q --system base,lora_total,moe

--translate de puts what was heard through a translator (--translator deepl, a folder of CTranslate2, or offline, the
one of a workdir), and scores it by BLEU and chrF where the table has a column translation (and translation_source: who
made it; a translator is never scored against itself). --translations FILE keeps the texts.
"""
EPILOG = """examples:
  moejax score --model tiny.en --model base --data corpus
  moejax score --model base --data corpus --enroll 0,1,3,5 --controls --csv scores.csv --keep heard
  moejax score --model runs/q --system base,moe --data corpus --speakers A1,B7 --by cohort
  moejax score --model runs/q --system lora_total,moe --data corpus --enroll 0,1,3,5,10 --ways context,route,lora
  moejax score --model runs/q --system base,moe --data corpus --by device,snr --translate de --translations german.jsonl

--keep FOLDER keeps what was heard: the same command goes on where it was interrupted.
overlong: share of texts of more than twice the reference's words; capped: no utterance counts more errors than words.
"""


BY = """what the table names (speaker, cohort, etiology, severity, device, accent, gender; default: in what utterances
differ) and what is measured, in thirds (snr, silence, words, seconds, speaking_rate); with commas"""


def add(commands) -> None:
    ours = parser.add(
        commands,
        "score",
        run,
        usage="moejax score --model MODEL [--model MODEL ...] --data FOLDER [options]",
        description=DESCRIPTION,
        epilog=EPILOG,
    )
    add = ours.add_argument
    add("--model", metavar="MODEL", action="append", help="a name, a folder, or a workdir; may be given several times")
    add("--system", metavar="NAMES", help="rows of workdirs, with commas; default: the best that there is")
    add("--data", metavar="FOLDER", help="with metadata.csv or the like")
    add("--metadata", metavar="FILE", default="metadata.csv", help="the table, relative to the folder")
    add("--columns", metavar="PAIRS", default="", help="field=column, with commas")
    add("--speakers", metavar="NAMES", help="only these, with commas; or a file with one name a line")
    add("--limit", metavar="N", type=parser.whole, help="utterances of a speaker that are scored at most")
    add("--enroll", metavar="COUNTS", default="0", help="numbers of phrases, with commas (default 0)")
    add("--ways", metavar="WAYS", default="context", help="what is done with them, with commas (default context)")
    add("--controls", action="store_true", help="another speaker's phrases, and texts alone")
    add("--by", metavar="GROUPS", help=BY)
    add("--normalizer", metavar="NAME", default="english", help="english (default), basic, lower, none")
    add("--language", metavar="CODE", help="of the recordings (default: detected)")
    add("--temperature", metavar="T", default="0", help="0 (default), or a ladder: 0,0.2,0.4,0.6,0.8,1")
    add("--beam_size", metavar="N", type=parser.whole, help="beams; default greedy")
    add("--without_timestamps", action="store_true", help="text only")
    add("--weights", metavar="KIND", default="", help="float32 (default), bfloat16, int8")
    add("--batch_size", metavar="N", type=parser.whole, help="windows at a time (default 8)")
    add("--seed", metavar="N", type=parser.whole, default=0, help="draws the phrases")
    add("--csv", metavar="FILE", help="every row, rates as fractions")
    add("--markdown", metavar="FILE", help="the table that is printed")
    add("--keep", metavar="FOLDER", help="what was heard, to go on from")
    translate_options.add(ours, "--translate")
    add("--translations", metavar="FILE", help="what was translated: an object a line and utterance (JSON lines)")


def run(options, left: list[str]) -> int:
    """Prints the table; exit code."""
    options.parser.refuse(left)
    if not options.model and not options.data:
        options.parser.print_help()
        return 2
    for name in ("model", "data"):
        if not getattr(options, name):
            raise BadValue(f"--{name} is missing; moejax score --help says what it wants")
    counts = [_count(part) for part in options.enroll.split(",")]
    wanted = _translation(options)
    # here: help and refusals do not wait for JAX
    from moejax.assess import groups, plan, table
    from moejax.commands import score_translation
    from moejax.runtime import files
    from moejax.text import normalize

    normalise = normalize.get(options.normalizer)
    ways = options.ways.split(",")
    if unknown := [way for way in ways if way not in plan.WAYS]:
        raise BadValue(f"--ways: unknown way {unknown[0]!r}; known: {', '.join(plan.WAYS)}")
    utterances = _corpus(options)
    planned = plan.make(
        utterances, counts, ways=ways, controls=options.controls, limit=options.limit, seed=options.seed
    )
    by = groups.named(planned.scored) if options.by is None else _groups(options.by, groups.GROUPS)
    into = None if wanted is None else score_translation.opened(wanted)  # refused before anything is heard
    scored = list(_scored(options, planned, normalise))
    rows, gaps = table.rows(scored, planned.scored, by), table.differences(scored, planned.scored)
    text = table.to_markdown(rows, gaps)
    if into is not None:
        text += score_translation.add(into, options, scored, planned.scored, rows, by)
    for path, content in ((options.csv, table.to_csv(rows)), (options.markdown, text)):
        if path:
            files.write_text(Path(path), content)
    print(text, end="")
    return 0


def _corpus(options):
    from moejax.data.sources import folder

    columns = dict(_pair(part) for part in options.columns.split(",") if part)
    if "file" in columns:
        columns["audio"] = columns.pop("file")
    found = folder.load(root=options.data, metadata=options.metadata, columns=columns)
    if options.speakers:
        path = Path(options.speakers)
        names = set(path.read_text().split() if path.is_file() else options.speakers.split(","))
        known = {utterance.speaker for utterance in found}
        if missing := sorted(names - known):
            raise BadValue(f"--speakers: {options.data} has no speaker {missing[0]!r}")
        found = [utterance for utterance in found if utterance.speaker in names]
    return found


def _scored(options, planned, normalise):
    from moejax import loading
    from moejax.assess import reading, table

    wanted = {
        "language": options.language,
        "temperature": tuple(float(part) for part in options.temperature.split(",")),
        "beam_size": options.beam_size,
        "without_timestamps": options.without_timestamps,
        "batch_size": options.batch_size,
    }
    wanted = {name: value for name, value in wanted.items() if value not in (None, False)}
    keep = Path(options.keep) if options.keep else None
    for model in options.model:
        for system in options.system.split(",") if options.system else [None]:
            opened = loading.load(model, system=system, weights=options.weights)
            listener = reading.Listener(opened, wanted)
            shown = model if not Path(model).exists() else Path(model).resolve().name
            for condition in filter(listener.can, planned.conditions):
                key = {
                    **{"model": str(model), "system": opened.system.name, "weights": options.weights},
                    **{"condition": _kept_as(condition), "options": {k: str(v) for k, v in wanted.items()}},
                    "phrases": {k: [one.id for one in own] for k, own in planned.phrases.items()},
                    **{"scored": [one.id for one in planned.scored], "data": str(options.data)},
                }
                told = _told(f"{shown} {opened.system.name}, enrolled {condition.name}")
                texts = reading.kept(keep, key, functools.partial(listener.hear, planned, condition, told))
                if sys.stderr.isatty():
                    print(file=sys.stderr)
                yield table.score(shown, opened.system.name, condition.name, texts, planned.scored, normalise)


def _kept_as(condition):
    """What was heard before there were ways stays known."""
    fields = dataclasses.asdict(condition)
    return {name: value for name, value in fields.items() if (name, value) != ("way", "context")}


def _told(what):
    def told(done, of):
        if sys.stderr.isatty():
            print(f"\r{what}: {done} of {of}", end="", file=sys.stderr, flush=True)

    return told


def _translation(options):
    """What is asked of the translation; None for none. The translator `offline` is that of the first model with one."""
    deepl = translate_options.taken(vars(options))
    own = [model for model in options.model if (Path(model) / "translate" / "model").is_dir()]
    wanted = translate_options.Wanted(
        model=(own or options.model)[0],
        translate_to=options.translate_to,
        translator=options.translator,
        dry_run=options.dry_run,
        deepl=deepl,
        options={} if options.language is None else {"language": options.language},
    )
    translate_options.check(wanted)
    if options.translations and options.translate_to is None:
        raise BadValue("--translations needs --translate LANGUAGE")
    return None if options.translate_to is None else wanted


def _groups(asked, known):
    names = asked.split(",")
    if unknown := [name for name in names if name not in known]:
        raise BadValue(f"--by: unknown group {unknown[0]!r}; known: {', '.join(known)}")
    return names


def _count(text):
    if not text.strip().isdecimal():
        raise BadValue(f"--enroll: {text!r} is no number of phrases; numbers with commas, such as 0,1,3")
    return int(text)


def _pair(text):
    field, sign, column = text.partition("=")
    if not sign:
        raise BadValue(f"--columns: {text!r} is no pair; field=column, such as file=wav")
    return field.strip(), column.strip()
