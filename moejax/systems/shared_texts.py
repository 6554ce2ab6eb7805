"""Texts translated by what costs nothing: a share by each process, and not again after a kill."""

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from moejax.runtime import faults, processes, watchdog

BLOCK = 64  # texts at a time; batches of translators divide it, so a text's company does not depend on who translates


def translated(file: Path, translate: Callable[[list[str]], list[str]], texts: Sequence[str]) -> list[str]:
    """The translations, in their order; a blank text becomes "". All processes call this with the same.

    Each translates every n-th block and writes it to FILE.N.share, and blocks that a run before had written are not
    translated again; `file` says by its name what they were made by. Nothing is left of it afterwards.
    """
    wanted = list(dict.fromkeys(text for text in texts if text.strip()))
    known = _read(file)
    processes.meet()  # all know the same
    blocks = [wanted[at : at + BLOCK] for at in range(0, len(wanted), BLOCK)]
    own = _share(file, processes.index())
    own.parent.mkdir(parents=True, exist_ok=True)
    with open(own, "a", encoding="utf-8") as out:
        out.write("\n")  # a kill may have left half a line
        for block in processes.share([block for block in blocks if not known.keys() >= set(block)]):
            for text, translation in zip(block, translate(block), strict=True):
                out.write(json.dumps([text, translation], ensure_ascii=False) + "\n")
            out.flush()
            watchdog.beat()
            faults.point("translate.block")
    processes.meet()  # all shares are whole
    known = _read(file)
    processes.meet()  # and read
    if processes.first():
        for share in _shares(file):
            share.unlink()
    return [known[text] if text.strip() else "" for text in texts]


def _share(file: Path, process: int) -> Path:
    return file.with_name(f"{file.name}.{process}.share")


def _shares(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.name}.*.share"))


def _read(file: Path) -> dict[str, str]:
    found = {}
    for share in _shares(file):
        for line in share.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):  # empty, or half of one
                text, translation = json.loads(line)
                found[text] = translation
    return found
