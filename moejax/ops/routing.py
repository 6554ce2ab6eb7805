"""From gate logits to routes.

Chosen weights are renormalised (softmax over the chosen logits) except where one expert alone is chosen: there the
weight would be the constant 1 and the gate would get no gradient (Fedus et al. 2021 keep p for the same reason).
"""

import jax
import jax.numpy as jnp
import numpy as np

from moejax.errors import BadValue
from moejax.types import Route


def softmax_topk(logits_BE, k: int) -> Route:
    """Route over the k largest experts. k >= E is dense softmax."""
    prob_BE = jax.nn.softmax(logits_BE.astype(jnp.float32), axis=-1)
    if k >= prob_BE.shape[-1]:
        return Route(prob_BE)
    weight_BX, index_BX = jax.lax.top_k(prob_BE, k)
    if k > 1:
        weight_BX = weight_BX / weight_BX.sum(-1, keepdims=True)
    return Route(weight_BX, index_BX.astype(jnp.int32))


def dense(logits_BE, scale=None) -> Route:
    """Every expert, weights E * softmax: constant logits give 1 everywhere, so that is one LoRA of rank E * r."""
    E = logits_BE.shape[-1]
    return Route(jax.nn.softmax(logits_BE.astype(jnp.float32), axis=-1) * (E if scale is None else scale))


def one_hot(label_B) -> Route:
    """A known expert for each utterance, weight 1. A negative label means no expert: weight 0, the base as it is."""
    known_B1 = (label_B >= 0)[:, None]
    return Route(known_B1.astype(jnp.float32), jnp.maximum(label_B, 0)[:, None].astype(jnp.int32))


def threshold(logits_BE, k: int, least: float) -> Route:
    """Route over the experts of probability `least` or more, and always the likeliest one; at most k of them."""
    return _chosen(logits_BE, k, lambda prob_BX: prob_BX >= least)


def top_p(logits_BE, k: int, mass: float) -> Route:
    """Route over the fewest experts that together have the probability `mass` (Huang et al. 2024); at most k."""
    return _chosen(logits_BE, k, lambda prob_BX: jnp.cumsum(prob_BX, axis=-1) - prob_BX < mass)


def _chosen(logits_BE, k, wanted) -> Route:
    """Route over the experts, of the k likeliest in falling order, that `wanted(prob_BX)` is true of, and the first."""
    prob_BE = jax.nn.softmax(logits_BE.astype(jnp.float32), axis=-1)
    prob_BX, index_BX = jax.lax.top_k(prob_BE, min(k, prob_BE.shape[-1]))
    keep_BX = wanted(prob_BX).at[..., 0].set(True)
    weight_BX = jnp.where(keep_BX, prob_BX, 0.0)
    alone_B1 = keep_BX.sum(-1, keepdims=True) == 1
    weight_BX = jnp.where(alone_B1, weight_BX, weight_BX / weight_BX.sum(-1, keepdims=True))
    return Route(weight_BX, index_BX.astype(jnp.int32))


def sigmoid(logits_BE) -> Route:
    """Every expert, each on its own: weights 2 * sigmoid, so that logits of zero give 1 everywhere, as with `dense`,
    but no expert's weight takes from another's.
    """
    return Route(2.0 * jax.nn.sigmoid(logits_BE.astype(jnp.float32)))


def make_route(logits_BE, *, kind: str, k: int, least: float = 0.1, mass: float = 0.9) -> Route:
    """Route of the configured kind; the only switch between them. `least` belongs to threshold, `mass` to top_p."""
    if kind not in KINDS:
        raise BadValue(f"unknown routing kind {kind!r}; known: {sorted(KINDS)}")
    return KINDS[kind](logits_BE, k, least, mass)


KINDS = {
    "topk": lambda logits_BE, k, least, mass: softmax_topk(logits_BE, k),
    "dense": lambda logits_BE, k, least, mass: dense(logits_BE),
    "threshold": lambda logits_BE, k, least, mass: threshold(logits_BE, k, least),
    "top_p": lambda logits_BE, k, least, mass: top_p(logits_BE, k, mass),
    "sigmoid": lambda logits_BE, k, least, mass: sigmoid(logits_BE),
}


def logits_of(weight_NE, kind: str) -> np.ndarray:
    """float32 logits that a routing kind turns into these weights: 2 * sigmoid's own, otherwise shares that sum to one.

    What threshold, top_p and topk leave out of a mean of many routes they leave out again.
    """
    weight_NE = np.asarray(weight_NE, np.float32)
    if kind == "sigmoid":
        half_NE = np.clip(weight_NE / 2, 1e-6, 1 - 1e-6)
        return np.log(half_NE / (1 - half_NE))
    return np.log(np.maximum(weight_NE, 1e-9)).astype(np.float32)


def temperature(step, start: float, steps: int):
    """What logits are divided by in a step of training: `start` at first, geometrically down to 1 in `steps` steps."""
    return start ** jnp.maximum(1.0 - jnp.asarray(step, jnp.float32) / steps, 0.0)


def dense_weights(route: Route, num_experts: int):
    """weight_BE of any route, for reports and statistics."""
    if route.index_BX is None:
        return route.weight_BX
    hot_BXE = jax.nn.one_hot(route.index_BX, num_experts)
    return (hot_BXE * route.weight_BX[..., None]).sum(-2)


def shares(weight_BE):
    """Share of each expert per utterance: weights that sum to one, so that loads of different routing kinds compare."""
    return weight_BE / jnp.maximum(weight_BE.sum(-1, keepdims=True), 1e-9)
