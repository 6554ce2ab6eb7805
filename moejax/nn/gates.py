"""The gate: from the pooled states of the unadapted encoder to one logit per expert."""

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.nn.variables import Buffer, Gate


class MLPGate(nnx.Module):
    """G = Linear ReLU Linear on a fixed affine projection of the embedding (standardisation, or a discriminant that
    keeps the voice).

    `hidden` = 0 leaves one linear layer. `zero_start` makes the last layer zero: every expert begins equally likely,
    and the gradient of the recognition loss, not chance, tells them apart. float32 throughout.
    """

    def __init__(self, mean_U, matrix_UK, *, num_experts, hidden, zero_start=False, init):
        self.mean = Buffer(jnp.asarray(mean_U, jnp.float32))
        self.matrix = Buffer(jnp.asarray(matrix_UK, jnp.float32))
        width = self.matrix.shape[1]
        if hidden:
            self.hidden_kernel = Gate(init.uniform(width, hidden, bound=width**-0.5))
            self.hidden_bias = Gate(init.constant(hidden))
        else:
            self.hidden_kernel = self.hidden_bias = None
        last = hidden or width
        self.kernel = Gate(init.uniform(last, num_experts, bound=0.0 if zero_start else last**-0.5))
        self.bias = Gate(init.constant(num_experts))

    def __call__(self, embedding_BU):
        """Logits [B, E]."""
        h = (embedding_BU.astype(jnp.float32) - self.mean[...][None]) @ self.matrix[...]
        if self.hidden_kernel is not None:
            h = jax.nn.relu(h @ self.hidden_kernel[...] + self.hidden_bias[...][None])
        return h @ self.kernel[...] + self.bias[...][None]

