import numpy as np
import pytest

from moejax.cohorts import nuisance
from moejax.cohorts.agreement import adjusted_mutual_information
from moejax.cohorts.clustering import voice_groups

WORDS = ["red", "green", "blue", "seven", "house", "runs", "sleeps", "yesterday", "never", "where"]


def readings(seed: int = 0, voices: int = 6, each: int = 60):
    """Sentences of 2 to 5 words; every word moves the embedding, and so does, less, the voice."""
    random = np.random.default_rng(seed)
    voice = np.repeat(np.arange(voices), each)
    picked = [random.choice(10, random.integers(2, 6), replace=False) for _ in voice]
    word_WU, voice_VU = 4 * random.normal(size=(10, 12)), random.normal(size=(voices, 12))
    x_NU = voice_VU[voice] + np.stack([word_WU[words].mean(axis=0) for words in picked])
    texts = [" ".join(WORDS[w] for w in words) for words in picked]
    return x_NU + 0.3 * random.normal(size=x_NU.shape), voice, texts


def share(x_NU, group):
    centre_NU = x_NU.mean(axis=0)
    return ((x_NU - nuisance.within(x_NU, group) - centre_NU) ** 2).sum() / ((x_NU - centre_NU) ** 2).sum()


def test_the_words_go_and_the_voice_stays():
    x_NU, voice, texts = readings()
    free_NU = nuisance.freed(x_NU, nuisance.word_counts(texts))
    assert share(x_NU, voice) < 0.3 < 0.7 < share(free_NU, voice)
    np.testing.assert_allclose(free_NU.mean(axis=0), x_NU.mean(axis=0), atol=0.05)
    groups = {name: voice_groups(points, (3, 6, 12, 24)) for name, points in (("raw", x_NU), ("free", free_NU))}
    assert groups["free"].max() + 1 == 6
    told = {name: adjusted_mutual_information(found, voice) for name, found in groups.items()}
    assert told["free"] > 0.9 > 0.5 > told["raw"]


def test_within_voices_a_voice_that_reads_its_own_words_is_kept():
    """A nuisance that goes with the voice takes the voice along unless the regression looks within voices."""
    random = np.random.default_rng(0)
    voice = np.repeat(np.arange(4), 50)
    seconds = voice + 0.1 * random.normal(size=200)  # slow speakers; within one of them, duration moves nothing
    x_NU = random.normal(size=(4, 8))[voice] + 0.1 * random.normal(size=(200, 8))
    x_NU[:, 0] = voice
    blind, seeing = (nuisance.freed(x_NU, nuisance.standardised(seconds[:, None]), g) for g in (None, voice))
    assert share(blind[:, :1], voice) < 0.5 < 0.95 < share(seeing[:, :1], voice)


def test_nothing_that_is_unrelated_is_removed():
    """Cross-fitted: a nuisance of noise, though wide, takes next to nothing with it."""
    random = np.random.default_rng(0)
    x_NU = random.normal(size=(80, 5))
    free_NU = nuisance.freed(x_NU, random.normal(size=(80, 60)))
    assert np.abs(free_NU - x_NU).max() < 0.3
    np.testing.assert_array_equal(nuisance.freed(x_NU, np.zeros((80, 0))), x_NU)
    np.testing.assert_array_equal(nuisance.freed(x_NU[:4], random.normal(size=(4, 2))), x_NU[:4])


def test_words_are_counted_and_shared():
    counts = nuisance.word_counts(["a b", "a a b", "a", "b b b b", "a b", "b c"])
    assert counts.shape == (6, 2)  # only b stands in five of them
    np.testing.assert_allclose(counts[:, 0], [1, 1, 0, 4, 1, 1])
    np.testing.assert_allclose(counts[:, 1] / nuisance.SHARE, [1 / 2, 1 / 3, 0, 1, 1 / 2, 1 / 2])
    assert nuisance.word_counts(["x", "y"]).shape == (2, 0)
    standard = nuisance.standardised(np.array([[1.0, 5.0], [np.nan, 5.0], [3.0, 5.0]]))
    np.testing.assert_allclose(standard[:, 1], 0.0)
    assert standard[1, 0] == 0.0 and np.isfinite(standard).all()


def test_mistakes_are_one_line():
    with pytest.raises(ValueError, match="3 rows of nuisances for 5 embeddings"):
        nuisance.freed(np.zeros((5, 2)), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="no number of groups in \\[50\\] lies between 2 and 4"):
        voice_groups(np.random.default_rng(0).normal(size=(5, 2)), (50,))
