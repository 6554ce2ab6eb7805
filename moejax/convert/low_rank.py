"""The experts of a model as plain low-rank updates, one route at a time: what other formats can hold.

An adapter here is {layer path: `LowRank`}, such as {"decoder/layers/0/self_attn/q": ...}. One route through a mixture
is again one low-rank update: sum_e g_e s A_e B_e = s [A_1 ... A_E] [g_1 B_1; ...; g_E B_E].
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.errors import BadValue
from moejax.nn.functional import nest, paths
from moejax.types import Params

Scale = float | dict[str, float]  # one for all layers, or {layer path: its own}
_PARTS = ("A", "B", "shared_A", "shared_B")


@dataclasses.dataclass(frozen=True)
class LowRank:
    """The update scale * A_DR @ B_RO of one linear layer's kernel [D, O]; float32."""

    A_DR: np.ndarray
    B_RO: np.ndarray
    scale: float

    @property
    def rank(self) -> int:
        return self.A_DR.shape[1]

    def delta(self) -> np.ndarray:
        """The update [D, O] itself, summed in float64 and rounded once."""
        return (self.scale * (self.A_DR.astype(np.float64) @ self.B_RO.astype(np.float64))).astype(np.float32)


def layers(expert: dict) -> dict[str, dict]:
    """{layer path: {"A": [E, D, R], "B": [E, R, O], perhaps "shared_A", "shared_B"}} of the "expert" group."""
    found: dict[str, dict] = {}
    for path, leaf in paths(expert).items():
        layer, _, part = path.rpartition("/experts/")
        if part == "magnitude":
            raise BadValue("experts of kind dora rescale the base's weights: no low-rank pair, nothing to export")
        if part not in _PARTS:
            raise BadValue(f"expert parameter {path} is none of {', '.join(_PARTS)}: no low-rank pair")
        found.setdefault(layer, {})[part] = np.asarray(leaf, np.float32)
    if not found:
        raise BadValue("this model has no experts")
    return found


def num_experts(expert: dict) -> int:
    """E of the "expert" group."""
    return next(iter(layers(expert).values()))["A"].shape[0]


def has_shared(expert: dict) -> bool:
    """Whether there is an expert that is always on."""
    return any("shared_A" in parts for parts in layers(expert).values())


def of_layer(scale: Scale, layer: str) -> float:
    """The scale of one layer: the common one, or its own from {layer path: scale}."""
    return scale[layer] if isinstance(scale, dict) else scale


def one_expert(expert: dict, index: int, scale: Scale) -> dict[str, LowRank]:
    """Expert `index` alone, without the shared one. Errors: an index that does not exist."""
    count = num_experts(expert)
    if not 0 <= index < count:
        raise BadValue(f"there is no expert {index}; the experts are 0 to {count - 1}")
    return {
        layer: LowRank(parts["A"][index], parts["B"][index], of_layer(scale, layer))
        for layer, parts in layers(expert).items()
    }


def shared_expert(expert: dict, scale: Scale) -> dict[str, LowRank]:
    """The expert that is always on. It has the scale of the routed ones, whatever its rank."""
    if not has_shared(expert):
        raise BadValue("this model has no shared expert")
    return {
        layer: LowRank(parts["shared_A"][0], parts["shared_B"][0], of_layer(scale, layer))
        for layer, parts in layers(expert).items()
        if "shared_A" in parts
    }


def one_route(expert: dict, weight_E: Sequence[float] | np.ndarray, scale: Scale) -> dict[str, LowRank]:
    """Everything that a fixed route adds, the shared expert included: experts side by side, of weight 0 left out."""
    weight_E = np.asarray(weight_E, np.float32)
    if weight_E.shape != (num_experts(expert),) or not np.isfinite(weight_E).all():
        raise BadValue(f"a route is {num_experts(expert)} finite weights, one for each expert, got {weight_E}")
    used = np.flatnonzero(weight_E)
    found = {}
    for layer, parts in layers(expert).items():
        A = [parts["A"][e] for e in used]
        B = [parts["B"][e] * weight_E[e] for e in used]
        if "shared_A" in parts:
            A, B = [*A, parts["shared_A"][0]], [*B, parts["shared_B"][0]]
        if A:
            found[layer] = LowRank(np.concatenate(A, axis=1), np.concatenate(B, axis=0), of_layer(scale, layer))
    return found


def merged(params: Params, adapter: dict[str, LowRank]) -> Params:
    """{"backbone", "buffer"} with every update added to its layer's kernel, in float32.

    Errors: an adapter on a layer that the model lacks, or of another width.
    """
    flat = paths({group: params[group] for group in ("backbone", "buffer")})
    for layer, update in adapter.items():
        path = f"backbone/{layer}/kernel"
        if path not in flat:
            raise BadValue(f"the adapter has an update for {layer}, which is no layer of this model")
        kernel, delta = np.asarray(flat[path], np.float32), update.delta()
        if kernel.shape != delta.shape:
            raise BadValue(f"the adapter's update of {layer} is {delta.shape}, the layer is {kernel.shape}")
        flat[path] = kernel + delta
    return nest(flat)


def stacked(adapters: list[dict[str, LowRank]]) -> tuple[dict, int, float]:
    """`(expert group, R, scale)` of adapters side by side as experts, each what it was alone.

    Lower ranks are padded with zeros, layers that an adapter leaves out are zero. One scale for all stays; different
    ones are folded into B, and the stack's is 1.
    """
    rank = max(update.rank for adapter in adapters for update in adapter.values())
    scales = {update.scale for adapter in adapters for update in adapter.values()}
    scale = scales.pop() if len(scales) == 1 else 1.0
    widths = {layer: (u.A_DR.shape[0], u.B_RO.shape[1]) for adapter in adapters for layer, u in adapter.items()}
    flat = {}
    for layer, (d_in, d_out) in sorted(widths.items()):
        A_EDR = np.zeros((len(adapters), d_in, rank), np.float32)
        B_ERO = np.zeros((len(adapters), rank, d_out), np.float32)
        for e, adapter in enumerate(adapters):
            if layer in adapter:
                update = adapter[layer]
                A_EDR[e, :, : update.rank] = update.A_DR
                B_ERO[e, : update.rank] = update.B_RO if update.scale == scale else update.B_RO * (update.scale / scale)
        flat[f"{layer}/experts/A"], flat[f"{layer}/experts/B"] = A_EDR, B_ERO
    return nest(flat), rank, scale
