"""Speech of single speakers, which talks are made of: pieces of a wanted length, and when something is said in them."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Hashable, Mapping, Sequence

import numpy as np
from scipy.signal import firwin2

from moejax.audio.constants import SAMPLE_RATE
from moejax.audio.read import frame_levels
from moejax.errors import BadValue

FRAME = SAMPLE_RATE // 50  # samples of what levels are taken of
BELOW_LOUD = 30.0  # dB under the loud frames of a recording: silence
PAUSE = 0.3  # seconds; what is shorter belongs to the turn
EDGE = 0.05  # seconds that are left at either end of what is said

Spans = list[tuple[float, float]]  # seconds


@dataclasses.dataclass(frozen=True)
class Voices:
    """Utterances (keys) of each speaker, and how one is read: float samples [S] at 16 kHz. `group`: speakers of one
    talk share its value, so that a microphone does not tell them apart.
    """

    utterances: Mapping[str, Sequence[Hashable]]
    read: Callable[[Hashable], np.ndarray]
    group: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if empty := [speaker for speaker, keys in self.utterances.items() if not len(keys)]:
            raise BadValue(f"speaker {empty[0]!r} has no utterance")

    def groups(self) -> dict[str, list[str]]:
        """{value: its speakers, sorted}."""
        found: dict[str, list[str]] = {}
        for speaker in sorted(self.utterances):
            found.setdefault(self.group.get(speaker, ""), []).append(speaker)
        return found

    def choose(self, rng: np.random.Generator, count: int) -> list[str]:
        """Speakers of one group that has so many; groups count by their speakers. Errors: BadValue where none has."""
        groups = {name: members for name, members in self.groups().items() if len(members) >= count}
        if not groups:
            most = max(map(len, self.groups().values()), default=0)
            raise BadValue(f"a talk of {count} speakers needs as many; there are {most} to choose from")
        sizes = np.array([len(members) for members in groups.values()], float)
        members = list(groups.values())[int(rng.choice(len(sizes), p=sizes / sizes.sum()))]
        return [members[place] for place in rng.permutation(len(members))[:count]]

    def said(self, key: Hashable) -> tuple[np.ndarray, Spans]:
        """(samples without the silence at either end, when something is said in them)."""
        wave_S = np.asarray(self.read(key), np.float32)
        spans = spoken(wave_S)
        if not spans:
            return np.zeros(0, np.float32), []
        start = max(spans[0][0] - EDGE, 0.0)
        wave_S = wave_S[round(start * SAMPLE_RATE) : round((spans[-1][1] + EDGE) * SAMPLE_RATE)]
        return wave_S, [(a - start, b - start) for a, b in spans]


def spoken(wave_S: np.ndarray, pause: float = PAUSE) -> Spans:
    """When something is said in a recording of one speaker, by its level; shorter pauses are bridged."""
    levels_N = frame_levels(wave_S, SAMPLE_RATE)
    if not len(levels_N) or (loud := np.sort(levels_N)[-max(len(levels_N) // 10, 1)]) < -70.0:
        return []
    over_N = levels_N > loud - BELOW_LOUD
    edges = np.flatnonzero(np.diff(np.concatenate([[0], over_N.astype(np.int8), [0]]))).reshape(-1, 2)
    found: Spans = []
    for start, end in (edges * FRAME / SAMPLE_RATE).tolist():
        if found and start - found[-1][1] < pause:
            found[-1] = (found[-1][0], end)
        elif end - start > 0.03:  # a click of one frame is nothing that is said
            found.append((start, end))
    return [(start, min(end, len(wave_S) / SAMPLE_RATE)) for start, end in found]


class Speaking:
    """One speaker in one talk: goes through his utterances in a drawn order, round and round."""

    def __init__(self, voices: Voices, speaker: str, rng: np.random.Generator):
        keys = voices.utterances[speaker]
        self._keys = [keys[place] for place in rng.permutation(len(keys))]
        self._voices, self._at, self._left = voices, 0, (np.zeros(0, np.float32), [])

    def utterance(self) -> tuple[np.ndarray, Spans]:
        """The next one, whole. Errors: BadValue where nothing can be heard in any."""
        for _ in self._keys:
            key = self._keys[self._at % len(self._keys)]
            self._at += 1
            wave_S, spans = self._voices.said(key)
            if spans:
                return wave_S, spans
        raise BadValue(f"nothing can be heard in the recordings of {len(self._keys)} utterances of one speaker")

    def piece(self, seconds: float) -> tuple[np.ndarray, Spans]:
        """What he says in so many seconds: the rest of the last utterance, then others behind it."""
        waves, spans, length = [], [], 0.0
        while length < seconds:
            wave_S, said = self._left if len(self._left[0]) else self.utterance()
            take = min(len(wave_S), max(round((seconds - length) * SAMPLE_RATE), 1))
            cut = take / SAMPLE_RATE
            waves.append(wave_S[:take])
            spans += [(a + length, min(b, cut) + length) for a, b in said if a < cut]
            self._left = wave_S[take:], [(max(a, cut) - cut, b - cut) for a, b in said if b > cut]
            length += cut
        return np.concatenate(waves), bridged(spans)


def bridged(spans: Spans, pause: float = PAUSE) -> Spans:
    """Spans in order, those joined between which the pause is short."""
    found: Spans = []
    for start, end in spans:
        if found and start - found[-1][1] < pause:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


@functools.cache
def _tail(size: int) -> np.ndarray:
    return np.exp(-np.arange(size, dtype=np.float32) / max(size, 1) * np.float32(np.log(1e3)))


def room(rng: np.random.Generator) -> np.ndarray:
    """An impulse response: the direct sound and noise that falls by 60 dB within 0.15 to 0.6 s, 0 to 12 dB under it.

    It stands where measured responses are not at hand (EEND takes the OpenSLR collection).
    """
    size = round(rng.uniform(0.15, 0.6) * SAMPLE_RATE)
    tail_S = rng.standard_normal(size).astype(np.float32) * _tail(size)
    tail_S[: SAMPLE_RATE // 500] = 0.0
    tail_S *= np.float32(10 ** (-rng.uniform(0, 12) / 20) / np.sqrt(np.square(tail_S).sum()))
    tail_S[0] = 1.0
    return tail_S


def channel(rng: np.random.Generator, colour: float, telephone: bool) -> np.ndarray:
    """A microphone's linear-phase response [257]: at every octave a gain drawn within `colour` decibels either way; a
    telephone's passes 300 to 3400 Hz (ITU-T G.712) and next to nothing else.
    """
    nyquist = SAMPLE_RATE / 2
    at_F = np.concatenate([[0.0], nyquist / 2.0 ** np.arange(6, -1, -1)])
    gain_F = rng.uniform(-colour, colour, len(at_F))
    fine_F = np.linspace(0, nyquist, 161)
    fine_gain_F = np.interp(fine_F, at_F, gain_F)
    if telephone:
        outside_F = (fine_F < 300) | (fine_F > 3400)
        fine_gain_F = np.where(outside_F, -50.0, fine_gain_F)
    return np.asarray(firwin2(257, fine_F / nyquist, 10 ** (fine_gain_F / 20)), np.float32)
