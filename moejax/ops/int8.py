"""Weight-only int8: a matrix as int8 numbers and one scale per output channel, symmetric around zero.

    W[:, o] = scale[o] * int8[:, o],   scale[o] = max |W[:, o]| / 127

so a zero stays exactly zero and every entry is off by at most scale[o] / 2. The scale commutes with the product:
x W = (x int8) * scale (LLM.int8, Dettmers et al. 2022, without its treatment of outliers; activations stay floats).
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from moejax.types import Array

LEVELS = 127  # -128 is left out, so that the range is symmetric


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8Matrix:
    """A matrix [D, O] that stands where an array stood: it has its shape, and `astype` gives it in floating point."""

    values: Array  # int8 [D, O]
    scale: Array  # float32 [O]

    @property
    def shape(self):
        return self.values.shape

    @property
    def ndim(self):
        return self.values.ndim

    def __getitem__(self, index):
        if index is not Ellipsis:
            raise TypeError("an Int8Matrix is not cut; take astype(dtype) first")
        return self

    def astype(self, dtype):
        """The matrix in `dtype`, written out: for code that joins or cuts kernels."""
        return (self.values.astype(jnp.float32) * self.scale[None, :]).astype(dtype)


def quantize_matrix(kernel_DO) -> Int8Matrix:
    """Int8Matrix of a floating-point matrix; on the host for numpy arrays, so that a large model needs no device."""
    xp = np if isinstance(kernel_DO, np.ndarray) else jnp
    kernel_DO = kernel_DO.astype(np.float32)
    largest_O = abs(kernel_DO).max(axis=0)
    scale_O = xp.where(largest_O > 0, largest_O, 1.0).astype(np.float32) / np.float32(LEVELS)
    values_DO = xp.clip(xp.round(kernel_DO / scale_O[None, :]), -LEVELS, LEVELS).astype(np.int8)
    return Int8Matrix(values_DO, scale_O)
