"""A text placed in a recording: by a head that a workdir learnt (the stage `ctc`), or by the decoder's attention."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from moejax.audio.constants import SAMPLE_RATE, STRIDE
from moejax.decode.alignment import Asked
from moejax.decode.decoder import Window
from moejax.decode.features import Features
from moejax.decode.words import LANGUAGES_WITHOUT_SPACES
from moejax.errors import BadValue, NotThere, UnknownName
from moejax.loading import load
from moejax.recognizer import Recognizer
from moejax.tasks.forced import Forced, Placed
from moejax.text.units import Inventory
from moejax.train.params_file import load_params

METHODS = ("ctc", "attention")
OVERLAP = 3.0  # seconds at either end of a window that the one beside it hears better
LETTERS = Inventory(("",))  # how words are cut where no head knows units
MOST = 2_000_000_000  # frames times places: bytes that the way back through them takes


class Placer:
    """`placer(audio_S, text) -> [Placed]`, words in order with their letters where the head knows them."""

    def __init__(self, recognizer: Recognizer, forced: Forced | None = None, language: str = "en"):
        self.recognizer, self.forced, self.language = recognizer, forced, language

    @property
    def units(self) -> str:
        """What words are made of: letters, phones or pinyin."""
        return (LETTERS if self.forced is None else self.forced.inventory).kind

    def __call__(self, audio_S: np.ndarray, text: str | None = None) -> list[Placed]:
        """Of samples at 16 kHz. Without a text what the recognizer hears is placed.

        Errors: BadValue for a text that is longer than its sound, and for a recording of more than a window where
        attention places it.
        """
        if text is None:
            text = self.recognizer.transcribe(audio_S).text
        inventory = self.forced.inventory if self.forced is not None else LETTERS
        words = inventory.words(text, spaced=self.language not in LANGUAGES_WITHOUT_SPACES)
        if not words:
            return []
        if not len(audio_S):
            raise BadValue("nothing can be heard")
        return self._attended(audio_S, text, words) if self.forced is None else self._forced(audio_S, words)

    def _forced(self, audio_S, words):
        assert self.forced is not None  # asked where there is a head
        logp_TC = self.emitted(audio_S)
        places = 2 * len(self.forced.inventory.encode(words)[0]) + 1
        if len(logp_TC) * places > MOST:
            minutes = len(audio_S) / SAMPLE_RATE / 60
            raise BadValue(f"{minutes:.0f} minutes and {len(words)} words are too much at once; cut the recording")
        return self.forced(logp_TC, words)

    def emitted(self, audio_S: np.ndarray) -> np.ndarray:
        """Log probabilities [T, C] of the head's units in the frames of a recording."""
        assert self.forced is not None
        return np.concatenate([self.forced.emitted(states_BTD)[0] for states_BTD in self._states(audio_S)])

    def _states(self, audio_S) -> Iterator[np.ndarray]:
        """States of the recording, window after window, each cut to what the next one does not hear better."""
        config = self.recognizer.config
        heard = Features(audio_S, n_mels=config.num_mel_bins, hop=config.hop)
        size, margin = STRIDE * config.max_source_positions, round(OVERLAP * SAMPLE_RATE / config.hop / 2) * 2
        frames, at = max(heard.frames, STRIDE), 0
        while at < frames:
            begin = max(at - margin, 0)
            stop = min(begin + size, frames)
            until = stop if stop == frames else stop - margin
            window = Window(heard.slice(begin, stop), heard.audio(begin, stop))
            for encoded in self.recognizer.decoder.encode([window]):
                states_BTD = np.asarray(encoded.states_BTD[:1], np.float32)
                yield states_BTD[:, (at - begin) // STRIDE : -(-(until - begin) // STRIDE)]
            at = until

    def _attended(self, audio_S, text, words):
        config = self.recognizer.config
        heard = Features(audio_S, n_mels=config.num_mel_bins, hop=config.hop)
        size = STRIDE * config.max_source_positions
        if heard.frames > size:
            seconds = size * config.hop / SAMPLE_RATE
            raise BadValue(
                f"a text is placed by attention in {seconds:g} s at most, this is {len(audio_S) / SAMPLE_RATE:.0f} s:"
                " use a workdir with a CTC head (ctc.steps), or moejax transcribe --word_timestamps True"
            )
        window = Window(heard.slice(0, heard.frames), heard.audio(0, heard.frames))
        align, tokenizer = self.recognizer._aligner("transcribe"), self.recognizer.tokenizer
        asked = Asked(tokenizer.encode(" " + " ".join(words)), self.language, heard.frames)
        for encoded in self.recognizer.decoder.encode([window]):
            return [Placed(one.word.strip(), one.start, one.end, one.probability) for one in align(encoded, [asked])[0]]
        return []


def opened(model: str, method: str | None = None, language: str = "en") -> Placer:
    """Of a workdir (by its head where it has one) or of any model (by attention); `method` insists on one.

    Errors: NotThere where a head is asked for and was not trained.
    """
    if method not in (None, *METHODS):
        raise UnknownName(f"unknown method {method!r}; known: {', '.join(METHODS)}")
    file = Path(model) / "ctc" / "params.safetensors"
    head = file.is_file() and method != "attention"
    if method == "ctc" and not head:
        raise NotThere(f"{model} has no CTC head: moejax ctc --config ... --workdir {model} --config.ctc.steps=400")
    # The head learnt from the encoder as it was published, which adapters may have changed
    workdir = (Path(model) / "config.json").is_file() and (Path(model) / "describe").is_dir()
    recognizer = load(model, system="base" if workdir else None)
    if not head:
        return Placer(recognizer, None, language)
    params, meta = load_params(file)
    config = recognizer.config
    forced = Forced(params, meta, config.d_model, STRIDE * config.hop / SAMPLE_RATE)
    return Placer(recognizer, forced, language)


def borders(placed: Sequence[Placed]) -> list[tuple[str, float, float]]:
    """(word, start, end)."""
    return [(one.text, one.start, one.end) for one in placed]
