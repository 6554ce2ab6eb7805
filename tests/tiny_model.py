"""Whisper folders of 1 + 1 layers that tests write: a published-like one (30 s, timestamps) and a micro one."""

import functools

import numpy as np
import soundfile

from moejax.convert import hf_whisper
from moejax.nn.whisper import WhisperConfig
from moejax.tasks import asr
from moejax.text.tokenizer import Tokenizer

RATE = 16000
TEXTS = ["ba do ki mu", "wo ist der Hund", "the cat sat there, and then it was gone", "eins zwei drei vier"]


@functools.cache
def tokenizer(timed: bool) -> Tokenizer:
    return Tokenizer.train(TEXTS * 3, 2000, languages=("en", "de"), timestamps_seconds=30 if timed else 0)


def config(timed: bool, vocab_size: int, context: int = 32) -> WhisperConfig:
    """30 s as published checkpoints hear them, or 2.56 s; `context` tokens of the decoder of the former."""
    if timed:
        sizes = {"max_source_positions": 1500, "max_target_positions": context}
        return WhisperConfig(32, 1, 1, 2, 2, 128, 128, vocab_size, **sizes)
    return WhisperConfig(
        32, 1, 1, 2, 2, 48, 48, vocab_size, max_source_positions=64, max_target_positions=32, hop=320, mask_padding=True
    )


def make(*, timed: bool = True, vocab_size: int, seed: int = 1, context: int = 32):
    """`(WhisperConfig, params)` with random weights."""
    made = config(timed, vocab_size, context)
    _, params = asr.init(asr.build(made, seed=seed))
    return made, {group: params[group] for group in ("backbone", "buffer")}


def write(folder, *, timed: bool, seed: int = 1, context: int = 32):
    """A Hugging Face folder of such a model and its own small vocabulary."""
    made, params = make(timed=timed, vocab_size=tokenizer(timed).vocab_size, seed=seed, context=context)
    hf_whisper.save(folder, made, params, tokenizer(timed))
    return folder


def sound(seconds: float, seed: int = 0, rate: int = RATE, channels: int = 1) -> np.ndarray:
    """Tones of 0.4 s with pauses of 0.2 s between, each a pure function of its place and the seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(150, 3000, int(seconds / 0.6) + 1)[(time / 0.6).astype(int)]
    wave = 0.3 * np.sin(2 * np.pi * pitch * time) * (time % 0.6 < 0.4)
    wave = (wave + 0.001 * rng.standard_normal(len(wave))).astype(np.float32)
    return wave if channels == 1 else np.stack([wave] * channels, axis=1)


def record(path, seconds: float, seed: int = 0, rate: int = RATE, channels: int = 1, **options):
    """Writes a sound file, by its suffix."""
    soundfile.write(path, sound(seconds, seed, rate, channels), rate, **options)
    return path
