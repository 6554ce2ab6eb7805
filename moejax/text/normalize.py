"""Text normalisers: what two transcripts may differ in without it counting as an error.

Every normaliser is a function text -> text, applied to reference and hypothesis alike; `NORMALIZERS` names them. A word
error rate is only comparable with another one under the same normaliser, so tables carry its name.
"""

import re
import unicodedata
from collections.abc import Callable
from functools import cache

from moejax.errors import BadValue

Normalizer = Callable[[str], str]

_APOSTROPHES = str.maketrans({"’": "'", "‘": "'", "ʼ": "'", "`": "'", "´": "'"})
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_POINT, _KEPT_POINT = re.compile(r"(?<=\d)\.(?=\d)"), "\ue000"  # a private sign that no transcript has
_BRACKETED = re.compile(r"[<\[][^>\]]*[>\]]")
_PARENTHESISED = re.compile(r"\(([^)]*)\)")


def none(text: str) -> str:
    """The text with runs of white space collapsed, otherwise as it is."""
    return " ".join(text.split())


def lower(text: str) -> str:
    """Case folded, punctuation and symbols become spaces, spaces collapsed; accents and combining marks stay.

    Every mark separates ("yes/no", "10:30", "U.S." and "twenty-one" are two words each, as in `english`), but: an
    apostrophe inside a word stays ("don't"), a point between digits stays ("3.5"), a comma between thousands vanishes
    ("3,500" is "3500"). What nobody sees (soft hyphens, joiners) vanishes.
    """
    text = unicodedata.normalize("NFKC", text.translate(_APOSTROPHES)).casefold()
    text = _POINT.sub(_KEPT_POINT, _THOUSANDS.sub("", text))
    words = "".join(map(_spoken, text)).replace(_KEPT_POINT, ".").split()
    return " ".join(word for word in (word.strip("'") for word in words) if word)


def _spoken(char: str) -> str:
    kind = unicodedata.category(char)
    if char in ("'", _KEPT_POINT) or kind[0] in "LMN":
        return char
    return "" if kind == "Cf" else " "


def basic(text: str) -> str:
    """Whisper's language-independent rule: bracketed and parenthesised parts dropped, marks become spaces, lower case.

    Combining marks stay with their letter: Whisper's own rule makes spaces of them too, and so takes the words of
    Hindi, Thai and their like apart; error rates in those languages are comparable with rates under this rule only.
    Every apostrophe separates ("don't" becomes two words), which is why `lower` suits English better.
    """
    text = _PARENTHESISED.sub("", _BRACKETED.sub("", text.lower()))
    text = unicodedata.normalize("NFKC", text)
    return " ".join("".join(" " if unicodedata.category(c)[0] in "SP" else c for c in text).split())


def english(text: str, spelling: dict[str, str] | None = None) -> str:
    """Whisper's English rule: contractions, numbers, titles, fillers brought to one form, `spelling` variants mapped.

    `spelling` maps British to American words (a Whisper folder has it as normalizer.json); without it "colour" stays.
    Radford et al. 2022, appendix C, in the implementation of transformers.
    """
    return _english(tuple(sorted(spelling.items())) if spelling else ())(text)


@cache
def _english(spelling: tuple[tuple[str, str], ...]) -> Normalizer:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer  # 1.3 s: only when asked for

    return EnglishTextNormalizer(dict(spelling))


NORMALIZERS: dict[str, Normalizer] = {"none": none, "lower": lower, "basic": basic, "english": english}


def get(name: str, spelling: dict[str, str] | None = None) -> Normalizer:
    """The normaliser of this name; `spelling` is for "english" only. An unknown name is an error listing the known."""
    if name not in NORMALIZERS:
        raise BadValue(f"unknown normalizer {name!r}; known: {', '.join(NORMALIZERS)}")
    if spelling and name != "english":
        raise BadValue(f"a spelling table belongs to the normalizer 'english', not to {name!r}")
    return (lambda text: english(text, spelling)) if spelling else NORMALIZERS[name]


def disfluency_references(text: str) -> tuple[str, str]:
    """The two references of the Speech Accessibility Project: (with the disfluencies in parentheses, without them).

    To be called before any normaliser: `basic` and `english` drop parentheses with their content.
    """
    return none(_PARENTHESISED.sub(r" \1 ", text)), none(_PARENTHESISED.sub(" ", text))
