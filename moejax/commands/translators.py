"""Text translation after recognition: DeepL, or the translator that a workdir has trained."""

import dataclasses
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


def translator(asked: Asked, language: str | None):
    """A function from a Transcript to its translation into `asked.translate_to`, segment by segment.

    Words, tokens and expert weights belong to the original and are left out. Errors, before any work: ValueError when
    there is no DeepL key, when the workdir has no translator, or one for other languages.
    """
    assert asked.translate_to is not None  # who asks for no translation makes none
    target = code_of(asked.translate_to).lower()
    offline = Path(asked.model) / "translate" / "model"
    chosen = asked.translator or ("offline" if _is_trained(offline) else "deepl")
    if chosen == "offline":
        client = _offline(asked.model, offline, target)
    elif not os.environ.get(KEY):
        raise BadValue(f"--translate_to {target} by DeepL needs its key in the environment variable {KEY}")
    else:
        client = mt.get("deepl")(os.environ[KEY], cache_dir=os.path.expanduser(CACHE))
    english = asked.options.get("task") == "translate"

    def translate(transcript: Transcript) -> Transcript:
        source = "en" if english else transcript.language
        if source == target:
            return transcript
        texts = [segment.text.strip() for segment in transcript.segments]
        if chosen == "deepl":
            found = client.translate(texts, source=source.upper(), target=target.upper())
        else:
            found = client.translate(texts)
        segments = [
            dataclasses.replace(segment, text=f" {text}" if text else "", tokens=[], words=None, route=None)
            for segment, text in zip(transcript.segments, found, strict=True)
        ]
        text = " ".join(text for text in found if text)
        return dataclasses.replace(transcript, text=text, segments=segments, language=target, route=None)

    return translate


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
