"""What one field says about values."""

import math

import pytest

from moejax.errors import BadValue
from moejax.work import fields
from moejax.work.fields import Field, above, below

SHARE = Field(0.5, "Share.", limits=(0.0, below(1)))
NAMES = Field((), "Names.", choices=("a", "b"))
RATES = Field((0.1, 0.2), "Rates.", limits=(above(0), 1.0), length=2)
COUNTS = Field((), "Counts.", kind=int, limits=(1, 9))
MAYBE = Field(None, "Maybe a number.", kind=float, limits=(0.0, 1.0))
OPEN = Field({}, "The user's own.", no_result=("workers",))


def _even(key, value):
    if value % 2:
        raise BadValue(f"config key {key!r} is odd")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (SHARE, 0),
        (SHARE, 0.999),
        (NAMES, ()),
        (NAMES, ["b", "a"]),
        (RATES, (1, 1.0)),
        (COUNTS, (1, 9)),
        (MAYBE, None),
        (MAYBE, 1),
        (OPEN, {"anything": object}),
        (Field("", "Text.", choices=("", "a")), ""),
        (Field(2, "Even.", rule=_even), 4),
        (Field(("a",), "Anything.", kind=object), (3, "a")),
    ],
)
def test_what_is_taken(field, value):
    field.check("s.key", value)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (SHARE, 1.0, "'s.key' is 1.0; it takes a number at least 0 and below 1"),
        (SHARE, math.nan, "is nan; it takes a number"),
        (SHARE, True, "is True; it takes a number"),
        (SHARE, None, "is None; it takes a number"),
        (Field(3, "Count."), 3.0, "is 3.0; it takes a whole number"),
        (Field(3, "Count."), -1, "takes a whole number at least 0"),
        (Field(True, "Whether."), 1, "is 1; it takes True or False"),
        (Field("", "Text."), 3, "is 3; it takes text"),
        (Field("", "Text."), True, "is True; it takes text"),
        (Field("", "Text."), "a\nb", "one line of text without control characters"),
        (Field("", "Text."), "a" * 5000, "'s.key' is too long; it takes one line"),
        (Field("a", "Text.", needed=True), "", "is empty; it needs a value"),
        (Field(("a",), "Texts.", needed=True), (), "is empty; it needs at least one entry"),
        (Field("a", "Text.", choices=("a", "b")), "c", "is 'c'; known: a, b"),
        (Field("", "Text.", choices=("", "b")), "c", "is 'c'; known: b"),
        (NAMES, ("a", "c"), "is 'c'; known: a, b"),
        (NAMES, "a", r"is 'a'; it takes a tuple such as \(\)"),
        (RATES, (0.1,), r"has 1 entries; it takes 2, such as \(0.1, 0.2\)"),
        (RATES, (0.1, 0.0), "is 0.0; it takes a number above 0 and at most 1"),
        (COUNTS, (1.5,), "is 1.5; it takes a whole number"),
        (COUNTS, (10,), "is 10; it takes a whole number at least 1 and at most 9"),
        (MAYBE, 2, "is 2; it takes a number at least 0 and at most 1"),
        (Field(2, "Even.", rule=_even), 3, "'s.key' is odd"),
    ],
)
def test_what_is_not_taken_is_said_in_one_line(field, value, words):
    with pytest.raises(ValueError, match=words) as error:
        field.check("s.key", value)
    assert "\n" not in str(error.value) and "'s.key'" in str(error.value)


@pytest.mark.parametrize(
    ("field", "words"),
    [
        (SHARE, "a number at least 0 and below 1"),
        (NAMES, "any of 'a', 'b'"),
        (RATES, "a tuple of exactly 2: numbers above 0 and at most 1"),
        (COUNTS, "a tuple of whole numbers at least 1 and at most 9"),
        (MAYBE, "a number at least 0 and at most 1, or None"),
        (OPEN, "a section of your own keys"),
        (Field("a", "Text.", needed=True), "text (not empty)"),
        (Field(("a",), "Texts.", needed=True), "a tuple of at least one: text"),
        (Field(0, "Odd.", takes="what is odd"), "what is odd"),
    ],
)
def test_what_is_allowed_in_words(field, words):
    assert field.allowed() == words


def test_sections_are_walked_with_what_lies_below_them():
    section = {"a": SHARE, "b": {"c": COUNTS, "d": OPEN}}
    assert fields.flat(section) == {"a": SHARE, "b.c": COUNTS, "b.d": OPEN}
    assert fields.defaults(section) == {"a": 0.5, "b": {"c": (), "d": {}}}
    other = fields.but(section, a=0.25)
    assert other["a"].default == 0.25 and other["a"].doc == "Share." and section["a"].default == 0.5
    assert list(other) == list(section)
    fields.check(section, {"a": 0.1, "b": {"c": (3,), "d": {"x": 1}}})
    with pytest.raises(ValueError, match="'b.c' is 0"):
        fields.check(section, {"a": 0.1, "b": {"c": (0,), "d": {}}})


def test_keys_that_change_no_result():
    assert SHARE.idle("s.key") == [] and OPEN.idle("s.key") == ["s.key.workers"]
    assert Field(1, "Threads.", no_result=True).idle("s.key") == ["s.key"]
