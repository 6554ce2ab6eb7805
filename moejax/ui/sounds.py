"""Recordings that a page may play: in a folder of this process, under names that nobody can guess, the last ones."""

import collections
import secrets
import threading
from pathlib import Path

import numpy as np
import soundfile

from moejax.audio.constants import SAMPLE_RATE

MOST = 500 << 20  # bytes, about four hours


class Sounds:
    """Safe to use from any thread. Who made the folder removes it."""

    def __init__(self, folder: Path, most: int = MOST):
        self.folder, self.most = folder, most
        self._lock = threading.Lock()
        self._sizes: collections.OrderedDict[str, int] = collections.OrderedDict()

    def keep(self, wave_S: np.ndarray) -> str:
        """Its name. WAV, because every browser plays it and finds every second of it."""
        name = secrets.token_urlsafe(16)
        path = self._place(name)
        soundfile.write(path, np.clip(wave_S, -1, 1), SAMPLE_RATE, subtype="PCM_16")
        with self._lock:
            self._sizes[name] = path.stat().st_size
            while sum(self._sizes.values()) > self.most and len(self._sizes) > 1:
                self._place(self._sizes.popitem(last=False)[0]).unlink(missing_ok=True)
        return name

    def find(self, name: str) -> Path | None:
        """Where it lies; None for a name that was never given, or is gone."""
        with self._lock:
            return self._place(name) if name in self._sizes else None

    def _place(self, name: str) -> Path:
        return self.folder / f"{name}.wav"
