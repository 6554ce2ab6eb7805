"""When a window's text is withheld because nobody can have said it; every withheld window is counted by reason.

Whisper writes fluent text over silence and noise. The reference has one answer, the no-speech token, which only models
trained with it know. The other guards look at the audio and at the text alone.
"""

import dataclasses

import numpy as np

from moejax.audio.constants import FRAME_SECONDS, SAMPLE_RATE
from moejax.decode.results import Decoding

SILENT = "silent"  # no guard: the recording has nothing at all (silent from end to end, empty, or too short)
REASONS = ("no_speech", "energy", "compression", "length_ratio")
DENSE_LANGUAGES = ("zh", "ja", "yue")  # a character is a syllable or more


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guards:
    """Thresholds of the guards; None switches one off.

    Attributes:
      no_speech: the reference's rule: withheld if the no-speech probability is above this (0.6, its default) ...
      no_speech_logprob: ... unless the text's mean log-probability is above this (-1, its default): a text the model
        is sure of overrules.
      energy_db: a window whose third-loudest 20 ms stay below this, in dB of full scale, is not decoded. -60 dB is the
        noise of a cheap microphone amplifier and 30 dB under quiet speech; one click does not lift a window over it.
      energy_rise_db: nor is a window of at least half a second whose loud frames (95th percentile) are less than this
        above its quiet ones (5th): speech has syllables and pauses, 15 dB and more; white noise and hum have about
        1 dB. 2 dB keeps speech that lies 5 dB under its noise. Music passes: that is the network's to judge.
      compression: withheld if the text's zlib ratio is above this after the whole temperature ladder, unless the
        repetition is in the sound (`repetition`). Running English of a full window stays under 2.0, the ladder tries
        again above 2.4, "Thank you." five times has 2.5 and eight times 4.0.
      characters_per_second: withheld if the text has more per second of the window. The fastest speakers reach about
        30 (400 words a minute); 40 leaves room. Windows count as half a second at least.
      dense_characters_per_second: the same in Chinese, Japanese and Cantonese, where fast speech has 9 or 10.
    """

    no_speech: float | None = 0.6
    no_speech_logprob: float | None = -1.0
    energy_db: float | None = -60.0
    energy_rise_db: float | None = 2.0
    compression: float | None = 3.0
    characters_per_second: float | None = 40.0
    dense_characters_per_second: float | None = 20.0

    @classmethod
    def reference(cls, no_speech: float | None = 0.6, no_speech_logprob: float | None = -1.0) -> "Guards":
        """What openai-whisper does: the no-speech rule only."""
        return cls(
            no_speech=no_speech,
            no_speech_logprob=no_speech_logprob,
            energy_db=None,
            energy_rise_db=None,
            compression=None,
            characters_per_second=None,
            dense_characters_per_second=None,
        )

    def before(self, audio_S) -> str | None:
        """The reason, "energy", why a window [S] cannot hold speech and need not be decoded, or None."""
        levels = frame_levels(audio_S)
        if not len(levels):
            return "energy" if self.energy_db is not None else None
        if self.energy_db is not None:
            third = min(3, len(levels))
            if np.partition(levels, -third)[-third] < self.energy_db:
                return "energy"
        if self.energy_rise_db is not None and len(audio_S) >= SAMPLE_RATE // 2:
            quiet, loud = np.percentile(levels, (5, 95))
            if loud - quiet < self.energy_rise_db:
                return "energy"
        return None

    def after(self, found: Decoding, seconds: float) -> str | None:
        """The reason, of REASONS, why the text of a window of so many seconds is withheld, or None."""
        if self._is_no_speech(found):
            return "no_speech"
        if self.compression is not None and found.compression_ratio > self.compression and not found.steady:
            return "compression"
        dense = found.language in DENSE_LANGUAGES
        most = self.dense_characters_per_second if dense else self.characters_per_second
        if most is not None and len(found.text.strip()) > most * max(seconds, 0.5):
            return "length_ratio"
        return None

    def _is_no_speech(self, found):
        if self.no_speech is None or not found.no_speech_prob > self.no_speech:
            return False
        return self.no_speech_logprob is None or not found.avg_logprob > self.no_speech_logprob


def frame_levels(audio_S) -> np.ndarray:
    """Level of each whole 20 ms of a waveform at 16 kHz in dB of full scale, mean removed; none in shorter audio."""
    size = round(SAMPLE_RATE * FRAME_SECONDS)
    whole = len(audio_S) // size * size
    spread = np.asarray(audio_S[:whole], np.float32).reshape(-1, size).std(axis=1)
    return 20.0 * np.log10(np.maximum(spread, 1e-10))
