"""The gate: from the pooled states of the unadapted encoder to one logit per expert."""

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.nn.variables import Buffer, Gate


class MLPGate(nnx.Module):
    """G = Linear ReLU Linear on a fixed affine projection of the embedding (standardisation, or a discriminant that
    keeps the voice).

    Given `voices_PK` (the training speakers' means after that projection) and a `radius`, logits shrink to zero as an
    utterance lies further than the radius from every one of them: a voice unlike any in training gets the even route,
    not that of whoever happens to be nearest. `hidden` = 0 leaves one linear layer. `zero_start` makes the last layer
    zero: every expert begins equally likely, and the gradient of the recognition loss, not chance, tells them apart.
    float32 throughout.
    """

    def __init__(
        self, mean_U, matrix_UK, *, num_experts, hidden, zero_start=False, voices_PK=None, radius=0.0, init
    ):  # fmt: skip
        self.mean = Buffer(jnp.asarray(mean_U, jnp.float32))
        self.matrix = Buffer(jnp.asarray(matrix_UK, jnp.float32))
        self.voices = None if voices_PK is None else Buffer(jnp.asarray(voices_PK, jnp.float32))
        self.radius = None if voices_PK is None else Buffer(jnp.asarray(radius, jnp.float32))
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
        h = z_BK = (embedding_BU.astype(jnp.float32) - self.mean[...][None]) @ self.matrix[...]
        if self.hidden_kernel is not None:
            h = jax.nn.relu(h @ self.hidden_kernel[...] + self.hidden_bias[...][None])
        logits_BE = h @ self.kernel[...] + self.bias[...][None]
        if self.voices is not None:
            logits_BE = logits_BE * likeness(z_BK, self.voices[...], self.radius[...])[:, None]
        return logits_BE


def nearest(z_BK, voices_PK):
    """Distance [B] to the nearest voice."""
    square_BPK = (z_BK[:, None] - voices_PK[None]) ** 2
    return jnp.sqrt(square_BPK.sum(-1).min(-1))


def likeness(z_BK, voices_PK, radius):
    """From 1 (a known voice) over one half (at the radius) to 0, all of it within a quarter of the radius or so."""
    return jax.nn.sigmoid(8.0 * (1.0 - nearest(z_BK, voices_PK) / radius))

