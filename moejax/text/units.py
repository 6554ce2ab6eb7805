"""What CTC writes: the letters of a text, its phones, or the initials and finals of pinyin, word by word."""

from __future__ import annotations

import dataclasses
import functools
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from moejax.text import phones, pinyin

BLANK = ""  # the first unit of every inventory


def letters(word: str) -> list[str]:
    """Letters, digits and apostrophes of a word in lower case; what else stands in it makes no sound."""
    folded = unicodedata.normalize("NFKC", word).lower().replace("’", "'")
    return [one for one in folded if one.isalnum() or one == "'" or unicodedata.category(one) in ("Mn", "Mc")]


def sounds(word: str) -> list[str]:
    """Initials and finals of a word of hanzi or pinyin. Errors: BadValue, as `pinyin.read`."""
    return [unit for one in pinyin.read(word) for unit in one.units]


def spoken(word: str, voice: str) -> list[str]:
    """Phones of a word in a voice of espeak-ng. Errors: as `phones.of_word`."""
    bare = "".join(letters(word))
    return phones.of_word(bare, voice) if any(map(str.isalnum, bare)) else []


SPELLINGS = ("letters", "phones", "pinyin")


def spelling_of(kind: str, language: str) -> str:
    """How a head of units of this kind spells texts of a language; of phones the voice belongs to it: phones en-us."""
    return f"{kind} {phones.voice_of(language)}" if kind == "phones" else kind


def speller(spelling: str) -> Callable[[str], list[str]]:
    """What spells a word so."""
    kind, _, voice = spelling.partition(" ")
    if kind == "phones":
        return functools.partial(spoken, voice=voice)
    return {"letters": letters, "pinyin": sounds}[kind]


@dataclasses.dataclass(frozen=True)
class Inventory:
    """The units that a head knows, the blank first, and how words are spelled in them."""

    units: tuple[str, ...]
    spelling: str = "letters"

    @classmethod
    def of(cls, texts: Iterable[str], spelling: str = "letters") -> Inventory:
        """All units of these texts."""
        spell = speller(spelling)
        found = {unit for text in texts for word in text.split() for unit in spell(word)}
        return cls((BLANK, *sorted(found)), spelling)

    def __len__(self):
        return len(self.units)

    @property
    def kind(self) -> str:
        """letters, phones or pinyin."""
        return self.spelling.split()[0]

    def words(self, text: str, spaced: bool = True) -> list[str]:
        """The words that are placed: of pinyin its syllables; of a text without spaces its characters."""
        if self.kind == "pinyin":
            return [one.pinyin for one in pinyin.read(text)]
        return text.split() if spaced else list(text.replace(" ", ""))

    def encode(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """(labels, which word each belongs to). A unit that no training text had is passed over."""
        number, spell = {unit: place for place, unit in enumerate(self.units)}, speller(self.spelling)
        pairs = [(number[unit], place) for place, word in enumerate(words) for unit in spell(word) if unit in number]
        return [label for label, _ in pairs], [place for _, place in pairs]
