"""Experts of one layer: stacked low-rank pairs that a route weighs, and an optional shared pair that is always on."""

import math

import jax.numpy as jnp
from flax import nnx

from moejax.nn.variables import Expert
from moejax.ops import mixture
from moejax.types import Route


class LowRankExperts(nnx.Module):
    """E LoRA experts on one linear layer (Hu et al. 2021), stacked as A [E, D, R] and B [E, R, O].

    B starts at zero, A Kaiming-uniform with a = sqrt(5), so a fresh expert changes nothing, bit for bit. The scale is
    alpha / R, or alpha / sqrt(R) when rank-stabilised (Kalajdzievski 2023). float32 whatever the backbone's type.
    """

    def __init__(self, d_in, d_out, *, num_experts, rank, alpha, shared_rank=0, stabilised=False, init):
        self.scale = alpha / (math.sqrt(rank) if stabilised else rank)
        bound = d_in**-0.5  # kaiming_uniform(a = sqrt 5) over fan-in D
        self.A = Expert(init.uniform(num_experts, d_in, rank, bound=bound))
        self.B = Expert(init.constant(num_experts, rank, d_out))
        self.shared_A = Expert(init.uniform(1, d_in, shared_rank, bound=bound)) if shared_rank else None
        self.shared_B = Expert(init.constant(1, shared_rank, d_out)) if shared_rank else None

    def __call__(self, x_BTD, route: Route):
        y_BTO = mixture.apply(x_BTD, self.A[...], self.B[...], route, self.scale)
        if self.shared_A is not None:
            always = Route(jnp.ones((x_BTD.shape[0], 1), jnp.float32))
            y_BTO = y_BTO + mixture.apply(x_BTD, self.shared_A[...], self.shared_B[...], always, self.scale)
        return y_BTO

    def fold(self, route: Route) -> mixture.Folded:
        """The same update for many steps with one route."""
        folded = mixture.fold(self.A[...], self.B[...], route, self.scale)
        if self.shared_A is None:
            return folded
        rows, gather = route.weight_BX.shape[0], folded.weight_BQ is None
        always = Route(jnp.ones((rows, 1), jnp.float32), jnp.zeros((rows, 1), jnp.int32))
        shared = mixture.fold(self.shared_A[...], self.shared_B[...], always, self.scale, gather=gather)
        return mixture.join(folded, shared)
