"""The mixture of low-rank experts: one definition for training, scoring and decoding.

    y = sum_e g_e (alpha / r) B_e A_e x        (added to the frozen layer's W0 x by the caller)

in activation space, after Hu et al. 2021 (LoRA) with per-utterance weights g. Two forms of the same sum:

* gathered: pick the X chosen experts of each utterance and multiply batched. Cost grows with X, not with E
  (E = 64 cost 1.08 of E = 1 in a training step).
* dense: all experts side by side, weights on the rank axis. Chosen by the route when every expert takes part.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp

from moejax.ops.routing import dense_weights
from moejax.types import Route


def apply(x_BTD, A_EDR, B_ERO, route: Route, scale):
    """Low-rank update y_BTO in float32. `scale` is alpha / r. Errors: an index outside 0..E-1 is the caller's bug."""
    x_BTD = x_BTD.astype(A_EDR.dtype)
    if route.index_BX is None:
        return _dense(x_BTD, A_EDR, B_ERO, _columns(route, scale))
    A_BXDR = jnp.take(A_EDR, route.index_BX, axis=0, mode="clip")
    B_BXRO = jnp.take(B_ERO, route.index_BX, axis=0, mode="clip")
    h_BTXR = jnp.einsum("BTD,BXDR->BTXR", x_BTD, A_BXDR) * _columns(route, scale)[:, None]
    return jnp.einsum("BTXR,BXRO->BTO", h_BTXR, B_BXRO)


def _columns(route: Route, scale):
    """What each chosen expert's ranks are weighed by [B, X, R], [B, X, 1] where all the same; [B, T, E, 1] by token."""
    weight_BXR = (route.weight_BX * scale)[..., None]
    if route.rank_BER is None:
        return weight_BXR
    if route.index_BX is None:
        return weight_BXR * route.rank_BER
    return weight_BXR * jnp.take_along_axis(route.rank_BER, route.index_BX[..., None], axis=1)


def _dense(x_BTD, A_EDR, B_ERO, weight_BER):
    E, D, R = A_EDR.shape
    h_BTER = (x_BTD @ A_EDR.transpose(1, 0, 2).reshape(D, E * R)).reshape(*x_BTD.shape[:-1], E, R)
    h_BTER = h_BTER * (weight_BER if weight_BER.ndim == 4 else weight_BER[:, None])
    return h_BTER.reshape(*x_BTD.shape[:-1], E * R) @ B_ERO.reshape(E * R, -1)


class Folded(NamedTuple):
    """The mixture of one layer under one route, for many steps with the same route (decoding): all that depends on
    the route alone is done once. Q counts low-rank columns.
    """

    A: Any  # [B, D, Q], or [D, Q] when every utterance uses all experts
    B: Any  # [B, Q, O] with the weights in it, or [Q, O]
    weight_BQ: Any  # weights of the columns; None when they are in B
    expert_Q: Any = None  # whose column it is, where every token has weights of its own: those of `of_tokens`


def fold(A_EDR, B_ERO, route: Route, scale, *, gather: bool | None = None) -> Folded:
    """Gathers each utterance's chosen experts, or lays all experts side by side, whichever are fewer bytes to read in
    every step (`gather` decides otherwise).
    """
    E, D, R = A_EDR.shape
    if gather is None:
        gather = gathers(E, route)
    if not gather:
        weight_BQ = jnp.repeat(dense_weights(route, E) * scale, R, axis=1)
        if route.rank_BER is not None:
            weight_BQ = weight_BQ * route.rank_BER.reshape(weight_BQ.shape)
        return Folded(A_EDR.transpose(1, 0, 2).reshape(D, E * R), B_ERO.reshape(E * R, -1), weight_BQ)
    assert route.index_BX is not None  # what is gathered was chosen
    B, X = route.index_BX.shape
    A_BXDR = jnp.take(A_EDR, route.index_BX, axis=0, mode="clip")
    B_BXRO = jnp.take(B_ERO, route.index_BX, axis=0, mode="clip") * _columns(route, scale)[..., None]
    return Folded(A_BXDR.transpose(0, 2, 1, 3).reshape(B, D, X * R), B_BXRO.reshape(B, X * R, -1), None)


def fold_tokens(A_EDR, B_ERO, scale, *, first: int = 0) -> Folded:
    """All experts side by side for a decoder layer whose gate weighs every token: the weights come in every step, the
    scale is in B. The experts are those from `first` on.
    """
    E, D, R = A_EDR.shape
    expert_Q = jnp.repeat(jnp.arange(first, first + E, dtype=jnp.int32), R)
    return Folded(A_EDR.transpose(1, 0, 2).reshape(D, E * R), B_ERO.reshape(E * R, -1) * scale, None, expert_Q)


def of_tokens(folded: Folded, weight_BTE) -> Folded:
    """`fold_tokens` with these tokens' weights [B, T, Q]; experts after the last column are always on."""
    if folded is None or folded.expert_Q is None:
        return folded
    always_BT1 = jnp.ones((*weight_BTE.shape[:-1], 1), weight_BTE.dtype)
    weight_BTQ = jnp.take(jnp.concatenate([weight_BTE, always_BT1], axis=-1), folded.expert_Q, axis=-1, mode="clip")
    return folded._replace(weight_BQ=weight_BTQ, expert_Q=None)


def gathers(num_experts: int, route: Route) -> bool:
    """Whether `fold` gathers: not when the batch's choices together are as many as there are experts."""
    return route.index_BX is not None and route.index_BX.size < num_experts


def join(one: Folded, other: Folded) -> Folded:
    """The sum of two updates of one layer as one; both gathered or neither."""
    A, B = jnp.concatenate([one.A, other.A], axis=-1), jnp.concatenate([one.B, other.B], axis=-2)
    return Folded(A, B, *_column_facts([one, other]))


def _column_facts(parts):
    """(weight_BQ, expert_Q) of the columns of several updates beside each other, each None where the first has none."""
    return [
        None if getattr(parts[0], name) is None else jnp.concatenate([getattr(p, name) for p in parts], axis=-1)
        for name in ("weight_BQ", "expert_Q")
    ]


def side_by_side(updates, widths) -> Folded | None:
    """The updates of layers that read the same input, as one with their outputs side by side. None stands for a layer
    without experts, and comes back where no layer has any; all are gathered or none is.
    """
    there = [folded for folded in updates if folded is not None]
    if not there:
        return None
    parts, at = [], 0
    for folded, width in zip(updates, widths, strict=True):
        if folded is not None:
            sides = (*[(0, 0)] * (folded.B.ndim - 1), (at, sum(widths) - at - width))
            parts.append(jnp.pad(folded.B, sides))
        at += width
    A = jnp.concatenate([folded.A for folded in there], axis=-1)
    return Folded(A, jnp.concatenate(parts, axis=-2), *_column_facts(there))


def hidden(x_BTD, folded: Folded):
    """Low-rank activations h_BTQ, weighed where the weights are not in B."""
    h_BTQ = x_BTD.astype(folded.A.dtype) @ folded.A
    if folded.weight_BQ is None:
        return h_BTQ
    return h_BTQ * (folded.weight_BQ if folded.weight_BQ.ndim == 3 else folded.weight_BQ[:, None])


def apply_folded(x_BTD, folded: Folded):
    """Low-rank update y_BTO: what `apply` gives, from `fold`."""
    return hidden(x_BTD, folded) @ folded.B


def delta(folded: Folded):
    """Each utterance's update of the weights themselves [B, D, O]."""
    A = folded.A if folded.weight_BQ is None else folded.A[None] * folded.weight_BQ[:, None]
    return A @ folded.B


def norm_ratio(kernel_DO, folded: Folded):
    """ratio_BO = ||W0|| / ||W0 + update|| of each output's column, without any utterance's W0 + update being made:

    ||W0 + A B||^2 = ||W0||^2 + 2 (W0^T A) B + B^T (A^T A) B. An update of zero gives exactly 1.
    """
    kernel_DO, A, B_BQO = kernel_DO.astype(jnp.float32), folded.A, folded.B
    if folded.weight_BQ is not None:
        B_BQO = folded.weight_BQ[..., None] * folded.B[None]
    square_O = jnp.square(kernel_DO).sum(0)
    along_BQO = A.swapaxes(-1, -2) @ (kernel_DO if A.ndim == 2 else kernel_DO[None])
    gram_BQO = (A.swapaxes(-1, -2) @ A if A.ndim == 3 else (A.T @ A)[None]) @ B_BQO
    along_BQO = along_BQO if A.ndim == 3 else along_BQO[None]
    total_BO = square_O[None] + ((2.0 * along_BQO + gram_BQO) * B_BQO).sum(1)
    return jnp.sqrt((square_O[None] + 1e-12) / (jnp.maximum(total_BO, 0.0) + 1e-12))
