"""Hang experts on the linear layers whose path matches a pattern.

Paths are those of the parameters: `decoder/layers/0/self_attn/q`. Patterns are shell-style
(`decoder/layers/*/self_attn/[qv]`), so that a config says in one line where experts live; a pattern that matches
nothing is an error that lists the layers.
"""

import fnmatch
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from flax import nnx

from moejax.errors import BadValue
from moejax.nn import experts
from moejax.nn.gates import TokenGate
from moejax.nn.layers import Linear
from moejax.nn.variables import Init
from moejax.nn.whisper import WhisperConfig
from moejax.types import Array, Route

Target = str | tuple[str, int, float]  # a pattern, or with its own rank and alpha


def linear_layers(model: nnx.Module) -> dict[str, Linear]:
    """{path: layer} of every linear layer of encoder and decoder."""
    found = {}
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Linear) and path and path[0] in ("encoder", "decoder"):
            found["/".join(str(p) for p in path)] = module
    return dict(sorted(found.items()))


def layer_paths(config: WhisperConfig) -> list[str]:
    """The paths that `linear_layers` finds in a Whisper of this `WhisperConfig`, without building it."""
    attention = ("k", "out", "q", "v")
    inside = {"encoder": ("self_attn",), "decoder": ("cross_attn", "self_attn")}
    return sorted(
        f"{side}/layers/{number}/{name}"
        for side, kinds in inside.items()
        for number in range(getattr(config, f"{side}_layers"))
        for name in ("fc1", "fc2", *(f"{kind}/{part}" for kind in kinds for part in attention))
    )


def matching(paths: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Paths that match any pattern, in the order of `paths`. Errors: a pattern without a match."""
    paths = list(paths)
    for pattern in patterns:
        if not fnmatch.filter(paths, pattern):
            shown = ", ".join(paths[:8])
            raise BadValue(f"pattern {pattern!r} matches no layer; the layers are {shown}, ... ({len(paths)} in all)")
    return [p for p in paths if any(fnmatch.fnmatch(p, pattern) for pattern in patterns)]


def sizes(path: str, targets: Iterable[Target], rank: int, alpha: float) -> tuple[int, float]:
    """(rank, alpha) of the experts on a layer, by the first target that matches it: a pattern, which leaves them as
    they are, or (pattern, rank, alpha).
    """
    for target in targets:
        pattern, own_rank, own_alpha = (target, rank, alpha) if isinstance(target, str) else target
        if fnmatch.fnmatch(path, pattern):
            return own_rank, own_alpha
    raise ValueError(f"no target matches {path}")


def add_experts(
    model: nnx.Module,
    targets: Sequence[Target],
    *,
    num_experts: int,
    rank: int,
    alpha: float,
    shared_rank: int = 0,
    stabilised: bool = False,
    kind: str = "lora",
    init: Init,
) -> list[str]:
    """Adds fresh experts (which change nothing yet) to the layers that a target matches; returns their paths."""
    if kind not in experts.KINDS:
        raise BadValue(f"unknown kind of experts {kind!r}; known: {', '.join(experts.KINDS)}")
    layers = linear_layers(model)
    chosen = matching(layers, [target if isinstance(target, str) else target[0] for target in targets])
    for place, path in enumerate(chosen):
        d_in, d_out = layers[path].kernel.get_value().shape
        own_rank, own_alpha = sizes(path, targets, rank, alpha)
        layers[path].experts = experts.KINDS[kind](
            d_in,
            d_out,
            num_experts=num_experts,
            rank=own_rank,
            alpha=own_alpha,
            shared_rank=shared_rank,
            stabilised=stabilised,
            place=place,
            init=init,
        )
    return chosen


def add_routers(model: Any, *, num_experts: int, route: Callable[[Array], Route], init: Init) -> list[str]:
    """A gate for every token in the decoder's layers with experts; `route`: logits to `Route`. Their paths."""
    paths = []
    for number, block in enumerate(model.decoder.layers):
        own = [layer for _, layer in nnx.iter_modules(block) if isinstance(layer, Linear)]
        if any(layer.experts is not None for layer in own):
            block.router = TokenGate(model.config.d_model, num_experts=num_experts, route=route, init=init)
            paths.append(f"decoder/layers/{number}/router")
    if not paths:
        raise BadValue("gate.kind is token, but no target of the mixture is in the decoder, where tokens are")
    return paths
