"""From gate logits to routes.

Chosen weights are renormalised (softmax over the chosen logits) except for k = 1: there the weight would be the
constant 1 and the gate would get no gradient (Fedus et al. 2021 keep p for the same reason).
"""

import jax
import jax.numpy as jnp

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


def make_route(logits_BE, *, kind: str, k: int) -> Route:
    """Route of the configured kind; the only switch between them."""
    if kind not in KINDS:
        raise ValueError(f"unknown routing kind {kind!r}; known: {sorted(KINDS)}")
    return KINDS[kind](logits_BE, k)


KINDS = {"topk": softmax_topk, "dense": lambda logits_BE, k: dense(logits_BE)}


def dense_weights(route: Route, num_experts: int):
    """weight_BE of any route, for reports and statistics."""
    if route.index_BX is None:
        return route.weight_BX
    hot_BXE = jax.nn.one_hot(route.index_BX, num_experts)
    return (hot_BXE * route.weight_BX[..., None]).sum(1)


def shares(weight_BE):
    """Share of each expert per utterance: weights that sum to one, so that loads of different routing kinds compare."""
    return weight_BE / jnp.maximum(weight_BE.sum(-1, keepdims=True), 1e-9)
