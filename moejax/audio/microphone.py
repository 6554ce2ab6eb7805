"""A recording from this machine's microphone, and whether it is good enough to learn from."""

from collections.abc import Callable

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.audio.read import frame_levels, loud_level
from moejax.errors import BadValue

LEAST_SECONDS = 0.3
QUIET_DB, FULL, CLIPPED = -45.0, 0.999, 4  # loudest 20 ms; a sample at full scale, and how many are none too many
BEYOND_DB = 25.0  # frames so much softer than the loudest are no speech


def record(until: Callable[[], object]) -> np.ndarray:
    """What the default microphone hears until `until` returns, float32 [S] at 16 kHz.

    Errors: BadValue where there is no microphone, or nothing that reads one (the extra `record`).
    """
    try:
        import sounddevice  # pyright: ignore[reportMissingImports]  # an extra
    except ModuleNotFoundError as error:
        raise BadValue("a microphone is read with sounddevice: pip install 'moejax[record]'") from error
    except OSError as error:  # it is there, and PortAudio is not
        raise BadValue(f"a microphone is read with PortAudio, which is missing (libportaudio2): {error}") from error
    blocks: list[np.ndarray] = []
    try:
        with sounddevice.InputStream(
            samplerate=SAMPLE_RATE,
            channels=1,
            dtype="float32",
            callback=lambda samples, *_: blocks.append(samples[:, 0].copy()),
        ):
            until()
    except sounddevice.PortAudioError as error:
        raise BadValue(f"no microphone can be opened: {error}") from error
    return np.concatenate([np.zeros(0, np.float32), *blocks])


def flaw(wave_S: np.ndarray) -> str | None:
    """What is wrong with a recording of one sentence, and what would help; None where nothing is."""
    if len(wave_S) < LEAST_SECONDS * SAMPLE_RATE:
        return f"shorter than {LEAST_SECONDS:g} s"
    if (full := int(np.sum(np.abs(wave_S) >= FULL))) >= CLIPPED:
        return f"too loud: {full} samples are at full scale; farther from the microphone, or its level lower"
    levels = frame_levels(wave_S, SAMPLE_RATE)
    if (loudest := loud_level(levels)) < QUIET_DB:
        return (
            f"too quiet: {loudest:.0f} dB of full scale at its loudest; nearer to the microphone, or its level higher"
        )
    spoken = np.flatnonzero(levels > loudest - BEYOND_DB)
    if spoken[0] == 0 or spoken[-1] == len(levels) - 1:
        return "speech at its very " + ("beginning" if spoken[0] == 0 else "end") + ": wait a moment before and after"
    return None
