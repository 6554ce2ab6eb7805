"""Glossaries: terms and how DeepL shall translate them, from a TSV file or from parallel text, uploaded once.

A glossary on the account is found again by its name, which holds the languages and a digest of the entries: the same
entries are never uploaded twice, and other entries never take each other's place.
"""

import collections
import hashlib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from moejax.mt.deepl_errors import TranslationError, one_line, told

LONGEST = 1024  # bytes of a term, DeepL's limit
LARGEST = 10 * 1024 * 1024  # bytes of a glossary, DeepL's limit
LEAST = 3  # pairs that a term must be in, to be learnt
SHORTEST = 4  # letters of a term that is learnt: shorter ones are "is" and "the", which grammar decides
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")


def read(path: str | os.PathLike) -> dict[str, str]:
    """{term: translation} of a file with one pair a line, a tab between; empty lines and a byte order mark are skipped.

    Errors: `TranslationError` naming the line.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise TranslationError(f"glossary {path} cannot be read ({reason}); give a TSV file in UTF-8") from error
    entries: dict[str, str] = {}
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2:
            raise TranslationError(f"glossary {path} line {number} has {len(cells)} columns; it takes TERM<tab>TERM")
        if entries.setdefault(cells[0], cells[1]) != cells[1]:
            raise TranslationError(
                f"glossary {path} line {number}: {cells[0]!r} was {entries[cells[0]]!r} before; keep one of them"
            )
    check(entries, f"glossary {path}")
    return entries


def check(entries: Mapping[str, str], name: str = "glossary") -> None:
    """`TranslationError` for what DeepL would refuse: no entries, an empty or long term, control characters."""
    if not entries:
        raise TranslationError(f"{name} has no entries; it takes TERM<tab>TERM, one a line")
    for term in (side for entry in entries.items() for side in entry):
        if not term.strip():
            raise TranslationError(f"{name} has an empty term; every line takes TERM<tab>TERM")
        if any(ord(sign) < 32 or 127 <= ord(sign) < 160 or sign in "\u2028\u2029" for sign in term):
            raise TranslationError(f"{name}: {term[:40]!r} has a control character; take it out")
        if len(term.encode("utf-8", "replace")) > LONGEST:
            raise TranslationError(f"{name}: {term[:40]!r}... is longer than DeepL's {LONGEST} bytes")
    if (size := len(_lines(entries).encode("utf-8", "replace"))) > LARGEST:
        raise TranslationError(f"{name} has {size} bytes, more than DeepL's {LARGEST}; leave entries out")


def learn(pairs: Iterable[tuple[str, str]], least: int = LEAST) -> dict[str, str]:
    """Terms with one translation throughout parallel text: {} where there are none.

    A word is a term when one word of the other language is in exactly the pairs that it is in, `least` of them or
    more, and no other word of either language is; so what merely occurs together is left out. So is a word that is
    said alone, with always the same single word for it. Words of fewer than `SHORTEST` letters are none, unless in
    capitals.
    """
    here, there = _places(), _places()
    alone: dict[str, set[int]] = collections.defaultdict(set)
    for number, (text, translation) in enumerate(pairs):
        words, others = _WORD.findall(text), _WORD.findall(translation)
        for index, found in ((here, words), (there, others)):
            for word in found:
                places, forms = index[word.casefold()]
                places.add(number)
                forms[word] += 1
        if len(words) == len(others) == 1:
            alone[words[0].casefold()].add(number)
    by_places: dict[frozenset, tuple[list[str], list[str]]] = collections.defaultdict(lambda: ([], []))
    for side, index in enumerate((here, there)):
        for word, (places, forms) in index.items():
            # What is only ever said alone needs no `least`: its translation can be nothing else
            if side == 1 or len(places) >= least or alone.get(word) == places:
                by_places[frozenset(places)][side].append(_commonest(forms))
    terms = {words[0]: others[0] for words, others in by_places.values() if len(words) == len(others) == 1}
    return {word: terms[word] for word in sorted(terms) if len(word) >= SHORTEST or word.isupper()}


def digest(entries: Mapping[str, str]) -> str:
    """Of the entries in any order; part of the cache's key and of the glossary's name."""
    return hashlib.sha256(_lines(entries).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def upload(client, entries: Mapping[str, str], source: str, target: str) -> str:
    """The id of the glossary with these entries for these languages (DeepL's codes): found on the account, or made.

    Errors: `TranslationError`, such as for languages without glossaries or an account that may have no more of them.
    """
    from deepl.api_data import MultilingualGlossaryDictionaryEntries

    source, target = source.split("-")[0], target.split("-")[0]  # a glossary holds for all regions
    name = f"moejax {source}-{target} {digest(entries)}"
    with told("list its glossaries"):
        for found in client.list_multilingual_glossaries():
            if found.name == name and any(
                (d.source_lang, d.target_lang) == (source, target) for d in found.dictionaries
            ):
                return found.glossary_id
    with told(f"make a glossary of {len(entries)} terms from {source} to {target}"):
        made = MultilingualGlossaryDictionaryEntries(source, target, dict(entries))
        return client.create_multilingual_glossary(name, [made]).glossary_id


def _places() -> dict[str, tuple[set[int], collections.Counter]]:
    return collections.defaultdict(lambda: (set(), collections.Counter()))


def _commonest(forms: collections.Counter) -> str:
    return min(forms, key=lambda form: (-forms[form], form.swapcase()))  # rather as it is within a sentence


def _lines(entries: Mapping[str, str]) -> str:
    return "\n".join(sorted(f"{term.strip()}\t{other.strip()}" for term, other in entries.items()))
