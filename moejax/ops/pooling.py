"""From encoder states to one vector per utterance, counting real speech only.

Whisper's encoder takes no padding mask: a 1 s clip comes out as 1500 states of which 50 are the clip. Averaging them
all makes an embedding of how much silence there is, and clusters of it are clusters of durations. So the mask is
applied here.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from moejax.errors import BadValue

STD_FLOOR = 1e-4  # below this a standard deviation is rounding noise; also keeps the gradient of sqrt finite


def valid_frames(samples_B: jax.Array, T: int, hop: int, stride: int = 2) -> jax.Array:
    """Which of `T` encoder frames hold at least one sample: `mask_BT`, true for the first ceil(samples / (hop *
    stride)).

    `hop` samples per mel frame, `stride` mel frames per encoder frame (2 in every Whisper). Longer audio is cut at `T`.
    """
    step = hop * stride
    frames_B = (jnp.asarray(samples_B) + step - 1) // step
    return jnp.arange(T)[None, :] < frames_B[:, None]


def speech_frames(
    audio_BS: jax.Array, samples_B: jax.Array, T: int, hop: int, stride: int = 2, db: float = -35.0
) -> jax.Array:
    """Which of `T` encoder frames hold speech: energy within `db` decibels of the utterance's loud level, `mask_BT`.

    The loud level is the energy-weighted mean of the frame energies, sum(e^2) / sum(e): frames of digital silence add
    nothing to either sum, so silence appended to (or cut from) an utterance never changes which frames count; a
    percentile or a plain mean would. Samples beyond `samples_B` are not looked at. An utterance without a speech frame
    (all zeros) falls back to its valid frames, so that no mask of a non-empty utterance is empty.
    """
    if db >= 0:
        raise ValueError(f"speech_frames: db={db} must be negative: decibels below the utterance's loud level")
    samples_B = jnp.asarray(samples_B)
    step = hop * stride
    audio_BS = jnp.asarray(audio_BS, jnp.float32)[:, : T * step]
    audio_BS = jnp.where(jnp.arange(audio_BS.shape[1])[None, :] < samples_B[:, None], audio_BS, 0.0)
    audio_BS = jnp.pad(audio_BS, ((0, 0), (0, T * step - audio_BS.shape[1])))
    energy_BT = jnp.sum(jnp.square(audio_BS.reshape(audio_BS.shape[0], T, step)), axis=-1)
    # Scaled by the peak first: energies of a quiet recording squared again would leave float32's range.
    energy_BT = energy_BT / jnp.maximum(jnp.max(energy_BT, axis=1, keepdims=True), jnp.finfo(jnp.float32).tiny)
    total_B = jnp.sum(energy_BT, axis=1)
    loud_B = jnp.sum(jnp.square(energy_BT), axis=1) / jnp.maximum(total_B, 1.0)
    valid_BT = valid_frames(samples_B, T, hop, stride)
    speech_BT = valid_BT & (energy_BT > 0) & (energy_BT >= loud_B[:, None] * 10.0 ** (db / 10.0))
    return jnp.where(jnp.any(speech_BT, axis=1, keepdims=True), speech_BT, valid_BT)


def mean(states_BTD: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Mean over the frames where `mask_BT` is true: `[B, D]` float32, zero for an empty mask."""
    mask_BT1 = mask_BT[..., None]
    count_B1 = jnp.maximum(jnp.sum(mask_BT1, axis=1), 1).astype(jnp.float32)
    # where, not a product: padding may hold NaN, and NaN * 0 is NaN.
    return jnp.sum(jnp.where(mask_BT1, states_BTD.astype(jnp.float32), 0.0), axis=1) / count_B1


def mean_std(states_BTD: jax.Array, mask_BT: jax.Array) -> jax.Array:
    """Mean and standard deviation over the masked frames: `[B, 2D]` float32; the latter at least `STD_FLOOR`."""
    mean_BD = mean(states_BTD, mask_BT)
    centred_BTD = states_BTD.astype(jnp.float32) - mean_BD[:, None, :]
    variance_BD = mean(jnp.square(centred_BTD), mask_BT)
    return jnp.concatenate([mean_BD, jnp.sqrt(jnp.maximum(variance_BD, STD_FLOOR**2))], axis=-1)


POOLINGS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {"mean": mean, "mean_std": mean_std}


def pool(states_BTD: jax.Array, mask_BT: jax.Array, how: str = "mean") -> jax.Array:
    """One float32 vector per utterance from its masked frames: `[B, D]` for "mean", `[B, 2D]` for "mean_std".

    A utterance whose mask is empty gives zeros (and `STD_FLOOR`), never NaN. ValueError for another `how`.
    """
    if how not in POOLINGS:
        raise BadValue(f"unknown pooling {how!r}; known: {', '.join(sorted(POOLINGS))}")
    if np.shape(mask_BT) != np.shape(states_BTD)[:2]:
        raise ValueError(f"pool: mask {np.shape(mask_BT)} does not fit states {np.shape(states_BTD)}")
    return POOLINGS[how](jnp.asarray(states_BTD), jnp.asarray(mask_BT, bool))
