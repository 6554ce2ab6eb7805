"""Which of a speaker's phrases stand in front of a window, and how their texts are written."""

from collections.abc import Sequence

import numpy as np

from moejax.audio.constants import SAMPLE_RATE, WINDOW_SECONDS
from moejax.decode.enrolled import LEAST_NEW_SECONDS, PAUSE_SECONDS


def fitting(phrases: Sequence[np.ndarray], count: int, pause: float = PAUSE_SECONDS) -> list[int]:
    """Places of at most `count` phrases [S], 16 kHz, in the order given, that leave a window its least new audio."""
    room, chosen = (WINDOW_SECONDS - LEAST_NEW_SECONDS) * SAMPLE_RATE, []
    for place, phrase in enumerate(phrases):
        size = len(phrase) + (pause + 0.02) * SAMPLE_RATE
        if len(chosen) < count and size <= room:
            chosen.append(place)
            room -= size
    return chosen


def written(text: str) -> str:
    """A text as a published model writes: corpora in capitals or without any mark become a sentence with a full stop.

    Read in capitals, the model goes on in capitals, which it seldom saw.
    """
    text = " ".join(text.split())
    if any(letter.islower() for letter in text) and (any(letter.isupper() for letter in text) or text[-1:] in ".?!"):
        return text
    lower = text.lower()
    sentence = lower[:1].upper() + lower[1:]
    return sentence if sentence[-1:] in ".?!" or not sentence else f"{sentence}."
