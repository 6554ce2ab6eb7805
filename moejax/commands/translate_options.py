"""The options of `moejax transcribe` about the translation that follows, and which of them go together."""

import argparse
import dataclasses
from pathlib import Path

from moejax.errors import BadValue
from moejax.mt.deepl_options import FORMALITIES

# {what argparse calls it: what `mt.deepl_options.Options` does}
OF_DEEPL = {
    "glossary": "glossary",
    "formality": "formality",
    "style_rule": "style_rule",
    "instruction": "custom_instructions",
    "translation_memory": "translation_memory",
}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What a command line asks for; `options` are those of `Recognizer.transcribe`."""

    model: str
    translate_to: str | None
    translator: str | None
    dry_run: bool
    deepl: dict  # options of `mt.deepl_options.Options`
    options: dict


def add(parser: argparse.ArgumentParser, *names: str) -> None:
    """`names`: what --translate_to is called too."""
    add = parser.add_argument_group("translation of the text").add_argument
    add(
        *names,
        "--translate_to",
        dest="translate_to",
        default=None,
        metavar="CODE",
        help="translate the text further, by DeepL (DEEPL_AUTH_KEY) or the workdir's own translator; "
        "transcribe calls its files NAME.CODE.txt",
    )
    add(
        "--translator",
        default=None,
        metavar="NAME|FOLDER",
        help="deepl, offline (default where the workdir has one), offline_tuned, or a folder of CTranslate2",
    )
    add("--dry_run", action="store_true", default=False, help="ask DeepL nothing: say at the end what it would cost")
    add("--glossary", metavar="FILE|ID", help="terms that DeepL keeps to: TERM<tab>TERM, one a line; uploaded once")
    add("--formality", choices=FORMALITIES, help="less and more for some languages, prefer_less and _more for all")
    add("--style_rule", metavar="ID", help="a style rule of the DeepL account")
    add("--instruction", action="append", metavar="TEXT", help="what DeepL shall mind; may be repeated, up to 10")
    add("--translation_memory", metavar="ID", help="a translation memory of the DeepL account")


def taken(values: dict) -> dict:
    """Takes DeepL's options out of the command line's values: those that were given, by their names in `mt`."""
    found = {ours: values.pop(theirs, None) for theirs, ours in OF_DEEPL.items()}
    return {name: value for name, value in found.items() if value is not None}


def check(asked) -> None:
    """Errors: BadValue for an option without what it belongs to."""
    names = {ours: f"--{theirs}" for theirs, ours in OF_DEEPL.items()}
    given = [names[name] for name in asked.deepl] + ["--dry_run"] * asked.dry_run
    if asked.translate_to is None:
        given += ["--translator"] * (asked.translator is not None)
        if given:
            raise BadValue(f"{given[-1]} needs --translate_to LANGUAGE")
    elif given and asked.translator not in (None, "deepl"):
        raise BadValue(f"{given[0]} is for DeepL, not for --translator {asked.translator}")
    if (
        asked.translator not in (None, "deepl", "offline", "offline_tuned")
        and not (Path(asked.translator) / "model.bin").is_file()
    ):
        raise BadValue(
            f"--translator {asked.translator}: deepl, offline, offline_tuned, or a folder with model.bin"
            " (ct2-transformers-converter writes such)"
        )
