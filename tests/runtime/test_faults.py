"""The fault points: named once, used once, free when unset."""

import ast
from pathlib import Path

import pytest

from moejax.runtime import faults

ROOT = Path(faults.__file__).parent.parent


@pytest.fixture
def armed():
    yield faults.arm
    faults.arm("")


def test_every_point_is_passed_at_one_place_and_every_place_is_named():
    found = []
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "faults.point":
                found.append(node.args[0].value)
    assert sorted(found) == sorted(faults.POINTS)


def test_nothing_is_armed_unless_asked_for():
    assert faults._armed is None
    faults.point("no such point")  # one comparison: not even the name is looked up


def test_fault_happens_at_its_pass_and_no_other(armed):
    armed("params.partial:3=raise")
    faults.point("params.partial")
    faults.point("params.standing")
    faults.point("params.partial")
    with pytest.raises(OSError, match="No space left"):
        faults.point("params.partial")
    faults.point("params.partial")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("checkpoint=kill", "the points are checkpoint.begin"),
        ("train.step=explode", "kill, term"),
        ("train.step:x=kill", "POINT"),
    ],
)
def test_misspelt_fault_names_what_there_is(armed, text, said):
    with pytest.raises(ValueError, match=said):
        armed(text)
