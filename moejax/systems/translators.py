"""The translators that the stage `translate` knows by name: which are asked for, opened, and what they read outside."""

import os
from collections.abc import Sequence
from typing import Any

from moejax import mt
from moejax.errors import BadValue
from moejax.mt import ctranslate2_folder, deepl_glossary, deepl_options
from moejax.runtime import processes
from moejax.systems import offline_translator
from moejax.types import Config
from moejax.work.context import Context

NAMES = ("auto", "none", "offline", "offline_tuned", "deepl", "deepl_custom", "ctranslate2")
ALONE = ("auto", "none")
BILLED = ("deepl", "deepl_custom")
TRAINED = ("auto", "offline", "offline_tuned")  # with a vocabulary of their own
LEARNT = "learnt"  # the value of deepl_glossary
CUSTOM = ("glossary", "formality", "style_rule", "instructions", "memory")  # keys deepl_... that make a row of its own


def asked(cfg: Config, references: bool) -> list[str]:
    """The translators of `translate.backends`, in their order. `references`: whether there are any to score by."""
    names = tuple(dict.fromkeys(cfg.translate.backends))
    if names == ("auto",):
        return ["offline"] if references else []
    found = []
    for name in names if names != ("none",) else ():
        found.append(name)
        if name == "deepl" and is_custom(cfg) and "deepl_custom" not in names:
            found.append("deepl_custom")
    return found


def opened(context: Context, names: Sequence[str]) -> dict[str, Any]:
    """{name: what translates}: those that only have to be opened first, so that what is wrong with them is said before
    anything is trained. Without one that nothing could be trained for. Of several processes the first alone opens those
    that cost something.
    """
    made: dict[str, Any] = {}
    for name in sorted(names, key=lambda name: name in TRAINED):
        if name not in BILLED or processes.first():  # nobody is paid twice
            made[name] = OPEN[name](context)
    return {name: made[name] for name in names if made.get(name) is not None}


def made_of(context: Context, name: str) -> str:
    """What an opened translator that costs nothing is known by: a digest."""
    cfg = context.cfg
    if name == "ctranslate2":
        return ctranslate2_folder.digest(cfg.translate.folder, cfg.data.language, cfg.translate.target)
    return offline_translator.digest_of(context.work, name)


def is_custom(cfg: Config) -> bool:
    """Whether DeepL is told more than languages (tags only say what the texts hold)."""
    return any(cfg.translate[f"deepl_{key}"] for key in CUSTOM)


def check(cfg: Config) -> None:
    """BadValue naming what of the section `translate` cannot be: translators together, what DeepL lacks (a language, an
    option for the target). Reads no file and sends nothing.
    """
    names = cfg.translate.backends
    if not cfg.st.kinds and cfg.st.targets:
        raise BadValue(f"config key 'st.targets' is {cfg.st.targets!r}, and st.kinds names nobody who learns from them")
    if len(names) > 1 and (alone := [name for name in names if name in ALONE]):
        raise BadValue(f"config key 'translate.backends' has {alone[0]!r} beside others; it stands alone")
    names = (*names, *([cfg.st.targets] if cfg.st.targets else []))
    if "deepl_custom" in names and not is_custom(cfg):
        keys = ", ".join(f"deepl_{key}" for key in CUSTOM)
        key = "st.targets" if cfg.st.targets == "deepl_custom" else "translate.backends"
        raise BadValue(f"config key {key!r} has 'deepl_custom', and none of translate's {keys} is set")
    if any(name in BILLED for name in names):
        try:
            _client(cfg, None, custom=True).check(cfg.data.language, cfg.translate.target)
        except BadValue as error:
            raise BadValue(f"config section 'translate': {error}") from error
    elif cfg.translate.dry_run:
        raise BadValue("translate.dry_run needs 'deepl' in translate.backends; the others cost nothing")
    if "ctranslate2" in names and not cfg.translate.folder:
        raise BadValue("the translator ctranslate2 needs translate.folder, the model's folder")


def outside(cfg: Config, names: Sequence[str] | None = None) -> str | None:
    """A digest of the glossary file's entries, or of CTranslate2's folder; None without one. `names`: of translators;
    None: those of the table. Errors: it is not there, or is no such thing.
    """
    found: list[str] = []
    chosen: Sequence[str] = cfg.translate.backends if names is None else names
    if "ctranslate2" in chosen:
        found.append(ctranslate2_folder.digest(cfg.translate.folder, cfg.data.language, cfg.translate.target))
    glossary = cfg.translate.deepl_glossary
    if any(name in BILLED for name in chosen) and glossary not in ("", LEARNT) and deepl_options.is_file(glossary):
        found.append(deepl_glossary.digest(deepl_glossary.read(glossary)))
    return " ".join(found) or None


class DeepL:
    """The client for one pair of languages."""

    def __init__(self, client, source: str, target: str):
        self.client, self.source, self.target = client, source, target

    def translate(self, texts: list[str]) -> list[str]:
        return self.client.translate(texts, source=self.source, target=self.target)

    def costs(self, texts: list[str]) -> str:
        """In one line, before anything is billed."""
        plan = self.client.plan(texts, source=self.source, target=self.target)
        return f"{plan}{self.client.left() if plan.requests else ''}"


def _deepl(context: Context) -> DeepL:
    cfg = context.cfg
    return DeepL(_client(cfg, None, custom=False), cfg.data.language, cfg.translate.target)


def _deepl_custom(context: Context) -> DeepL:
    cfg = context.cfg
    glossary: str | dict[str, str] | None = cfg.translate.deepl_glossary
    if glossary == LEARNT:
        pairs = offline_translator.parallel(context)
        glossary = deepl_glossary.learn(pairs)
        context.work.log(f"  glossary: {len(glossary)} terms learnt from {len(pairs)} sentence pairs")
    return DeepL(_client(cfg, glossary, custom=True), cfg.data.language, cfg.translate.target)


def _client(cfg: Config, glossary, *, custom: bool):
    section = cfg.translate
    options: dict[str, Any] = {}
    if custom:
        options = {
            "glossary": glossary,
            "formality": section.deepl_formality,
            "style_rule": section.deepl_style_rule,
            "custom_instructions": section.deepl_instructions,
            "translation_memory": section.deepl_memory,
            "translation_memory_threshold": section.deepl_memory_threshold,
        }
    return mt.get("deepl")(
        os.environ.get("DEEPL_AUTH_KEY"),
        section.deepl_server or None,
        os.path.expanduser(section.deepl_cache),
        tag_handling=section.deepl_tags,
        **options,
    )


def _ctranslate2(context: Context):
    cfg = context.cfg
    return mt.get("ctranslate2")(cfg.translate.folder, cfg.data.language, cfg.translate.target)


def _offline(context: Context):
    return offline_translator.trained(context).translator()


def _offline_tuned(context: Context):
    model = offline_translator.tuned(context)
    return None if model is None else model.translator()


OPEN = {
    "offline": _offline,
    "offline_tuned": _offline_tuned,
    "deepl": _deepl,
    "deepl_custom": _deepl_custom,
    "ctranslate2": _ctranslate2,
}
