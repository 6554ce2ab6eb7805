"""docs/api.md is true to the code: its signatures, options and fields are those that there are; its examples parse."""

import ast
import dataclasses
import inspect
import re
from pathlib import Path

import pytest

import moejax
from moejax.decode.request import OPTIONS
from moejax.text.transcript import Segment, Transcript, Word

PAGE = (Path(__file__).parent.parent / "docs" / "api.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
SIGNATURES = dict(
    re.fullmatch(r"((?:moejax|Recognizer)\.\w+)(\(.*\) -> .+)\n", b).groups() for b in BLOCKS if ") ->" in b
)


def described(signature: str) -> list[tuple]:
    """(name, kind, default as written) of each parameter of "(a, *, b=1) -> C", and what comes back."""
    function = ast.parse(f"def f{signature}: ...").body[0]
    assert isinstance(function, ast.FunctionDef)
    given = function.args
    defaults = [None] * (len(given.args) - len(given.defaults)) + given.defaults
    found = [(a.arg, "positional", d and ast.literal_eval(d)) for a, d in zip(given.args, defaults, strict=True)]
    found += [
        (a.arg, "keyword", d and ast.literal_eval(d)) for a, d in zip(given.kwonlyargs, given.kw_defaults, strict=True)
    ]
    found += [(given.kwarg.arg, "rest", None)] if given.kwarg else []
    return [*found, ("return", bare(ast.unparse(function.returns)))]


def actual(function) -> list[tuple]:
    """The same of a function that is there."""
    kinds = {"KEYWORD_ONLY": "keyword", "VAR_KEYWORD": "rest"}
    signature = inspect.signature(function)
    found = [
        (p.name, kinds.get(p.kind.name, "positional"), None if p.default is p.empty else p.default)
        for p in signature.parameters.values()
        if p.name != "self"
    ]
    returned = signature.return_annotation
    return [*found, ("return", bare(returned if isinstance(returned, str) else inspect.formatannotation(returned)))]


def bare(annotation: str) -> str:
    """Without the modules that types live in."""
    return re.sub(r"\b(?!np\b)[a-z_]+\.(?=[\w.]*[A-Z])", "", re.sub(r"\b(np|numpy)\.", "", annotation))


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_are_those_of_the_code(name):
    home, attribute = name.split(".")
    function = getattr(moejax if home == "moejax" else moejax.Recognizer, attribute)
    assert described(SIGNATURES[name]) == actual(function)


def test_every_public_name_and_method_has_its_place():
    functions = {f"moejax.{name}" for name in moejax.__all__ if inspect.isfunction(getattr(moejax, name))}
    methods = {f"Recognizer.{name}" for name, _ in inspect.getmembers(moejax.Recognizer, inspect.isfunction)}
    assert SIGNATURES.keys() == functions | {name for name in methods if "._" not in name}
    assert all(f"## {name}\n" in PAGE for name in set(moejax.__all__) - {"__version__"})


def rows(title: str) -> list[str]:
    """First column of the table whose head is `title`."""
    table = PAGE.split(f"\n| {title} |")[1].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, flags=re.M)


def test_options_are_all_there():
    assert sorted(rows("option")) == sorted(OPTIONS)


@pytest.mark.parametrize("record", [Transcript, Segment, Word])
def test_fields_are_all_there(record):
    assert rows(f"`{record.__name__}`") == [field.name for field in dataclasses.fields(record)]


def test_parameters_of_load_are_explained():
    assert rows("parameter") == list(inspect.signature(moejax.load).parameters)


def test_examples_parse():
    examples = [block for block in BLOCKS if ") ->" not in block]
    assert len(examples) >= 9
    for block in examples:
        ast.parse(block)
