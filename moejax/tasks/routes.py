"""From what a gate says to the experts' weights: the mixture of a task, and its load."""

import dataclasses
import math
from collections.abc import Iterable
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from moejax.errors import BadValue
from moejax.nn import inject
from moejax.ops import routing
from moejax.types import Array, Params, Route


class Routing(Protocol):
    """What recognition asks of whatever is hung on the base: `Mixture`, or `tasks.hypernetwork.Hyper`."""

    @property
    def num_experts(self) -> int: ...
    @property
    def expert_dropout(self) -> float: ...
    def route(self, logits_BE: Array, /) -> Route: ...
    def whole_route(
        self, logits_BE: Array, gate: Any, gate_in_BU: Array, heard_B1: Array, label_B: Array | None = None, /
    ) -> Route: ...


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What is hung on the base: experts of a `kind` (nn.experts.KINDS) on the layers of `targets` (patterns, or
    (pattern, rank, alpha) where these differ from the others'), and how a gate's logits become a route.
    """

    targets: tuple
    num_experts: int
    rank: int
    alpha: float
    stabilised: bool = False
    shared_rank: int = 0
    routing: str = "topk"
    top_k: int = 2
    threshold: float = 0.1
    top_p: float = 0.9
    expert_dropout: float = 0.0
    kind: str = "lora"
    gate: str = "utterance"  # of nn.gates.KINDS
    known_share: float = 0.0  # of the weight of an utterance whose cluster is known, that goes to its expert

    def scales(self, layers: Iterable[str]) -> dict[str, float]:
        """{layer path: what the product of an expert's factors is multiplied by there}."""
        found = {}
        for layer in layers:
            rank, alpha = inject.sizes(layer, self.targets, self.rank, self.alpha)
            found[layer] = alpha / (math.sqrt(rank) if self.stabilised else rank)
        return found

    def route(self, logits_BE: Array) -> Route:
        """Route of logits alone, of any leading axes."""
        return routing.make_route(logits_BE, kind=self.routing, k=self.top_k, least=self.threshold, mass=self.top_p)

    def whole_route(
        self, logits_BE: Array, gate: Any, gate_in_BU: Array, heard_B1: Array, label_B: Array | None = None
    ) -> Route:
        """Route of an utterance's logits and what its `gate` adds (`nn.gates`), times `heard_B1`: 0 leaves the logits
        alone, as controls want it. `label_B`: known clusters, negative where none is known.

        Where layers differ, the weights reported are their mean.
        """
        if self.gate == "token":
            return dataclasses.replace(self.route(logits_BE), logits_BE=logits_BE, heard_B1=heard_B1)
        details = gate.details(gate_in_BU)
        if details.layer_BNE is not None:
            layers = self.route(logits_BE[:, None] + heard_B1[..., None] * details.layer_BNE)
            return Route(routing.dense_weights(layers, self.num_experts).mean(1), layers=layers)
        route = self.route(logits_BE)
        if details.rank_BER is not None:
            rank_BER = heard_B1[..., None] * details.rank_BER
            rank_BER = jax.nn.softmax(rank_BER, axis=-1) * rank_BER.shape[-1]
            return dataclasses.replace(route, rank_BER=rank_BER)
        if not self.known_share or label_B is None:
            return route
        share_B1 = self.known_share * heard_B1 * (label_B >= 0)[:, None]
        whole = {"dense": self.num_experts, "sigmoid": 2.0}.get(self.routing, 1.0)  # what one sure expert would get
        known_BE = whole * jax.nn.one_hot(label_B, self.num_experts)
        return Route((1 - share_B1) * routing.dense_weights(route, self.num_experts) + share_B1 * known_BE)

    def uniform(self, rows: int) -> Route:
        """Every expert for everybody: what dense routing makes of a gate that knows nothing, one LoRA of rank E * r."""
        weight = 1.0 if self.routing in ("dense", "sigmoid") else 1.0 / self.num_experts
        return Route(jnp.full((rows, self.num_experts), weight, jnp.float32))


def even(mixture: Routing, rows: int) -> Route:
    """`Mixture.uniform` of what a network was opened with: a hypernetwork, whose route is a code, has no such route."""
    assert isinstance(mixture, Mixture)
    return mixture.uniform(rows)


def replaced(logits_BE: Array, given: Array | bool, logits_E: Array | None) -> Array:
    """The gate's logits, or where `given` (traced) `logits_E` in their place; none of these are zeros."""
    given_E = jnp.zeros(logits_BE.shape[-1]) if logits_E is None else logits_E
    return jnp.where(given, jnp.broadcast_to(given_E, logits_BE.shape).astype(logits_BE.dtype), logits_BE)


def soften(params: Params, temperature: float) -> Params:
    """Divides the gate's logits by a temperature, by scaling its last layer: same choice, softer weights."""
    if temperature <= 0:
        raise BadValue(f"gate.temperature must be positive, got {temperature}")
    gate = params["gate"]["gate"]
    last = {name: gate[name] / temperature for name in ("kernel", "bias") if name in gate}
    return {**params, "gate": {**params["gate"], "gate": {**gate, **last}}}


def load_metrics(share_BE: Array, cohort_BC: Array, real_B: Array) -> dict[str, Array]:
    """What a batch says of the load: `load_EC` (shares summed by cohort), `top1_E` (utterances whose largest share it
    is), `max_load` and `entropy` of the load, `max_top1`, and `utterance_entropy`, the mean entropy of one route.

    With dense routing the shares stay near even while one expert is the top of everything: both loads are needed.
    """
    count = jnp.maximum(real_B.sum(), 1)
    load_E = jnp.where(real_B[:, None], share_BE, 0).sum(0) / count
    top1_E = jnp.where(real_B[:, None], jax.nn.one_hot(share_BE.argmax(-1), share_BE.shape[-1]), 0).sum(0)
    entropy_B = -(share_BE * jnp.log(share_BE + 1e-9)).sum(-1)
    return {
        "load_EC": jnp.einsum("BE,BC->EC", share_BE, cohort_BC),
        "top1_E": top1_E,
        "max_load": load_E.max(),
        "max_top1": top1_E.max() / count,
        "entropy": -(load_E * jnp.log(load_E + 1e-9)).sum(),
        "utterance_entropy": jnp.where(real_B, entropy_B, 0).sum() / count,
    }
