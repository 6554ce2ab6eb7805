"""Speech whose borders are known: espeak-ng says when each word and phone begins while it speaks.

So a labelled corpus of any size can be made: of English for the borders of words (docs/alignment.md), of Mandarin for
sounds and tones (docs/pronunciation.md), whose voice reads numbered pinyin.

    python -m moejax.speech.timed sentences.txt FOLDER --voices en-us,en-us+f3

writes a .wav, its .txt, the .ctm of its words and the .phn of its phones (IPA; samples at 16 kHz) for each line of the
file, the voices in turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import soundfile
import soxr

from moejax.audio.constants import SAMPLE_RATE
from moejax.errors import Failed
from moejax.runtime.files import replacing, write_text
from moejax.speech import espeak
from moejax.speech.render import Voicebox

MANDARIN = "cmn-latn-pinyin"
Border = tuple[str, float, float]  # text, start and end in seconds


@dataclasses.dataclass(frozen=True)
class Spoken:
    """Samples [S] at `espeak.RATE`, and when words and phones (IPA) sound; pauses are neither."""

    samples_S: np.ndarray
    words: list[Border]
    phones: list[Border]


class TimedVoicebox(Voicebox):
    """The espeak-ng process, asked for times as well; a context manager that ends it."""

    def __init__(self):
        super().__init__("timed")

    def timed(self, utterances: Sequence[dict], voice: str) -> Iterator[Spoken]:
        """Each of the utterances, {"text"} and of {"rate", "pitch", "range", "gap", "seed"} what is to differ from
        175, 50, 50, 0 and 0. Errors: BadValue for a voice that there is not; Failed.
        """
        usual = {"rate": 175, "pitch": 50, "range": 50, "gap": 0, "seed": 0}
        self._ask({"speak": [{**usual, **one} for one in utterances], "voice": voice})
        for one in utterances:
            (size,) = struct.unpack("<I", self._read(4))
            if size in (0, espeak._FAILED):
                raise Failed(f"espeak-ng said nothing for {one['text']!r} in voice {voice}")
            samples_S = np.frombuffer(self._read(size), "<i2").astype(np.float32) / 32768
            (size,) = struct.unpack("<I", self._read(4))
            yield _placed(one["text"], samples_S, json.loads(self._read(size)))


def _placed(text: str, samples_S: np.ndarray, events: list) -> Spoken:
    """A phone lasts until the next one, or a pause, begins; a word from its first phone to the end of its last."""
    words: list[Border] = []
    phones: list[Border] = []
    starts = [event[1] / espeak.RATE for event in events] + [len(samples_S) / espeak.RATE]
    open_word = False
    for number, (kind, _, place, length, name) in enumerate(events):
        if kind == "word":
            words.append((_word(text, place - 1, length), starts[number], starts[number]))
            open_word = True
        elif kind == "phone" and name:
            stop = next(
                (starts[k] for k in range(number + 1, len(events)) if events[k][0] in ("phone", "end")), starts[-1]
            )
            phones.append((name, starts[number], stop))
            if words:
                begin = starts[number] if open_word else words[-1][1]
                words[-1] = (words[-1][0], begin, stop)
                open_word = False
    return Spoken(samples_S, words, phones)


def _word(text: str, at: int, length: int) -> str:
    """What was written from `at` on; espeak-ng's words end at an apostrophe and sound to the end of what follows."""
    tail = re.match(r"(?:['’][^\W\d_]+)*", text[at + length :])
    return text[at : at + length] + (tail[0] if tail else "")


def write(texts: Sequence[str], folder: Path | str, voices: Sequence[str], **spoken: int) -> list[Spoken]:
    """Of each text a recording (16 kHz), itself, its words (CTM) and phones (as TIMIT's, in IPA without stress), by
    number; `spoken` as `timed` takes it.
    """
    folder, found = Path(folder), []
    folder.mkdir(parents=True, exist_ok=True)
    with TimedVoicebox() as voicebox:
        for number, text in enumerate(texts):
            name = f"{number:05d}"
            (one,) = voicebox.timed([{"text": text, **spoken}], voices[number % len(voices)])
            audio_S = soxr.resample(one.samples_S, espeak.RATE, SAMPLE_RATE)
            with replacing(folder / f"{name}.wav", sync=False) as partial:
                soundfile.write(partial, audio_S, SAMPLE_RATE, format="WAV", subtype="PCM_16")
            write_text(folder / f"{name}.txt", text + "\n")
            lines = [f"{name} 1 {start:.3f} {end - start:.3f} {word}\n" for word, start, end in one.words]
            write_text(folder / f"{name}.ctm", "".join(lines))
            at = [(round(start * SAMPLE_RATE), round(end * SAMPLE_RATE), phone) for phone, start, end in one.phones]
            lines = [f"{start} {end} {phone.translate(espeak.STRESS)}\n" for start, end, phone in at]
            write_text(folder / f"{name}.phn", "".join(lines))
            found.append(one)
    return found


def main() -> None:
    """The command above."""
    ours = argparse.ArgumentParser(prog="python -m moejax.speech.timed", description=(__doc__ or "").split("\n", 1)[0])
    ours.add_argument("sentences", help="a file of one sentence a line")
    ours.add_argument("folder", help="where the recordings go")
    ours.add_argument("--voices", default="en-us", help="of espeak-ng, with commas")
    given = ours.parse_args()
    lines = Path(given.sentences).read_text(encoding="utf-8").splitlines()
    print(len(write([line for line in lines if line.strip()], given.folder, given.voices.split(","))), "recordings")


if __name__ == "__main__":
    main()
