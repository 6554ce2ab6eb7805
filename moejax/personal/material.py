"""One person's recordings as training material: encoder states of each window, and what the decoder is to say there."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.audio.constants import SAMPLE_RATE, TIMESTAMP_STEP, WINDOW_SECONDS
from moejax.data.collate import assemble
from moejax.decode.decoder import Window
from moejax.decode.features import Features
from moejax.errors import BadValue
from moejax.recognizer import Recognizer
from moejax.types import Batch

LONGEST = 20.0  # seconds of a recording: phrases, not talks


@dataclasses.dataclass(frozen=True)
class Recording:
    """What was recorded, float32 [S] at 16 kHz, and what was said, as the model is to write it."""

    wave: np.ndarray
    text: str

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.wave) / SAMPLE_RATE


class Material:
    """Recordings heard once by a published model's encoder; `batch` makes training batches of them.

    A recording stands alone in its window, as the recogniser would hear it. Half of its turns its text is taught with
    times (from 0 to its end), half without, so that a model which learns from it keeps both.
    """

    def __init__(self, recognizer: Recognizer, recordings: Sequence[Recording], language: str):
        """Errors: BadValue for a model that does not hear 30 s, and for texts longer than its decoder."""
        config, tokenizer = recognizer.config, recognizer.tokenizer
        if recognizer.samples[-1] < WINDOW_SECONDS * SAMPLE_RATE:
            raise BadValue("a voice is learnt by models that hear 30 s, as published ones do")
        self.recordings, self.eot = list(recordings), tokenizer.eot
        windows = []
        for one in self.recordings:
            heard = Features(one.wave, n_mels=config.num_mel_bins, hop=config.hop)
            windows.append(Window(heard.slice(0, -(-len(one.wave) // config.hop)), one.wave))
        states: dict[int, np.ndarray] = {}
        for encoded in recognizer.decoder.encode(windows):
            states_BTD = np.asarray(encoded.states_BTD)
            states |= {place: states_BTD[row] for row, place in enumerate(encoded.rows)}
        self.states_NTD = np.stack([states[place] for place in range(len(windows))])
        plain, timed = (tokenizer.prefix(language, "transcribe", timestamps=flag) for flag in (False, True))
        begin = tokenizer.timestamp_begin if recognizer.can_time else None
        self.rows, self.given = [], (len(plain), len(timed))
        for one in self.recordings:
            ids = tokenizer.encode(" " + one.text.strip())
            rows = [[*plain, *ids, self.eot]]
            if begin is not None:
                end = begin + min(round(one.seconds / TIMESTAMP_STEP), round(WINDOW_SECONDS / TIMESTAMP_STEP))
                rows.append([*timed, begin, *ids, end, self.eot])
            self.rows.append(rows)
        longest = max(len(row) for rows in self.rows for row in rows)
        if longest > config.max_target_positions:
            raise BadValue(
                f"a text of {longest} tokens; the model's decoder has room for {config.max_target_positions}"
            )
        self.length = -(-longest // 16) * 16

    def batch(self, places: Sequence[int], labels: Sequence[int], timed: Sequence[bool]) -> Batch:
        """Recordings by their places, each for the adapter that its label names."""
        turns = list(zip(places, map(int, timed), strict=True))
        chosen = [self.rows[place][min(flag, len(self.rows[place]) - 1)] for place, flag in turns]
        given = [self.given[min(flag, len(self.rows[place]) - 1)] for place, flag in turns]
        waves = [self.recordings[place].wave[:0] for place in places]
        batch = assemble(waves, chosen, given, samples=0, length=self.length, eot=self.eot)
        samples_B = np.asarray([len(self.recordings[place].wave) for place in places], np.int32)
        return dataclasses.replace(
            batch,
            samples_B=samples_B,
            label_B=np.asarray(labels, np.int32),
            states_BTD=self.states_NTD[np.asarray(places)],
        )
