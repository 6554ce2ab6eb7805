"""What a translation by DeepL can be told: glossary, style, instructions, memory, formality, tags. There is no
fine-tuning.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from moejax.mt import deepl_glossary, deepl_languages
from moejax.mt.deepl_errors import TranslationError

FORMALITIES = ("default", "less", "more", "prefer_less", "prefer_more")
TAGS = ("xml", "html")
MOST_INSTRUCTIONS, LONGEST_INSTRUCTION = 10, 300  # DeepL's limits; the latter in characters


@dataclasses.dataclass(frozen=True)
class Options:
    """`glossary` is the id of one on the account, the path of a TSV file, or entries {term: translation}; `style_rule`
    and `translation_memory` are ids of the account; `translation_memory_threshold` is the least match in percent;
    `formality` is one of `FORMALITIES`; `tag_handling`, one of `TAGS`, says that texts hold such tags, which are then
    kept in their places.
    """

    glossary: str | os.PathLike | Mapping[str, str] | None = None
    formality: str | None = None
    style_rule: str | None = None
    custom_instructions: tuple[str, ...] = ()
    translation_memory: str | None = None
    translation_memory_threshold: int | None = None
    tag_handling: str | None = None
    # Of a file or of entries given; {} for an id.
    entries: Mapping[str, str] = dataclasses.field(init=False, default_factory=dict)

    def __post_init__(self):
        """Errors: `TranslationError` for a value that no language could take, or a glossary that cannot be read."""
        put = object.__setattr__
        for name in ("formality", "style_rule", "translation_memory", "tag_handling"):
            put(self, name, getattr(self, name) or None)
        put(self, "custom_instructions", tuple(self.custom_instructions))
        given = self.glossary or None
        if isinstance(given, Mapping):
            deepl_glossary.check(given)
            put(self, "entries", dict(given))
        elif given is not None and is_file(given):
            put(self, "entries", deepl_glossary.read(given))
        put(self, "glossary", None if self.entries else given)
        self._check()

    def _check(self):
        for name, known in (("formality", FORMALITIES), ("tag_handling", TAGS)):
            if (value := getattr(self, name)) not in (None, *known):
                raise TranslationError(f"{name} is {value!r}; DeepL takes {', '.join(known)}")
        if len(self.custom_instructions) > MOST_INSTRUCTIONS:
            count = len(self.custom_instructions)
            raise TranslationError(f"{count} custom instructions; DeepL takes {MOST_INSTRUCTIONS} at most")
        for text in self.custom_instructions:
            if not 0 < len(text.strip()) <= LONGEST_INSTRUCTION:
                rule = f"DeepL takes 1 to {LONGEST_INSTRUCTION}"
                raise TranslationError(f"custom instruction {text[:40]!r} has {len(text)} characters; {rule}")
        if (threshold := self.translation_memory_threshold) is not None:
            if self.translation_memory is None:
                raise TranslationError("translation_memory_threshold needs translation_memory, the id of one")
            if not 0 <= threshold <= 100:
                raise TranslationError(f"translation_memory_threshold is {threshold}; it takes 0 to 100 percent")

    def check(self, target: str) -> None:
        """`TranslationError` for what this target, by DeepL's code, does not have. Regions count for formality."""
        code = target.lower()
        if self.formality in ("less", "more") and code not in deepl_languages.FORMAL:
            raise TranslationError(
                f"formality {self.formality} does not exist for {target}; it does for"
                f" {', '.join(deepl_languages.FORMAL)}, and prefer_{self.formality} is taken for all"
            )
        for name in ("style_rule", "custom_instructions"):
            if getattr(self, name) and code.split("-")[0] not in deepl_languages.INSTRUCTED:
                known = ", ".join(deepl_languages.INSTRUCTED)
                raise TranslationError(f"{name} does not exist for {target}; it does for {known}")

    def identity(self) -> dict:
        """What tells apart translations of one text. What came later is in it only where it is given, so that what
        was paid for before stays known.
        """
        found: dict = {"glossary": self.glossary, "formality": self.formality}
        if self.entries:
            found["glossary_entries"] = deepl_glossary.digest(self.entries)
        return found | self._more()

    def request(self, glossary: str | None) -> dict:
        """Arguments of the client's `translate_text`; `glossary` is the id that `entries` have on the account."""
        more = self._more()
        if "custom_instructions" in more:
            more["custom_instructions"] = list(more["custom_instructions"])
        return {"glossary": glossary or self.glossary, "formality": self.formality} | more

    def _more(self) -> dict:
        names = ("style_rule", "custom_instructions", "translation_memory", "translation_memory_threshold")
        found = {name: getattr(self, name) for name in (*names, "tag_handling")}
        return {name: value for name, value in found.items() if value not in (None, ())}


def is_file(glossary: str | os.PathLike) -> bool:
    """Whether this names a file, and not a glossary on the account (whose id is a UUID)."""
    name = os.fspath(glossary)
    return name.lower().endswith((".tsv", ".txt")) or os.sep in name or Path(name).is_file()
