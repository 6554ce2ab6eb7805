"""Speech translated end to end: the systems of the stages `st` and `salmonn`, asked for the other language."""

import dataclasses
from collections.abc import Iterator

import numpy as np

from moejax.systems import evaluate, registry
from moejax.work.context import Context


def translations(context: Context, rows: np.ndarray) -> Iterator[tuple[str, dict[str, str]]]:
    """(system, {id: translation}) of every system that learnt to write translate.target, of these rows of the manifest.

    What is decoded is written line by line to a file of W/translate whose name says what it was made of, and kept over
    a kill; the stage clears it away at its end. Several processes decode a share each.
    """
    target = context.cfg.translate.target
    for name, system in registry.known(context.work).items():
        if target in system.writes:
            opened = registry.open_system(context, name)
            asked = dataclasses.replace(opened, network=opened.network.into(target))
            file = context.work.path("translate", f"{name}.spoken.{evaluate.made_of(context, asked, None, 0)}.jsonl")
            file.parent.mkdir(parents=True, exist_ok=True)
            records = evaluate.lines(context, asked, rows, None, file, shared=True)
            yield name, {record["id"]: record["hypothesis"] for record in records}
