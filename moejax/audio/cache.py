"""Audio of a small corpus held in memory, so that every epoch after the first reads no files."""

import threading
from collections import OrderedDict

import numpy as np
import soundfile

from moejax.audio import read, records
from moejax.audio.constants import SAMPLE_RATE
from moejax.audio.flaws import Rejected
from moejax.errors import BadValue


class AudioCache:
    """`cache[i]` is the audio of paths[i] as float32 in [-1, 1]; 16 kHz mono files only (ValueError names any other),
    or recordings in shards (`audio.records`), which the gate brings to that.

    Held as int16, which is what the files hold (float files lose what lies below 2^-15), up to `limit_bytes`; beyond
    that the least recently used leave. The first reading is rounded to int16 as well, so that it equals all later
    ones. Thread-safe; pickles without its contents.
    """

    def __init__(self, paths, limit_bytes=1 << 30):
        self.paths, self.limit_bytes = paths, limit_bytes
        self._held, self._bytes, self._lock = OrderedDict(), 0, threading.Lock()

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        with self._lock:
            samples = self._held.get(index)
            if samples is not None:
                self._held.move_to_end(index)
        if samples is None:
            samples = self._read(self.paths[index])
            self._keep(index, samples)
        return samples.astype(np.float32) / np.float32(32768)

    @property
    def bytes(self):
        """Held at present."""
        return self._bytes

    def _read(self, path):
        if records.parted(path):
            return _sixteen_bits(_packed(path))
        try:
            samples, rate = soundfile.read(str(path), dtype="float32")
        except soundfile.LibsndfileError as error:
            raise BadValue(f"{path}: unreadable audio: {error}") from error
        if rate != SAMPLE_RATE or samples.ndim != 1:
            channels = 1 if samples.ndim == 1 else samples.shape[1]
            raise BadValue(f"{path}: {rate} Hz with {channels} channels; the corpus must be {SAMPLE_RATE} Hz mono")
        return _sixteen_bits(samples)

    def _keep(self, index, samples):
        with self._lock:
            if index in self._held or samples.nbytes > self.limit_bytes:
                return
            self._held[index] = samples
            self._bytes += samples.nbytes
            while self._bytes > self.limit_bytes:
                self._bytes -= self._held.popitem(last=False)[1].nbytes

    def __getstate__(self):
        return {"paths": self.paths, "limit_bytes": self.limit_bytes}

    def __setstate__(self, state):
        self.__init__(**state)


def _packed(path):
    """A recording in a shard, as `describe` would have written it. Errors: BadValue naming the shard."""
    try:
        return read.load(path, target_rate=SAMPLE_RATE, **read.ANYTHING).samples
    except Rejected as rejected:
        raise BadValue(f"{path}: {rejected.detail}") from rejected


def _sixteen_bits(samples):
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype(np.int16)
