"""The configuration: one default for every key, and errors that name the key that does not exist.

Each stage module declares its own sections (`DEFAULTS`) beside the code that reads them. A config file lists only what
differs; `resolve` lays it over the defaults, locks the result, and refuses what no stage would read.
"""

import ast
import difflib
import functools
import importlib.util
from pathlib import Path

import yaml
from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError

from moejax.errors import BadType, BadValue, NotThere, UnknownName
from moejax.job import choices, combinations, limits
from moejax.job.stages import SECTIONS

# Sections whose keys are the user's own (column maps, loader options): anything goes below them.
OPEN = {
    "data.columns",
    "data.options",
    "data.split_options",
    "base.select",
    "model.sizes",
    "describe.columns",
    "variants",
    "tune",
}


def defaults() -> ConfigDict:
    """Every section with every key."""
    config = ConfigDict({"seed": 0, "train_seed": 0, "name": "experiment"})
    for declared in SECTIONS:
        for section, values in declared.items():
            config[section] = ConfigDict(values)
    return config


def resolve(user: ConfigDict) -> ConfigDict:
    """Defaults with the user's values on top, locked.

    Errors, in one line that names the key: an unknown key, a value that it cannot have, keys that rule each other out.
    """
    config = defaults()
    try:
        _lay_over(config, user, "")
    except RequiredValueError as error:
        raise BadValue(f"the config has a placeholder without a value: {error}") from error
    check(config)
    return config.lock()


def check(config: ConfigDict) -> None:
    """ValueError for the first key, or the first keys together, that cannot be run."""
    limits.check(config.to_dict(), defaults().to_dict(), skip=OPEN)
    choices.check(config)
    combinations.check(config)


def changed(config: ConfigDict, values: dict) -> ConfigDict:
    """The config with some sections or keys replaced by those of a nested dict, locked. Errors as `resolve`."""
    config = ConfigDict(config.to_dict())
    _lay_over(config, ConfigDict(values), "")
    return config.lock()


def load(path: str) -> ConfigDict:
    """Runs `get_config(variant)` of `FILE.py[:variant]` and resolves it."""
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise NotThere(f"config file {file!r} does not exist; the shipped ones are in configs/")
    spec = importlib.util.spec_from_file_location("moejax_config", file)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever Python says about the user's file
        raise BadValue(f"config file {file!r} does not load: {type(error).__name__}: {error}") from error
    if not hasattr(module, "get_config"):
        raise BadValue(f"config file {file!r} defines no get_config()")
    try:
        user = module.get_config(variant) if variant else module.get_config()
    except Exception as error:  # as above
        raise BadValue(f"config {path!r}: get_config({variant!r}) failed: {error}") from error
    if not isinstance(user, ConfigDict | dict):
        raise BadValue(f"config {path!r}: get_config() gives {type(user).__name__}; it must give a ConfigDict")
    config = resolve(user)
    if variant and variant not in config.name:  # or two variants would share a folder of runs/
        with config.unlocked():
            config.name = f"{config.name}-{variant}"
    return config


class _Plain(yaml.SafeDumper):
    """Lists in brackets, and tuples as lists."""

    def ignore_aliases(self, data):
        return True

    def sequence(self, data):
        return self.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)


_Plain.add_representer(list, _Plain.sequence)
_Plain.add_representer(tuple, _Plain.sequence)


def text(config: ConfigDict) -> str:
    """The config as plain YAML: `resolve(ConfigDict(yaml.safe_load(text)))` is the same config."""
    return yaml.dump(config.to_dict(), Dumper=_Plain, sort_keys=False, allow_unicode=True, width=120)


def _lay_over(config: ConfigDict, user, prefix: str) -> None:
    for key, value in user.items():
        key = str(key)
        path = f"{prefix}{key}"
        if key not in config and prefix.rstrip(".") not in OPEN:
            near = difflib.get_close_matches(key, list(config.keys()), n=1)
            hint = f"; did you mean {prefix}{near[0]}?" if near else ""
            raise UnknownName(f"config has no key {path!r}{hint} (valid here: {', '.join(sorted(config.keys()))})")
        if prefix.rstrip(".") in OPEN:
            with config.unlocked():
                config[key] = value
        elif path in OPEN:
            if not hasattr(value, "items"):
                raise BadType(f"config key {path!r} is a section, got {value!r}")
            config[key] = value if isinstance(value, ConfigDict) else ConfigDict(value)
        elif isinstance(config[key], ConfigDict):
            if not hasattr(value, "items"):
                raise BadType(f"config key {path!r} is a section, got {value!r}")
            _lay_over(config[key], value, f"{path}.")
        else:
            if isinstance(value, bool) and isinstance(config[key], float):  # it would become 1.0 without a word
                raise BadType(f"config key {path!r} is {value!r}; it takes a number")
            try:
                config[key] = value
            except TypeError as error:
                raise BadType(f"config key {path!r}: {error}") from error


def open_keys(argv, config) -> list[str]:
    """`argv` without flags that add a key to an open section (--config.data.columns.text=words); the config gets them.

    ml_collections overrides only keys that are there. Values are Python literals, and text where they are none.
    """
    left = []
    for arg in argv:
        path, equals, value = arg.removeprefix("--config.").partition("=")
        section, _, key = path.rpartition(".")
        if not (arg.startswith("--config.") and equals and section in OPEN and key not in node_of(config, section)):
            left.append(arg)
            continue
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            parsed = value
        with config.unlocked():
            node_of(config, section)[key] = parsed
    return left


def node_of(config, path: str):
    """The section at a dotted path."""
    return functools.reduce(lambda node, key: node[key], path.split("."), config)


def explain(error: str, argv, config) -> str:
    """One line for a flag that names a key that does not exist: the key, and what would have been valid there."""
    for arg in argv:
        if not arg.startswith("--config."):
            continue
        path = arg.removeprefix("--config.").split("=")[0]
        node, walked = config, ""
        for part in path.split("."):
            if not isinstance(node, ConfigDict) or part not in node:
                known = sorted(node.keys()) if isinstance(node, ConfigDict) else []
                near = difflib.get_close_matches(part, known, n=1)
                hint = f"; did you mean {walked}{near[0]}?" if near else ""
                return f"config has no key {path!r}{hint} (valid here: {', '.join(known)})"
            node, walked = node[part], f"{walked}{part}."
    return " ".join(error.split())
