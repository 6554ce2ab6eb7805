"""Parameter groups. Every array of a model belongs to exactly one; a stage names the groups that it moves."""

from flax import nnx


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
