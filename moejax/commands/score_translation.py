"""The translations of `moejax score`: through which translator, to which file, into which table."""

import sys
from pathlib import Path

from moejax.assess import translating
from moejax.commands import translators
from moejax.commands.translate_options import Wanted
from moejax.runtime import files
from moejax.score import translations
from moejax.text.languages import code_of

COMMAND = "score"


def opened(wanted: Wanted) -> tuple[translators.Translator, str]:
    """(the translator, its name in tables). Errors: as `translators.translator`."""
    _, chosen = translators.target_of(wanted)
    name = chosen if chosen in translators.OFFLINE else "ctranslate2"
    if chosen == "deepl":
        name = "deepl_custom" if wanted.deepl else "deepl"
    return translators.translator(wanted, COMMAND), name


def add(into, options, scored, utterances, rows, by) -> str:
    """Writes --translations, adds BLEU and chrF to the rows, and gives the Markdown that follows the other tables."""
    translator, name = into
    language = options.language and (code_of(options.language) or options.language)
    lines = translating.translate(scored, translator.translate, translator.target, language)
    if options.dry_run:
        for line in translator.costs():
            _say(line)
    if lines is None:
        return ""
    if options.translations:
        text = translating.to_jsonl(lines, utterances, translator.target, name)
        files.write_text(Path(options.translations), text)
    made = translating.rows(lines, utterances, name)
    if not made[0].references:
        kept = f"in {options.translations}" if options.translations else "written by --translations FILE"
        _say(f"{options.data} has no column translation: nothing is scored by BLEU, the translations are {kept}")
        return ""
    fair = translations.fair(made, _say)
    if not fair:
        return ""
    translating.add_figures(rows, lines, utterances, by, name)
    found = translations.figures(fair, translations.against(fair, ()))
    return "\n".join(["", *translations.to_markdown(found), ""])


def _say(line: str) -> None:
    print(f"moejax {COMMAND}: {line}", file=sys.stderr)
