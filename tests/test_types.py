"""What machines hold about every file: types (basedpyright, as pyproject.toml sets it), lint and form (ruff)."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def said(*command: str) -> str:
    """What a command in the root says where it fails, else ''."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 else done.stdout + done.stderr


@pytest.mark.skipif(
    importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed: pip install '.[test]'"
)
def test_types_are_right():
    assert said("basedpyright", "--level", "error", "--pythonpath", sys.executable) == ""


@pytest.mark.parametrize("command", [("check",), ("format", "--check")], ids=" ".join)
def test_lint_and_form(command):
    assert said("ruff", *command, ".") == ""
