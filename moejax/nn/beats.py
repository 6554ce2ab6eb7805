"""BEATs (Chen et al. 2022, arXiv 2212.09058): sounds of any kind as states of a transformer over patches.

Filter banks become patches of 16 frames by 16 bands, eight of them side by side in time order; convolutional positions,
post-norm layers with deep norm, and distances by buckets whose bias each query gates (as in WavLM).
Written from the paper and the formulas of microsoft/unilm's beats/ (MIT); the weight norm of the convolution is
multiplied out when a checkpoint is read.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from moejax.errors import BadValue
from moejax.nn.layers import LayerNorm, Linear
from moejax.nn.variables import Backbone, Init
from moejax.ops.attention import MASKED
from moejax.ops.kaldi_fbank import WINDOW, fbank, frames
from moejax.types import Array

BANDS = 128
MEAN, SPREAD = 15.41663, 2 * 6.55582  # of AudioSet's filter banks


@dataclasses.dataclass(frozen=True)
class BeatsConfig:
    """Sizes of one network, by default those of the published ones."""

    patch: int = 16
    patch_width: int = 512
    patch_bias: bool = False
    width: int = 768
    layers: int = 12
    heads: int = 12
    ffn: int = 3072
    conv: int = 128  # tokens that the convolution of positions spans
    conv_groups: int = 16
    buckets: int = 320
    max_distance: int = 1280

    def __post_init__(self):
        for name in ("patch", "patch_width", "width", "layers", "heads", "ffn", "conv", "conv_groups", "max_distance"):
            if not (type(getattr(self, name)) is int and getattr(self, name) >= 1):
                raise BadValue(f"{name} of BEATs is {getattr(self, name)!r}; it takes a whole number from 1")
        if self.width % self.heads or self.width % self.conv_groups or BANDS % self.patch:
            raise BadValue(
                f"width {self.width} must divide by {self.heads} heads and {self.conv_groups} groups, {BANDS} bands by "
                f"patches of {self.patch}"
            )
        if self.buckets < 4 or self.buckets % 4 or self.max_distance <= self.buckets // 4:
            raise BadValue(f"buckets = {self.buckets} takes a multiple of 4, less than 4 x max_distance")

    def tokens(self, samples: int) -> int:
        """Tokens of a recording of so many samples at 16 kHz: 1496 of 30 s."""
        return frames(samples) // self.patch * (BANDS // self.patch)


def bucket(distance: np.ndarray, buckets: int, most: int) -> np.ndarray:
    """Bucket of each distance (key minus query): exact when near, logarithmic up to `most`, either side its own."""
    half = buckets // 2
    near, far = half // 2, np.abs(distance)
    steps = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(near)) / np.float32(math.log(most / near))
    large = np.minimum(near + (steps * np.float32(half - near)).astype(np.int64), half - 1)
    return np.where(far < near, far, large) + half * (distance > 0)


class GatedAttention(nnx.Module):
    """Self-attention; every query scales what distances add to its scores."""

    def __init__(self, config: BeatsConfig, *, init: Init):
        self.heads, width = config.heads, config.width
        self.q, self.k, self.v, self.out = (Linear(width, width, init=init) for _ in range(4))
        self.gate = Linear(width // config.heads, 8, init=init)
        self.gate_scale = Backbone(init.constant(config.heads, value=1.0))

    def __call__(self, x_BTD: Array, bias_HTS: Array, mask_BT: Array | None = None) -> Array:
        q, k, v = (layer(x_BTD).reshape(*x_BTD.shape[:2], self.heads, -1) for layer in (self.q, self.k, self.v))
        score_BHTS = jnp.einsum("BTHK,BSHK->BHTS", q * q.shape[-1] ** -0.5, k, preferred_element_type=jnp.float32)
        score_BHTS = score_BHTS + self._gates(q)[..., None] * bias_HTS[None]
        if mask_BT is not None:
            score_BHTS = jnp.where(mask_BT[:, None, None], score_BHTS, MASKED)
        weight_BHTS = jax.nn.softmax(score_BHTS, axis=-1).astype(v.dtype)
        return self.out(jnp.einsum("BHTS,BSHK->BTHK", weight_BHTS, v).reshape(x_BTD.shape))

    def _gates(self, q_BTHK):
        """[B, H, T]: a (b s - 1) + 2 with a and b sigmoids of sums of four outputs each."""
        B, T, H, K = q_BTHK.shape
        sums = self.gate(q_BTHK.reshape(B, T * H, K)).reshape(B, T, H, 2, 4).sum(-1)
        a_BTH, b_BTH = jax.nn.sigmoid(sums[..., 0]), jax.nn.sigmoid(sums[..., 1])
        return (a_BTH * (b_BTH * self.gate_scale[...][None, None] - 1.0) + 2.0).swapaxes(1, 2)


class BeatsLayer(nnx.Module):
    """Post-norm transformer layer whose residual counts more (deep norm, Wang et al. 2022, arXiv 2203.00555)."""

    def __init__(self, config: BeatsConfig, *, init: Init):
        self.self_attn = GatedAttention(config, init=init)
        self.self_attn_norm = LayerNorm(config.width, init=init)
        self.fc1 = Linear(config.width, config.ffn, init=init)
        self.fc2 = Linear(config.ffn, config.width, init=init)
        self.norm = LayerNorm(config.width, init=init)
        self.residual = (2.0 * config.layers) ** 0.25

    def __call__(self, x_BTD: Array, bias_HTS: Array, mask_BT: Array | None = None) -> Array:
        x_BTD = self.self_attn_norm(self.residual * x_BTD + self.self_attn(x_BTD, bias_HTS, mask_BT))
        h_BTF = jax.nn.gelu(self.fc1(x_BTD), approximate=False)
        return self.norm(self.residual * x_BTD + self.fc2(h_BTF))


class Beats(nnx.Module):
    """Waves [B, S] in -1..1 at 16 kHz to states [B, T, D], T = `config.tokens(S)`, and which of them are real."""

    def __init__(self, config: BeatsConfig, *, init: Init):
        c = self.config = config
        self.patches = Linear(c.patch**2, c.patch_width, bias=c.patch_bias, init=init)
        self.patch_norm = LayerNorm(c.patch_width, init=init)
        self.project = Linear(c.patch_width, c.width, init=init) if c.patch_width != c.width else None
        std = math.sqrt(4.0 / (c.conv * c.width))
        self.conv_kernel = Backbone(init.normal(c.conv, c.width // c.conv_groups, c.width, std=std))
        self.conv_bias = Backbone(init.constant(c.width))
        self.norm = LayerNorm(c.width, init=init)
        self.distances = Backbone(init.normal(c.buckets, c.heads, std=0.02))
        self.layers = nnx.List([BeatsLayer(c, init=init) for _ in range(c.layers)])

    def __call__(self, wave_BS: Array, samples_B: Array | None = None) -> tuple[Array, Array]:
        c, (B, S) = self.config, wave_BS.shape
        if frames(S) < c.patch:
            least = WINDOW + 160 * (c.patch - 1)
            raise BadValue(f"{S} samples are shorter than BEATs' first patch; it takes at least {least}")
        image_BNM = (fbank(wave_BS, BANDS) - MEAN) / SPREAD
        N, across = image_BNM.shape[1] // c.patch, BANDS // c.patch
        patch = image_BNM[:, : N * c.patch].reshape(B, N, c.patch, across, c.patch).swapaxes(2, 3)
        x_BTD = self.patch_norm(self.patches(patch.reshape(B, N * across, -1)))
        mask_BT = self.real(samples_B, B, S)
        return self.encode(x_BTD if self.project is None else self.project(x_BTD), mask_BT), mask_BT

    def encode(self, x_BTD: Array, mask_BT: Array | None = None) -> Array:
        """States of patches that are there already, [B, T, D]."""
        c, T = self.config, x_BTD.shape[1]
        if mask_BT is not None:
            x_BTD = jnp.where(mask_BT[..., None], x_BTD, 0.0)
        near = jax.lax.conv_general_dilated(
            x_BTD,
            self.conv_kernel[...].astype(x_BTD.dtype),
            window_strides=(1,),
            padding=[(c.conv // 2, (c.conv - 1) // 2)],
            dimension_numbers=("NWC", "WIO", "NWC"),
            feature_group_count=c.conv_groups,
        )
        near = near + self.conv_bias[...].astype(x_BTD.dtype)[None, None]
        x_BTD = self.norm(x_BTD + jax.nn.gelu(near, approximate=False))
        at_TS = bucket(np.arange(T)[None] - np.arange(T)[:, None], c.buckets, c.max_distance)
        bias_HTS = jnp.take(self.distances[...].astype(jnp.float32), at_TS, axis=0).transpose(2, 0, 1)
        for layer in self.layers:
            x_BTD = layer(x_BTD, bias_HTS, mask_BT)
        return x_BTD

    def real(self, samples_B: Array | None, B: int, S: int) -> Array:
        """Which tokens [B, T] of waves [B, S] count. As published: samples are shared out among frames, and frames
        among tokens, in equal parts, and what is all padding does not count.
        """
        count, T = frames(S), self.config.tokens(S)
        if samples_B is None:
            return jnp.ones((B, T), bool)
        first_T = jnp.arange(T) * (count // T) * (S // count)
        return first_T[None] < samples_B[:, None]
