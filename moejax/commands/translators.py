"""Text translation after recognition: DeepL, the translator that a workdir has trained, or a folder of CTranslate2."""

import dataclasses
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from moejax import mt
from moejax.commands.transcribe_options import Asked
from moejax.commands.translate_options import Wanted
from moejax.errors import BadValue
from moejax.mt import ctranslate2_folder, deepl_languages
from moejax.text.languages import code_of
from moejax.text.transcript import Transcript

CACHE = "~/.cache/moejax/deepl"
KEY = "DEEPL_AUTH_KEY"
OFFLINE = {"offline": "model", "offline_tuned": "tuned"}  # folders in W/translate


class Translator:
    """Called with a Transcript, gives its translation, segment by segment; None in a dry run.

    Words, tokens and expert weights belong to the original and are left out. What is in the language already comes
    back as it is.
    """

    def __init__(
        self,
        target: str,
        english: bool,
        translate: Callable[[list[str], str], list[str] | None],
        costs: Callable[[], list[str]] = list,
    ):
        """`english`: the transcripts are, whatever was spoken. `translate` takes texts and their language's code;
        `costs` says, a line a language, what a dry run has found.
        """
        self.target, self.english, self.translate, self.costs = target, english, translate, costs

    def __call__(self, transcript: Transcript) -> Transcript | None:
        source = "en" if self.english else transcript.language
        if deepl_languages.same(source, self.target):  # "en-gb" of English speech as well
            return transcript
        found = self.translate([segment.text.strip() for segment in transcript.segments], source)
        if found is None:
            return None
        segments = [
            dataclasses.replace(segment, text=f" {text}" if text else "", tokens=[], words=None, route=None)
            for segment, text in zip(transcript.segments, found, strict=True)
        ]
        text = " ".join(text for text in found if text)
        return dataclasses.replace(transcript, text=text, segments=segments, language=self.target, route=None)


class ByDeepL:
    """Texts of recording after recording through DeepL. Each time that something will be billed, a line on stderr says
    how much; the first one also what is used of the period's quota.
    """

    def __init__(self, client, target: str, dry: bool, command: str):
        self.client, self.target, self.dry, self.command = client, target, dry, command
        self.plans: dict[str, Any] = {}  # of a dry run, by language
        self.seen: set[tuple[str, str]] = set()  # (language, text), which would be cached by then

    def __call__(self, texts: list[str], source: str) -> list[str] | None:
        if self.dry:
            new = [text for text in texts if (source, text) not in self.seen]
            self.seen.update((source, text) for text in new)
            plan = self.client.plan(new, source=source, target=self.target)
            self.plans[source] = self.plans[source] + plan if source in self.plans else plan
            return None
        return self.client.translate(texts, source=source, target=self.target, say=self._say)

    def _say(self, line: str) -> None:
        from tqdm import tqdm

        tqdm.write(f"moejax {self.command}: {line}", file=sys.stderr)  # beside the bar, not into it

    def costs(self) -> list[str]:
        """What the dry run has found, a line a language."""
        left = self.client.left() if any(plan.requests for plan in self.plans.values()) else ""
        said = [f"{plan}{left}" for plan in self.plans.values()]
        return said or ["DeepL: nothing to translate, nothing would be billed"]


class ByFolder:
    """Texts through a folder of CTranslate2, opened for each language that is spoken."""

    def __init__(self, folder: str, target: str):
        self.folder, self.target = folder, target
        self.opened: dict[str, Any] = {}

    def __call__(self, texts: list[str], source: str) -> list[str]:
        if source not in self.opened:
            self.opened[source] = mt.get("ctranslate2")(self.folder, source, self.target)
        return self.opened[source].translate(texts)


def translator(asked: Asked | Wanted, command: str = "transcribe") -> Translator:
    """The translation into `asked.translate_to`. Errors, before any work: ValueError when there is no DeepL key, when
    the workdir has no translator, or one for other languages.
    """
    target, chosen = target_of(asked)
    english = asked.options.get("task") == "translate"
    if chosen in OFFLINE:
        offline = _offline(asked.model, chosen, target)
        return Translator(target, english, lambda texts, source: offline.translate(texts))
    if chosen != "deepl":
        return Translator(target, english, ByFolder(chosen, target))
    if not os.environ.get(KEY) and not asked.dry_run:
        raise BadValue(f"--translate_to {target} by DeepL needs its key in the environment variable {KEY}")
    ours = ByDeepL(_deepl(asked), target, asked.dry_run, command)
    return Translator(target, english, ours, ours.costs)


def target_of(asked: Asked | Wanted) -> tuple[str, str]:
    """(language to write, translator: "deepl", one of `OFFLINE`, or a folder). Errors: BadValue for a language that
    DeepL or the folder does not read or write, with what it does, and for options that DeepL lacks; nothing is loaded.
    """
    assert asked.translate_to is not None  # who asks for no translation needs no target
    chosen = asked.translator or ("offline" if _is_trained(asked.model, "offline") and not asked.deepl else "deepl")
    given = asked.translate_to.strip().lower().replace("_", "-")
    plain = code_of(given) or given
    if chosen in OFFLINE:
        if asked.dry_run:
            raise BadValue("--dry_run is for DeepL: the workdir's own translator costs nothing; --translator deepl")
        return plain, chosen
    source = "en" if asked.options.get("task") == "translate" else code_of(asked.options.get("language") or "auto")
    if chosen != "deepl":
        ctranslate2_folder.layout(Path(chosen), source or "en", plain)
        return plain, chosen
    found = deepl_languages.target_of(given) or deepl_languages.target_of(plain)
    if found is None:
        hint = deepl_languages.hint(given, deepl_languages.TARGETS)
        raise BadValue(f"--translate_to {asked.translate_to}: DeepL does not write that; {hint}")
    _deepl(asked).check(source or "en", found)  # of a language that is yet to be heard nothing can be said
    return found.lower(), chosen


def _deepl(asked: Asked | Wanted):
    return mt.get("deepl")(os.environ.get(KEY), cache_dir=os.path.expanduser(CACHE), **asked.deepl)


def _is_trained(model: str, name: str) -> bool:
    return (Path(model) / "translate" / OFFLINE[name] / "params.safetensors").is_file()


def _offline(model: str, name: str, target: str) -> Any:
    if not _is_trained(model, name):
        missing = Path(model) / "translate" / OFFLINE[name] / "params.safetensors"
        raise BadValue(f"{model} has no translator of its own ({missing}); use --translator deepl")
    from moejax.job.opening import open_translator

    client, into = open_translator(model, name)
    if into != target:
        raise BadValue(f"the translator of {model} writes {into!r}, not {target!r}; use --translator deepl")
    return client
