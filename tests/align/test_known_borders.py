"""Borders of a head on published tiny.en, on speech whose times espeak-ng tells: opt-in, a minute.

MOEJAX_TEST_WEIGHTS=WEIGHTS pytest -n 0 tests/align/test_known_borders.py -s
"""

import contextlib
import os

import numpy as np
import pytest
import real_speech
import tiny_job
from ml_collections import ConfigDict

import moejax
from moejax.align import files, placing
from moejax.audio.constants import SAMPLE_RATE
from moejax.score import borders
from moejax.speech import grammar, timed

pytestmark = pytest.mark.skipif(not os.environ.get("MOEJAX_TEST_WEIGHTS"), reason="MOEJAX_TEST_WEIGHTS")
KNOWN = ("en-us", "en-us+f2", "en-gb-x-rp+m3", "en-us+m7", "en-gb-scotland+f4")
NEW = ("en-us+f3", "en-gb-x-rp+m4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """corpus/ and test/ of synthesised sentences, none in both, and W with a head of the former."""
    place, weights = tmp_path_factory.mktemp("borders"), real_speech.weights("tiny.en")
    sentences = [english for english, _ in grammar.sample(300, 3)]
    assert len(set(sentences)) == 300
    # Several in a recording: a window costs the same however much is said in it
    texts = [", ".join(sentences[at : at + 4]) for at in range(0, 300, 4)]
    timed.write(texts[:63], place / "corpus", KNOWN)
    timed.write(texts[63:], place / "test", NEW)
    rows = [(f"{n:05d}.wav", text, KNOWN[n % len(KNOWN)]) for n, text in enumerate(texts[:63])]
    tiny_job.write_table(place / "corpus", rows, columns=("file", "text", "speaker"))
    config = ConfigDict(
        dict(
            name="borders",
            data=dict(source="folder", root=str(place / "corpus"), split="per_speaker"),
            model=dict(pretrained=str(weights), times=0.6),
            ctc=dict(steps=250, batch_size=16),
        )
    )
    with contextlib.chdir(place), tiny_job.quick(), real_speech.optimised():
        moejax.run(config, "W", quiet=True, stages=("ctc",))
    return place


def test_borders_are_near_and_move_with_the_sound(folder):
    found, even, moved = [], [], []
    with contextlib.chdir(folder), real_speech.optimised():
        placer = placing.opened("W")
        for path in sorted((folder / "test").glob("*.wav")):
            audio_S, true = placer.recognizer.read(path), files.reference(path.with_suffix(".ctm"))
            text = path.with_suffix(".txt").read_text()
            ours = placing.borders(placer(audio_S, text))
            later = placing.borders(placer(np.pad(audio_S, (SAMPLE_RATE // 2, 0)), text))
            found.append(borders.compare(ours, true))
            even.append(
                borders.compare(borders.evenly([word for word, _, _ in true], len(audio_S) / SAMPLE_RATE), true)
            )
            moved += [
                b - a for one, other in zip(ours, later, strict=True) for a, b in zip(one[1:], other[1:], strict=True)
            ]
    ours, evenly = borders.pooled(found).row(), borders.pooled(even).row()
    print(f"\n{ours}\n{evenly}\nmoved by {np.quantile(moved, [0, 0.05, 0.5, 0.95, 1])}")
    assert ours["words"] > 200 and ours["missed"] == 0
    assert ours["median_ms"] <= 30 and evenly["median_ms"] >= 3 * ours["median_ms"]
    assert np.mean(np.abs(np.array(moved) - 0.5) <= 0.0201) > 0.95
