"""What both sides compute on: the same numbers from the same seeds, with numpy alone."""

import numpy as np

from moejax.audio.constants import HOP, SAMPLE_RATE


def audio(batch: int, seconds: float) -> np.ndarray:
    """audio_BS float32: a rising tone over noise that fades, silent in its last tenth; every row another."""
    samples = 2 * HOP * round(seconds * SAMPLE_RATE / (2 * HOP))
    rng = np.random.default_rng(0)
    time = np.arange(samples) / SAMPLE_RATE
    rows = []
    for row in range(batch):
        tone = np.sin(2 * np.pi * (150 + 40 * row + 400 * time / seconds) * time) * (1 + np.sin(9 * time))
        wave = 0.15 * tone + 0.05 * rng.standard_normal(samples) * np.exp(-2 * time / seconds)
        wave[-samples // 10 :] = 0.0
        rows.append(wave)
    return np.stack(rows).astype(np.float32)


def mel(batch: int, seconds: float, bins: int) -> np.ndarray:
    """mel_BNM float32 in the range of log-mel features, -1 to 1."""
    frames = 2 * round(seconds * SAMPLE_RATE / (2 * HOP))
    return np.random.default_rng(1).uniform(-1, 1, (batch, frames, bins)).astype(np.float32)


def states(batch: int, seconds: float, width: int) -> np.ndarray:
    """states_BTD float32, as a layer norm leaves them."""
    frames = round(seconds * SAMPLE_RATE / (2 * HOP))
    return np.random.default_rng(2).standard_normal((batch, frames, width)).astype(np.float32)


def tokens(batch: int, length: int, prefix: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens_BL, targets_BL) int32: the prefix and text tokens, and the same shifted left."""
    text = np.random.default_rng(3).integers(0, 50_000, (batch, length + 1))
    text[:, : len(prefix)] = prefix
    return text[:, :-1].astype(np.int32), text[:, 1:].astype(np.int32)


def route(batch: int, experts: int, chosen: int) -> tuple[np.ndarray, np.ndarray]:
    """(weight_BX float32, index_BX int32): `chosen` different experts for each utterance, weights that sum to one."""
    rng = np.random.default_rng(4)
    index = np.stack([rng.permutation(experts)[:chosen] for _ in range(batch)])
    weight = rng.uniform(0.2, 1.0, index.shape)
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32), index.astype(np.int32)
