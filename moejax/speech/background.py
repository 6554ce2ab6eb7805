"""What is heard where nobody speaks: digital silence, noises of three colours, a chord."""

import functools

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.errors import BadValue

KINDS = ("silence", "white", "pink", "brown", "chord")
_SECONDS = 8  # of each kind that is drawn once and then read from any place


def background(rng, samples: int, kind: str, level: float) -> np.ndarray:
    """`samples` samples of one of KINDS with the root mean square `level`, float32; another part at each draw of `rng`.

    Noises repeat after 8 s. A chord is three to six harmonic tones that swell together and is never the same.
    """
    if kind not in KINDS:
        raise BadValue(f"unknown background {kind!r}; known: {', '.join(KINDS)}")
    if kind == "silence":
        return np.zeros(samples, np.float32)
    if kind == "chord":
        return np.float32(level) * _chord(rng, samples)
    bank = _bank(kind)
    return np.float32(level) * np.resize(np.roll(bank, -int(rng.integers(len(bank)))), samples)


@functools.cache
def _bank(kind):
    """8 s of noise of unit power whose spectrum falls with the frequency to the power of 0, 1/2 or 1."""
    size = _SECONDS * SAMPLE_RATE
    rng = np.random.default_rng(KINDS.index(kind))
    slope = {"white": 0.0, "pink": 0.5, "brown": 1.0}[kind]
    hertz = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    spectrum = np.fft.rfft(rng.standard_normal(size)) * np.maximum(hertz, 20.0) ** -slope
    spectrum[0] = 0.0
    wave = np.fft.irfft(spectrum, size)
    return (wave / np.sqrt(np.mean(wave**2))).astype(np.float32)


def _chord(rng, samples):
    time = np.arange(samples, dtype=np.float32) / np.float32(SAMPLE_RATE)
    hertz = rng.uniform(60, 500) * rng.choice(np.arange(1, 9), rng.integers(3, 7), replace=False)
    phase = rng.uniform(0, 2 * np.pi, len(hertz))
    wave = sum(np.sin(np.float32(2 * np.pi * f) * time + np.float32(p)) for f, p in zip(hertz, phase, strict=True))
    wave = wave * (1.2 + np.sin(np.float32(2 * np.pi * rng.uniform(0.1, 2.0)) * time))
    return (wave / np.sqrt(np.mean(wave**2) + 1e-12)).astype(np.float32)
