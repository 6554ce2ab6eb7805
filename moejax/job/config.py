"""The configuration: what a config file says laid over the defaults, and errors that name the key that does not exist.

Every key is declared once (`work.fields`) beside the code that reads it. A config file lists only what differs;
`resolve` lays it over the defaults, locks the result, and refuses what no stage would read. `python -m
moejax.job.config > docs/config.md` writes the page that lists all keys.
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
from moejax.job import combinations
from moejax.job.stages import FIELDS, SECTIONS, STAGES
from moejax.types import Config
from moejax.work import fields
from moejax.work.fields import Field

# Sections whose keys are the user's own (column maps, loader options): anything goes below them.
OPEN = {key for key, field in FIELDS.items() if field.open}


def defaults() -> Config:
    """Every section with every key."""
    return ConfigDict(fields.defaults(SECTIONS))


def resolve(user: Config) -> Config:
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


def check(config: Config) -> None:
    """ValueError for the first key, or the first keys together, that cannot be run."""
    fields.check(SECTIONS, config.to_dict())
    combinations.check(config)


def changed(config: Config, values: dict) -> Config:
    """The config with some sections or keys replaced by those of a nested dict, locked. Errors as `resolve`."""
    config = ConfigDict(config.to_dict())
    _lay_over(config, ConfigDict(values), "")
    return config.lock()


def of_this_version(values: dict) -> dict:
    """A config that a workdir has kept, without keys that no stage reads any more: it was valid when it was run. What
    has another name now keeps its value.
    """
    translate = values.get("translate", {})
    if "backend" in translate:  # one translator, before a table had several
        values = {**values, "translate": {"backends": (translate["backend"],), **translate}}
    return _known(values, defaults().to_dict(), "")


def _known(values: dict, like: dict, prefix: str) -> dict:
    kept = {}
    for key in values.keys() & like.keys():
        inside = isinstance(values[key], dict) and f"{prefix}{key}" not in OPEN
        kept[key] = _known(values[key], like[key], f"{prefix}{key}.") if inside else values[key]
    return kept


def load(path: str | Path) -> Config:
    """Runs `get_config(variant)` of `FILE.py[:variant]` and resolves it."""
    path = str(path)
    file, _, variant = path.partition(":")
    if not Path(file).is_file():
        raise NotThere(f"config file {file!r} does not exist; the shipped ones are in configs/")
    spec = importlib.util.spec_from_file_location("moejax_config", file)
    if spec is None or spec.loader is None:
        raise BadValue(f"config file {file!r} is no Python file: its name has to end in .py")
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
    if variant and f"-{variant}-" not in f"-{config.name}-":  # or two variants would share a folder of runs/
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


def _lay_over(config: Config, user: Config, prefix: str) -> None:
    for key, value in user.items():
        key = str(key)
        path = f"{prefix}{key}"
        if key not in config and prefix.rstrip(".") not in OPEN:
            raise UnknownName(_unknown(path, prefix, key, config.keys()))
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
                return _unknown(path, walked, part, node.keys() if isinstance(node, ConfigDict) else ())
            node, walked = node[part], f"{walked}{part}."
    return " ".join(error.split())


def _unknown(path: str, prefix: str, part: str, known) -> str:
    """One line for a key that does not exist: the nearest of the `known` ones below `prefix`, and all of them."""
    near = difflib.get_close_matches(part, known, n=1)
    hint = f"; did you mean {prefix}{near[0]}?" if near else ""
    return f"config has no key {path!r}{hint} (valid here: {', '.join(sorted(known))})"


def help_text(key: str | None = None) -> str:
    """What `moejax config --help [KEY]` prints: every key with its default and its meaning in a line, or all about one
    key, or those of one section. Errors: UnknownName for a key that does not exist, with the nearest.
    """
    if key is None:
        found = [(path, field, field.doc.partition("\n")[0]) for path, field in FIELDS.items()]
        return "".join(f"{path} = {field.default!r}\n    {line}\n" for path, field, line in found)
    node, walked = SECTIONS, ""
    for part in key.split("."):
        if isinstance(node, Field) and node.open:  # one of the user's own keys
            key = walked.rstrip(".")
            break
        if isinstance(node, Field) or part not in node:
            raise UnknownName(_unknown(key, walked, part, () if isinstance(node, Field) else node))
        node, walked = node[part], f"{walked}{part}."
    found = {key: node} if isinstance(node, Field) else fields.flat(node, walked)
    return "\n".join(_about(path, field) for path, field in found.items())


def _about(path: str, field: Field) -> str:
    lines = [*field.doc.split("\n"), f"takes {field.allowed()}"]
    lines += ["changes no result"] if field.no_result is True else []
    return f"{path} = {field.default!r}\n" + "".join(f"    {line}\n" for line in lines)


PAGE = """# Config keys

Every key of a config with its default, what it takes and what it means. `moejax config --help KEY` prints the same; any
key can be set in a config file or by `--config.SECTION.KEY=VALUE` on the command line. A change makes the stages run
again that read the section, and those that need them.

This page is written by `python -m moejax.job.config > docs/config.md`.
"""


def markdown() -> str:
    """docs/config.md."""
    alone = {name: node for name, node in SECTIONS.items() if isinstance(node, Field)}
    parts = [PAGE, "## Outside all sections\n", _table(alone)]
    for section, node in SECTIONS.items():
        if not isinstance(node, Field):
            readers = [n for n, stage in STAGES.items() if section in {read.split(".")[0] for read in stage.reads}]
            said = f"Read by {', '.join(readers)}." if readers else "No stage runs again because of it."
            parts += [f"## {section}\n", f"{said}\n", _table(fields.flat(node))]
    return "\n".join(parts)


def _table(rows: dict[str, Field]) -> str:
    lines = ["| key | default | takes | meaning |", "|---|---|---|---|"]
    for key, field in rows.items():
        doc = field.doc + "\nChanges no result." * (field.no_result is True)
        cells = (f"`{key}`", f"`{field.default!r}`", _plain(field.allowed()), _plain(doc))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """Text in a cell of a table."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", "<br>")


if __name__ == "__main__":
    print(markdown(), end="")
