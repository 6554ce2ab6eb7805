"""The languages of Whisper's vocabularies: codes in the published order with their English names, and other names."""

import difflib
import re

# fmt: off
NAMES = {
    "en": "english", "zh": "chinese", "de": "german", "es": "spanish", "ru": "russian", "ko": "korean",
    "fr": "french", "ja": "japanese", "pt": "portuguese", "tr": "turkish", "pl": "polish", "ca": "catalan",
    "nl": "dutch", "ar": "arabic", "sv": "swedish", "it": "italian", "id": "indonesian", "hi": "hindi",
    "fi": "finnish", "vi": "vietnamese", "he": "hebrew", "uk": "ukrainian", "el": "greek", "ms": "malay",
    "cs": "czech", "ro": "romanian", "da": "danish", "hu": "hungarian", "ta": "tamil", "no": "norwegian",
    "th": "thai", "ur": "urdu", "hr": "croatian", "bg": "bulgarian", "lt": "lithuanian", "la": "latin",
    "mi": "maori", "ml": "malayalam", "cy": "welsh", "sk": "slovak", "te": "telugu", "fa": "persian",
    "lv": "latvian", "bn": "bengali", "sr": "serbian", "az": "azerbaijani", "sl": "slovenian", "kn": "kannada",
    "et": "estonian", "mk": "macedonian", "br": "breton", "eu": "basque", "is": "icelandic", "hy": "armenian",
    "ne": "nepali", "mn": "mongolian", "bs": "bosnian", "kk": "kazakh", "sq": "albanian", "sw": "swahili",
    "gl": "galician", "mr": "marathi", "pa": "punjabi", "si": "sinhala", "km": "khmer", "sn": "shona",
    "yo": "yoruba", "so": "somali", "af": "afrikaans", "oc": "occitan", "ka": "georgian", "be": "belarusian",
    "tg": "tajik", "sd": "sindhi", "gu": "gujarati", "am": "amharic", "yi": "yiddish", "lo": "lao", "uz": "uzbek",
    "fo": "faroese", "ht": "haitian creole", "ps": "pashto", "tk": "turkmen", "nn": "nynorsk", "mt": "maltese",
    "sa": "sanskrit", "lb": "luxembourgish", "my": "myanmar", "bo": "tibetan", "tl": "tagalog", "mg": "malagasy",
    "as": "assamese", "tt": "tatar", "haw": "hawaiian", "ln": "lingala", "ha": "hausa", "ba": "bashkir",
    "jw": "javanese", "su": "sundanese", "yue": "cantonese",
}  # the 100th (Cantonese) came with large-v3
CODES = {
    "burmese": "my", "valencian": "ca", "flemish": "nl", "haitian": "ht", "letzeburgesch": "lb", "pushto": "ps",
    "panjabi": "pa", "moldavian": "ro", "moldovan": "ro", "sinhalese": "si", "castilian": "es", "mandarin": "zh",
} | {name: code for code, name in NAMES.items()}
# Codes of other standards (ISO 639-2 and -3, older ones), and what languages call themselves.
OTHERS = {
    "iw": "he", "jv": "jw", "nb": "no", "nob": "no", "nno": "nn", "nor": "no", "cmn": "zh", "zho": "zh", "chi": "zh",
    "fil": "tl", "tgl": "tl", "in": "id", "ji": "yi", "mo": "ro", "sh": "sr", "eng": "en", "deu": "de", "ger": "de",
    "spa": "es", "fra": "fr", "fre": "fr", "ita": "it", "por": "pt", "rus": "ru", "jpn": "ja", "kor": "ko", "tur": "tr",
    "pol": "pl", "nld": "nl", "dut": "nl", "swe": "sv", "dan": "da", "fin": "fi", "ell": "el", "gre": "el", "heb": "he",
    "ara": "ar", "hin": "hi", "ukr": "uk", "ces": "cs", "cze": "cs", "hun": "hu", "ron": "ro", "rum": "ro", "vie": "vi",
    "tha": "th", "ind": "id", "cat": "ca", "fas": "fa", "per": "fa", "ben": "bn", "tam": "ta", "urd": "ur", "jav": "jw",
    "filipino": "tl", "farsi": "fa", "bokmål": "no", "bokmal": "no", "norsk": "no", "deutsch": "de", "español": "es",
    "espanol": "es", "français": "fr", "francais": "fr", "italiano": "it", "português": "pt", "portugues": "pt",
    "русский": "ru", "українська": "uk", "polski": "pl", "türkçe": "tr", "turkce": "tr", "nederlands": "nl",
    "svenska": "sv", "dansk": "da", "suomi": "fi", "čeština": "cs", "cestina": "cs", "magyar": "hu", "română": "ro",
    "català": "ca", "bahasa indonesia": "id", "bahasa melayu": "ms", "tiếng việt": "vi", "ελληνικά": "el",
    "עברית": "he", "العربية": "ar", "हिन्दी": "hi", "ไทย": "th", "日本語": "ja", "한국어": "ko",
    "中文": "zh", "汉语": "zh", "普通话": "zh", "粤语": "yue", "粵語": "yue",
}
# fmt: on
DETECT = ("auto", "detect", "none")  # other programs' words for: find out


def code_of(language: str) -> str | None:
    """The code of a language given by a code or a name, in any case and with a region or script ("pt-BR", "zh_TW",
    "Deutsch"); None for "auto", which leaves it to be found. What is none of these comes back as it is.
    """
    plain = language.strip().lower()
    if plain in DETECT:
        return None
    for name in (plain, re.split("[-_]", plain)[0]):
        found = name if name in NAMES else CODES.get(name) or OTHERS.get(name)
        if found is not None:
            return found
    return language


def unknown(language: str, codes) -> str:
    """The message for a language that a vocabulary with these codes lacks, with the nearest that it has."""
    plain, names = language.strip().lower(), {str(NAMES.get(code, code)): str(code) for code in codes}
    near = difflib.get_close_matches(plain, [*names, *codes], n=1, cutoff=0.5)
    code = names.get(near[0], near[0]) if near else None
    hint = f"did you mean {code} ({NAMES.get(code, code)})? " if code else ""
    few = f"{len(codes)} languages, such as {listed(codes[:3])}" if len(codes) > 8 else listed(codes)
    return f"unknown language {language!r}; {hint}this vocabulary has {few}"


def listed(codes) -> str:
    """Codes with their names, for messages."""
    return ", ".join(f"{code} ({NAMES.get(code, code)})" for code in codes)
