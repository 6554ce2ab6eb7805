"""Matrix products of activations with weights that are kept in float32, bfloat16 or int8.

Weights kept in bfloat16 under float32 activations: both operands are rounded to bfloat16, sums stay in float32. A
processor with matrix tiles (AMX) does that five times as fast as float32, a GPU more; where a processor has no
instructions for bfloat16, the weights are read as float32, which is exact and no slower than before.
"""

import functools

import jax
import jax.numpy as jnp

from moejax.ops.int8 import Int8Matrix
from moejax.types import Array

INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")  # as /proc/cpuinfo calls them on x86 and on ARM


def matmul(x_BTD: Array, kernel_DO) -> Array:
    """x W in the type of x; `kernel_DO`: an array or an `Int8Matrix`."""
    if isinstance(kernel_DO, Int8Matrix):
        y_BTO = x_BTD @ kernel_DO.values.astype(x_BTD.dtype)
        return y_BTO * kernel_DO.scale.astype(x_BTD.dtype).reshape((1,) * (x_BTD.ndim - 1) + (-1,))
    if rounds(x_BTD, kernel_DO):
        return jnp.matmul(x_BTD.astype(jnp.bfloat16), kernel_DO, preferred_element_type=x_BTD.dtype)
    return x_BTD @ kernel_DO.astype(x_BTD.dtype)


def rounds(x: Array, kernel) -> bool:
    """Whether a product of these is one of operands rounded to bfloat16."""
    kept = None if isinstance(kernel, Int8Matrix) else kernel.dtype
    return x.dtype == jnp.float32 and kept == jnp.bfloat16 and multiplies_bfloat16()


@functools.cache
def multiplies_bfloat16() -> bool:
    """Whether the device multiplies bfloat16 faster than float32."""
    if jax.default_backend() != "cpu":
        return True
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line.split() for line in file if line.startswith(("flags", "Features"))), [])
    except OSError:
        return False
    return any(name in flags for name in INSTRUCTIONS)
