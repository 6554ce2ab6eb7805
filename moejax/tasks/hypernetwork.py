"""Recognition with a hypernetwork: the row `gate` of the training table with a code in place of a gate's weights."""

import dataclasses
from collections.abc import Callable
from typing import Any

from moejax.nn import hypernet, variables, whisper
from moejax.nn.functional import GraphDef
from moejax.tasks import asr
from moejax.types import Array, Route

# What a loss says of a gate's load means nothing of a code, which is signed.
LOADS = ("load_EC", "top1_E", "max_load", "max_top1", "entropy", "utterance_entropy")


@dataclasses.dataclass(frozen=True)
class Hyper:
    """What is hung on the base; `tasks.asr` takes it where it takes a `Mixture` with a gate. Each of the `routed`
    experts has the rank of an atom. `rank` is that of an atom, or of the whole update that a trunk makes.
    """

    targets: tuple[str, ...]
    form: str  # of nn.hypernet.FORMS
    atoms: int
    routed: int
    rank: int
    alpha: float
    code: int
    hidden: int
    expert_dropout: float = 0.0
    known_share = 0.0  # nobody's cluster is asked for

    @property
    def num_experts(self) -> int:
        """Width of the route: the code, and the routed experts' weights."""
        return self.code + self.routed

    def route(self, code_BQ: Array) -> Route:
        return Route(code_BQ)

    def whole_route(
        self, code_BQ: Array, gate: Any, gate_in_BU: Array, heard_B1: Array, label_B: Array | None = None
    ) -> Route:
        """As of a `Mixture`: the code is all there is."""
        del gate, gate_in_BU, heard_B1, label_B
        return self.route(code_BQ)


def build(
    config: whisper.WhisperConfig, hyper: Hyper, mean_U: Array, matrix_UK: Array, *, seed: int = 0
) -> Callable[[], whisper.Whisper]:
    """A zero-argument function that makes the module, as `asr.build`."""

    def make():
        init = variables.Init(seed)
        model = whisper.Whisper(config, init=init)
        options = {f.name: getattr(hyper, f.name) for f in dataclasses.fields(hyper)}
        del options["targets"], options["expert_dropout"]
        hypernet.add_hypernet(model, hyper.targets, mean_U, matrix_UK, init=init, **options)
        return model

    return make


def make_loss(graphdef: GraphDef, row: asr.Row, hyper: Hyper) -> Callable[..., tuple[Array, dict]]:
    """`loss_fn(params, batch, key) -> (loss, metrics)`; the condition of each utterance is the batch's `gate_in_BU`."""
    loss_fn = asr.make_loss(graphdef, dataclasses.replace(row, route="gate"), mixture=hyper)

    def without_loads(params, batch, key):
        loss, metrics = loss_fn(params, batch, key)
        return loss, {name: value for name, value in metrics.items() if name not in LOADS}

    return without_loads
