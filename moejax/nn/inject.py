"""Hang experts on the linear layers whose path matches a pattern.

Paths are those of the parameters: `decoder/layers/0/self_attn/q`. Patterns are shell-style
(`decoder/layers/*/self_attn/[qv]`), so that a config says in one line where experts live; a pattern that matches
nothing is an error that lists the layers.
"""

import fnmatch

from flax import nnx

from moejax.nn.experts import LowRankExperts
from moejax.nn.layers import Linear


def linear_layers(model) -> dict[str, Linear]:
    """{path: layer} of every linear layer of encoder and decoder."""
    found = {}
    for path, module in nnx.iter_modules(model):
        if isinstance(module, Linear) and path and path[0] in ("encoder", "decoder"):
            found["/".join(str(p) for p in path)] = module
    return dict(sorted(found.items()))


def layer_paths(config) -> list[str]:
    """The paths that `linear_layers` finds in a Whisper of this `WhisperConfig`, without building it."""
    attention = ("k", "out", "q", "v")
    inside = {"encoder": ("self_attn",), "decoder": ("cross_attn", "self_attn")}
    return sorted(
        f"{side}/layers/{number}/{name}"
        for side, kinds in inside.items()
        for number in range(getattr(config, f"{side}_layers"))
        for name in ("fc1", "fc2", *(f"{kind}/{part}" for kind in kinds for part in attention))
    )


def matching(paths, patterns) -> list[str]:
    """Paths that match any pattern, in the order of `paths`. Errors: a pattern without a match."""
    paths = list(paths)
    for pattern in patterns:
        if not fnmatch.filter(paths, pattern):
            shown = ", ".join(paths[:8])
            raise ValueError(f"pattern {pattern!r} matches no layer; the layers are {shown}, ... ({len(paths)} in all)")
    return [p for p in paths if any(fnmatch.fnmatch(p, pattern) for pattern in patterns)]


def add_experts(model, patterns, *, num_experts, rank, alpha, shared_rank=0, stabilised=False, init) -> list[str]:
    """Adds fresh experts (which change nothing yet) to the matching layers; returns their paths."""
    layers = linear_layers(model)
    chosen = matching(layers, patterns)
    for path in chosen:
        d_in, d_out = layers[path].kernel.get_value().shape
        layers[path].experts = LowRankExperts(
            d_in, d_out, num_experts=num_experts, rank=rank, alpha=alpha,
            shared_rank=shared_rank, stabilised=stabilised, init=init,
        )  # fmt: skip
    return chosen
