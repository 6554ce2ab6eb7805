"""The languages that DeepL reads and writes, by its own codes, and what it offers for which of them.

The facts are those of DeepL's list of languages (developers.deepl.com/docs/getting-started/supported-languages, and
its /v3/languages), as of April 2026. They stand here so that a wrong language is refused without a key and before
any work; DeepL has the last word.
"""

import difflib

from moejax.mt.deepl_errors import TranslationError

# fmt: off
# Those with glossaries; the rest came in January 2026.
_CORE = (
    *("ar", "bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fr", "he", "hu", "id", "it", "ja", "ko", "lt", "lv"),
    *("nb", "nl", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "th", "tr", "uk", "vi", "zh"),
)
_LATER = (
    *("ace", "af", "an", "as", "ay", "az", "ba", "be", "bho", "bn", "br", "bs", "ca", "ceb", "ckb", "cy", "eo", "eu"),
    *("fa", "ga", "gl", "gn", "gom", "gu", "ha", "hi", "hr", "ht", "hy", "ig", "is", "jv", "ka", "kk", "kmr", "ky"),
    *("la", "lb", "lmo", "ln", "mai", "mg", "mi", "mk", "ml", "mn", "mr", "ms", "mt", "my", "ne", "oc", "om", "pa"),
    *("pag", "pam", "prs", "ps", "qu", "sa", "scn", "sq", "sr", "st", "su", "sw", "ta", "te", "tg", "tk", "tl", "tn"),
    *("ts", "tt", "ur", "uz", "wo", "xh", "yi", "yue", "zu"),
)
# What a code is written as where DeepL asks for a region; the first one unless another is named.
_REGIONS = {
    "de": ("de", "de-ch"), "en": ("en-us", "en-gb"), "es": ("es", "es-419"), "fr": ("fr", "fr-ca"),
    "pt": ("pt-br", "pt-pt"), "zh": ("zh", "zh-hans", "zh-hant"),
}
# fmt: on
SOURCES = _CORE + _LATER
TARGETS = tuple(code for plain in SOURCES for code in _REGIONS.get(plain, (plain,)))
# Other codes (Whisper's among them) for the same: nn has no DeepL language of its own, and Bokmål is nearest.
_OTHERS = {
    **{"no": "nb", "nn": "nb", "iw": "he", "jw": "jv", "in": "id", "fil": "tl"},
    **{"zh-cn": "zh-hans", "zh-sg": "zh-hans", "zh-tw": "zh-hant", "zh-hk": "zh-hant", "zh-mo": "zh-hant"},
}
FORMAL = ("de", "es", "es-419", "fr", "it", "ja", "nl", "pl", "pt-br", "pt-pt", "ru")
INSTRUCTED = ("de", "en", "es", "fr", "it", "ja", "ko", "zh")  # with all their regions


def source_of(language: str) -> str | None:
    """DeepL's code, in capitals, for a language to be read ("no" -> "NB", "pt-BR" -> "PT"); None for one it lacks."""
    code = _code(language).split("-")[0]
    code = _OTHERS.get(code, code)
    return code.upper() if code in SOURCES else None


def target_of(language: str) -> str | None:
    """DeepL's code, in capitals, for a language to be written ("en" -> "EN-US", "zh-TW" -> "ZH-HANT"); an unknown
    region is left out ("es-MX" -> "ES"). None for a language it lacks.
    """
    code = _code(language)
    for name in (code, code.split("-")[0]):
        name = _OTHERS.get(name, name)
        name = _REGIONS.get(name, (name,))[0]
        if name in TARGETS:
            return name.upper()
    return None


def pair(source: str, target: str) -> tuple[str, str]:
    """DeepL's codes of both. Errors: `TranslationError` naming a language that it lacks, with those that it has."""
    read, written = source_of(source), target_of(target)
    if read is None:
        raise TranslationError(f"DeepL does not read {source!r}; {hint(source, SOURCES)}")
    if written is None:
        raise TranslationError(f"DeepL does not write {target!r}; {hint(target, TARGETS)}")
    return read, written


def same(source: str, target: str) -> bool:
    """Whether there is nothing to translate, whatever the regions. DeepL would bill it all the same."""
    read, written = source_of(source), source_of(target)
    return read == written if read or written else _code(source) == _code(target)


def hint(language: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(_code(language), known, n=1, cutoff=0.6)
    verb = "writes" if known is TARGETS else "reads"
    return f"did you mean {near[0]}?" if near else f"it {verb} {', '.join(known)}"


def _code(language: str) -> str:
    return language.strip().lower().replace("_", "-")
