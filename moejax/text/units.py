"""What CTC writes: the letters of a text, word by word."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Iterable, Sequence

BLANK = ""  # the first unit of every inventory


def letters(word: str) -> list[str]:
    """Letters, digits and apostrophes of a word in lower case; what else stands in it makes no sound."""
    folded = unicodedata.normalize("NFKC", word).lower().replace("’", "'")
    return [one for one in folded if one.isalnum() or one == "'" or unicodedata.category(one) in ("Mn", "Mc")]


@dataclasses.dataclass(frozen=True)
class Inventory:
    """The units that a head knows, the blank first."""

    units: tuple[str, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> Inventory:
        """All letters of these texts."""
        return cls((BLANK, *sorted({letter for text in texts for word in text.split() for letter in letters(word)})))

    def __len__(self):
        return len(self.units)

    def encode(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """(labels, which word each belongs to). A letter that no training text had is passed over."""
        number = {unit: place for place, unit in enumerate(self.units)}
        pairs = [
            (number[letter], place) for place, word in enumerate(words) for letter in letters(word) if letter in number
        ]
        return [label for label, _ in pairs], [place for _, place in pairs]
