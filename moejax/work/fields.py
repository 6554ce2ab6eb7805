"""A config key, declared once: its default, what it means, which values it takes, and what a change of it brings about.

A section is a dict {name: Field, or a section below it}. The module that reads a section declares it; where several
sections have keys in common, one dict is spread into all of them (`but` gives some keys other defaults).
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping

from moejax.errors import BadValue

MOST = 2**62  # of whole numbers that nothing else bounds: they still fit an int64
TINY = 1e-9


def above(value: float) -> float:
    """The least number that counts as greater: for the lower one of a field's `limits`."""
    return value + TINY


def below(value: float) -> float:
    """The greatest number that counts as smaller: for the upper one of a field's `limits`."""
    return value - TINY


# Limits that many keys share.
SHARE = (0.0, 1.0)
COUNT = (1, MOST)
SIZE = (1, 4096)
BATCH = (1, 1_000_000)
STEPS = (0, 1_000_000_000)
SEED = (0, 2**31 - 1)
NAMES = {bool: "True or False", int: "a whole number", float: "a number", str: "text"}
MANY = {bool: "True or False each", int: "whole numbers", float: "numbers", str: "text"}


@dataclasses.dataclass(frozen=True)
class Field:
    """One key. Its default says what it holds: a value, entries of one type (a tuple), or, where it is a dict, keys of
    the user's own, which nothing checks here. A default of None means that None is a value too.
    """

    default: object
    doc: str  # what it means and in which unit; the first line alone must be understood
    choices: tuple[str, ...] = ()  # the values, or the entries of a tuple, that there are
    limits: tuple[float, float] = (0, MOST)  # lowest and highest number, both included
    kind: type | None = None  # of the value or of a tuple's entries, where the default does not show it; object: any
    length: int = 0  # entries that a tuple must have; 0: any number
    needed: bool = False  # neither "" nor () is a value
    rule: Callable[[str, object], None] | None = None  # (key, value): BadValue for what the rest of this lets pass
    takes: str = ""  # what `rule` asks for, in words
    # True: it changes no result (threads, how often is logged). Of the user's own keys, the names of those that do not
    no_result: bool | tuple[str, ...] = False
    # It says where something lies: the stage that reads it runs again, and by its content decides whether later ones do
    location: bool = False
    # It came when there were workdirs without it: its default is as if there were no such key, so they stay finished
    later: bool = False

    @property
    def open(self) -> bool:
        """Whether it is a section of keys of the user's own (column maps, options of a loader)."""
        return isinstance(self.default, dict)

    def idle(self, key: str) -> list[str]:
        """The keys that change no result: this one, or those of the user's own in it."""
        if isinstance(self.no_result, tuple):
            return [f"{key}.{own}" for own in self.no_result]
        return [key] if self.no_result else []

    @property
    def type(self) -> type:
        """Of the value, or of the entries of a tuple."""
        if self.kind is not None:
            return self.kind
        if isinstance(self.default, tuple):
            return type(self.default[0]) if self.default else str
        return type(self.default)

    def check(self, key: str, value) -> None:
        """BadValue in one line that names the key, for a value that it does not take."""
        if self.open or (value is None and self.default is None):
            pass
        elif self.type is object:
            pass
        elif isinstance(self.default, tuple):
            self._check_entries(key, value)
        else:
            self._check_value(key, value)
        if self.needed and not value:
            raise BadValue(
                f"config key {key!r} is empty; it needs {'at least one entry' if value == () else 'a value'}"
            )
        if self.choices:
            entries = [value] if isinstance(value, str) else value or ()
            wrong = [entry for entry in entries if entry not in self.choices]
            if wrong:
                raise BadValue(f"config key {key!r} is {wrong[0]!r}; known: {', '.join(self.choices).lstrip(', ')}")
        if self.rule is not None:
            self.rule(key, value)

    def _check_entries(self, key, values):
        if not isinstance(values, tuple | list):
            raise BadValue(f"config key {key!r} is {values!r}; it takes a tuple such as {self.default!r}")
        if self.length and len(values) != self.length:
            raise BadValue(
                f"config key {key!r} has {len(values)} entries; it takes {self.length}, such as {self.default!r}"
            )
        for value in values:
            self._check_value(key, value)

    def _check_value(self, key, value):
        shown = f"config key {key!r} is {value!r}" if len(repr(value)) < 200 else f"config key {key!r} is too long"
        takes = NAMES[self.type]
        if self.type is str:
            if not isinstance(value, str):
                raise BadValue(f"{shown}; it takes {takes}")
            if len(value) > 4096 or any(ord(sign) < 32 for sign in value):
                raise BadValue(f"{shown}; it takes one line of text without control characters")
        elif self.type is bool or isinstance(value, bool):
            if not (self.type is bool and isinstance(value, bool)):
                raise BadValue(f"{shown}; it takes {takes}")
        elif not isinstance(value, int if self.type is int else int | float):
            raise BadValue(f"{shown}; it takes {takes}")
        elif not self.limits[0] <= value <= self.limits[1]:  # not-a-number lies nowhere
            raise BadValue(f"{shown}; it takes {takes} {interval(*self.limits)}")

    def allowed(self) -> str:
        """What it takes, in words."""
        if self.takes:
            return self.takes
        if self.open:
            return "a section of your own keys"
        several = isinstance(self.default, tuple)
        if self.choices:
            said = ", ".join(repr(choice) for choice in self.choices)
            return f"any of {said}" if several else f"one of {said}"
        said = (MANY if several else NAMES)[self.type]
        if self.type in (int, float):
            said += f" {interval(*self.limits)}"
        if several:
            least = f"exactly {self.length}: " if self.length else "at least one: " if self.needed else ""
            return f"a tuple of {least}{said}"
        return said + " (not empty)" * self.needed + ", or None" * (self.default is None)


def interval(low: float, high: float) -> str:
    """Such as "at least 0 and at most 1", "above 0 and below 1", "at least 0"."""
    last = "" if high >= MOST else f" and {_bound(high, 'below', 'at most')}"
    return _bound(low, "above", "at least") + last


def _bound(value, strict, plain):
    nearest = round(value, 6)
    return f"{plain if nearest == value else strict} {nearest:.10g}"


def but(section: Mapping, **defaults) -> dict:
    """The section with other defaults of some of its keys."""
    changed = {name: dataclasses.replace(section[name], default=value) for name, value in defaults.items()}
    return {**section, **changed}


def flat(section: Mapping, prefix: str = "") -> dict[str, Field]:
    """{"a.b": Field} of all keys of a section and of those below it."""
    return dict(_walk(section, prefix))


def _walk(section, prefix) -> Iterator[tuple[str, Field]]:
    for name, field in section.items():
        if isinstance(field, Field):
            yield f"{prefix}{name}", field
        else:
            yield from _walk(field, f"{prefix}{name}.")


def defaults(section: Mapping) -> dict:
    """The section with the default of every key in the place of its field."""
    return {name: field.default if isinstance(field, Field) else defaults(field) for name, field in section.items()}


def check(section: Mapping, values: Mapping, prefix: str = "") -> None:
    """BadValue naming the first key of these values (a nested dict with every key) that has one it does not take."""
    for name, field in section.items():
        if isinstance(field, Field):
            field.check(f"{prefix}{name}", values[name])
        else:
            check(field, values[name], f"{prefix}{name}.")
