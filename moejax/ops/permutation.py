"""Losses that do not mind how speakers are numbered (permutation invariant training, Yu et al. 2017)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax

ENUMERATED = 4  # speakers up to which all orders are tried: 24 of them
_NEVER = 1e9


def pair_costs(logits_BTS, active_BTS, mask_BT):
    """Binary cross-entropy [B, S, S] of every output (rows) against every speaker (columns), over real frames."""
    logits_BTS = logits_BTS.astype(jnp.float32)
    seen_BT1 = mask_BT[..., None].astype(jnp.float32)
    silent_BS = (jax.nn.softplus(logits_BTS) * seen_BT1).sum(1)
    spoken_BXS = jnp.einsum("BTX,BTS->BXS", logits_BTS * seen_BT1, active_BTS.astype(jnp.float32))
    return silent_BS[:, :, None] - spoken_BXS


def among(cost_BSS, count_B):
    """Costs in which the first `count_B` outputs go to the first `count_B` speakers; the others pair for nothing."""
    S = cost_BSS.shape[-1]
    there_BS = jnp.arange(S)[None] < count_B[:, None]
    both, neither = (one[:, :, None] & one[:, None] for one in (there_BS, ~there_BS))
    return jnp.where(both, cost_BSS, jnp.where(neither, 0.0, _NEVER))


def best_by_enumeration(cost_BSS):
    """(least sum of costs [B], speaker of each output [B, S]) over all orders."""
    S = cost_BSS.shape[-1]
    orders_OS = np.array(list(itertools.permutations(range(S)))).reshape(-1, S)
    sum_BO = cost_BSS[:, np.arange(S)[None], orders_OS].sum(-1)
    best_B = sum_BO.argmin(1)
    return sum_BO.min(1), jnp.asarray(orders_OS)[best_B]


def best_by_assignment(cost_BSS):
    """The same by the Hungarian algorithm; the gradient is that of the chosen pairs."""

    def one(cost_SS):
        rows, columns = optax.assignment.hungarian_algorithm(jax.lax.stop_gradient(cost_SS))
        return jnp.zeros(cost_SS.shape[0], jnp.int32).at[rows].set(columns)

    order_BS = jax.vmap(one)(cost_BSS)
    return jnp.take_along_axis(cost_BSS, order_BS[..., None], axis=2)[..., 0].sum(-1), order_BS


def best(cost_BSS):
    """`best_by_enumeration` of few speakers, `best_by_assignment` of many."""
    return (best_by_enumeration if cost_BSS.shape[-1] <= ENUMERATED else best_by_assignment)(cost_BSS)
