"""A server around espeak-ng, run as `python -m moejax.speech.espeak`: JSON lines in, phonemes or 16-bit samples out.

espeak-ng is under the GPL, so nothing of moejax links it: this file is a program of its own that talks through pipes
and imports the standard library only. A second reason is repeatability. The library keeps state between utterances
(jitter, phase, random numbers) that neither `espeak_ng_SetRandSeed` nor re-initialising resets, so one sentence
spoken twice differs. Each utterance is therefore spoken in a fork of a process that has set the voice and never
spoken: about 4 ms per utterance, the same samples whatever came before.

Requests, one JSON object per line:
  {"phonemes": [text, ...], "voice": v}    -> one JSON line: [[[phoneme, ...] per word] per text]; with "ipa": true
                                              phonemes in IPA, as phones are named below, else espeak-ng's own names
  {"speak": [utterance, ...], "voice": v}  -> one JSON line; for each utterance a 4-byte little-endian byte count and
                                              as many bytes of mono int16 samples at `RATE`
An utterance is {"text", "rate", "pitch", "range", "gap", "seed"}, the numbers of `Engine.speak`.
Run with the argument `timed`, each utterance's samples are followed by another block: a byte count and a JSON list of
[kind, sample, place, length, name], kind one of `EVENTS`: a word is `length` characters of the text from `place` on
(counted from 1), a phone its name in IPA; "" is a pause.
Text may hold phonemes in [[double brackets]]. The JSON line is {"error": message} when the voice does not exist.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
import tempfile

from moejax.errors import Failed

STRESS = str.maketrans("", "", "\u02c8\u02cc")  # marks of IPA that say how loud, not what
RATE = 22050  # samples per second of every espeak-ng voice
MISSING = "espeakng-loader is not installed, and synthesised speech needs it: pip install moejax[quickstart]"

_SYNCHRONOUS, _DO_NOT_EXIT = 2, 0x8000
_UTF8, _PHONEMES = 0x1, 0x100
_IPA = 0x2  # of the names of phonemes
_PARAMETERS = {"rate": 1, "pitch": 3, "range": 4, "gap": 7}
_LONGEST_PATH = 140  # espeak-ng copies the data path into a buffer of 160 characters
_FAILED = 0xFFFFFFFF
_EVENTS_IN_IPA = 0x1 | 0x2
EVENTS = {1: "word", 5: "end", 7: "phone"}  # espeak_EVENT_TYPE


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # ms
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    ]


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Engine:
    """The library, loaded once; speak() leaves state behind, so call it only in a fork that ends afterwards."""

    def __init__(self, library: str, data: str, timed: bool = False):
        self._lib = ctypes.CDLL(library)
        self._data = data
        self._lib.espeak_TextToPhonemes.restype = ctypes.c_char_p
        self._lib.espeak_ng_SetRandSeed.argtypes = [ctypes.c_long]
        self._chunks: list[bytes] = []
        self.events: list[tuple[str, int, int, int, str]] = []  # of what was spoken, where it is `timed`
        self._callback = _Callback(self._collect)  # kept: the library holds only the address
        options = _DO_NOT_EXIT | (_EVENTS_IN_IPA if timed else 0)
        rate = self._lib.espeak_Initialize(_SYNCHRONOUS, 0, data.encode(), options)
        if rate != RATE:
            raise Failed(f"espeak-ng answered {rate} for its data in {data}, expected {RATE} samples per second")
        self._lib.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples, count, events) -> int:
        if count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        at = 0
        while events and events[at].type:
            one, at = events[at], at + 1
            if kind := EVENTS.get(one.type):
                # Of a word these bytes are a number
                name = one.name.decode("utf-8", "ignore") if kind == "phone" else ""
                self.events.append((kind, one.sample, one.text_position, one.length, name))
        return 0

    def set_voice(self, voice: str) -> str | None:
        """Choose `language` or `language+variant`; returns what is wrong with it, None when it is fine."""
        language, _, variant = voice.partition("+")
        variants = sorted(os.listdir(os.path.join(self._data, "voices", "!v")))
        if variant and variant not in variants:  # espeak-ng itself would fall back to the plain voice in silence
            return f"espeak-ng has no voice variant {variant!r}; it has {', '.join(variants)}"
        if self._lib.espeak_SetVoiceByName(voice.encode()) != 0:
            return f"espeak-ng has no voice {language!r}; English ones are en-us, en-gb-x-rp, en-gb-scotland, en-029"
        return None

    def phonemes(self, text: str, ipa: bool = False) -> list[list[str]]:
        """Phoneme names (espeak-ng's ASCII ones, or IPA; stress marks kept) of each word."""
        rest, words = ctypes.c_char_p(text.encode()), []
        named = ord("|") << 8 | (_IPA if ipa else 0)
        while rest.value is not None:  # one clause per call
            clause = self._lib.espeak_TextToPhonemes(ctypes.byref(rest), _UTF8, named).decode()
            words += [[name for name in word.split("|") if name] for word in clause.split()]
        return words

    def speak(self, text: str, seed: int, **parameters: int) -> bytes:
        """int16 samples at `RATE`. parameters: rate (words/min), pitch, range (0 to 100), gap (10 ms per word)."""
        for name, value in parameters.items():
            self._lib.espeak_SetParameter(_PARAMETERS[name], value, 0)
        self._lib.espeak_ng_SetRandSeed(seed)
        encoded = text.encode()
        self._lib.espeak_Synth(encoded, len(encoded) + 1, 0, 0, 0, _UTF8 | _PHONEMES, None, None)
        return b"".join(self._chunks)


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(1, view) :]


def _in_fork(action) -> bool:
    """Run `action` in a copy of this process; True when it ended well. Nothing it does to the library stays."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        finally:
            os._exit(status)  # no atexit, no flush of the parent's buffers
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def _answer(engine: Engine, request: dict, timed: bool) -> None:
    problem = engine.set_voice(request["voice"])
    if problem:
        return _write(json.dumps({"error": problem}).encode() + b"\n")
    if "phonemes" in request:
        found = [engine.phonemes(text, request.get("ipa", False)) for text in request["phonemes"]]
        return _write(json.dumps(found).encode() + b"\n")
    _write(b"{}\n")
    for utterance in request["speak"]:

        def say(utterance=utterance):
            samples = engine.speak(**utterance)
            events = json.dumps(engine.events).encode() if timed else b""
            _write(struct.pack("<I", len(samples)) + samples + (struct.pack("<I", len(events)) + events) * timed)

        if not _in_fork(say):
            _write(struct.pack("<I", _FAILED))


def main() -> None:
    """Serve requests from standard input until it ends."""
    try:
        import espeakng_loader
    except ImportError:
        sys.exit(MISSING)
    data = espeakng_loader.get_data_path()
    with tempfile.TemporaryDirectory(prefix="espeak") as folder:
        if len(data) > _LONGEST_PATH:
            os.symlink(data, os.path.join(folder, "d"))
            data = os.path.join(folder, "d")
        timed = "timed" in sys.argv[1:]
        engine = Engine(espeakng_loader.get_library_path(), data, timed)
        for line in sys.stdin.buffer:
            request = json.loads(line)
            # the voice is set in a fork as well, so that no earlier voice leaves traces in it
            if not _in_fork(lambda request=request: _answer(engine, request, timed)):
                sys.exit(f"espeak-ng broke on a request for voice {request.get('voice')!r}")


if __name__ == "__main__":
    main()
