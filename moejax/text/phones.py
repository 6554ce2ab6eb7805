"""How a word sounds, as espeak-ng reads it: phones in IPA, of any language that it has a voice for."""

from __future__ import annotations

import atexit
import functools
import importlib.util
import threading

from moejax.errors import NotInstalled
from moejax.speech import espeak
from moejax.speech.render import Voicebox

VOICES = {"en": "en-us", "zh": "cmn"}  # of languages that espeak-ng calls otherwise
# TIMIT's phones (Garofolo et al. 1993), each with what espeak-ng's American voice calls it behind it
_TIMIT = """
    iy iː ih ɪ eh ɛ ae a aa ɑː ah ʌ ao ɔː uh ʊ uw uː ux uː er ɜː axr ɚ ax ə ix ɪ ey eɪ ay aɪ oy ɔɪ aw aʊ ow oʊ
    dx ɾ q ʔ dh ð th θ sh ʃ zh ʒ ch tʃ jh dʒ hh h hv h ng ŋ eng ŋ em m en n el l nx n r ɹ y j g ɡ
""".split()
TIMIT: dict[str, str] = dict(zip(_TIMIT[::2], _TIMIT[1::2], strict=True))  # closures belong to their bursts
PAUSES = ("h#", "pau", "epi")
_ONE = threading.Lock()  # a question and its answer go through one pipe


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
    with _ONE:
        (found,) = _box().phones([word], voice)
    return tuple(bare for name in found if (bare := name.translate(espeak.STRESS)))


def of_timit(name: str) -> str:
    """TIMIT's name of a phone as IPA; "" for a pause, and for a closure, whose time is its burst's."""
    if name in PAUSES or name.endswith("cl"):
        return ""
    return TIMIT.get(name, name)
