"""A run names its versions wherever it runs from."""

import importlib.metadata

import numpy as np
import pytest

from moejax.runtime import versions


@pytest.fixture
def not_installed(monkeypatch):
    """moejax from its source folder, as on a machine where nothing can be installed."""
    version = importlib.metadata.version

    def of(name):
        if name == "moejax":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", of)


def test_what_has_no_metadata_is_named_as_not_installed(not_installed):
    found = versions.of(("moejax", "numpy", "no-such-package"))
    assert found == {"moejax": "not installed", "numpy": np.__version__, "no-such-package": "not installed"}


def test_a_run_begins_without_the_package_being_installed(not_installed):
    from moejax.job import graph

    assert graph.versions()["moejax"] == "not installed"
