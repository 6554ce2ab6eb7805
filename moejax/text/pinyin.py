"""Mandarin as it sounds: hanzi or numbered pinyin to syllables of initial, final and tone.

Hanzi are read by pypinyin (the extra `pron`); what comes out are surface tones: sandhi is applied to hanzi, and pinyin
is taken as it is written. A reading of one's own stands in braces behind its character: 还{huan2}.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from collections.abc import Sequence

from moejax.errors import BadValue, NotInstalled

_VELAR = "a ai an ang ao e ei en eng ong ou u ua uai uan uang ui un uo"
_PALATAL = "i ia ian iang iao ie in ing iong iu v van ve vn"
# Which finals an initial has. "ii" is the vowel of zi, ci, si, "iii" that of zhi, chi, shi, ri; v is u with two dots
TABLE: dict[str, tuple[str, ...]] = {
    initial: tuple(finals.split())
    for initial, finals in {
        "": "a ai an ang ao e ei en eng er o ou i ia ie iao iu ian in iang ing iong u ua uo uai ui uan un uang ueng"
        " v ve van vn",
        "b": "a ai an ang ao ei en eng i ian iao ie in ing o u",
        "p": "a ai an ang ao ei en eng i ian iao ie in ing o ou u",
        "m": "a ai an ang ao e ei en eng i ian iao ie in ing iu o ou u",
        "f": "a an ang ei en eng o ou u",
        "d": "a ai an ang ao e ei en eng i ia ian iao ie ing iu ong ou u uan ui un uo",
        "t": "a ai an ang ao e eng i ian iao ie ing ong ou u uan ui un uo",
        "n": "a ai an ang ao e ei en eng i ian iang iao ie in ing iu ong ou u uan uo v ve",
        "l": "a ai an ang ao e ei eng i ia ian iang iao ie in ing iu ong ou u uan un uo v ve",
        **dict.fromkeys("gkh", _VELAR),
        **dict.fromkeys("jqx", _PALATAL),
        "zh": f"{_VELAR} iii",
        "ch": "a ai an ang ao e en eng iii ong ou u ua uai uan uang ui un uo",
        "sh": "a ai an ang ao e ei en eng iii ou u ua uai uan uang ui un uo",
        "r": "an ang ao e en eng iii ong ou u ua uan ui un uo",
        "z": "a ai an ang ao e ei en eng ii ong ou u uan ui un uo",
        **dict.fromkeys("cs", "a ai an ang ao e en eng ii ong ou u uan ui un uo"),
    }.items()
}
ERHUA = "R"  # a unit of its own behind the final: huar1 is h, ua, R
NEUTRAL = 5
TONES = (1, 2, 3, 4, NEUTRAL)
MISSING = "pypinyin is not installed, and hanzi are read by it: pip install 'moejax[pron]', or write pinyin (ni3 hao3)"
_ZERO = {  # spellings of syllables without an initial
    **{"yi": "i", "ya": "ia", "ye": "ie", "yao": "iao", "you": "iu", "yan": "ian", "yin": "in", "yang": "iang"},
    **{"ying": "ing", "yong": "iong", "wu": "u", "wa": "ua", "wo": "uo", "wai": "uai", "wei": "ui", "wan": "uan"},
    **{"wen": "un", "wang": "uang", "weng": "ueng", "yu": "v", "yue": "ve", "yuan": "van", "yun": "vn"},
}
_MARKS = {"\u0304": 1, "\u0301": 2, "\u030c": 3, "\u0300": 4}
_SYLLABLE = re.compile(r"([a-z]+)([1-5]?)")
_HANZI = r"[\u3400-\u9fff\U00020000-\U0003ffff]"
_TOKEN = re.compile(rf"({_HANZI})(?:\{{([^}}]*)\}})?|((?:(?!{_HANZI})[^\W\d_])+[1-5]?)|(\d+)|(\s+)|(.)", re.DOTALL)


@dataclasses.dataclass(frozen=True)
class Syllable:
    """One syllable as it sounds. `text` is what was written: a character or pinyin."""

    text: str
    initial: str  # "" where it begins with its vowel
    final: str
    tone: int  # 1 to 4, 5 is neutral
    erhua: bool = False

    @property
    def units(self) -> tuple[str, ...]:
        """Its sounds in order, without the tone: what a head of these units writes."""
        return (*([self.initial] if self.initial else ()), self.final, *([ERHUA] if self.erhua else ()))

    @property
    def pinyin(self) -> str:
        """Numbered, as `syllable` takes it."""
        return spelled(self.initial, self.final) + "r" * self.erhua + str(self.tone)


def syllable(written: str, text: str = "") -> Syllable:
    """Of pinyin with a number (zhong1) or a mark (zhōng); without either the tone is neutral.

    Errors: BadValue for what is no syllable of Mandarin.
    """
    bare, tone = _toned(written.lower())
    found = _SYLLABLE.fullmatch(bare)
    if found is None:
        raise BadValue(f"{written!r} is no pinyin; it takes a syllable and its tone, such as zhong1, lv4, wanr2")
    letters, number = found[1], int(found[2] or tone or NEUTRAL)
    parts, erhua = _parts(letters), False
    if parts is None and letters.endswith("r") and len(letters) > 1:
        parts, erhua = _parts(letters[:-1]), True
    if parts is None:
        raise BadValue(f"{written!r} is no syllable of Mandarin; it takes pinyin with its tone: zhong1, lv4, wanr2")
    return Syllable(text or written, *parts, number, erhua)


def _toned(written: str) -> tuple[str, int]:
    """(letters with v for ü and without marks of tone, the tone that a mark says or 0)."""
    tone, kept = 0, []
    for sign in unicodedata.normalize("NFD", written.replace("u:", "v")):
        if sign in _MARKS:
            tone = _MARKS[sign]
        elif sign == "\u0308":  # two dots
            kept[-1:] = ["v"]
        else:
            kept.append(sign)
    return "".join(kept), tone


def _parts(letters: str) -> tuple[str, str] | None:
    """(initial, final) of a syllable without tone and erhua; None for what is none."""
    if letters in _ZERO:
        return "", _ZERO[letters]
    initial = next((one for one in (letters[:2], letters[:1]) if one in TABLE), "")
    final = letters[len(initial) :]
    if not initial and final[:1] in ("i", "u", "v"):
        return None  # these are written yi, wu, yu
    if initial in ("j", "q", "x") and final[:1] == "u":
        final = "v" + final[1:]
    if initial in ("z", "c", "s") and final == "i":
        final = "ii"
    if initial in ("zh", "ch", "sh", "r") and final == "i":
        final = "iii"
    final = {"ue": "ve"}.get(final, final) if initial in ("l", "n") else final
    return (initial, final) if final in TABLE.get(initial, ()) else None


def spelled(initial: str, final: str) -> str:
    """Pinyin of initial and final, without a tone."""
    if not initial:
        return next((text for text, sound in _ZERO.items() if sound == final), final)
    if final in ("ii", "iii"):
        return initial + "i"
    return initial + ("u" + final[1:] if final[0] == "v" and initial in ("j", "q", "x") else final)


def read(text: str) -> list[Syllable]:
    """The syllables of a text of hanzi, of pinyin, or of both.

    Errors: BadValue for digits, for Latin words that are no pinyin, and for braces that hold none; NotInstalled where
    there are hanzi and no pypinyin.
    """
    phrases: list[list[tuple[str, str]]] = [[]]  # (character or pinyin, the user's reading)
    for hanzi, own, latin, digits, space, _ in _TOKEN.findall(unicodedata.normalize("NFKC", text)):
        if digits:
            raise BadValue(f"{digits!r} can be read in several ways; write numbers as hanzi or pinyin (er4 shi2)")
        if hanzi or latin:
            phrases[-1].append((hanzi or latin, own))
        elif not space:
            phrases.append([])  # a mark: no sandhi reaches over it
    return [one for phrase in phrases for one in _phrase(phrase)]


def _phrase(tokens: list[tuple[str, str]]) -> list[Syllable]:
    found: list[Syllable] = []
    at = 0
    while at < len(tokens):
        stop = at
        while stop < len(tokens) and _hanzi(tokens[stop][0]):
            stop += 1
        if stop > at:
            found += sandhi(_of_hanzi(tokens[at:stop]))
            at = stop
        else:
            found.append(syllable(tokens[at][0]))
            at += 1
    return found


def _hanzi(token: str) -> bool:
    return len(token) == 1 and ord(token) >= 0x3400


def _of_hanzi(tokens: Sequence[tuple[str, str]]) -> list[Syllable]:
    """Dictionary tones; 儿 behind a syllable that pypinyin reads as r makes that one's erhua."""
    try:
        import pypinyin
    except ImportError:
        raise NotInstalled(MISSING) from None
    characters = "".join(hanzi for hanzi, _ in tokens)
    style = pypinyin.Style.TONE3
    readings = pypinyin.lazy_pinyin(characters, style=style, neutral_tone_with_five=True, errors="ignore")
    if len(readings) != len(characters):
        raise BadValue(f"pypinyin cannot read all of {characters!r}; write the reading behind a character: 还{{huan2}}")
    found: list[Syllable] = []
    for (hanzi, own), reading in zip(tokens, readings, strict=True):
        written = own or reading
        if (written.rstrip("12345") == "r" or written == "er5") and hanzi == "儿" and found:
            found[-1] = dataclasses.replace(found[-1], text=found[-1].text + hanzi, erhua=True)
        else:
            found.append(syllable(written, hanzi))
    return found


def sandhi(phrase: Sequence[Syllable]) -> list[Syllable]:
    """Surface tones of one phrase of hanzi: of third tones in a row all but the last rise; 不 rises before a falling
    tone; 一 rises before a falling tone and falls before others, unless it counts (第一, 一 at the end, beside digits).
    """
    found = list(phrase)
    for at, one in enumerate(found):
        before = found[at - 1] if at else None
        behind = found[at + 1] if at + 1 < len(found) else None
        if behind is None:
            continue
        if one.text == "不" and one.tone == 4 and behind.tone == 4:
            found[at] = dataclasses.replace(one, tone=2)
        if one.text == "一" and one.tone == 1 and not _counts(before, behind):
            again = before is not None and before.text == behind.text  # 看一看
            found[at] = dataclasses.replace(one, tone=NEUTRAL if again else 2 if behind.tone == 4 else 4)
    return [
        dataclasses.replace(one, tone=2) if one.tone == 3 and at + 1 < len(found) and found[at + 1].tone == 3 else one
        for at, one in enumerate(found)
    ]


def _counts(before: Syllable | None, behind: Syllable) -> bool:
    digits = "零一二三四五六七八九"
    return (before is not None and before.text in ("第", *digits, "十", "月")) or behind.text in (*digits, "月", "号")
