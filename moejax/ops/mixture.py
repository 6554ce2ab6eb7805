"""The mixture of low-rank experts: one definition for training, scoring and decoding.

    y = sum_e g_e (alpha / r) B_e A_e x        (added to the frozen layer's W0 x by the caller)

in activation space, after Hu et al. 2021 (LoRA) with per-utterance weights g. Two forms of the same sum:

* gathered: pick the X chosen experts of each utterance and multiply batched. Cost grows with X, not with E
  (E = 64 cost 1.08 of E = 1 in a training step).
* dense: all experts side by side, weights on the rank axis. Chosen by the route when every expert takes part.
"""

import jax.numpy as jnp

from moejax.types import Route


def apply(x_BTD, A_EDR, B_ERO, route: Route, scale):
    """Low-rank update y_BTO in float32. `scale` is alpha / r. Errors: an index outside 0..E-1 is the caller's bug."""
    x_BTD = x_BTD.astype(A_EDR.dtype)
    if route.index_BX is None:
        return _dense(x_BTD, A_EDR, B_ERO, route.weight_BX * scale)
    A_BXDR = jnp.take(A_EDR, route.index_BX, axis=0, mode="clip")
    B_BXRO = jnp.take(B_ERO, route.index_BX, axis=0, mode="clip")
    h_BTXR = jnp.einsum("BTD,BXDR->BTXR", x_BTD, A_BXDR) * (route.weight_BX * scale)[:, None, :, None]
    return jnp.einsum("BTXR,BXRO->BTO", h_BTXR, B_BXRO)


def _dense(x_BTD, A_EDR, B_ERO, weight_BE):
    E, D, R = A_EDR.shape
    h_BTER = (x_BTD @ A_EDR.transpose(1, 0, 2).reshape(D, E * R)).reshape(*x_BTD.shape[:-1], E, R)
    h_BTER = h_BTER * weight_BE[:, None, :, None]
    return h_BTER.reshape(*x_BTD.shape[:-1], E * R) @ B_ERO.reshape(E * R, -1)
