"""Parameter groups, and how fresh parameters are drawn.

Every array of a model belongs to exactly one group; a stage names the groups that it moves. A fresh parameter is a
recipe (`Draw`) until somebody wants its numbers: building large-v2 takes no memory, and loading a checkpoint draws
nothing.
"""

import dataclasses

import numpy as np
from flax import nnx


@dataclasses.dataclass(frozen=True)
class Draw:
    """A parameter not drawn yet: float32 of `shape`, `kind` normal (std `scale`), uniform (in +-`scale`) or constant
    (`scale`).

    Drawn by numpy's counter-free PCG64 from (seed, number), so that a seed gives the same weights on every device and
    jax version.
    """

    shape: tuple[int, ...]
    kind: str
    scale: float
    seed: tuple[int, int]
    dtype: np.dtype = np.dtype(np.float32)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def make(self) -> np.ndarray:
        if self.kind == "constant":
            return np.full(self.shape, self.scale, np.float32)
        random = np.random.default_rng(self.seed)
        if self.kind == "normal":
            return random.standard_normal(self.shape, np.float32) * np.float32(self.scale)
        return (2 * random.random(self.shape, np.float32) - 1) * np.float32(self.scale)


class Init:
    """Hands out `Draw`s, each with its own number: the same build order gives the same weights."""

    def __init__(self, seed: int):
        self.seed, self.count = seed, 0

    def _draw(self, shape: tuple[int, ...], kind: str, scale: float) -> Draw:
        self.count += 1
        return Draw(tuple(shape), kind, float(scale), (self.seed, self.count))

    def normal(self, *shape: int, std: float) -> Draw:
        return self._draw(shape, "normal", std)

    def uniform(self, *shape: int, bound: float) -> Draw:
        return self._draw(shape, "uniform", bound)

    def constant(self, *shape: int, value: float = 0.0) -> Draw:
        return self._draw(shape, "constant", value)


class Backbone(nnx.Param):
    """Weights of Whisper itself."""


class Expert(nnx.Param):
    """Low-rank experts and the shared expert."""


class Gate(nnx.Param):
    """The gating network."""


class Head(nnx.Param):
    """Auxiliary heads used in training only (CTC)."""


class Buffer(nnx.Variable):
    """Constants that belong to a model: sinusoids, the gate's input projection."""


GROUPS = {"backbone": Backbone, "expert": Expert, "gate": Gate, "head": Head, "buffer": Buffer}
