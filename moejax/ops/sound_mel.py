"""Log-mel images of sounds, as classifiers of environmental sound take them (librosa's melspectrogram in decibels)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from moejax.errors import BadValue
from moejax.ops.audio import mel_filters

FLOOR = 1e-10  # power


@dataclasses.dataclass(frozen=True)
class Mel:
    """The front end: `samples` at `rate` Hz become an image of `mels` bands by `frames`, in decibels.

    Centred frames over zeros at both ends, periodic Hann window, power, Slaney's mel filters up to half the rate,
    10 log10, at most 80 dB under the loudest of the clip. Taking the logarithm is not an option: a linear mel's few
    large numbers make gradients explode.
    """

    rate: int = 22050
    samples: int = 88200
    n_fft: int = 2048
    hop: int = 512
    mels: int = 64

    def __post_init__(self):
        if self.samples < self.n_fft:
            raise BadValue(f"a clip of {self.samples} samples is shorter than a window of {self.n_fft} (clips.n_fft)")

    @property
    def frames(self) -> int:
        return 1 + self.samples // self.hop

    def __call__(self, wave_BS):
        """decibels [B, mels, frames] of float32 waves [B, samples]."""
        half = self.n_fft // 2
        padded_BS = jnp.pad(wave_BS.astype(jnp.float32), ((0, 0), (half, half)))
        spectrum_BNF = jnp.fft.rfft(cut(padded_BS, self.n_fft, self.hop, self.frames), axis=-1)
        power_BNF = jnp.square(spectrum_BNF.real) + jnp.square(spectrum_BNF.imag)
        filters_MF = mel_filters(self.mels, self.rate, self.n_fft)
        mel_BMN = jnp.einsum("BNF,MF->BMN", power_BNF, filters_MF, precision=jax.lax.Precision.HIGHEST)
        decibels_BMN = 10.0 * jnp.log10(jnp.maximum(mel_BMN, FLOOR))
        return jnp.maximum(decibels_BMN, decibels_BMN.max((1, 2), keepdims=True) - 80.0)


def hann(size: int) -> np.ndarray:
    """Periodic Hann window [size], float32."""
    return (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(size) / size)).astype(np.float32)


def cut(x_BS, size: int, hop: int, count: int):
    """Windowed frames [B, count, size] that begin at 0, hop, 2 hop ... of x_BS, beyond whose end zeros follow."""
    rows = -(-size // hop)  # cut into hops, a frame is a row, the next rows and a piece of the last: no gather
    need = (count + rows - 1) * hop
    x_BS = jnp.pad(x_BS, ((0, 0), (0, max(0, need - x_BS.shape[1]))))[:, :need]
    hops_BNS = x_BS.reshape(x_BS.shape[0], count + rows - 1, hop)
    pieces = [hops_BNS[:, i : i + count, : min(hop, size - i * hop)] for i in range(rows)]
    return jnp.concatenate(pieces, axis=2) * hann(size)[None, None]
