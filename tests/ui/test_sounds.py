"""Recordings that a page may play: found by their name alone, the oldest gone when there are too many."""

import numpy as np
import soundfile
from tiny_model import sound

from moejax.ui.sounds import Sounds


def test_a_recording_is_found_by_its_name_alone(tmp_path):
    sounds = Sounds(tmp_path)
    names = [sounds.keep(sound(0.5, seed)) for seed in range(3)]
    assert len(set(names)) == 3 and all(len(name) > 20 for name in names)
    for seed, name in enumerate(names):
        wave, rate = soundfile.read(sounds.find(name), dtype="float32")
        assert rate == 16000 and np.allclose(wave, sound(0.5, seed), atol=1e-4)
    (tmp_path / "other.wav").touch()
    for name in ("other", "", "../x", "/etc/passwd"):
        assert sounds.find(name) is None


def test_the_oldest_go_first(tmp_path):
    sounds = Sounds(tmp_path, most=40_000)
    names = [sounds.keep(sound(0.5, seed)) for seed in range(5)]  # 16 kB each
    assert [sounds.find(name) is not None for name in names] == [False, False, False, True, True]
    assert len(list(tmp_path.iterdir())) == 2
