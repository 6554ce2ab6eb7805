"""Config keys that take one of a few values: checked before any work, one line with what would have been valid."""

from moejax.cohorts import stage
from moejax.data import splits
from moejax.data.manifest import SPLITS
from moejax.data.sources import SOURCES
from moejax.errors import BadValue
from moejax.nn import experts, gates
from moejax.nn.hypernet import FORMS
from moejax.nn.quantize import KINDS as WEIGHTS
from moejax.nn.whisper import SIZES
from moejax.ops import pooling, routing
from moejax.systems import translate
from moejax.text.normalize import NORMALIZERS
from moejax.train.optim import SCHEDULES
from moejax.training import adapters, hyper

KNOWN = {
    "data.source": tuple(SOURCES),
    "data.split": tuple(splits.SCHEMES),
    "model.size": tuple(SIZES),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "model.weights": ("", *WEIGHTS),
    "evaluate.weights": ("", *WEIGHTS),
    "study.kinds": tuple(adapters.KINDS),
    "embed.pooling": tuple(pooling.POOLINGS),
    "embed.signals": ("gradient",),
    **{f"cluster.{key}": values for key, values in stage.CHOICES.items()},
    "cluster.gmm.covariance": ("auto", "full", "diag", "spherical"),
    "cluster.hdbscan.selection": ("eom", "leaf"),
    "gate.kind": tuple(gates.KINDS),
    "gate.input": ("auto", "raw", "pca", "discriminant"),
    "gate.targets": ("soft", "hard"),
    "mixture.kind": tuple(experts.KINDS),
    "mixture.routing": tuple(routing.KINDS),
    "experts.route": ("gate", "label", "uniform"),
    "experts.part": ("sample", "train"),
    "adapters.kinds": tuple(adapters.KINDS),
    "hyper.systems": hyper.SYSTEMS,
    "hyper.form": FORMS,
    "evaluate.split": tuple(SPLITS),
    "evaluate.speaker_scope": ("own", "all"),
    "translate.backend": tuple(translate.BACKENDS),
    "report.normalizer": tuple(NORMALIZERS),
    **{f"{s}.best": ("loss", "wer") for s in ("experts", "joint", "adapters")},
    **{f"{s}.schedule": SCHEDULES for s in ("base", "gate", "experts", "joint", "adapters", "hyper", "translate")},
}


def check(config) -> None:
    """ValueError naming the first key whose value (or, of a tuple, one of its values) is not among the known ones."""
    for path, known in KNOWN.items():
        node = config
        for part in path.split("."):
            node = node[part]
        values = [node] if isinstance(node, str) else list(node)
        if wrong := [value for value in values if value not in known]:
            raise BadValue(f"config key {path!r} is {wrong[0]!r}; known: {', '.join(known).lstrip(', ')}")
