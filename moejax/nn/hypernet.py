"""A hypernetwork: from a condition (the pooled embedding of an utterance, or the mean over those of a speaker) to the
weights of low-rank updates.

`Condition` stands where a gate stands and turns the condition into a short code z, once per utterance; the code travels
as the route, so that training, folded decoding and every control of a gate serve a hypernetwork as they are. Each
adapted layer makes its own update of the code, in one of two forms:

    bank    y = sum_k c_k(z) B_k A_k x, coefficients c = 1 + z W over a bank of the layer's own low-rank atoms: the
            mixture's kernel with signed weights. Experts that a softmax routes may stand in the same bank
    trunk   A(z, place) and B(z, place) whole, by one trunk for all layers; a learned code says which layer and which
            of its modules is meant, and heads are shared by all layers of one width (a head per layer would cost
            hidden x width x rank weights each: 1.3 G for a large decoder)

The second factor starts at zero: a fresh hypernetwork changes nothing, bit for bit. float32 throughout.
"""

from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from moejax.errors import BadValue
from moejax.nn import inject
from moejax.nn.experts import LayerUpdate
from moejax.nn.variables import Buffer, Expert, Gate, Init
from moejax.nn.whisper import Whisper
from moejax.ops import mixture
from moejax.types import Array, Route

PLACE = 16  # width of the trunk's codes of layers and modules


class Condition(nnx.Module):
    """Condition [B, U] -> [B, code + routed]: the code, within -1 to 1 (a voice unlike any in training cannot scale an
    update beyond what was seen), then `routed` * softmax over the routed experts, even at the start.
    """

    def __init__(self, mean_U: Array, matrix_UK: Array, *, code: int, hidden: int, routed: int = 0, init: Init):
        self.mean = Buffer(jnp.asarray(mean_U, jnp.float32))
        self.matrix = Buffer(jnp.asarray(matrix_UK, jnp.float32))
        width = self.matrix.shape[1]
        self.hidden_kernel = Gate(init.normal(width, hidden, std=width**-0.5))
        self.hidden_bias = Gate(init.constant(hidden))
        self.kernel = Gate(init.normal(hidden, code, std=hidden**-0.5))
        self.bias = Gate(init.constant(code))
        self.routed_kernel = Gate(init.constant(hidden, routed)) if routed else None
        self.routed_bias = Gate(init.constant(routed)) if routed else None

    def __call__(self, condition_BU: Array) -> Array:
        p_BK = (condition_BU.astype(jnp.float32) - self.mean[...][None]) @ self.matrix[...]
        h = jax.nn.gelu(p_BK @ self.hidden_kernel[...] + self.hidden_bias[...][None])
        z = jnp.tanh(h @ self.kernel[...] + self.bias[...][None])
        if self.routed_kernel is None or self.routed_bias is None:
            return z
        logits_BE = h @ self.routed_kernel[...] + self.routed_bias[...][None]
        return jnp.concatenate([z, logits_BE.shape[-1] * jax.nn.softmax(logits_BE, axis=-1)], axis=-1)


class Bank(LayerUpdate):
    """Update of one layer: K atoms with coefficients of the code, and `routed` experts with the weights behind it,
    stacked as A [K + E, D, R] and B [K + E, R, O]. At code 0 it is one LoRA of rank K R.
    """

    def __init__(
        self, d_in: int, d_out: int, *, atoms: int, routed: int, code: int, rank: int, scale: float, init: Init
    ):
        self.code, self.scale = code, scale
        self.A = Expert(init.uniform(atoms + routed, d_in, rank, bound=d_in**-0.5))
        self.B = Expert(init.constant(atoms + routed, rank, d_out))
        self.mix = Expert(init.normal(code, atoms, std=code**-0.5))

    def _weights(self, route: Route) -> Route:
        weight_BQ = route.weight_BX
        coefficient_BK = 1.0 + weight_BQ[:, : self.code] @ self.mix[...]
        return Route(jnp.concatenate([coefficient_BK, weight_BQ[:, self.code :]], axis=-1))

    def __call__(self, x_BTD: Array, route: Route) -> Array:
        return mixture.apply(x_BTD, self.A[...], self.B[...], self._weights(route), self.scale)

    def fold(self, route: Route) -> mixture.Folded:
        """The same update for many steps with one route."""
        return mixture.fold(self.A[...], self.B[...], self._weights(route), self.scale)


class Trunk(nnx.Module):
    """What all generated layers share: the MLP, the codes of modules, and the heads by width."""

    def __init__(
        self,
        modules: Iterable[str],
        widths_in: Iterable[int],
        widths_out: Iterable[int],
        *,
        code: int,
        hidden: int,
        rank: int,
        init: Init,
    ):
        self.rank = rank
        self.code_kernel = Expert(init.normal(code, hidden, std=code**-0.5))
        self.place_kernel = Expert(init.normal(PLACE, hidden, std=PLACE**-0.5))
        self.bias = Expert(init.constant(hidden))
        for name in sorted(modules):
            setattr(self, f"module_{name}", Expert(init.normal(PLACE, std=0.5**0.5)))
        for d in sorted(widths_in):
            setattr(self, f"in_{d}", Expert(init.normal(hidden, d * rank, std=(hidden * d) ** -0.5)))
        for d in sorted(widths_out):
            setattr(self, f"out_{d}", Expert(init.constant(hidden, rank * d)))

    def factors(self, z_BQ: Array, module: str, layer_P: Array, d_in: int, d_out: int) -> tuple[Array, Array]:
        """A [B, D, R] and B [B, R, O] of one layer."""
        place_P = layer_P + getattr(self, f"module_{module}")[...]
        u = z_BQ @ self.code_kernel[...] + (place_P @ self.place_kernel[...] + self.bias[...])[None]
        u = jax.nn.gelu(u)
        A_BDR = (u @ getattr(self, f"in_{d_in}")[...]).reshape(-1, d_in, self.rank)
        return A_BDR, (u @ getattr(self, f"out_{d_out}")[...]).reshape(-1, self.rank, d_out)


class Generated(LayerUpdate):
    """Update of one layer, both factors made by the shared trunk; its own is the code of its place."""

    def __init__(self, d_in: int, d_out: int, trunk: Trunk, module: str, *, scale: float, init: Init):
        self.d_in, self.d_out, self.module, self.scale = d_in, d_out, module, scale
        self.trunk = trunk
        self.layer = Expert(init.normal(PLACE, std=0.5**0.5))

    def __call__(self, x_BTD: Array, route: Route) -> Array:
        return mixture.apply_folded(x_BTD, self.fold(route))

    def fold(self, route: Route) -> mixture.Folded:
        """The same update for many steps with one route."""
        factors = self.trunk.factors(route.weight_BX, self.module, self.layer[...], self.d_in, self.d_out)
        return mixture.Folded(factors[0], factors[1] * self.scale, None)


def add_hypernet(
    model: Whisper,
    patterns: Iterable[str],
    mean_U: Array,
    matrix_UK: Array,
    *,
    form: str,
    atoms: int,
    routed: int,
    rank: int,
    alpha: float,
    code: int,
    hidden: int,
    init: Init,
) -> list[str]:
    """Hangs a fresh hypernetwork (which changes nothing yet) on the matching layers and puts `Condition` where the gate
    is; returns the layers' paths. Errors: an unknown form; routed experts without a bank to stand in.
    """
    if form not in FORMS:
        raise BadValue(f"unknown form {form!r} of a hypernetwork; known: {', '.join(FORMS)}")
    if routed and form != "bank":
        raise BadValue("routed experts stand in a bank of atoms: the hypernetwork's form must be bank")
    layers = inject.linear_layers(model)
    chosen = inject.matching(layers, patterns)
    shapes = {path: tuple(layers[path].kernel.get_value().shape) for path in chosen}
    common: dict[str, Any] = {"scale": alpha / rank, "init": init}
    trunk = None
    if form == "trunk":
        widths = ({d for d, _ in shapes.values()}, {o for _, o in shapes.values()})
        modules = {_module(path) for path in chosen}
        trunk = Trunk(modules, *widths, code=code, hidden=hidden, rank=rank, init=init)
    for path, (d_in, d_out) in shapes.items():
        if trunk is not None:
            layers[path].experts = Generated(d_in, d_out, trunk, _module(path), **common)
        else:
            layers[path].experts = Bank(d_in, d_out, atoms=atoms, routed=routed, code=code, rank=rank, **common)
    model.gate = Condition(mean_U, matrix_UK, code=code, hidden=hidden, routed=routed, init=init)
    return chosen


def _module(path: str) -> str:
    """decoder/layers/0/self_attn/q -> decoder_self_attn_q: the same module of another layer has the same name."""
    side, _, _, *rest = path.split("/")
    return "_".join([side, *rest])


FORMS = ("bank", "trunk")
