"""Keys of other trainers and what they are here: Hugging Face's `TrainingArguments`, the usual YAML of torch scripts.

`trainer_keys.tsv` has a line for each key: what kind it is of (`KINDS`), the keys of ours that it becomes (`@` stands
for the training section that is asked for), how its value is converted, and what there is to say. `moejax config --from
FILE` reads a file of such keys; `python -m moejax.job.trainer_keys > docs/trainer_keys.md` writes the page.
"""

import csv
import dataclasses
import difflib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from moejax.errors import BadValue, NotThere
from moejax.job.stages import FIELDS

TABLE = Path(__file__).with_name("trainer_keys.tsv")
KINDS = {
    "ours": "a key of the config",
    "always": "moejax does it, in one way, whatever is asked",
    "none": "has no meaning in JAX",
    "absent": "moejax has nothing of the kind",
}
SCHEDULES = {"constant_with_warmup": "constant", "reduce_lr_on_plateau": "plateau"}
HALF = ("bf16", "bfloat16", True)


@dataclasses.dataclass(frozen=True)
class Key:
    """A line of the table."""

    name: str
    kind: str
    ours: tuple[str, ...]
    conversion: str
    said: str


@dataclasses.dataclass(frozen=True)
class Found:
    """What a file comes to: `values` of keys of ours, and a line for every key that is none."""

    values: dict[str, Any]
    notes: list[str]

    def overrides(self) -> list[str]:
        """As the command line takes them."""
        return [f"--config.{key}={value}" for key, value in self.values.items()]


def table() -> dict[str, Key]:
    """{key: its line}."""
    with open(TABLE, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return {r["key"]: Key(r["key"], r["kind"], tuple(r["ours"].split()), r["conversion"], r["said"]) for r in rows}


def sections() -> list[str]:
    """The training sections that `@` can stand for."""
    return [
        key.removesuffix(".learning_rate") for key in FIELDS if key.count(".") == 1 and key.endswith(".learning_rate")
    ]


def read(path: str | Path, section: str = "base") -> Found:
    """What the keys of a YAML or JSON file are here. Errors: a file that is none, a key that no trainer has, a value
    that ours cannot be, a section that does not train.
    """
    if not Path(path).is_file():
        raise NotThere(f"no file {str(path)!r} with keys of another trainer")
    try:
        text = Path(path).read_text(encoding="utf-8")
        found = json.loads(text) if Path(path).suffix == ".json" else yaml.safe_load(text)
    except (ValueError, yaml.YAMLError) as error:
        raise BadValue(f"{path}: neither YAML nor JSON ({' '.join(str(error).split())[:150]})") from error
    if not isinstance(found, Mapping):
        raise BadValue(f"{path}: holds a {type(found).__name__}, not keys and values")
    return converted(found, section)


def converted(given: Mapping[str, Any], section: str = "base") -> Found:
    """The same of a dict, nested or not. Errors: as `read`."""
    if section not in sections():
        raise BadValue(f"no training section {section!r}; known: {', '.join(sections())}")
    known, values, notes = table(), {}, []
    flat = _flat(given, known)
    for name in flat:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise BadValue(f"no trainer has a key {name!r}" + (f"; did you mean {near[0]}?" if near else ""))
    for name, value in flat.items():
        key = known[name]
        if value is None or (value is False and key.kind != "ours"):
            continue
        if key.kind != "ours":
            notes.append(_note(key, value))
            continue
        ours = [one.replace("@", section) for one in key.ours]
        if missing := [one for one in ours if not _there(one)]:
            notes.append(f"{name}={value!r}: the section {section} has no key {missing[0]}" + _behind(key.said))
            continue
        try:
            new = CONVERSIONS[key.conversion](value, flat)
        except (TypeError, ValueError, IndexError) as error:
            notes.append(f"{name}={value!r}: {error}")
            continue
        for one in ours if new is not None else ():
            if values.setdefault(one, new) != new:
                raise BadValue(f"{name} makes {one} {new!r}, and another key makes it {values[one]!r}")
            if one in FIELDS:
                FIELDS[one].check(one, new)
    return Found(values, notes)


def _flat(given: Mapping, known: Mapping, prefix: str = "") -> dict[str, Any]:
    """{dotted key: value}; what a key of the table holds stays whole."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and path not in known:
            found |= _flat(value, known, f"{path}.")
        else:
            found[path] = value
    return found


def _there(key: str) -> bool:
    """Whether we have a key, or the section of the user's own that it is in."""
    return key in FIELDS or (key.rpartition(".")[0] in FIELDS and FIELDS[key.rpartition(".")[0]].open)


def _note(key: Key, value) -> str:
    return f"{key.name}={value!r}: {KINDS[key.kind]}" + _behind(key.said)


def _behind(said: str) -> str:
    return f": {said}" if said else ""


def _schedule(value, given):
    del given
    name = SCHEDULES.get(str(value), str(value))
    if name not in ("cosine", "linear", "constant", "plateau"):
        raise BadValue("schedules here are cosine, linear, constant and, of folds, plateau")
    return name


def _batch(value, given):
    """Everything that makes one update."""
    times = given.get("gradient_accumulation_steps") or given.get("training.gradient_accumulation_steps") or 1
    return int(value) * int(times)


def _steps(value, given):
    """A number of steps; -1 of Hugging Face is none, and a share of an epoch is a share here neither."""
    del given
    if 0 < value < 1:
        raise BadValue("a share of the training; a number of steps is needed here")
    return int(value) if value >= 0 else None


def _half(value, given):
    del given
    return "bfloat16" if value in HALF else None


def _evals(value, given):
    """How often, from after how many steps."""
    most = given.get("max_steps") or given.get("training.max_steps") or 0
    if most <= 0 or not 0 < value <= most:
        raise BadValue("how often dev is scored is max_steps / interval, and max_steps is not there")
    return max(round(most / value), 1)


def _times_width(value, given):
    width = given.get("encoder.d_model") or given.get("decoder.d_model")
    if width is None:
        raise BadValue("a factor of d_model, which is not there")
    return round(value * width)


def _best(value, given):
    del given
    name = str(value).removeprefix("eval_").removeprefix("val_").removeprefix("dev_")
    if name not in ("loss", "wer"):
        raise BadValue("checkpoints are judged by loss or wer")
    return name


CONVERSIONS: dict[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "same": lambda value, given: value,
    "steps": _steps,
    "batch": _batch,
    "second": lambda value, given: float(value[1]),
    "schedule": _schedule,
    "clip": lambda value, given: float(value),
    "half": _half,
    "evals": _evals,
    "off": lambda value, given: 0 if value in ("no", False) else None,
    "keep": lambda value, given: "best" if value else "last",
    "best": _best,
    "generated": lambda value, given: "wer" if value else None,
    "times_width": _times_width,
}
PAGE = """# Keys of other trainers

What the keys of Hugging Face's `TrainingArguments` and of the usual YAML of torch scripts are here. `moejax config
--from FILE` reads a YAML or JSON file of them and prints what to write behind a command (`@` is the training section
that `--section` names, `base` if none is). What no key of ours stands for is named with the reason; a key that no
trainer has is refused.

    moejax config --from args.json --section adapters
    moejax all --config configs/speechocean.py --workdir W $(moejax config --from args.json --section adapters)

This page is written by `python -m moejax.job.trainer_keys > docs/trainer_keys.md`.
"""


def markdown() -> str:
    """docs/trainer_keys.md."""
    lines = [PAGE, "| key | here | |", "|---|---|---|"]
    for key in table().values():
        here = ", ".join(f"`{one}`" for one in key.ours) or KINDS[key.kind]
        lines.append(f"| `{key.name}` | {here} | {key.said} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(markdown(), end="")
