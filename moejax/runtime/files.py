"""Files that are whole or absent: everything is written under another name, synced, and renamed.

What a killed process leaves has one of the names in `TEMPORARY`, and `sweep` removes it when the next run begins.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from moejax.errors import BadValue
from moejax.runtime import faults, processes

if TYPE_CHECKING:
    import numpy as np

TEMPORARY = (".*.tmp", ".*.tmp.npz", ".*.partial", ".*.new", ".*.old")  # how files are called until they are whole


@contextlib.contextmanager
def replacing(path: Path | str, sync: bool = True) -> Iterator[Path]:
    """The path to write to instead: it becomes `path` when the block ends, and is removed when the block fails.

    `sync` False is for caches of thousands of files, of which one without its content is made again.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path, "tmp")
    try:
        yield temporary
        if sync:
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())  # else a loss of power may leave the name without the content
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(folder: Path | str) -> Iterator[Path]:
    """`replacing` for a folder: what it held before goes when the new one stands."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = _beside(folder, "new"), _beside(folder, "old")
    new.mkdir()
    try:
        yield new
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _beside(path: Path, tag: str) -> Path:
    """A name of this process for what shall be called `path`; short, because a name has at most 255 bytes."""
    mark = hashlib.blake2b(os.fsencode(path.name), digest_size=6).hexdigest()
    return path.with_name(f".{path.name[:16]}-{mark}.{os.getpid()}.{tag}")


def write_text(path: Path, text: str) -> None:
    """Writes the file whole or not at all; of several processes the first one does."""
    if processes.first():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
            faults.point("artifact.partial")


def write_bytes(path: Path, content: bytes) -> None:
    """As `write_text`."""
    if processes.first():
        with replacing(path) as temporary:
            temporary.write_bytes(content)


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_npz(path: Path, **arrays: "np.ndarray") -> None:
    """Arrays as .npz, as `write_text`. Errors: an array of Python objects, which would need pickle to be read."""
    import numpy as np  # here, not above: what `--help` prints comes from modules that write files

    objects = [name for name, array in arrays.items() if np.asarray(array).dtype == object]
    if objects:
        raise TypeError(f"write_npz: array {objects[0]!r} holds Python objects; give it a plain dtype")
    if processes.first():
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, **cast("dict[str, Any]", arrays))  # the stubs take one for `allow_pickle`


def read_json(path: Path):
    """Errors: ValueError naming a file that is not JSON."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadValue(f"{path} is damaged, it is not JSON: {error}") from error


def read_jsonl(path: Path) -> list:
    """One value a line. Errors: ValueError naming a line that is not JSON."""
    found = []
    # Not splitlines: a text may hold what that takes for the end of a line (U+2028, say)
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").split("\n"), 1):
        if line:
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise BadValue(f"{path} line {number} is not JSON: {error}") from error
    return found


def sweep(folder: Path, within: bool = True) -> None:
    """Removes what a run that was killed left half written in the folder (and, `within`, everywhere below it)."""
    for pattern in TEMPORARY:
        for path in list(folder.rglob(pattern) if within else folder.glob(pattern)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def link(source, target) -> None:
    """A hard link, or a copy where there can be none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
