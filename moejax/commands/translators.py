"""Text translation after recognition: DeepL, or the translator that a workdir has trained."""

import dataclasses
import difflib
import os
from pathlib import Path
from typing import Any

from moejax import mt
from moejax.commands.transcribe_options import Asked
from moejax.errors import BadValue
from moejax.text.languages import code_of
from moejax.text.transcript import Transcript

CACHE = "~/.cache/moejax/deepl"
KEY = "DEEPL_AUTH_KEY"
# What DeepL writes (developers.deepl.com, supported languages), and what it calls our codes.
TARGETS = (
    *("ar", "bg", "cs", "da", "de", "el", "en-gb", "en-us", "es", "es-419", "et", "fi", "fr", "he", "hu", "id", "it"),
    *("ja", "ko", "lt", "lv", "nb", "nl", "pl", "pt-br", "pt-pt", "ro", "ru", "sk", "sl", "sv", "th", "tr", "uk"),
    *("vi", "zh", "zh-hans", "zh-hant"),
)
THEIRS = {"no": "nb", "iw": "he", "nn": "nb"}


def translator(asked: Asked, language: str | None):
    """A function from a Transcript to its translation into `asked.translate_to`, segment by segment.

    Words, tokens and expert weights belong to the original and are left out. Errors, before any work: ValueError when
    there is no DeepL key, when the workdir has no translator, or one for other languages.
    """
    target, chosen = target_of(asked)
    offline = Path(asked.model) / "translate" / "model"
    if chosen == "offline":
        client = _offline(asked.model, offline, target)
    elif not os.environ.get(KEY):
        raise BadValue(f"--translate_to {target} by DeepL needs its key in the environment variable {KEY}")
    else:
        client = mt.get("deepl")(os.environ[KEY], cache_dir=os.path.expanduser(CACHE))
    english = asked.options.get("task") == "translate"

    def translate(transcript: Transcript) -> Transcript:
        source = "en" if english else transcript.language
        if source == _plain(target):  # "en-gb" of English speech as well: there is nothing to translate
            return transcript
        texts = [segment.text.strip() for segment in transcript.segments]
        if chosen == "deepl":
            found = client.translate(texts, source=THEIRS.get(source, source).upper(), target=target.upper())
        else:
            found = client.translate(texts)
        segments = [
            dataclasses.replace(segment, text=f" {text}" if text else "", tokens=[], words=None, route=None)
            for segment, text in zip(transcript.segments, found, strict=True)
        ]
        text = " ".join(text for text in found if text)
        return dataclasses.replace(transcript, text=text, segments=segments, language=target, route=None)

    return translate


def target_of(asked: Asked) -> tuple[str, str]:
    """(language to write, translator: "deepl" or "offline"). Errors: BadValue for a language that DeepL does not write,
    with what it does; nothing is loaded for it.
    """
    assert asked.translate_to is not None  # who asks for no translation needs no target
    offline = Path(asked.model) / "translate" / "model"
    chosen = asked.translator or ("offline" if _is_trained(offline) else "deepl")
    given = asked.translate_to.strip().lower().replace("_", "-")
    if chosen == "offline":
        return code_of(given) or given, chosen
    plain = code_of(given) or given
    target = next((name for name in (given, THEIRS.get(plain, plain)) if name in TARGETS), None)
    if target is None:
        near = [name for name in TARGETS if name.startswith(plain + "-")]
        near = near or difflib.get_close_matches(given, TARGETS, n=1, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"it writes {', '.join(TARGETS)}"
        english = "; --task translate lets the model itself write English" if plain == "en" else ""
        raise BadValue(f"--translate_to {asked.translate_to}: DeepL does not write that; {hint}{english}")
    return target, chosen


def _plain(code: str) -> str:
    """Whisper's code of one of DeepL's."""
    return code_of(code) or code


def _is_trained(folder: Path) -> bool:
    return (folder / "params.safetensors").is_file()


def _offline(model: str, folder: Path, target: str) -> Any:
    if not _is_trained(folder):
        raise BadValue(f"{model} has no translator of its own ({folder}/params.safetensors); use --translator deepl")
    from moejax.job.opening import open_translator

    client, into = open_translator(model)
    if into != target:
        raise BadValue(f"the translator of {model} writes {into!r}, not {target!r}; use --translator deepl")
    return client
