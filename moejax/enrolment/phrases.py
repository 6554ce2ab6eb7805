"""Which of a speaker's phrases stand in front of a window."""

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
