"""Whisper's log-mel spectrogram as a pure function of the waveform, and the arithmetic of its frames.

Constants and steps are those of the reference implementation (openai/whisper, whisper/audio.py): 25 ms periodic Hann
window, reflect padding of half a window, power spectrum, Slaney mel filters, log10, a floor 8 decades under
each utterance's own maximum, and (x + 4) / 4.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from moejax.audio.constants import HOP, N_FFT, SAMPLE_RATE, STRIDE
from moejax.errors import BadValue

_CACHED_SAMPLES = 20 * SAMPLE_RATE

_SPAN = 200.0 / 3.0  # Hz per mel in the linear part of Slaney's scale
_BREAK_HZ = 1000.0  # where the scale turns logarithmic
_LOG_STEP = np.log(6.4) / 27.0  # natural-log frequency per mel above the break


def frames(samples, hop=HOP):
    """Encoder frames that `samples` samples of real audio reach: ceil(samples / (2 hop)); integers or integer arrays.

    Not capped at the model's context: `pooling.valid_frames` does that.
    """
    return -(-samples // (STRIDE * hop))


def log_mel(audio_BS, *, n_mels=80, hop=HOP):
    """Whisper's log-mel features of a batch of waveforms.

    Args:
      audio_BS: float32 in [-1, 1], 16 kHz, zero-padded to a common length S, a multiple of `hop` and over 200 samples.
      n_mels: 80 (up to large-v2) or 128 (large-v3); any positive number works.
      hop: samples between frames.

    Returns:
      mel_BNM, float32, N = S // hop. The last of the N + 1 centred frames is dropped, as the reference does.

    The floor of 8 decades lies under the maximum of each utterance, not of the batch, so batching changes nothing.
    Frames of padding are computed from its zeros like all others, so they hold the floor, not zero.
    """
    batch, samples = audio_BS.shape
    if samples % hop or samples <= N_FFT // 2:
        raise BadValue(
            f"log_mel: {samples} samples; must be a multiple of hop {hop} above {N_FFT // 2} (half a window)"
        )
    audio_BS = audio_BS.astype(jnp.float32)
    one = functools.partial(_log_mel_one, n_mels=n_mels, hop=hop)
    if batch == 1:
        return one(audio_BS[0])[None]
    # On a CPU about 20 s of spectra fit in the cache (measured: 30 s clips one by one 2.4x faster than all at once, 3 s
    # clips best in fours to eights); an accelerator wants the whole batch at once.
    by_cache = functools.partial(_in_turns, jax.vmap(one), turns=-(-batch * samples // _CACHED_SAMPLES))
    return jax.lax.platform_dependent(audio_BS, cpu=by_cache, default=jax.vmap(one))


def _in_turns(function, x_BS, *, turns):
    """`function` of a batch, a `turns`-th of the rows at a time (the next divisor of B if it does not divide).

    A turn takes every turns-th row, so that a batch cut over devices stays where it is: taking neighbours would gather
    it.
    """
    batch = x_BS.shape[0]
    turns = next(t for t in range(min(turns, batch), batch + 1) if batch % t == 0)
    if turns == 1:
        return function(x_BS)
    out = jax.lax.map(function, x_BS.reshape(batch // turns, turns, -1).swapaxes(0, 1))
    return out.swapaxes(0, 1).reshape(batch, *out.shape[2:])


def _log_mel_one(audio_S, *, n_mels, hop):
    """log_mel of one utterance: [S] -> [S // hop, n_mels]."""
    half = N_FFT // 2
    padded = jnp.concatenate([audio_S[half:0:-1], audio_S, audio_S[-2 : -half - 2 : -1]])
    log_NM = log_power(padded, audio_S.shape[0] // hop, n_mels=n_mels, hop=hop)
    return floored(log_NM, log_NM.max())


def floored(log_NM, loudest):
    """Whisper's features of log10 mel power: at most 8 decades under the loudest of the recording, shifted, scaled."""
    return (jnp.maximum(log_NM, loudest - 8.0) + 4.0) / 4.0


def log_power(padded_S, count, *, n_mels, hop):
    """log10 of the mel power [count, n_mels] of the windows that begin at samples 0, hop, 2 hop ... of `padded_S`.

    Needs (count - 1 + ceil(400 / hop)) * hop samples. The first 200 stand before the first frame's time.
    """
    # Frames overlap, but cut into hops the signal is a matrix: a frame is a row, the next rows and a piece of the last.
    # That is slices and one concatenation, where a gather would read 400 indices per frame.
    rows = -(-N_FFT // hop)
    hops = padded_S[: (count - 1 + rows) * hop].reshape(count - 1 + rows, hop)
    pieces = [hops[i : i + count, : min(hop, N_FFT - i * hop)] for i in range(rows)]
    frames_NF = jnp.concatenate(pieces, axis=1) * _window()[None, :]
    spectrum_NF = jnp.fft.rfft(frames_NF, axis=1)
    power_NF = jnp.square(spectrum_NF.real) + jnp.square(spectrum_NF.imag)
    # HIGHEST: the default of an accelerator (bfloat16 or TF32 products) would show in the quiet bands.
    mel_NM = jnp.dot(power_NF, mel_filters(n_mels).T, precision=jax.lax.Precision.HIGHEST)
    return jnp.log10(jnp.maximum(mel_NM, 1e-10))


@functools.cache
def mel_filters(n_mels, rate=SAMPLE_RATE, n_fft=N_FFT):
    """Triangular mel filters, float32 [n_mels, n_fft // 2 + 1], here [n_mels, 201]: Slaney's scale and normalisation.

    Each triangle has unit area over frequency in Hz, so neighbouring filters overlap and high ones are low and broad.
    The matrix equals the one published with Whisper to the last float32 digit or two (librosa's `filters.mel`).
    """
    if n_mels < 1:
        raise ValueError(f"mel_filters: n_mels is {n_mels}, must be at least 1")
    bin_hz = np.linspace(0.0, rate / 2, n_fft // 2 + 1)
    edge_hz = _mel_to_hz(np.linspace(0.0, _hz_to_mel(rate / 2), n_mels + 2))
    width_hz = np.diff(edge_hz)
    offset_EF = edge_hz[:, None] - bin_hz[None, :]
    rising = -offset_EF[:-2] / width_hz[:-1, None]
    falling = offset_EF[2:] / width_hz[1:, None]
    triangle_MF = np.maximum(0.0, np.minimum(rising, falling))
    area = 2.0 / (edge_hz[2:] - edge_hz[:-2])
    filters_MF = (triangle_MF * area[:, None]).astype(np.float32)
    filters_MF.flags.writeable = False  # the cache hands out one array
    return filters_MF


@functools.cache
def _window():
    """Periodic Hann window, float32 [400] (period 400, so the first sample is zero and the last is not)."""
    window_F = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(N_FFT) / N_FFT)).astype(np.float32)
    window_F.flags.writeable = False
    return window_F


def _hz_to_mel(hz):
    hz = np.asarray(hz, np.float64)
    above = np.log(np.maximum(hz, _BREAK_HZ) / _BREAK_HZ) / _LOG_STEP
    return np.where(hz < _BREAK_HZ, hz / _SPAN, _BREAK_HZ / _SPAN + above)


def _mel_to_hz(mel):
    mel = np.asarray(mel, np.float64)
    break_mel = _BREAK_HZ / _SPAN
    return np.where(mel < break_mel, mel * _SPAN, _BREAK_HZ * np.exp(_LOG_STEP * (mel - break_mel)))
