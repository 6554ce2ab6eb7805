"""Classifiers of sounds: log-mel images in, logits out; all of them learn from scratch.

An image is [B, M, N] in decibels (mel bands by frames); each network standardises it by its buffers `centre` and
`spread` [M], which are statistics of the training clips. Features of images are [B, M, N, channels].
"""

import math
from abc import abstractmethod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from moejax.errors import BadValue
from moejax.nn.layers import LayerNorm, Linear, Noise, drop
from moejax.nn.variables import Backbone, Buffer, Init
from moejax.nn.whisper import sinusoids
from moejax.ops import products
from moejax.ops.attention import attend
from moejax.types import Array

Moments = list[tuple[Array, Array]]  # (mean, variance) [channels] of every batch norm in order, in one batch


class Conv2D(nnx.Module):
    """3 x 3 convolution with padding 1 as one matrix product over the nine shifts (as `layers.Conv`)."""

    def __init__(self, d_in: int, d_out: int, *, stride: int = 1, init: Init):
        self.stride = stride
        bound = (9 * d_in) ** -0.5
        self.kernel = Backbone(init.uniform(3, 3, d_in, d_out, bound=bound))
        self.bias = Backbone(init.uniform(d_out, bound=bound))

    def __call__(self, x_BMNC: Array) -> Array:
        s, (rows, columns) = self.stride, (-(-size // self.stride) for size in x_BMNC.shape[1:3])
        # one more at the end for a stride that runs over it
        padded = jnp.pad(x_BMNC, ((0, 0), (1, 1 + s), (1, 1 + s), (0, 0)))
        shifts = [padded[:, i : i + rows * s : s, j : j + columns * s : s] for i in range(3) for j in range(3)]
        kernel = self.kernel[...].reshape(-1, self.kernel.shape[-1])
        return products.matmul(jnp.concatenate(shifts, axis=-1), kernel) + self.bias[...][None, None, None]


class BatchNorm(nnx.Module):
    """Batch norm over all but the channels, epsilon 1e-5: by the moments of the batch's real rows where `moments` are
    collected (training), else by its buffers, which `calibrate` fills from training clips.
    """

    def __init__(self, width: int, *, init: Init):
        self.scale = Backbone(init.constant(width, value=1.0))
        self.bias = Backbone(init.constant(width))
        self.mean = Buffer(jnp.zeros(width))
        self.variance = Buffer(jnp.ones(width))

    def __call__(self, x_BMNC: Array, moments: Moments | None, real_B: Array | None) -> Array:
        if moments is None:
            mean_C, variance_C = self.mean[...], self.variance[...]
        else:
            weight_B = jnp.ones(x_BMNC.shape[0]) if real_B is None else real_B.astype(jnp.float32)
            weight_B = weight_B / jnp.maximum(weight_B.sum(), 1.0)
            mean_C = jnp.einsum("B,BC->C", weight_B, x_BMNC.mean((1, 2)))
            centred = x_BMNC - mean_C[None, None, None]
            variance_C = jnp.einsum("B,BC->C", weight_B, jnp.square(centred).mean((1, 2)))
            moments.append((mean_C, variance_C))
        factor_C = self.scale[...] * jax.lax.rsqrt(variance_C + 1e-5)
        return (x_BMNC - mean_C[None, None, None]) * factor_C[None, None, None] + self.bias[...][None, None, None]


class Net(nnx.Module):
    """What all have in common: standardised input, and a forward pass that may draw noise and collect moments."""

    def __init__(self, shape: tuple[int, int], classes: int, init: Init | None = None):
        del init
        self.shape, self.classes = tuple(shape), classes
        self.centre = Buffer(jnp.zeros(shape[0]))
        self.spread = Buffer(jnp.ones(shape[0]))

    def standardised(self, image_BMN: Array) -> Array:
        """[B, M, N, 1]"""
        return ((image_BMN - self.centre[...][None, :, None]) / self.spread[...][None, :, None])[..., None]

    @abstractmethod
    def features(self, x_BMNC: Array, noise: Noise | None, moments: Moments | None, real_B: Array | None) -> Array:
        """Logits of a standardised image."""

    def __call__(
        self,
        image_BMN: Array,
        *,
        noise: Noise | None = None,
        moments: Moments | None = None,
        real_B: Array | None = None,
    ) -> Array:
        """Logits [B, classes]. With `moments` (a list) batch norms go by the batch and append theirs to it."""
        return self.features(self.standardised(image_BMN), noise, moments, real_B)


class SimpleCNN(Net):
    """Three convolutions of 16, 32, 64 channels with 2 x 2 pools, then 128 units: 1,400,970 parameters for 10 classes
    of 64 x 173 images.
    """

    def __init__(self, shape: tuple[int, int], classes: int, init: Init):
        super().__init__(shape, classes)
        widths = (1, 16, 32, 64)
        self.convs = nnx.List([Conv2D(a, b, init=init) for a, b in zip(widths, widths[1:], strict=False)])
        flat = 64 * (shape[0] // 8) * (shape[1] // 8)
        self.fc1 = linear(flat, 128, init)
        self.fc2 = linear(128, classes, init)

    def features(self, x_BMNC, noise, moments, real_B):
        del moments, real_B
        for conv in self.convs:
            x_BMNC = halved(jax.nn.relu(conv(x_BMNC)))
        h_BD = jax.nn.relu(dense(self.fc1, _flat(x_BMNC)))
        return dense(self.fc2, h_BD if noise is None else noise.drop(h_BD, 0.3))


class VGG(Net):
    """Stacked 3 x 3 convolutions in four blocks of two (16 to 128 channels, batch norm, 2 x 2 pool), then mean and
    maximum over the image (after Simonyan and Zisserman 2015; no large dense layer, which little data cannot feed).
    """

    def __init__(self, shape: tuple[int, int], classes: int, init: Init):
        super().__init__(shape, classes)
        widths = (1, 16, 16, 32, 32, 64, 64, 128, 128)
        self.blocks = nnx.List([_ConvNorm(a, b, 1, init) for a, b in zip(widths, widths[1:], strict=False)])
        self.head = linear(128, classes, init)

    def features(self, x_BMNC, noise, moments, real_B):
        for number, block in enumerate(self.blocks):
            x_BMNC = block(x_BMNC, moments, real_B)
            x_BMNC = halved(x_BMNC) if number % 2 else x_BMNC
        h_BD = x_BMNC.mean((1, 2)) + x_BMNC.max((1, 2))
        return dense(self.head, h_BD if noise is None else noise.drop(h_BD, 0.3))


class CRNN(Net):
    """Three convolutions with batch norm and 2 x 2 pools, a GRU over time in both directions, the mean of its states
    (after Choi et al. 2017).
    """

    def __init__(self, shape: tuple[int, int], classes: int, init: Init, *, width: int = 64):
        super().__init__(shape, classes)
        widths = (1, 16, 32, 64)
        self.blocks = nnx.List([_ConvNorm(a, b, 1, init) for a, b in zip(widths, widths[1:], strict=False)])
        flat = 64 * (shape[0] // 8)
        self.forward = GRU(flat, width, init=init)
        self.backward = GRU(flat, width, init=init)
        self.head = linear(2 * width, classes, init)

    def features(self, x_BMNC, noise, moments, real_B):
        for block in self.blocks:
            x_BMNC = halved(block(x_BMNC, moments, real_B))
        x_BTD = _tokens(x_BMNC)
        back_BTD = self.backward(x_BTD[:, ::-1])[:, ::-1]
        h_BD = jnp.concatenate([self.forward(x_BTD), back_BTD], axis=-1).mean(1)
        return dense(self.head, h_BD if noise is None else noise.drop(h_BD, 0.3))


class GRU(nnx.Module):
    """Gated recurrent unit (Cho et al. 2014), gates in torch's order r, z, n."""

    def __init__(self, d_in: int, width: int, *, init: Init):
        bound = width**-0.5
        self.kernel = Backbone(init.uniform(d_in, 3 * width, bound=bound))
        self.bias = Backbone(init.uniform(3 * width, bound=bound))
        self.own_kernel = Backbone(init.uniform(width, 3 * width, bound=bound))
        self.own_bias = Backbone(init.uniform(3 * width, bound=bound))

    def __call__(self, x_BTD: Array) -> Array:
        """States [B, T, width]."""
        own, own_bias = self.own_kernel[...], self.own_bias[...]
        given_BTG = products.matmul(x_BTD, self.kernel[...]) + self.bias[...][None, None]

        def step(h_BD, given_BG):
            r_BD, z_BD, n_BD = jnp.split(given_BG, 3, axis=-1)
            own_r, own_z, own_n = jnp.split(products.matmul(h_BD, own) + own_bias[None], 3, axis=-1)
            update_BD = jax.nn.sigmoid(z_BD + own_z)
            new_BD = jnp.tanh(n_BD + jax.nn.sigmoid(r_BD + own_r) * own_n)
            h_BD = (1.0 - update_BD) * new_BD + update_BD * h_BD
            return h_BD, h_BD

        start_BD = jnp.zeros((x_BTD.shape[0], own.shape[0]), given_BTG.dtype)
        return jax.lax.scan(step, start_BD, given_BTG.swapaxes(0, 1))[1].swapaxes(0, 1)


class AudioTransformer(Net):
    """Three strided convolutions (32, 64, 128, batch norm), a token for each column of what is left, four post-norm
    layers, their mean: 2,466,506 parameters for 10 classes of 64 x 173 images.
    """

    def __init__(self, shape: tuple[int, int], classes: int, init: Init, *, width: int = 256, layers: int = 4):
        super().__init__(shape, classes)
        widths = (1, 32, 64, 128)
        self.blocks = nnx.List([_ConvNorm(a, b, 2, init) for a, b in zip(widths, widths[1:], strict=False)])
        rows, columns = (math.ceil(size / 8) for size in shape)
        self.project = linear(128 * rows, width, init)
        self.positions = Buffer(jnp.asarray(sinusoids(columns, width)))
        self.layers = nnx.List([PostNormBlock(width, 8, 2 * width, init=init) for _ in range(layers)])
        self.head = linear(width, classes, init)

    def features(self, x_BMNC, noise, moments, real_B):
        for block in self.blocks:
            x_BMNC = block(x_BMNC, moments, real_B)
        x_BTD = self.project(_tokens(x_BMNC)) + self.positions[...][None]
        for layer in self.layers:
            x_BTD = layer(x_BTD, noise)
        return dense(self.head, x_BTD.mean(1))


class PostNormBlock(nnx.Module):
    """Transformer layer as Vaswani et al. 2017 and torch have it: norms behind the sums, ReLU, biases everywhere."""

    def __init__(self, width: int, heads: int, ffn: int, *, init: Init):
        if width % heads:
            raise BadValue(f"width {width} is not divisible by {heads} heads")
        self.heads = heads
        self.q, self.k, self.v, self.out = (linear(width, width, init) for _ in range(4))
        self.norm1, self.norm2 = LayerNorm(width, init=init), LayerNorm(width, init=init)
        self.fc1, self.fc2 = linear(width, ffn, init), linear(ffn, width, init)

    def __call__(self, x_BTD: Array, noise: Noise | None = None) -> Array:
        q, k, v = (layer(x_BTD).reshape(*x_BTD.shape[:2], self.heads, -1) for layer in (self.q, self.k, self.v))
        h_BTD = self.out(attend(q, k, v).reshape(x_BTD.shape).astype(x_BTD.dtype))
        x_BTD = self.norm1(x_BTD + drop(noise, h_BTD))
        h_BTD = self.fc2(drop(noise, jax.nn.relu(self.fc1(x_BTD))))
        return self.norm2(x_BTD + drop(noise, h_BTD))


class _ConvNorm(nnx.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, d_in: int, d_out: int, stride: int, init: Init):
        self.conv = Conv2D(d_in, d_out, stride=stride, init=init)
        self.norm = BatchNorm(d_out, init=init)

    def __call__(self, x_BMNC, moments, real_B):
        return jax.nn.relu(self.norm(self.conv(x_BMNC), moments, real_B))


KINDS: dict[str, type[Net]] = {"cnn": SimpleCNN, "vgg": VGG, "crnn": CRNN, "transformer": AudioTransformer}


def calibrate(net: Any, moments: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Fills the buffers of a net's batch norms, in the order in which a pass meets them."""
    norms = [block.norm for block in getattr(net, "blocks", ())]
    for norm, (mean_C, variance_C) in zip(norms, moments, strict=True):
        norm.mean[...], norm.variance[...] = jnp.asarray(mean_C), jnp.asarray(variance_C)


def standardise(net: Any, centre: np.ndarray, spread: np.ndarray) -> None:
    """Sets the statistics by which a network standardises what it hears; also of `nn.probe`."""
    net.centre[...], net.spread[...] = jnp.asarray(centre, jnp.float32), jnp.asarray(spread, jnp.float32)


def halved(x_BMNC: Array) -> Array:
    """Maximum over 2 x 2, an odd last row or column left out."""
    B, M, N, C = x_BMNC.shape
    x_BMNC = x_BMNC[:, : M // 2 * 2, : N // 2 * 2]
    return x_BMNC.reshape(B, M // 2, 2, N // 2, 2, C).max((2, 4))


def dense(layer: Linear, x_BD: Array) -> Array:
    """A linear layer of vectors."""
    return layer(x_BD[:, None])[:, 0]


def linear(d_in: int, d_out: int, init: Init, group: type[nnx.Param] = Backbone) -> Linear:
    """A linear layer as torch draws one: weights and bias uniform within 1 / sqrt(inputs)."""
    layer = Linear(d_in, d_out, init=init, group=group)
    layer.kernel = group(init.uniform(d_in, d_out, bound=d_in**-0.5))
    layer.bias = group(init.uniform(d_out, bound=d_in**-0.5))
    return layer


def _flat(x_BMNC):
    """[B, C * M * N] with the channels first, as torch flattens."""
    return x_BMNC.transpose(0, 3, 1, 2).reshape(x_BMNC.shape[0], -1)


def _tokens(x_BMNC):
    """A token [C * M] for each column: [B, N, C * M]."""
    B, M, N, C = x_BMNC.shape
    return x_BMNC.transpose(0, 2, 3, 1).reshape(B, N, C * M)
