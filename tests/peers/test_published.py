"""Published weights on real recordings. Opt-in: MOEJAX_TEST_WEIGHTS is a folder with tiny.en and base in it (folders of
Hugging Face or faster-whisper), MOEJAX_TEST_RECORDINGS one with the recordings named here; skipped without.
"""

import os
from pathlib import Path

import pytest

import moejax

WEIGHTS, RECORDINGS = (os.environ.get(f"MOEJAX_TEST_{name}") for name in ("WEIGHTS", "RECORDINGS"))
pytestmark = pytest.mark.skipif(not (WEIGHTS and RECORDINGS), reason="MOEJAX_TEST_WEIGHTS, MOEJAX_TEST_RECORDINGS")


@pytest.fixture(scope="module")
def tiny():
    return moejax.load(Path(WEIGHTS or "") / "tiny.en")


def heard(recognizer, name, **options):
    return recognizer.transcribe(Path(RECORDINGS or "") / name, **options)


@pytest.mark.parametrize(("name", "least", "most"), [("count123_8.flac", 21, 27), ("chorus12.ogg", 50, 65)])
def test_repetition_in_the_sound_is_written(tiny, name, least, most):
    found = heard(tiny, name)
    assert least <= len(found.text.split()) <= most and not found.dropped


def test_pieces_are_heard_to_their_end(tiny):
    found = heard(tiny, "chunked_loses_30.4s.ogg", algorithm="chunked")
    assert "always accusing" in found.text.lower() and len(found.text.split()) > 80


def test_silence_does_not_choose_the_language():
    found = heard(moejax.load(Path(WEIGHTS or "") / "base"), "silence31_german.ogg")
    assert found.language == "de" and {segment.language for segment in found.segments} == {"de"}
