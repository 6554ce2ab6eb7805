"""Talks that nobody held: mixtures as EEND makes them, and conversations with the rhythm of real ones.

Talk number i of a seed is always the same, whoever makes it and in whatever order.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from scipy.signal import fftconvolve

from moejax.audio.constants import SAMPLE_RATE
from moejax.diarize.rhythm import Rhythm
from moejax.diarize.turns import Turn, merged
from moejax.diarize.voices import Speaking, Voices, channel, room
from moejax.errors import BadValue
from moejax.speech.background import background

LOUDNESS = 0.05  # root mean square of a speaker at 0 dB
LEAD = 15.0  # seconds of a conversation before what is heard of it: it does not begin with its first word


@dataclasses.dataclass(frozen=True)
class Sound:
    """What a talk sounds like. `level`: greatest difference of a speaker's loudness, dB; `reverberant`: share of the
    speakers in a room; `noises`: signal-to-noise ratios in dB, of which one is drawn, () for none; `colour`: greatest
    gain of the one microphone at an octave, dB; `telephone`: share of the talks that come through one.
    """

    level: float = 6.0
    reverberant: float = 0.5
    noises: tuple[float, ...] = (10.0, 15.0, 20.0, 25.0)
    colour: float = 0.0
    telephone: float = 0.0


@dataclasses.dataclass(frozen=True)
class Talk:
    """Samples [S] at 16 kHz, when who speaks in them, and the group that its speakers are of."""

    wave_S: np.ndarray
    turns: list[Turn]
    group: str = ""

    @property
    def seconds(self) -> float:
        return len(self.wave_S) / SAMPLE_RATE


def mixture(
    voices: Voices,
    seed: int,
    index: int,
    speakers: int,
    beta: float,
    utterances: tuple[int, int] = (10, 20),
    sound: Sound | None = None,
) -> Talk:
    """EEND's: everybody says 10 to 20 utterances, silences between his own last `beta` seconds in the mean, and nobody
    heeds the others (Fujita et al. 2019, random_mixture.py). Larger `beta`: less overlap.
    """
    rng = np.random.default_rng([seed, index])
    chosen = voices.choose(rng, speakers)
    placed = []
    for speaker in chosen:
        at, speaking = 0.0, Speaking(voices, speaker, rng)
        for _ in range(int(rng.integers(utterances[0], utterances[1] + 1))):
            at += rng.exponential(beta)
            wave_S, spans = speaking.utterance()
            placed.append((speaker, at, wave_S, spans))
            at += len(wave_S) / SAMPLE_RATE
    end = max(at + len(wave_S) / SAMPLE_RATE for _, at, wave_S, _ in placed)
    return _heard(rng, voices, placed, 0.0, end, sound or Sound())


def conversation(
    voices: Voices,
    seed: int,
    index: int,
    speakers: Sequence[int],
    seconds: float,
    rhythm: Rhythm,
    sound: Sound | None = None,
) -> Talk:
    """`seconds` out of a talk of as many speakers as one of `speakers`, turn by turn in this rhythm."""
    if seconds <= 0:
        raise BadValue(f"a talk of {seconds:g} seconds; it takes more than 0")
    rng = np.random.default_rng([seed, index])
    chosen = voices.choose(rng, int(rng.choice(list(speakers))))
    speaking = {speaker: Speaking(voices, speaker, rng) for speaker in chosen}
    placed, speaker, last_start, last_end = [], chosen[0], 0.0, 0.0
    while last_end < LEAD + seconds:
        length = max(rhythm.draw(rng, "turn"), 0.2)
        if not placed:
            start = 0.0
        elif len(chosen) == 1 or rng.random() < rhythm.same:
            start = last_end + rhythm.draw(rng, "same_pause")
        else:
            others = [name for name in chosen if name != speaker]
            speaker = others[int(rng.integers(len(others)))]
            if rng.random() < rhythm.overlapping:
                start = max(last_end - rhythm.draw(rng, "overlap"), last_start)
            else:
                start = last_end + rhythm.draw(rng, "other_pause")
        start = max([start, *(at + len(wave_S) / SAMPLE_RATE for who, at, wave_S, _ in placed if who == speaker)])
        wave_S, spans = speaking[speaker].piece(length)
        placed.append((speaker, start, wave_S, spans))
        if start + length >= last_end:
            last_start, last_end = start, start + length
        else:  # a word within somebody's turn: he goes on
            speaker = max(placed, key=lambda one: one[1] + len(one[2]))[0]
    return _heard(rng, voices, placed, LEAD, LEAD + seconds, sound or Sound())


def _heard(rng, voices: Voices, placed, begin: float, end: float, sound: Sound) -> Talk:
    """The sum of what is placed [(speaker, seconds, samples, spans)], between two times."""
    first, size = round(begin * SAMPLE_RATE), round((end - begin) * SAMPLE_RATE)
    total_S, turns = np.zeros(size, np.float32), []
    for speaker in dict.fromkeys(speaker for speaker, *_ in placed):
        own_S = np.zeros(size, np.float32)
        for at, wave_S, spans in (rest for who, *rest in placed if who == speaker):
            start = round(at * SAMPLE_RATE) - first
            inside = slice(max(start, 0), max(min(start + len(wave_S), size), 0))
            own_S[inside] += wave_S[inside.start - start : max(inside.stop - start, inside.start - start)]
            turns += [Turn(max(at + a, begin) - begin, min(at + b, end) - begin, speaker) for a, b in spans]
        gain, reverberant = rng.uniform(-sound.level, sound.level), rng.random() < sound.reverberant
        response_S = room(rng) if reverberant else None
        loud = np.sqrt(np.square(own_S[own_S != 0]).mean()) if own_S.any() else 0.0
        if loud > 0:
            own_S *= np.float32(LOUDNESS / loud * 10 ** (gain / 20))
            total_S += own_S if response_S is None else fftconvolve(own_S, response_S)[:size].astype(np.float32)
    if sound.noises:
        kind, ratio = ("white", "pink", "brown")[int(rng.integers(3))], float(rng.choice(sound.noises))
        total_S += background(rng, size, kind, LOUDNESS * 10 ** (-ratio / 20))
    if sound.colour or sound.telephone:
        response_S = channel(rng, sound.colour, bool(rng.random() < sound.telephone))
        total_S = fftconvolve(total_S, response_S, mode="same").astype(np.float32)
    peak = np.abs(total_S).max(initial=0.0)
    total_S = total_S / np.float32(peak) if peak > 1.0 else total_S
    turns = merged(turn for turn in turns if turn.end - turn.start > 0)
    return Talk(total_S, turns, voices.group.get(turns[0].speaker, "") if turns else "")


@dataclasses.dataclass(frozen=True)
class Card:
    """What talks are like: shares of their time in which nobody, and several speak; seconds of a turn (mean, median);
    how many talks have how many speakers.
    """

    talks: int
    hours: float
    silent: float
    overlapped: float
    overlapped_of_speech: float
    turns: int
    mean_turn: float
    median_turn: float
    speakers: dict[int, int]

    def line(self) -> str:
        """For the log."""
        shown = ", ".join(f"{count} with {number}" for number, count in sorted(self.speakers.items()))
        return (
            f"{self.talks} talks, {self.hours:.2f} h, {100 * self.silent:.0f} % silent, overlap"
            f" {100 * self.overlapped_of_speech:.0f} % of the speech, {self.turns} turns of {self.median_turn:.1f} s in"
            f" the median; speakers: {shown}"
        )


def card(talks: Sequence[tuple[Sequence[Turn], float]]) -> Card:
    """Of [(turns, seconds)]."""
    silent = several = spoken = total = 0.0
    lengths, speakers = [], {}
    for turns, seconds in talks:
        turns = merged(turns)
        edges = np.unique([0.0, seconds, *(time for turn in turns for time in turn[:2])])
        middle_I, length_I = (edges[1:] + edges[:-1]) / 2, np.diff(edges)
        many_I = sum(((middle_I > a) & (middle_I < b)).astype(int) for a, b, _ in turns) + np.zeros(len(middle_I), int)
        silent += length_I[many_I == 0].sum()
        several += length_I[many_I > 1].sum()
        spoken += length_I[many_I > 0].sum()
        total += seconds
        lengths += [turn.end - turn.start for turn in turns]
        number = len({turn.speaker for turn in turns})
        speakers[number] = speakers.get(number, 0) + 1
    total = max(total, 1e-9)
    return Card(
        talks=len(talks),
        hours=round(total / 3600, 3),
        silent=round(float(silent / total), 4),
        overlapped=round(float(several / total), 4),
        overlapped_of_speech=round(float(several / max(spoken, 1e-9)), 4),
        turns=len(lengths),
        mean_turn=round(float(np.mean(lengths)), 3) if lengths else 0.0,
        median_turn=round(float(np.median(lengths)), 3) if lengths else 0.0,
        speakers=dict(sorted(speakers.items())),
    )
