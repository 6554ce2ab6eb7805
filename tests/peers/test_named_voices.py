"""Enrolled speakers of speechocean762 in talks of two: who is there is named, who is not is nobody's name.

    MOEJAX_TEST_DIARIZER=WORKDIR MOEJAX_TEST_DATA=DATA pytest tests/peers/test_named_voices.py -s

WORKDIR has a diarizer (moejax diarizer --config configs/diarize.py); speakers that it trained or chose by are left out.
"""

import os

import numpy as np
import pytest
import real_speech

from moejax.audio.constants import SAMPLE_RATE
from moejax.diarize import listening
from moejax.diarize.turns import Turn, read_rttm
from moejax.diarize.voices import spoken

pytestmark = pytest.mark.filterwarnings("default")
SPEAKERS, PHRASES, TURNS = 8, 4, 4


@pytest.fixture(scope="module", autouse=True)
def _optimised():
    with real_speech.optimised():
        yield


def joined(parts):
    """(samples, turns) of [(speaker, samples)], one after the other."""
    waves, turns, at = [], [], 0.0
    for who, wave_S in parts:
        turns += [Turn(at + a, at + b, who) for a, b in spoken(wave_S)]
        waves.append(wave_S)
        at += len(wave_S) / SAMPLE_RATE
    return np.concatenate(waves), turns


def test_wrong_enrolments_name_nobody_and_right_ones_most():
    workdir = os.environ.get("MOEJAX_TEST_DIARIZER") or pytest.skip("MOEJAX_TEST_DIARIZER")
    seen = {
        turn.speaker
        for part in ("train", "dev")
        for turns in read_rttm(f"{workdir}/talks/{part}.rttm").values()
        for turn in turns
    }
    names = sorted({row["speaker"] for row in real_speech.table("speechocean762")[1]})
    names = [name for name in names if not any(one.endswith(name) for one in seen)][:SPEAKERS]
    assert len(names) == SPEAKERS
    clips = {name: [one.audio for one in real_speech.rows("speechocean762", speaker=name)] for name in names}
    diarizer = listening.opened(workdir)
    known = {name: diarizer.voice(clips[name][:PHRASES]) for name in names}
    right = wrong = asked = strangers = 0
    for first, second in zip(names[::2], names[1::2], strict=True):
        rows = [
            (who, wave_S)
            for pair in zip(clips[first][PHRASES:], clips[second][PHRASES:], strict=False)
            for who, wave_S in zip("ab", pair, strict=True)
        ]
        audio_S, turns = joined(rows[: 2 * TURNS])
        others = {name: vector for name, vector in known.items() if name not in (first, second)}
        found = {one.speaker for one in diarizer.named(audio_S, turns, others)}
        strangers += len(found - {"a", "b"})
        named = diarizer.named(audio_S, turns, known)
        said = {true.speaker: one.speaker for true, one in zip(turns, named, strict=True)}
        right += (said["a"] == first) + (said["b"] == second)
        wrong += sum(said[own] not in (own, name) for own, name in (("a", first), ("b", second)))
        asked += 2
    print(
        f"\nalike from {diarizer.voices.alike:.2f} on; of {asked} who are there {right} named rightly, {wrong} wrongly"
    )
    print(f"of {len(names) - 2} who are not there {strangers} named, in {asked // 2} talks")
    assert wrong == 0 and strangers == 0 and right >= asked / 3
