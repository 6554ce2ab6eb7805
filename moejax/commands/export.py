"""`moejax export`: a system of a workdir for another library."""

import argparse

from moejax.errors import BadValue
from moejax.export import write


def main(argv: list[str]) -> int:
    """Writes the folders and prints them; exit code."""
    if not argv or "-h" in argv or "--help" in argv:
        print(write.HELP)
        return 0 if argv else 2
    parser = argparse.ArgumentParser(prog="moejax export", add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("workdir", "to", "output", "system", "route", "dtype", "quantization"):
        parser.add_argument(f"--{name}")
    try:
        options, unknown = parser.parse_known_args(argv)
    except argparse.ArgumentError as error:
        raise BadValue(f"export: {error}") from error
    if unknown:
        raise BadValue(f"export has no option {unknown[0]!r}; moejax export --help lists them")
    given = {name: value for name, value in vars(options).items() if value is not None}
    if missing := [name for name in ("workdir", "to", "output") if name not in given]:
        raise BadValue(f"--{missing[0]} is missing; moejax export --help says what it wants")
    for folder in write.run(**given):
        print(folder)
    return 0
