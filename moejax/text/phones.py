"""How a word sounds, as espeak-ng reads it: phones in IPA, of any language that it has a voice for."""

from __future__ import annotations

import atexit
import functools
import importlib.util

from moejax.errors import NotInstalled
from moejax.speech import espeak
from moejax.speech.render import Voicebox

VOICES = {"en": "en-us", "zh": "cmn"}  # of languages that espeak-ng calls otherwise
# TIMIT's phones (Garofolo et al. 1993) as espeak-ng's American voice names them; closures belong to their bursts
TIMIT = {
    **{
        "iy": "i\u02d0",
        "ih": "\u026a",
        "eh": "\u025b",
        "ae": "a",
        "aa": "\u0251\u02d0",
        "ah": "\u028c",
        "ao": "\u0254\u02d0",
    },
    **{
        "uh": "\u028a",
        "uw": "u\u02d0",
        "ux": "u\u02d0",
        "er": "\u025c\u02d0",
        "axr": "\u025a",
        "ax": "\u0259",
        "ix": "\u026a",
    },
    **{
        "ey": "e\u026a",
        "ay": "a\u026a",
        "oy": "\u0254\u026a",
        "aw": "a\u028a",
        "ow": "o\u028a",
        "dx": "\u027e",
        "q": "\u0294",
    },
    **{
        "dh": "\u00f0",
        "th": "\u03b8",
        "sh": "\u0283",
        "zh": "\u0292",
        "ch": "t\u0283",
        "jh": "d\u0292",
        "hh": "h",
        "hv": "h",
    },
    **{
        "ng": "\u014b",
        "eng": "\u014b",
        "em": "m",
        "en": "n",
        "el": "l",
        "nx": "n",
        "r": "\u0279",
        "y": "j",
        "g": "\u0261",
    },
}
PAUSES = ("h#", "pau", "epi")


def voice_of(language: str) -> str:
    """espeak-ng's voice of a language by its code."""
    return VOICES.get(language, language)


def of_word(word: str, voice: str) -> list[str]:
    """Its phones, without stress; a number as it is read. Errors: NotInstalled without espeak-ng, BadValue for a voice
    that it has not.
    """
    return list(_read(word, voice))


@functools.cache
def _box() -> Voicebox:
    if importlib.util.find_spec("espeakng_loader") is None:
        raise NotInstalled(espeak.MISSING)
    box = Voicebox()
    atexit.register(box.__exit__)
    return box


@functools.cache
def _read(word: str, voice: str) -> tuple[str, ...]:
    (found,) = _box().phones([word], voice)
    return tuple(bare for name in found if (bare := name.translate(espeak.STRESS)))


def of_timit(name: str) -> str:
    """TIMIT's name of a phone as IPA; "" for a pause, and for a closure, whose time is its burst's."""
    if name in PAUSES or name.endswith("cl"):
        return ""
    return TIMIT.get(name, name)
