"""Log-mel slices of a recording of any length, computed when asked for.

The reference computes the features of the whole recording, padded with 30 s of silence, and cuts windows from them: the
floor lies 8 decades under the loudest frame of the *recording*. Features of an hour would be half as large again as its
audio, so here the loudest frame is found in one pass over blocks and a window's features are computed from its own
audio: same frames, same floor, no memory that grows.
"""

import functools

import jax
import numpy as np

from moejax.ops import audio
from moejax.runtime import programs

BLOCK = 1000  # features of 4 s took 24 ms in blocks of 3000 frames, 7 in those of 1000; of 30 s 28 and 23


class Features:
    """Features of one recording [S], float32, 16 kHz. `frames` counts the whole frames of content (S // hop)."""

    def __init__(self, audio_S, *, n_mels=80, hop=audio.HOP, block=BLOCK):
        """`block`: frames computed at once, in one compiled shape; longer slices are put together. No number changes
        by it.
        """
        self.audio_S = np.asarray(audio_S, np.float32)
        if self.audio_S.ndim != 1:
            raise ValueError(f"Features: audio of shape {self.audio_S.shape}, must be one channel [S]")
        self.n_mels, self.hop, self.block = n_mels, hop, block
        self.frames = len(self.audio_S) // hop

    def slice(self, start: int, stop: int) -> np.ndarray:
        """Features [stop - start, M] of these frames; frames past the content are those of silence."""
        blocks = []
        for first in range(start, stop, self.block):
            mel = _block(self._samples(first), self.loudest, count=self.block, n_mels=self.n_mels, hop=self.hop)
            blocks.append(np.asarray(mel)[: stop - first])
        return np.concatenate(blocks) if blocks else np.zeros((0, self.n_mels), np.float32)

    def audio(self, start: int, stop: int) -> np.ndarray:
        """The samples from frame `start` to frame `stop`, shorter at the end of the recording."""
        return self.audio_S[start * self.hop : stop * self.hop]

    @functools.cached_property
    def loudest(self) -> np.float32:
        """The largest log10 mel power of the recording and the silence after it."""
        last = -(-(len(self.audio_S) + audio.N_FFT // 2) // self.hop)  # the last frame that sees content
        found = np.float32(-np.inf)
        for first in range(0, last + 1, self.block):
            # One block at a time: work that is queued keeps its input.
            block = _loudest(self._samples(first), count=self.block, n_mels=self.n_mels, hop=self.hop)
            found = max(found, np.float32(block))
        return found

    def _samples(self, first):
        """What `block` frames from `first` on look at: mirrored before the recording, silence after it."""
        begin = first * self.hop - audio.N_FFT // 2
        out_S = np.zeros((self.block - 1 + -(-audio.N_FFT // self.hop)) * self.hop, np.float32)
        low, high = max(begin, 0), min(begin + len(out_S), len(self.audio_S))
        if high > low:
            out_S[low - begin : high - begin] = self.audio_S[low:high]
        if begin < 0:
            mirrored = self.audio_S[1 : 1 - begin][::-1]
            out_S[-begin - len(mirrored) : -begin] = mirrored
        return out_S


_SIZES = ("count", "n_mels", "hop")


@functools.partial(programs.kept, static=_SIZES)
@functools.partial(jax.jit, static_argnames=_SIZES)
def _block(padded_S, loudest, *, count, n_mels, hop):
    return audio.floored(audio.log_power(padded_S, count, n_mels=n_mels, hop=hop), loudest)


@functools.partial(programs.kept, static=_SIZES)
@functools.partial(jax.jit, static_argnames=_SIZES)
def _loudest(padded_S, *, count, n_mels, hop):
    return audio.log_power(padded_S, count, n_mels=n_mels, hop=hop).max()
