"""Speech-sound processes on espeak-ng phonemes: what a speaker systematically says instead of the dictionary's sounds.

A word is a list of phoneme names in the American English table ("D", "@2", "s", "m", "'O:", "l"), stress marks in
front of vowels. A process is a pure function of a word, so a speaker who has it says the same word the same way every
time: hard for a recogniser that never heard it, learnable for one that may adapt. Process names follow speech
pathology (stopping, fronting, backing, gliding, cluster reduction, final consonant deletion, weak syllable deletion).
"""

from __future__ import annotations

Word = list[str]

_CONSONANTS = set("p t k b d g f v T D s z S Z tS dZ h m n N l r w j t# r-".split())
_SWAPS: dict[str, dict[str, str]] = {
    "stopping": dict(s="t", z="d", S="t", Z="d", f="p", v="b", T="t", D="d", tS="t", dZ="d"),
    "fronting": {"k": "t", "g": "d", "N": "n", "S": "s", "tS": "s", "dZ": "z", "Z": "z"},
    "backing": {"t": "k", "d": "g", "n": "N", "t#": "g", "tS": "k", "dZ": "g"},
    "gliding": {"r": "w", "l": "w", "r-": "w"},
}


def stress(name: str) -> tuple[str, str]:
    """(stress marks, bare name) of a phoneme: ("'", "O:") for "'O:"."""
    bare = name.lstrip("',%=")
    return name[: len(name) - len(bare)], bare


def is_vowel(name: str) -> bool:
    """Whether the phoneme makes a syllable; pauses and modifiers ("_:", ";") do not."""
    bare = stress(name)[1]
    return bool(bare) and bare not in _CONSONANTS and bare[0] not in "_;"


def _is_consonant(name: str) -> bool:
    return stress(name)[1] in _CONSONANTS


def _swap(word: Word, table: dict[str, str]) -> Word:
    marks = (stress(name) for name in word)
    return [mark + table.get(bare, bare) for mark, bare in marks]


def final_deletion(word: Word) -> Word:
    """Drop the consonants after the last vowel: "house" -> "hou"."""
    end = len(word)
    while end and not is_vowel(word[end - 1]):
        end -= 1
    return word[:end] or word


def cluster_reduction(word: Word) -> Word:
    """Keep one consonant of each cluster: the one that is neither s nor a liquid or glide ("flowers" -> "fowers")."""
    out: Word = []
    for name in word:
        if out and _is_consonant(name) and _is_consonant(out[-1]):
            if stress(out[-1])[1] in ("s", "l", "r", "w", "j") and stress(name)[1] not in ("l", "r", "w", "j", "s"):
                out[-1] = name
            continue
        out.append(name)
    return out


def weak_deletion(word: Word) -> Word:
    """Drop unstressed syllables before the stressed one: "tomorrow" -> "morrow"."""
    vowels = [k for k, name in enumerate(word) if is_vowel(name)]
    stressed = [k for k in vowels if stress(word[k])[0]]
    if not stressed or stressed[0] == vowels[0]:
        return word
    start = stressed[0]
    while start and _is_consonant(word[start - 1]) and start - 1 > vowels[0]:
        start -= 1
    return word[start:]


_DELETIONS = {
    "final_deletion": final_deletion,
    "cluster_reduction": cluster_reduction,
    "weak_deletion": weak_deletion,
}
PROCESSES = tuple(sorted([*_SWAPS, *_DELETIONS]))

# A foreign accent: the espeak-ng voice that speaks, and the sound of that language that stands for each English one.
# Sounds not listed exist in the language under the same name. Several names: a sequence.
_VOWELS_5 = {
    "I": "i",
    "I2": "i",
    "I#": "i",
    "i": "i",
    "i:": "i",
    "E": "E",
    "a": "a",
    "aa": "a",
    "V": "a",
    "a#": "a",
    "0": "O",
    "O2": "O",
    "O:": "O",
    "A:": "a",
    "U": "u",
    "u:": "u",
    "@": "e",
    "@2": "e",
    "3": "e r",
    "3:": "e r",
    "@L": "e l",
    "A@": "a r",
    "O@": "O r",
    "o@": "O r",
    "e@": "e r",
    "i@3": "i e r",
    "aI3": "aI e r",
}
_COMMON = {"t#": "t", "r-": "r", ";": "", "tS": "t S", "dZ": "d Z"}
ACCENTS: dict[str, tuple[str, dict[str, str]]] = {
    "german": (
        "de",
        {
            **_COMMON,
            "T": "s",
            "D": "z",
            "w": "v",
            "V": "a",
            "a": "E",
            "aa": "E",
            "a#": "a",
            "0": "O",
            "O2": "O",
            "@2": "@",
            "I2": "I",
            "I#": "I",
            "3": "E r",
            "3:": "E r",
            "@L": "@ l",
            "eI": "e:",
            "oU": "o:",
            "A@": "A: r",
            "O@": "O r",
            "o@": "O r",
            "e@": "e: r",
            "i@3": "i: r",
            "aI3": "aI @ r",
            "dZ": "t S",
            "O:": "o:",
            "i": "i:",
        },
    ),
    "french": (
        "fr",
        {
            **_COMMON,
            **_VOWELS_5,
            "T": "s",
            "D": "z",
            "h": "",
            "tS": "S",
            "dZ": "Z",
            "eI": "e",
            "oU": "o",
            "aU": "a u",
            "OI": "O j",
            "aI": "a j",
            "@": "@",
            "@2": "@",
            "3": "@ r",
            "3:": "@ r",
            "A:": "a",
            "A@": "a r",
            "aI3": "a j @ r",
            "N": "n",
        },
    ),
    "spanish": (
        "es",
        {
            **_COMMON,
            **_VOWELS_5,
            "T": "t",
            "D": "d",
            "v": "b",
            "z": "s",
            "S": "tS",
            "tS": "tS",
            "dZ": "j",
            "h": "x",
            "OI": "o j",
            "aI3": "aI e r",
            "E": "e",
            "N": "n",
            "O:": "o",
            "0": "o",
            "O2": "o",
            "oU": "o",
            "eI": "e j",
        },
    ),
    "hindi": (
        "hi",
        {
            **_COMMON,
            "T": "t",
            "D": "d",
            "t": "t.",
            "d": "d.",
            "w": "v",
            "f": "p",
            "z": "s",
            "V": "@",
            "a": "E",
            "aa": "a:",
            "A:": "a:",
            "a#": "@",
            "0": "O",
            "O2": "O",
            "O:": "O",
            "@2": "@",
            "I2": "I",
            "I#": "I",
            "3": "@ r",
            "3:": "@ r",
            "@L": "@ l",
            "A@": "a: r",
            "O@": "O r",
            "o@": "O r",
            "e@": "e: r",
            "i@3": "i: @ r",
            "aI3": "aI @ r",
            "eI": "e:",
            "oU": "o:",
            "i": "i:",
            "tS": "c",
            "dZ": "J",
            "t#": "t.",
        },
    ),
}
_DEVOICED = {"z": "s", "d": "t", "g": "k", "b": "p", "v": "f"}


def accent(word: Word, language: str) -> Word:
    """The word in the sounds of another language, word-final devoicing included where it has it (German)."""
    table, out = ACCENTS[language][1], []
    for name in word:
        mark, bare = stress(name)
        sounds = table.get(bare, bare).split()
        out += [(mark if k == 0 else "") + sound for k, sound in enumerate(sounds)]
    if language == "german" and out and out[-1] in _DEVOICED:
        out[-1] = _DEVOICED[out[-1]]
    if language == "spanish" and len(out) > 1 and out[0] == "s" and not is_vowel(out[1]):
        out.insert(0, "e")  # no word begins with s and a consonant: "small" -> "esmall"
    return out


def apply(words: list[Word], processes: tuple[str, ...]) -> list[Word]:
    """Put every word through the processes in order. Raises ValueError for an unknown process."""
    for process in processes:
        if process in _SWAPS:
            words = [_swap(word, _SWAPS[process]) for word in words]
        elif process in _DELETIONS:
            words = [_DELETIONS[process](word) for word in words]
        elif process in ACCENTS:
            words = [accent(word, process) for word in words]
        else:
            raise ValueError(f"unknown speech process {process!r}; known: {', '.join([*PROCESSES, *ACCENTS])}")
    return words


def markup(words: list[Word]) -> str:
    """espeak-ng input that speaks exactly these phonemes."""
    return "[[" + " ".join("|".join(word) for word in words if word) + "]]"
