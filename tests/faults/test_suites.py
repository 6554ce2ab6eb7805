"""The short form of the fault suites: a few tries of every fault; `python -m tests.faults --all` runs them all."""

import importlib
import os
import shutil

import pytest

TRIES = {"save": 1, "pair": 1, "topology": 2, "damage": 120}


@pytest.mark.parametrize("name", TRIES)
def test_every_try_is_survived(name, tmp_path):
    rows = importlib.import_module(name).run(TRIES[name], tmp_path, seed=1)
    assert rows and [row for row in rows if row.tries == 0 or row.survived < row.tries] == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="mounting a small file system wants root")
def test_disk_that_refuses(tmp_path):
    rows = importlib.import_module("disk").run(3, tmp_path, seed=1)
    assert [(row.survived, row.tries) for row in rows] == [(1, 1)] * 3, rows
