"""Experts of one layer: stacked low-rank pairs that a route weighs, and an optional shared pair that is always on.

The interface is small: `experts(x, route)` is what is added to the layer's product x W0, `fold(route)` the same for
many steps with one route, and `factor(kernel, route)` what the sum is multiplied by, None where that is nothing.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.nn.variables import Expert, Init
from moejax.ops import mixture
from moejax.ops.routing import dense_weights
from moejax.types import Array, Route


class LayerUpdate(nnx.Module):
    """What may hang on a linear layer as its `experts`."""

    def factor(self, kernel_DO: Array, route: Route) -> Array | None:
        """Factor [B, O] of the layer's output without its bias; None: the output stays as it is."""
        del kernel_DO, route


class LowRankExperts(LayerUpdate):
    """E LoRA experts on one linear layer (Hu et al. 2021), stacked as A [E, D, R] and B [E, R, O].

    B starts at zero, A Kaiming-uniform with a = sqrt(5), so a fresh expert changes nothing, bit for bit. The scale is
    alpha / R, or alpha / sqrt(R) when rank-stabilised (Kalajdzievski 2023). float32 whatever the backbone's type.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        num_experts: int,
        rank: int,
        alpha: float,
        shared_rank: int = 0,
        stabilised: bool = False,
        place: int = 0,
        init: Init,
    ):
        self.place = place  # among the layers with experts: which of a route's layers is this one's
        self.scale = alpha / (math.sqrt(rank) if stabilised else rank)
        bound = d_in**-0.5  # kaiming_uniform(a = sqrt 5) over fan-in D
        self.A = Expert(init.uniform(num_experts, d_in, rank, bound=bound))
        self.B = Expert(init.constant(num_experts, rank, d_out))
        self.shared_A = Expert(init.uniform(1, d_in, shared_rank, bound=bound)) if shared_rank else None
        self.shared_B = Expert(init.constant(1, shared_rank, d_out)) if shared_rank else None

    def __call__(self, x_BTD: Array, route: Route) -> Array:
        y_BTO = mixture.apply(x_BTD, self.A[...], self.B[...], route.at(self.place), self.scale)
        if self.shared_A is not None and self.shared_B is not None:
            always = Route(jnp.ones((x_BTD.shape[0], 1), jnp.float32))
            y_BTO = y_BTO + mixture.apply(x_BTD, self.shared_A[...], self.shared_B[...], always, self.scale)
        return y_BTO

    def fold(self, route: Route) -> mixture.Folded:
        """The same update for many steps with one route."""
        route = route.at(self.place)
        folded = mixture.fold(self.A[...], self.B[...], route, self.scale)
        if self.shared_A is None or self.shared_B is None:
            return folded
        rows, gather = route.weight_BX.shape[0], folded.weight_BQ is None
        always = Route(jnp.ones((rows, 1), jnp.float32), jnp.zeros((rows, 1), jnp.int32))
        shared = mixture.fold(self.shared_A[...], self.shared_B[...], always, self.scale, gather=gather)
        return mixture.join(folded, shared)

    def fold_tokens(self) -> mixture.Folded:
        """The same update for many steps in which every token has a route of its own."""
        folded = mixture.fold_tokens(self.A[...], self.B[...], self.scale)
        if self.shared_A is None or self.shared_B is None:
            return folded
        shared = mixture.fold_tokens(self.shared_A[...], self.shared_B[...], self.scale, first=self.A.shape[0])
        return mixture.join(folded, shared)


class WeightDecomposedExperts(LowRankExperts):
    """The same with DoRA's magnitude (Liu et al. 2024), applied to the base's weights and the weighted sum together:

        W = m ||W0|| (W0 + sum_e g_e (alpha / r) A_e B_e) / ||W0 + ...||,   m = 1 + sum_e g_e m_e

    with norms of each output's column. `magnitude` [E, O] are the m_e, which start at zero: DoRA's vector as a relative
    change, so that fresh experts change nothing, bit for bit, a route of weights zero is the base, and one-hot routes
    are E adapters beside each other. Training takes the norm below as a constant, as the paper does (its 4.3).
    """

    def __init__(self, d_in: int, d_out: int, *, num_experts: int, init: Init, **options):
        super().__init__(d_in, d_out, num_experts=num_experts, init=init, **options)
        self.magnitude = Expert(init.constant(num_experts, d_out))

    def factor(self, kernel_DO: Array, route: Route) -> Array:
        weight_BE = dense_weights(route.at(self.place), self.magnitude.shape[0])
        ratio_BO = jax.lax.stop_gradient(mixture.norm_ratio(kernel_DO, self.fold(route)))
        return ratio_BO * (1.0 + weight_BE @ self.magnitude[...])


KINDS = {"lora": LowRankExperts, "dora": WeightDecomposedExperts}
