"""The suites run under pytest as under `python -m tests.faults`: the toy that they train lies beside them."""

import logging
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "train"))


@pytest.fixture(autouse=True)
def levels():
    """Suites silence the product's log; the tests after them listen to it."""
    before = {name: logging.getLogger(name).level for name in ("moejax", "absl")}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)
