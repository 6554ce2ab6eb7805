"""Talks that nobody held: the same by their number, labelled where something sounds, overlapping as they should."""

import dataclasses

import numpy as np
import pytest

from moejax.diarize import rhythm, simulate
from moejax.diarize.rhythm import MEETING
from moejax.diarize.turns import Turn, write_rttm
from moejax.diarize.voices import Speaking, Voices, channel, spoken
from moejax.errors import BadValue, NotThere

RATE = 16000
DRY = simulate.Sound(level=0.0, reverberant=0.0, noises=())


def tone(key):
    """Half a second of nothing, two of a speaker's own tone, nothing: his name is its height."""
    speaker, number = key
    time = np.arange(round((1.5 + 0.25 * number) * RATE)) / RATE
    silence = np.zeros(RATE // 2)
    return np.concatenate([silence, 0.3 * np.sin(2 * np.pi * int(speaker[1:]) * time), silence]).astype(np.float32)


VOICES = Voices({f"s{hertz}": [(f"s{hertz}", n) for n in range(4)] for hertz in (200, 400, 800, 1600)}, tone)


def talks(count, **changes):
    asked = {"voices": VOICES, "seed": 0, "speakers": (2, 3), "seconds": 30.0, "rhythm": MEETING, "sound": DRY}
    return [simulate.conversation(index=index, **{**asked, **changes}) for index in range(count)]


def cards(found):
    return simulate.card([(talk.turns, talk.seconds) for talk in found])


def test_a_talk_is_its_number_s_and_others_are_others():
    first, again = talks(3), [simulate.conversation(VOICES, 0, i, (2, 3), 30.0, MEETING, DRY) for i in (2, 1, 0)]
    for one, other in zip(first, again[::-1], strict=True):
        assert one.turns == other.turns and (one.wave_S == other.wave_S).all()
    assert first[0].turns != first[1].turns and first[0].turns != talks(1, seed=1)[0].turns
    assert all(talk.seconds == 30.0 for talk in first)
    mixed = [simulate.mixture(VOICES, 0, i, 2, 2.0) for i in (0, 0, 1)]
    assert (mixed[0].wave_S == mixed[1].wave_S).all() and mixed[0].turns != mixed[2].turns


@pytest.mark.parametrize("make", ["conversation", "mixture"])
def test_who_is_labelled_is_who_sounds(make):
    """Each speaker's tone is there in his turns and nowhere else."""
    talk = talks(1, speakers=(3,))[0] if make == "conversation" else simulate.mixture(VOICES, 0, 0, 3, 2.0, sound=DRY)
    time = np.arange(len(talk.wave_S)) / RATE
    for speaker in {turn.speaker for turn in talk.turns}:
        phase = talk.wave_S * np.exp(-2j * np.pi * int(speaker[1:]) * time)
        level_N = np.abs(phase[: len(phase) // 800 * 800].reshape(-1, 800).mean(1))  # of 50 ms
        at_N = (np.arange(len(level_N)) + 0.5) * 0.05
        inside_N, near_N = (
            np.any([(at_N > a + by) & (at_N < b - by) for a, b, who in talk.turns if who == speaker], axis=0)
            for by in (0.06, -0.06)
        )
        # short pauses are bridged, so a few frames within turns are silent; outside nothing is his
        assert (level_N[inside_N] > 0.01).mean() > 0.9 and level_N[~near_N].max(initial=0.0) < 0.005


def test_overlap_lies_in_its_band():
    """Conversations overlap within the band of real talks, or not at all if told so; mixtures the more, the less they
    pause."""
    found = cards(talks(30, speakers=(3, 4)))
    assert 0.05 < found.overlapped_of_speech < 0.30 and 0.02 < found.silent < 0.25
    assert found.talks == 30 and found.hours == 0.25 and set(found.speakers) <= {1, 2, 3, 4}
    mixed = [cards([simulate.mixture(VOICES, 0, i, 2, beta, sound=DRY) for i in range(4)]) for beta in (1.0, 3.0, 9.0)]
    shares = [one.overlapped_of_speech for one in mixed]
    assert shares[0] > shares[1] > shares[2] and 0.25 < shares[0] < 0.6 and shares[2] < 0.2
    quiet = dataclasses.replace(MEETING, overlapping=0.0)
    assert cards(talks(10, rhythm=quiet)).overlapped == 0


def test_a_rhythm_is_measured_and_comes_back(tmp_path):
    held = [[Turn(0, 2, "a"), Turn(1, 1.5, "b"), Turn(2.5, 4, "a"), Turn(5, 6, "b")]]
    found = rhythm.measured(held)
    assert found.turn[0] == 0.5 and found.turn[-1] == 2.0
    assert (found.same, found.overlapping) == (pytest.approx(1 / 3, abs=1e-4), 0.5)
    assert set(found.same_pause) == {0.5} and set(found.other_pause) == {1.0} and set(found.overlap) == {1.0}
    write_rttm(tmp_path / "in" / "x.rttm", {"x": held[0]})
    assert rhythm.of_folder(tmp_path) == found
    again = rhythm.measured([talk.turns for talk in talks(40, speakers=(4,))])
    assert abs(again.overlapping - MEETING.overlapping) < 0.15 and abs(again.same - MEETING.same) < 0.15
    with pytest.raises(NotThere, match="no .rttm file"):
        rhythm.of_folder(tmp_path / "none")
    with pytest.raises(BadValue, match="no talk of these has two turns"):
        rhythm.measured([[Turn(0, 1, "a")]])


def test_what_is_said_is_found_and_pieces_have_their_length():
    assert spoken(np.zeros(RATE, np.float32)) == [] == spoken(np.zeros(0, np.float32))
    ((start, end),) = spoken(tone(("s200", 0)))
    assert (start, end) == (pytest.approx(0.5, abs=0.03), pytest.approx(2.0, abs=0.03))
    speaking = Speaking(VOICES, "s200", np.random.default_rng(0))
    for seconds in (0.2, 5.0, 0.7):
        wave_S, spans = speaking.piece(seconds)
        assert len(wave_S) == round(seconds * RATE) and 0 <= spans[0][0] < spans[-1][1] <= seconds + 1e-6


def test_noise_rooms_and_levels_change_the_sound_alone():
    plain = talks(1)[0]
    noisy = talks(1, sound=simulate.Sound(noises=(10.0,), reverberant=1.0))[0]
    assert noisy.turns == plain.turns and np.abs(noisy.wave_S).max() <= 1
    silent_S = np.ones(len(plain.wave_S), bool)
    for turn in plain.turns:
        silent_S[round(turn.start * RATE) : round(turn.end * RATE)] = False
    level = np.sqrt(
        np.square(talks(1, sound=simulate.Sound(noises=(10.0,), reverberant=0.0))[0].wave_S)[silent_S].mean()
    )
    assert level == pytest.approx(simulate.LOUDNESS * 10**-0.5, rel=0.2)


def test_a_telephone_passes_its_band_and_moves_nothing():
    def decibels(hertz, response_S):
        return 20 * np.log10(np.abs(np.exp(-2j * np.pi * hertz / RATE * np.arange(len(response_S))) @ response_S))

    wire_S = channel(np.random.default_rng(0), 0.0, True)
    assert max(decibels(hertz, wire_S) for hertz in (60, 180, 3700, 6000)) < -15
    assert all(abs(decibels(hertz, wire_S)) < 0.5 for hertz in (500, 1000, 3000))
    coloured = [channel(np.random.default_rng(seed), 6.0, False) for seed in range(4)]
    heard = np.array([[decibels(hertz, response_S) for hertz in (500, 1000, 2000, 4000)] for response_S in coloured])
    assert np.abs(heard).max() < 6.5 and heard.std(0).min() > 1
    dry, wired = (talks(1, sound=dataclasses.replace(DRY, telephone=share))[0] for share in (0.0, 1.0))
    assert wired.turns == dry.turns and len(wired.wave_S) == len(dry.wave_S)
    power_F = [np.abs(np.fft.rfft(talk.wave_S)) for talk in (dry, wired)]
    # the voices are tones, and the lowest does not come through; the others stay where they are
    kept = np.fft.irfft(np.where(np.fft.rfftfreq(len(dry.wave_S), 1 / RATE) > 380, np.fft.rfft(dry.wave_S), 0))
    assert power_F[1].sum() < power_F[0].sum() and np.corrcoef(kept, wired.wave_S[: len(kept)])[0, 1] > 0.95


def test_speakers_of_a_talk_share_their_group_and_too_few_are_refused():
    grouped = dataclasses.replace(VOICES, group={"s200": "x", "s400": "x", "s800": "y", "s1600": "y"})
    for talk in talks(8, voices=grouped, speakers=(2,)):
        assert {grouped.group[turn.speaker] for turn in talk.turns} == {talk.group}
    with pytest.raises(BadValue, match="a talk of 3 speakers needs as many; there are 2 to choose from"):
        talks(1, voices=grouped, speakers=(3,))
    with pytest.raises(BadValue, match="speaker 'a' has no utterance"):
        Voices({"a": []}, tone)
    with pytest.raises(BadValue, match="nothing can be heard"):
        talks(1, voices=Voices({"a": [1], "b": [2]}, lambda _: np.zeros(RATE)), speakers=(2,))
    assert simulate.card([]).talks == 0 and "0 talks" in simulate.card([]).line()
