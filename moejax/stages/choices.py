"""Config keys that take one of a few values: checked before any work, one line with what would have been valid."""

from moejax.data import splits
from moejax.data.manifest import SPLITS
from moejax.data.sources import SOURCES
from moejax.nn import experts, gates
from moejax.nn.hypernet import FORMS
from moejax.nn.whisper import SIZES
from moejax.ops import pooling, routing
from moejax.score.normalize import NORMALIZERS
from moejax.stages import adapters, cluster, hyper, translate
from moejax.train.optim import SCHEDULES

KNOWN = {
    "data.source": tuple(SOURCES),
    "data.split": tuple(splits.SCHEMES),
    "model.size": tuple(SIZES),
    "model.dtype": ("float32", "bfloat16", "float16"),
    "embed.pooling": tuple(pooling.POOLINGS),
    "embed.signals": ("gradient",),
    **{f"cluster.{key}": values for key, values in cluster.CHOICES.items()},
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
    **{f"{s}.schedule": SCHEDULES for s in ("base", "gate", "experts", "joint", "adapters", "hyper", "translate")},
}


def check(config) -> None:
    """ValueError naming the first key whose value (or, of a tuple, one of its values) is not among the known ones, or
    that does nothing without another.
    """
    for path, known in KNOWN.items():
        node = config
        for part in path.split("."):
            node = node[part]
        values = [node] if isinstance(node, str) else list(node)
        if wrong := [value for value in values if value not in known]:
            raise ValueError(f"config key {path!r} is {wrong[0]!r}; known: {', '.join(known)}")
    for path, value in (("threshold", config.mixture.threshold), ("top_p", config.mixture.top_p)):
        if not 0 < value <= 1:
            raise ValueError(f"config key 'mixture.{path}' is {value}; a probability above 0 and up to 1")
    for target in config.mixture.targets:
        own = () if isinstance(target, str) else tuple(target)
        if own and not (len(own) == 3 and isinstance(own[0], str) and isinstance(own[1], int) and own[1] > 0 < own[2]):
            raise ValueError(
                f"config key 'mixture.targets' has {target!r}; each is a pattern, or (pattern, rank, alpha) above 0"
            )
    gate, mixture = config.gate, config.mixture
    if gate.kind == "token" and mixture.kind == "dora":
        raise ValueError("config key 'gate.kind' is token, with mixture.kind dora: norms for every token; take lora")
    if gate.kind == "rank" and any(not isinstance(target, str) for target in mixture.targets):
        raise ValueError("config key 'gate.kind' is rank, so all of mixture.targets have the rank mixture.rank")
    if not 0 <= gate.known_share <= 1 or gate.input_dims < 1:
        raise ValueError(
            f"config keys 'gate.known_share' = {gate.known_share} and 'gate.input_dims' = {gate.input_dims}: a share"
            " from 0 to 1 and a number of 1 or more"
        )
    joint = config.joint
    if joint.temperature <= 0:
        raise ValueError(f"config key 'joint.temperature' is {joint.temperature}; it is above 0, and 1 changes nothing")
    if not 0 <= joint.temperature_steps <= joint.steps:
        raise ValueError(
            f"config key 'joint.temperature_steps' is {joint.temperature_steps}, of joint.steps = {joint.steps}: the"
            " temperature must have come down to 1 when the stage ends; 0 takes all of its steps"
        )
    base = config.base
    if base.word_strings > base.readings:
        raise ValueError(
            f"config key 'base.word_strings' is {base.word_strings}, of base.readings = {base.readings}: strings are a"
            " part of the readings, so at most as many"
        )
