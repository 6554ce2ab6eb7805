"""How the frozen backbone is kept in memory: float32, bfloat16, or int8 for the kernels of its linear layers.

Activations have a type of their own (`WhisperConfig.dtype`); experts, gate and heads stay float32 in any case.
"""

import jax.numpy as jnp

from moejax.errors import BadValue
from moejax.nn.functional import nest, paths
from moejax.ops.int8 import Int8Matrix, quantize_matrix
from moejax.types import Array, Params

KINDS = ("float32", "bfloat16", "int8")


def quantize(params: Params, kind: str, *, others: str = "float32") -> Params:
    """`params` with the backbone kept as `kind`; "" changes nothing. The other groups are handed on as they are.

    bfloat16 takes matrices (kernels, embedding, positions). int8 takes the kernels of linear layers; the convolutions
    and the embedding, which is the output matrix too, become `others`. Norms and biases are never touched. A kernel
    that is int8 already stays. Errors: ValueError for an unknown kind, or for float numbers wanted back from int8.
    """
    if not kind:
        return params
    if kind not in KINDS:
        raise BadValue(f"unknown format of weights {kind!r}; known: {', '.join(KINDS)}")
    flat = {path: _kept(path, leaf, kind, others) for path, leaf in paths(params["backbone"]).items()}
    return {**params, "backbone": nest(flat)}


def _kept(path, leaf, kind, others):
    if isinstance(leaf, Int8Matrix):
        if kind != "int8":
            raise BadValue(f"{path} is int8; {kind} weights are read from the checkpoint again")
        return leaf
    if leaf.ndim < 2:
        return leaf
    if kind == "int8":
        return quantize_matrix(leaf) if linear(path, leaf) else leaf.astype(jnp.dtype(others))
    return leaf.astype(jnp.dtype(kind))


def linear(path: str, leaf: Array) -> bool:
    """Whether this is the kernel of a linear layer (a convolution's has three axes)."""
    return path.endswith("/kernel") and leaf.ndim == 2
