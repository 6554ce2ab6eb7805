"""Whether a value that a caller gave is of the kind that an option takes: each refusal names option, value and rule."""

import math
import numbers
import re
from collections.abc import Iterable
from typing import Any

from moejax.errors import BadValue


def number(name: str, value: Any, *, least: float | None = None, most: float | None = None, unset=True) -> None:
    """A finite number within its bounds, or None where that is allowed (`unset`)."""
    if value is None and unset:
        return
    rule = "a number" if least is None else f"a number from {least:g} {'on' if most is None else f'to {most:g}'}"
    _demand(name, value, _is_number(value) and not _outside(value, least, most), rule, unset)


def limit(name: str, value: Any) -> None:
    """A threshold: a number, infinities among them, or None."""
    fine = value is None or (_is_real(value) and not math.isnan(value))
    _demand(name, value, fine, "a number", True)


def count(name: str, value: Any) -> None:
    """A whole number from 1 on, or None."""
    fine = value is None or (isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1)
    _demand(name, value, fine, "a whole number of at least 1", True)


def flag(name: str, value: Any) -> None:
    """True or False, and no text that says so."""
    _demand(name, value, type(value).__name__ in ("bool", "bool_"), "True or False", False)


def text(name: str, value: Any, *, unset=True) -> None:
    """A string, or None where that is allowed."""
    _demand(name, value, isinstance(value, str) or (value is None and unset), "text", unset)


def text_or_ids(name: str, value: Any) -> None:
    """A string, token ids or None."""
    fine = value is None or isinstance(value, str) or (isinstance(value, Iterable) and all(map(_is_whole, value)))
    _demand(name, value, fine, "text or token ids", True)


def temperatures(value: Any) -> None:
    """One temperature, or the rungs of a ladder."""
    rungs = value if isinstance(value, tuple | list) else (value,)
    if not rungs or not all(_is_number(rung) and rung >= 0 for rung in rungs):
        raise BadValue(f"temperature is {value!r}; give one or several numbers from 0 on")
    if len(rungs) > 100:
        raise BadValue(f"temperature has {len(rungs)} rungs, each of which may decode a window again; at most 100")


def ids(name: str, value: Any) -> list[int]:
    """Token ids of a string with commas, or of a list; [] for None."""
    parts = value.split(",") if isinstance(value, str) else list(value or ())
    parts = [part for part in parts if not isinstance(part, str) or part.strip()]
    if not all(_is_whole(part) or (isinstance(part, str) and re.fullmatch(r"\s*-?[0-9]+\s*", part)) for part in parts):
        raise BadValue(f"{name} is {value!r}; give token ids with commas, such as 50,257, or -1")
    return [int(part) for part in parts]


def _demand(name, value, fine, rule, unset):
    if not fine:
        raise BadValue(f"{name} is {value!r}, must be {rule}{' or None' if unset else ''}")


def _is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _is_number(value):
    return _is_real(value) and math.isfinite(value)


def _is_whole(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _outside(value, least, most):
    return (least is not None and value < least) or (most is not None and value > most)
