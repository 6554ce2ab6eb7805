"""Heads that know speakers by enrolments, means of frames in which one speaks alone.

    AED-EEND  Chen et al. 2024 (arXiv 2309.06672): enrolments attend to the frames and become attractors, one column
              each, behind two of their own for silence and overlap; unknown speakers are found one after the other.
              With `enhance` (AED-EEND-EE) frames attend to these attractors, and are decoded once more.
    TS-VAD    Medennikov et al. 2020, with transformers as Wang et al. 2022 (2208.13085): every speaker has the frames
              beside his profile to himself, through attention over time and over speakers. A first pass of attractors
              says whose profiles there are (EDA + TS-VAD).

Columns stand in the order of enrolments, in which targets stand too: nothing is permuted in training.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.nn.layers import LayerNorm, Noise
from moejax.nn.performer import Kind, PerformerLayer
from moejax.nn.sounds import linear
from moejax.nn.variables import Backbone, Init
from moejax.types import Array

STATES = 2  # columns of silence and of overlap
BLOCK = 5  # frames of 0.1 s that an enrolment takes or leaves together in training
LEAST, LONGEST = 5, 15  # frames of an enrolment that is found: half a second; more may be of two people
NOBODY = -10.0  # logit of a column that is nobody's


def alone(active_BTS: Array, mask_BT: Array) -> Array:
    """Frames in which a speaker speaks and nobody else does, bool [B, T, S]."""
    return active_BTS & (active_BTS.sum(-1, keepdims=True) == 1) & mask_BT[..., None]


def drawn(alone_BTS: Array, key: Array) -> Array:
    """About half of these frames, in blocks; all of a speaker who would have none left."""
    B, T, S = alone_BTS.shape
    kept_BNS = jax.random.bernoulli(key, 0.5, (B, -(-T // BLOCK), S))
    kept_BTS = alone_BTS & jnp.repeat(kept_BNS, BLOCK, axis=1)[:, :T]
    return jnp.where(kept_BTS.any(1, keepdims=True), kept_BTS, alone_BTS)


def profiles(frames_BTD: Array, chosen_BTS: Array) -> tuple[Array, Array]:
    """(mean of each speaker's chosen frames [B, S, D], whether there are any [B, S])."""
    weight_BTS = chosen_BTS.astype(jnp.float32)
    mean_BSD = jnp.einsum("BTS,BTD->BSD", weight_BTS, frames_BTD) / jnp.maximum(weight_BTS.sum(1), 1.0)[..., None]
    return mean_BSD, chosen_BTS.any(1)


class EnrolledDecoder(nnx.Module):
    """Logits [B, T, 2 + S] of silence, overlap and enrolled speakers in frames [B, T, D]."""

    def __init__(self, width: int, heads: int, ffn: int, *, enhance: bool = False, init: Init):
        kind = Kind(width, heads, ffn, norm="layer", activation="relu")
        self.states = Backbone(init.normal(STATES, width, std=1.0))
        self.enrolled = linear(width, width, init)
        self.first = PerformerLayer(kind, cross=True, init=init)
        self.enhancer = PerformerLayer(kind, cross=True, init=init) if enhance else None
        self.second = PerformerLayer(kind, cross=True, init=init) if enhance else None
        self.norm = LayerNorm(width, init=init)

    def __call__(
        self, frames_BTD: Array, mask_BT: Array, enrol_BSD: Array, has_BS: Array, noise: Noise | None = None
    ) -> Array:
        B, _, D = frames_BTD.shape
        own_B2D = jnp.broadcast_to(self.states[...][None], (B, STATES, D))
        column_BCD = jnp.concatenate([own_B2D, self.enrolled(enrol_BSD)], axis=1)
        there_BC = jnp.concatenate([jnp.ones((B, STATES), bool), has_BS], axis=1)
        column_BCD = self.first(column_BCD, there_BC, frames_BTD, mask_BT, noise)
        if self.enhancer is not None and self.second is not None:
            frames_BTD = self.enhancer(frames_BTD, mask_BT, column_BCD, there_BC, noise)
            column_BCD = self.second(column_BCD, there_BC, frames_BTD, mask_BT, noise)
        return jnp.einsum("BTD,BCD->BTC", frames_BTD, self.norm(column_BCD)) * D**-0.5

    def taught(self, frames_BTD: Array, mask_BT: Array, active_BTS: Array, noise: Noise | None) -> tuple[Array, Array]:
        """(logits, which speakers' columns count [B, S]) with enrolments by the labels. In training so many speakers
        are enrolled as is drawn, none to all, because the unknown are found one by one.
        """
        alone_BTS = alone(active_BTS, mask_BT)
        enrolled_BS = jnp.ones((frames_BTD.shape[0], active_BTS.shape[2]), bool)
        if noise is not None:
            key, key_most = jax.random.split(jax.random.fold_in(noise.key, 2**20 + 1))
            alone_BTS = drawn(alone_BTS, key)
            count_B = alone_BTS.any(1).sum(-1)
            most_B = jnp.floor(jax.random.uniform(key_most, count_B.shape) * (count_B + 1))
            enrolled_BS = jnp.cumsum(alone_BTS.any(1), axis=-1) <= most_B[:, None]
        enrol_BSD, has_BS = profiles(frames_BTD, alone_BTS)
        has_BS &= enrolled_BS
        return self(frames_BTD, mask_BT, jnp.where(has_BS[..., None], enrol_BSD, 0.0), has_BS, noise), has_BS

    def found(self, frames_BTD: Array, mask_BT: Array, most: int) -> tuple[Array, Array]:
        """(logits [B, T, most], whether a column is somebody [B, most]). The longest stretch that is neither silent nor
        overlapped nor anybody's enrols the next speaker, until none lasts half a second; then all are enrolled anew by
        the frames in which they are alone.
        """
        B, T, D = frames_BTD.shape
        frame_BT = jnp.broadcast_to(jnp.arange(T)[None], (B, T))

        def step(carry, place):  # one decoding for all of it: the program is a third as large
            enrol_BSD, has_BS, _ = carry
            logits_BTC = self(frames_BTD, mask_BT, enrol_BSD, has_BS)
            active_BTS = (logits_BTC[..., STATES:] > 0) & has_BS[:, None]
            taken_BT = (logits_BTC[..., :STATES] > 0).any(-1) | active_BTS.any(-1)
            free_BT = mask_BT & ~taken_BT
            run_BT = frame_BT - jax.lax.cummax(jnp.where(free_BT, -1, frame_BT), axis=1)
            longest_B, end_B = run_BT.max(1), run_BT.argmax(1)
            size_B = jnp.minimum(longest_B, LONGEST)
            inside_BT = (frame_BT <= end_B[:, None]) & (frame_BT > (end_B - size_B)[:, None])
            new_B1D, _ = profiles(frames_BTD, inside_BT[..., None])
            new_B = (longest_B >= LEAST) & (place < most)
            own_BS = new_B[:, None] & (jnp.arange(most)[None] == place)
            again_BSD, sure_BS = profiles(frames_BTD, alone(active_BTS, mask_BT))
            anew_BS = sure_BS & has_BS & (place == most)
            enrol_BSD = jnp.where(own_BS[..., None], new_B1D, enrol_BSD)
            enrol_BSD = jnp.where(anew_BS[..., None], again_BSD, enrol_BSD)
            return (enrol_BSD, has_BS | own_BS, logits_BTC), None

        start = jnp.zeros((B, most, D), frames_BTD.dtype), jnp.zeros((B, most), bool)
        (_, has_BS, logits_BTC), _ = jax.lax.scan(
            step, (*start, jnp.zeros((B, T, STATES + most), jnp.float32)), jnp.arange(most + 2)
        )
        return jnp.where(has_BS[:, None], logits_BTC[..., STATES:], NOBODY), has_BS


class TargetSpeakers(nnx.Module):
    """Logits [B, T, S] of speakers with profiles [B, S, D] in frames [B, T, D]; whoever stands first stands first."""

    def __init__(self, width: int, heads: int, ffn: int, *, init: Init):
        kind = Kind(width, heads, ffn, norm="layer", activation="relu")
        self.join = linear(2 * width, width, init)
        self.over_time, self.over_speakers = PerformerLayer(kind, init=init), PerformerLayer(kind, init=init)
        self.norm = LayerNorm(width, init=init)
        self.active = linear(width, 1, init)

    def __call__(
        self, frames_BTD: Array, mask_BT: Array, profile_BSD: Array, has_BS: Array, noise: Noise | None = None
    ) -> Array:
        (B, T, D), S = frames_BTD.shape, profile_BSD.shape[1]
        own = [jnp.broadcast_to(x, (B, S, T, D)) for x in (frames_BTD[:, None], profile_BSD[:, :, None])]
        x = self.join(jnp.concatenate(own, axis=-1).reshape(B * S, T, 2 * D))
        seen_XT = jnp.broadcast_to(mask_BT[:, None], (B, S, T)).reshape(B * S, T)
        x = self.over_time(x, seen_XT, noise=noise)
        x = x.reshape(B, S, T, D).swapaxes(1, 2).reshape(B * T, S, D)
        there_BS = jnp.logical_or(has_BS, ~has_BS.any(1, keepdims=True))  # attention to nobody has no mean
        x = self.over_speakers(x, jnp.broadcast_to(there_BS[:, None], (B, T, S)).reshape(B * T, S), noise=noise)
        return self.active(self.norm(x)).reshape(B, T, S)

    def taught(self, frames_BTD: Array, mask_BT: Array, active_BTS: Array, noise: Noise | None) -> tuple[Array, Array]:
        """(logits, which speakers there are [B, S]) with profiles by the labels, in training of half of the frames."""
        alone_BTS = alone(active_BTS, mask_BT)
        if noise is not None:
            alone_BTS = drawn(alone_BTS, jax.random.fold_in(noise.key, 2**20 + 1))
        profile_BSD, has_BS = self._profiles(frames_BTD, mask_BT, active_BTS, alone_BTS)
        return self(frames_BTD, mask_BT, profile_BSD, has_BS, noise), has_BS

    def found(self, frames_BTD: Array, mask_BT: Array, first_BTS: Array, exists_BS: Array) -> Array:
        """Logits with profiles by a first pass: its logits, and those of its attractors being somebody."""
        there_BS = jnp.cumprod(exists_BS > 0, axis=1) > 0
        active_BTS = (first_BTS > 0) & there_BS[:, None] & mask_BT[..., None]
        profile_BSD, has_BS = self._profiles(frames_BTD, mask_BT, active_BTS, alone(active_BTS, mask_BT))
        return jnp.where(has_BS[:, None], self(frames_BTD, mask_BT, profile_BSD, has_BS), NOBODY)

    def _profiles(self, frames_BTD, mask_BT, active_BTS, alone_BTS):
        """Of frames alone, or with others where somebody is never alone."""
        active_BTS = active_BTS & mask_BT[..., None]
        return profiles(frames_BTD, jnp.where(alone_BTS.any(1, keepdims=True), alone_BTS, active_BTS))
