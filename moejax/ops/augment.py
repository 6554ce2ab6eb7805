"""Augmentation of log-mel features inside the training step: pure functions of a key, no extra shape."""

import jax
import jax.numpy as jnp


def spec_augment(key, mel_BNM, frames_B, *, time_masks, time_width, freq_masks, freq_width):
    """SpecAugment (Park et al. 2019): masks bands of time and frequency with the utterance's mean.

    Widths are maxima in frames and bins. A time mask covers at most a fifth of the utterance's real frames.
    """
    B, N, M = mel_BNM.shape
    key_t, key_f = jax.random.split(key)
    hidden_BN = _bands(key_t, B, N, time_masks, jnp.minimum(time_width, frames_B / 5.0), frames_B)
    hidden_BM = _bands(key_f, B, M, freq_masks, jnp.full((B,), float(freq_width)), jnp.full((B,), M))
    mean_B11 = mel_BNM.mean((1, 2), keepdims=True)
    return jnp.where(hidden_BN[:, :, None] | hidden_BM[:, None, :], mean_B11, mel_BNM)


def _bands(key, B, size, count, width_B, limit_B):
    if not count:
        return jnp.zeros((B, size), bool)
    key_w, key_s = jax.random.split(key)
    width_BJ = jax.random.uniform(key_w, (B, count)) * width_B[:, None]
    start_BJ = jax.random.uniform(key_s, (B, count)) * jnp.maximum(limit_B[:, None] - width_BJ, 0.0)
    at_S = jnp.arange(size)[None, None, :]
    return ((at_S >= start_BJ[..., None]) & (at_S < (start_BJ + width_BJ)[..., None])).any(1)


def warp(key, mel_BNM, frames_B, *, time, freq):
    """Changes tempo by a factor in [1 - time, 1 + time] and vocal-tract length by one in [1 - freq, 1 + freq] (VTLP,
    Jaitly & Hinton 2013).

    Returns `(mel_BNM, frames_B)`. Linear interpolation on the mel; a slowed utterance that would not fit its buffer is
    slowed less.
    """
    B, N, M = mel_BNM.shape
    key_t, key_f = jax.random.split(key)
    speed_B = 1.0 + time * jax.random.uniform(key_t, (B,), minval=-1.0, maxval=1.0)
    speed_B = jnp.maximum(speed_B, frames_B / N)
    from_BN = jnp.arange(N)[None] * speed_B[:, None]
    frames_new_B = jnp.clip(jnp.round(frames_B / speed_B), 1, N).astype(frames_B.dtype)
    # Beyond the buffer's end there is silence, not the last frame again: models without a padding mask would hear it.
    silence_B11 = mel_BNM.min((1, 2), keepdims=True)
    mel_BNM = _interpolate(mel_BNM, jnp.minimum(from_BN, N - 1.0), axis=1)
    mel_BNM = jnp.where(from_BN[:, :, None] > N - 1.0, silence_B11, mel_BNM)
    stretch_B = 1.0 + freq * jax.random.uniform(key_f, (B,), minval=-1.0, maxval=1.0)
    from_BM = jnp.clip(jnp.arange(M)[None] * stretch_B[:, None], 0.0, M - 1.0)
    return _interpolate(mel_BNM, from_BM, axis=2), frames_new_B


def _interpolate(x_BNM, position_BJ, axis):
    low_BJ = jnp.floor(position_BJ).astype(jnp.int32)
    high_BJ = jnp.minimum(low_BJ + 1, x_BNM.shape[axis] - 1)
    part_BJ = position_BJ - low_BJ
    shape = (slice(None), slice(None), None) if axis == 1 else (slice(None), None, slice(None))
    low = jnp.take_along_axis(x_BNM, low_BJ[shape], axis=axis)
    high = jnp.take_along_axis(x_BNM, high_BJ[shape], axis=axis)
    return low + (high - low) * part_BJ[shape]


def level(key, mel_BNM, *, shift):
    """Adds a random constant per utterance (gain) and a random slope over the bins (channel), both at most `shift` in
    log-mel units.
    """
    key_g, key_s = jax.random.split(key)
    B, _, M = mel_BNM.shape
    gain_B1 = shift * jax.random.uniform(key_g, (B, 1), minval=-1.0, maxval=1.0)
    slope_BM = shift * jax.random.uniform(key_s, (B, 1), minval=-1.0, maxval=1.0) * jnp.linspace(-1.0, 1.0, M)[None]
    return mel_BNM + (gain_B1 + slope_BM)[:, None, :]
