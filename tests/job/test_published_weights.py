"""A workdir on published weights reads a talk as the model itself, and what cannot write times is not read by them.

With MOEJAX_WEIGHTS, a folder with tiny.en/, and MOEJAX_CLIP, a recording of speech.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_job
from test_published import job_of, quick, same  # noqa: F401 - a fixture

import moejax
from moejax.text import writers

pytestmark = pytest.mark.job

WEIGHTS, CLIP = os.environ.get("MOEJAX_WEIGHTS"), os.environ.get("MOEJAX_CLIP")


def test_what_cannot_write_times_is_not_read_by_them(tmp_path_factory):
    micro = moejax.load(tiny_job.shared(tmp_path_factory) / "W")
    with pytest.raises(ValueError, match="sequential.*timestamps, which this model does not write; use chunked"):
        micro.check(algorithm="sequential")
    assert micro.check(algorithm="chunked").algorithm == "pieces"


@pytest.mark.skipif(not (WEIGHTS and CLIP), reason="MOEJAX_WEIGHTS: a folder with tiny.en/; MOEJAX_CLIP: jfk.flac")
def test_published_weights(tmp_path, monkeypatch):
    clip, rate = soundfile.read(CLIP, dtype="float32")
    talk = np.tile(np.concatenate([clip, np.zeros(rate // 2, np.float32)]), 6)
    tiny_job.write_corpus(tmp_path / "corpus", per_speaker=3)
    monkeypatch.chdir(tmp_path)
    weights = Path(WEIGHTS) / "tiny.en"
    steps = dict(gate__steps=2, experts__steps=1, joint__steps=4, joint__batch_size=4, adapters__kinds=())
    moejax.run(job_of(weights, **steps, evaluate__systems=("base",)), "W", quiet=True)
    alone, base = moejax.load(weights), moejax.load("W", system="base")
    expected = alone.transcribe(talk, rate=rate)
    assert same(base.transcribe(talk, rate=rate), expected)
    found = moejax.load("W", system="moe").transcribe(talk, rate=rate)
    assert json.loads(writers.render(found, "json"))["segments"] and found.segments[-1].end > len(talk) / rate - 5
    assert found.text.lower().count("country") > 6
