import pickle

import numpy as np
import pytest
import soundfile

from moejax.audio.cache import AudioCache


@pytest.fixture
def paths(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(4):
        audio = np.clip(rng.normal(size=1000) * 0.4, -1, 1)
        soundfile.write(tmp_path / f"{i}.wav", audio, 16000, subtype="PCM_16")
    return [tmp_path / f"{i}.wav" for i in range(4)]


def test_first_and_later_readings_equal_the_file(paths):
    cache = AudioCache(paths)
    want = soundfile.read(paths[2], dtype="float32")[0]
    first, second = cache[2], cache[2]
    assert first.dtype == np.float32 and np.array_equal(first, want) and np.array_equal(second, want)
    first[:] = 0  # the caller's copy
    paths[2].unlink()
    assert np.array_equal(cache[2], want)


def test_limit_is_kept_and_the_oldest_leaves(paths):
    cache = AudioCache(paths, limit_bytes=4500)  # two files of 2000 bytes
    for i in (0, 1, 0, 2):
        cache[i]
    assert cache.bytes == 4000
    paths[0].unlink()
    cache[0]
    paths[1].unlink()
    with pytest.raises(ValueError, match=r"1\.wav"):
        cache[1]


def test_other_rates_and_channels_are_named(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(10), 8000)
    soundfile.write(tmp_path / "b.wav", np.zeros((10, 2)), 16000)
    with pytest.raises(ValueError, match=r"a\.wav: 8000 Hz with 1 channels"):
        AudioCache([tmp_path / "a.wav"])[0]
    with pytest.raises(ValueError, match=r"b\.wav: 16000 Hz with 2 channels"):
        AudioCache([tmp_path / "b.wav"])[0]


def test_pickles_without_its_contents(paths):
    cache = AudioCache(paths)
    cache[0]
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.bytes == 0 and np.array_equal(copy[0], cache[0])
