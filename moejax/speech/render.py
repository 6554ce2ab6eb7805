"""Speech as data: a `SpeechItem` says what is spoken and how, `render` makes its samples.

espeak-ng speaks in a process of its own (`moejax.speech.espeak`); this side changes the sounds (`phonology`), the voice
and the microphone (`atypical`). The samples depend on the item alone: not on the worker, the order, or the
neighbours.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib.metadata
import io
import itertools
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from moejax.audio.constants import SAMPLE_RATE
from moejax.errors import BadValue, Failed, NotInstalled, Refused
from moejax.runtime.files import replacing
from moejax.speech import atypical, espeak, phonology

RECIPE = 1  # part of every digest: raise it when the same item would sound different
_CHUNK = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeechItem:
    """One utterance to be spoken. Two equal items are the same samples.

    voice, variant: espeak-ng's; rate_wpm: words per minute; pitch, range: 0 to 99 (50: the voice's own; range 0:
    monotone); gap_ms: extra silence between words; processes: names in `phonology`, in order (an accent's name also
    sets the voice); tract: 1 / vocal-tract length, relative (1.1: a tenth shorter); breath, slur_s, tremor_hz,
    tremor_depth: see `atypical`; microphone: a number that stands for one microphone's colour; seed: noise, tremor
    phase and pauses of this utterance.
    """

    text: str
    voice: str = "en-us"
    variant: str = ""
    rate_wpm: int = 175
    pitch: int = 50
    range: int = 50
    gap_ms: int = 0
    processes: tuple[str, ...] = ()
    tract: float = 1.0
    breath: float = 0.0
    slur_s: float = 0.0
    tremor_hz: float = 0.0
    tremor_depth: float = 0.0
    microphone: int = 0
    band_hz: tuple[float, float] = (60.0, 7600.0)
    reverb_s: float = 0.0
    level_db: float = -23.0
    snr_db: float = 40.0
    noise_color: float = 0.9
    seed: int = 0

    @property
    def spoken_voice(self) -> str:
        """The espeak-ng voice that speaks: the accent's language where there is one, else `voice`, with the variant."""
        foreign = [phonology.ACCENTS[name][0] for name in self.processes if name in phonology.ACCENTS]
        return (foreign or [self.voice])[-1] + (f"+{self.variant}" if self.variant else "")


@functools.cache
def _versions() -> str:
    try:
        return f"{RECIPE} {importlib.metadata.version('espeakng-loader')}"
    except importlib.metadata.PackageNotFoundError:
        raise NotInstalled(espeak.MISSING) from None


def digest(item: SpeechItem) -> str:
    """24 hexadecimal digits that name the item's audio: text, every parameter, recipe and espeak-ng's version."""
    fields = json.dumps(dataclasses.asdict(item), sort_keys=True)
    return hashlib.sha256(f"{_versions()} {fields}".encode()).hexdigest()[:24]


def spelled(text: str) -> str:
    """Text as espeak-ng must get it: lower case, since capitals may be spelled out, and letters as letters.

    "A" is the letter where it stands alone or next to another single letter ("A P T"), otherwise the article.
    """
    words = text.lower().split()
    single = [len(word) == 1 and word.isalpha() for word in words]
    letters = [
        word == "a" and (len(words) == 1 or (k > 0 and single[k - 1]) or (k + 1 < len(words) and single[k + 1]))
        for k, word in enumerate(words)
    ]
    return " ".join("[['eI]]" if letter else word for word, letter in zip(words, letters, strict=True))


class Voicebox:
    """The espeak-ng process, started on first use; a context manager that ends it."""

    def __init__(self, *arguments: str):
        command = [sys.executable, "-m", "moejax.speech.espeak", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment())
        assert self._process.stdin is not None and self._process.stdout is not None  # pipes, as asked for
        self._to, self._from = self._process.stdin, self._process.stdout
        self._phonemes: dict[str, list[list[str]]] = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._to.close()
        self._from.close()
        self._process.wait()

    def _ask(self, request: dict):
        try:
            self._to.write(json.dumps(request).encode() + b"\n")
            self._to.flush()
        except BrokenPipeError:
            raise Failed(f"espeak-ng ended with status {self._process.wait()} before a request") from None
        line = self._from.readline()
        if not line:
            raise Failed(f"espeak-ng ended with status {self._process.wait()} during a request")
        answer = json.loads(line)
        if isinstance(answer, dict) and "error" in answer:
            raise BadValue(answer["error"])
        return answer

    def _read(self, size: int) -> bytes:
        data = self._from.read(size)
        if len(data) != size:
            raise Failed(f"espeak-ng ended with status {self._process.wait()} inside an utterance")
        return data

    def phonemes(self, texts: Sequence[str]) -> list[list[list[str]]]:
        """American English phonemes of each word of each text; asked for once per text."""
        new = sorted({text for text in texts if text not in self._phonemes})
        if new:
            answer = self._ask({"phonemes": new, "voice": "en-us"})
            self._phonemes.update(zip(new, answer, strict=True))
        return [self._phonemes[text] for text in texts]

    def phones(self, texts: Sequence[str], voice: str) -> list[list[str]]:
        """IPA of each text as a voice reads it, its words joined, stress marks kept. Errors: BadValue for a voice that
        there is not.
        """
        answer = self._ask({"phonemes": list(texts), "voice": voice, "ipa": True})
        return [[name for word in words for name in word] for words in answer]

    def speak(self, items: Sequence[SpeechItem]) -> Iterator[np.ndarray]:
        """Plain samples_S (float32, espeak.RATE) of items that share one `spoken_voice`, in order."""
        speak, texts = [], [spelled(item.text) for item in items]
        self.phonemes([text for item, text in zip(items, texts, strict=True) if item.processes])
        for item, text in zip(items, texts, strict=True):
            if item.processes:
                text = phonology.markup(phonology.apply(self._phonemes[text], item.processes))
            # resampling by `tract` speeds the speech up as well, so ask for it that much slower
            speak.append(
                {
                    "text": text,
                    "rate": max(80, min(450, round(item.rate_wpm / item.tract))),
                    "pitch": item.pitch,
                    "range": item.range,
                    "gap": item.gap_ms // 10,
                    "seed": item.seed % 2**31,
                }
            )
        self._ask({"speak": speak, "voice": items[0].spoken_voice})
        for item in items:
            (size,) = struct.unpack("<I", self._read(4))
            if size in (0, espeak._FAILED):
                raise Failed(f"espeak-ng said nothing for {item.text!r} in voice {item.spoken_voice}")
            yield np.frombuffer(self._read(size), "<i2").astype(np.float32) / 32768


def environment() -> dict[str, str]:
    """The child finds moejax where this process found it, installed or not."""
    root = str(Path(__file__).parents[2])
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": root + (os.pathsep + path if path else "")}


def render(item: SpeechItem, spoken_S: np.ndarray) -> np.ndarray:
    """The finished samples_S (16 kHz) of what espeak-ng spoke (at `espeak.RATE`)."""
    rng = np.random.default_rng(int(digest(item)[:15], 16))
    samples_S = atypical.trim(soxr.resample(spoken_S, espeak.RATE * item.tract, SAMPLE_RATE, quality="MQ"))
    if item.slur_s > 0:
        samples_S = atypical.slur(samples_S, item.slur_s)
    if item.breath > 0:
        samples_S = atypical.breathe(samples_S, item.breath, rng)
    if item.tremor_depth > 0:
        samples_S = atypical.tremble(samples_S, item.tremor_hz, item.tremor_depth, rng)
    around = rng.uniform(0.06, 0.22, 2)
    samples_S = np.pad(samples_S, [int(seconds * SAMPLE_RATE) for seconds in around])
    response_S = atypical.room(item.microphone, *item.band_hz, item.reverb_s)
    return atypical.record(samples_S, response_S, item.level_db, item.snr_db, item.noise_color, rng)


def _write(path: str, samples_S: np.ndarray) -> None:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples_S, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    with replacing(path, sync=False) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def perform(jobs: Sequence[tuple[SpeechItem, str]]) -> Iterator[str]:
    """Speak, render and write each (item, path), grouped by voice; yields the paths as they are finished."""
    with Voicebox() as voicebox:
        for _, group in itertools.groupby(jobs, key=lambda job: job[0].spoken_voice):
            while chunk := list(itertools.islice(group, _CHUNK)):
                for (item, path), spoken_S in zip(chunk, voicebox.speak([item for item, _ in chunk]), strict=True):
                    _write(path, render(item, spoken_S))
                    yield path


def main() -> None:
    """Worker: [[item, path], ...] as JSON from standard input; a line per file made, or {"error", "kind"}."""
    jobs = []
    for given, path in json.load(sys.stdin):
        fields: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in given.items()}
        jobs.append((SpeechItem(**fields), path))
    try:
        for path in perform(jobs):
            print(json.dumps(path), flush=True)
    except (Refused, OSError) as error:  # a bug leaves its traceback on stderr
        kind = next((kind.__name__ for kind in (ValueError, OSError) if isinstance(error, kind)), "")
        print(json.dumps({"kind": kind, "error": str(error)}), flush=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
