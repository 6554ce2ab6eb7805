"""What type each config key has and between which values it lies: checked before any work, in one line for the first
key that is wrong.

A key that no pattern names has the type of its default, and is not negative where that is a number: a new key needs no
entry here unless it takes other values.
"""

import fnmatch

from moejax.errors import BadValue

MOST = 2**62  # of whole numbers that nothing else bounds: they still fit an int64
# {pattern of keys: (lowest, highest)}, both included; the first pattern that matches counts. ABOVE is the least number
# over its argument, BELOW the greatest under it.
TINY = 1e-9


def above(value: float) -> float:
    return value + TINY


def below(value: float) -> float:
    return value - TINY


SHARE = (0.0, 1.0)
SEED = (0, 2**31 - 1)
LIMITS: dict[str, tuple[float, float]] = {
    "seed": SEED,
    "train_seed": SEED,
    "data.seed": SEED,
    "data.sample_share": (above(0), 1.0),  # without a sample there is nothing to cluster
    "data.unseen_share": (0.0, below(1)),
    "data.split_fractions": SHARE,
    "data.max_skipped_share": SHARE,
    "data.min_seconds": (0.0, 30.0),
    "data.max_seconds": (above(0), 30.0),  # Whisper's window
    "data.silence_db": (-200.0, 0.0),
    "describe.threads": (1, 1024),
    "describe.shown_groups": (1, MOST),
    "model.vocab_size": (256, 1_000_000),
    "model.buckets": (0.01, 30.0),
    "base.repeat": (1, 1_000_000),
    "base.string_words": (1, 1000),
    "base.pack.seconds": (0.1, 30.0),
    "base.pack.batch_sizes": (1, 1_000_000),
    "base.pack.learning_rates": (above(0), 1.0),
    "base.pack.prompt_tokens": (0, 1000),
    "base.pack.gain": (0.0, 100.0),
    "base.pack.guide": (0.0, 1000.0),
    "base.pack.speed": (0.0, below(0.5)),
    "base.pack.lead": (0.0, 30.0),
    "base.pack.gap": (0.0, 30.0),
    "base.pack.noise_level": (above(0), 1.0),
    **{
        f"base.pack.{name}": SHARE
        for name in ("plain", "prompt", "nospeech", "empty", "full", "cut", "abrupt", "noise")
    },
    "base.ctc": (0.0, 1000.0),
    "embed.layers": (-1, 1000),
    "embed.gradient.rank": (1, 4096),
    "embed.gradient.dims": (1, 1_000_000),
    "cluster.auto.max_clusters": (2, 1000),
    "cluster.*.max_clusters": (2, 1000),
    "cluster.*.num_clusters": (0, 1000),
    "cluster.gmm.inits": (1, 1000),
    "cluster.dims": (1, 4096),
    "cluster.discriminant_dims": (1, 4096),
    "cluster.variance": (above(0), 1.0),
    "cluster.shrinkage": SHARE,
    "cluster.refits": (0, 1000),
    "gate.num_experts": (1, 4096),
    "gate.known_share": SHARE,
    "gate.input_dims": (1, 4096),
    "gate.temperature": (above(0), 1e6),
    "gate.fallback": (0.0, below(1)),
    "mesh.*": (-1, 1_000_000),
    "mixture.rank": (1, 4096),
    "mixture.shared_rank": (0, 4096),
    "mixture.alpha": (above(0), 1e6),
    "mixture.top_k": (1, 4096),
    "mixture.threshold": (above(0), 1.0),
    "mixture.top_p": (above(0), 1.0),
    "joint.temperature": (above(0), 1e6),
    "hyper.cohort_share": SHARE,
    **{f"hyper.{name}": (1, 4096) for name in ("atoms", "routed", "code", "hidden", "dims", "enroll")},
    "report.draws": (1, 10_000_000),
    "runtime.cpu_devices": (0, 4096),
    "runtime.workers": (0, 1024),
    "translate.vocab_size": (256, 1_000_000),
    "translate.width": (1, 65536),
    "translate.layers": (1, 1000),
    "translate.heads": (1, 1000),
    "*.batch_size": (1, 1_000_000),
    "*.checkpoint_every": (1, MOST),
    "*.log_every": (1, MOST),
    "*.total_learning_rate": (0.0, 1.0),
    "*.full_learning_rate": (0.0, 1.0),
    "*.learning_rate": (above(0), 1.0),
    "*.weight_decay": (0.0, 100.0),
    "*.b2": (0.0, below(1)),
    "*dropout": (0.0, below(1)),
    "*.smoothing": (0.0, below(1)),
    "*_masks": (0, 1000),
    "*.warp_time": (0.0, 0.9),
    "*.warp_freq": (0.0, 0.9),
    "*.level": (0.0, 100.0),
    "*.evals": (0, 10_000),
    "*steps": (0, 1_000_000_000),
    "*.warmup": (0, 1_000_000_000),
    "*.rank": (1, 4096),
}
# Types of the entries of tuples that are empty by default, or that hold more than one type.
ENTRIES: dict[str, tuple[type, ...]] = {
    "base.string_words": (int,),
    "base.pack.seconds": (float,),
    "base.pack.steps": (int,),
    "base.pack.batch_sizes": (int,),
    "base.pack.learning_rates": (float,),
    "base.pack.prompt_tokens": (int,),
}  # all others: text
LENGTHS = {
    "data.split_fractions": 3,
    "base.pack.lead": 2,
    "base.pack.gap": 2,
    "base.pack.noise_level": 2,
}
# Tuples that may not be empty, and text that may not.
NEEDED = {
    "name",
    "data.language",
    "translate.target",
    "model.buckets",
    "embed.layers",
    "embed.gradient.targets",
    "cluster.auto.methods",
}
MIXED = {"mixture.targets"}  # entries of several forms, which `combinations` looks at
OPTIONAL = {"cluster.shrinkage": float}  # None is a value; what else there may be


def check(config: dict, defaults: dict, skip=(), prefix: str = "") -> None:
    """ValueError naming the first key of a nested dict that has a type or a value it cannot have; sections in `skip`
    hold the user's own keys.
    """
    for key, default in defaults.items():
        path, value = f"{prefix}{key}", config[key]
        if path in skip or path in MIXED:
            continue
        if isinstance(default, dict):
            check(value, default, skip, f"{path}.")
        else:
            _check_key(path, value, default)


def _check_key(path, value, default):
    if path in OPTIONAL:
        if value is not None:
            _check_value(path, value, OPTIONAL[path])
    elif isinstance(default, tuple | list):
        _check_entries(path, value, default)
    else:
        _check_value(path, value, type(default))
    if path in NEEDED and not value:
        raise BadValue(f"config key {path!r} is empty; it needs {'at least one entry' if value == () else 'a value'}")


def _check_entries(path, values, default):
    if not isinstance(values, tuple | list):
        raise BadValue(f"config key {path!r} is {values!r}; it takes a tuple such as {default!r}")
    if path in LENGTHS and len(values) != LENGTHS[path]:
        raise BadValue(f"config key {path!r} has {len(values)} entries; it takes {LENGTHS[path]}, such as {default!r}")
    kinds = ENTRIES.get(path) or ((type(default[0]),) if default else (str,))
    for value in values:
        _check_value(path, value, kinds[0])


def _check_value(path, value, kind):
    shown = f"config key {path!r} is {value!r}" if len(repr(value)) < 200 else f"config key {path!r} is too long"
    if kind is bool or isinstance(value, bool):
        if not (kind is bool and isinstance(value, bool)):
            raise BadValue(f"{shown}; it takes {_name(kind)}")
    elif kind is str:
        if not isinstance(value, str):
            raise BadValue(f"{shown}; it takes text")
        if len(value) > 4096 or any(ord(sign) < 32 for sign in value):
            raise BadValue(f"{shown}; it takes one line of text without control characters")
    elif kind in (int, float):
        if not isinstance(value, int if kind is int else int | float):
            raise BadValue(f"{shown}; it takes {_name(kind)}")
        low, high = limits_of(path)
        if not low <= value <= high:  # not-a-number lies nowhere
            raise BadValue(f"{shown}; it takes {_name(kind)} {interval(low, high)}")


def limits_of(path: str) -> tuple[float, float]:
    """The lowest and the highest value of a key that is a number."""
    for pattern, limits in LIMITS.items():
        if fnmatch.fnmatchcase(path, pattern):
            return limits
    return 0, MOST


def interval(low: float, high: float) -> str:
    """Such as "at least 0 and at most 1", "above 0 and below 1", "at least 0"."""
    last = "" if high >= MOST else f" and {_bound(high, 'below', 'at most')}"
    return _bound(low, "above", "at least") + last


def _bound(value, strict, plain):
    nearest = round(value, 6)
    return f"{plain if nearest == value else strict} {nearest:.10g}"


def _name(kind) -> str:
    return {bool: "True or False", int: "a whole number", float: "a number"}[kind]
