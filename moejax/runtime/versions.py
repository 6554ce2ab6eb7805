"""Versions of packages, as every result names them."""

import importlib.metadata
from collections.abc import Iterable


def of(names: Iterable[str]) -> dict[str, str]:
    """Of each of these; "not installed" where a package has no metadata: moejax itself may run from its source folder,
    as it does on machines where nothing can be installed.
    """
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
