"""Half a second of quiet in front moves every border by half a second.

Opt-in: MOEJAX_TEST_WEIGHTS, MOEJAX_TEST_DATA, and for a head MOEJAX_TEST_ALIGN, a workdir that `moejax ctc` made of a
published model.
"""

import os

import numpy as np
import pytest
import real_speech

from moejax.align import placing
from moejax.audio.constants import SAMPLE_RATE

SHIFT = 0.5


def moved(placer: placing.Placer, clips) -> np.ndarray:
    """Seconds by which each border of the clips lies later when the quiet stands in front."""
    found = []
    for clip in clips:
        quiet = 1e-4 * np.random.default_rng(0).standard_normal(round(SHIFT * SAMPLE_RATE)).astype(np.float32)
        plain, late = placer(clip.audio, clip.text), placer(np.concatenate([quiet, clip.audio]), clip.text)
        assert [one.text for one in plain] == [one.text for one in late]
        found += [[b.start - a.start, b.end - a.end] for a, b in zip(plain, late, strict=True)]
    return np.array(found)


@pytest.mark.parametrize("method", placing.METHODS)
def test_half_a_second_in_front_moves_every_border_by_it(method):
    if method == "ctc":
        model = os.environ.get("MOEJAX_TEST_ALIGN") or pytest.skip("MOEJAX_TEST_ALIGN: a workdir with a CTC head")
    else:
        model = str(real_speech.weights("tiny.en"))
    with real_speech.optimised():
        off = np.abs(moved(placing.opened(model, method), real_speech.rows("timit_sample", step=13)) - SHIFT)
    shares = {ms: (off <= ms / 1000).mean() for ms in (20, 50, 100)}
    print(f"{method}: {off.size} borders, median {np.median(off) * 1000:.0f} ms off, within {shares}")
    # What a word's beginning is to attention depends on what stands before it: only most borders go along
    assert np.median(off) <= 0.02 and shares[100] >= (0.95 if method == "ctc" else 0.8)
