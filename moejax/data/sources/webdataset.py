"""WebDataset tars: members that share a name up to its first dot are one utterance (`a/17.flac`, `a/17.txt`).

A tar is read once for its names and small members; a recording is then read by its place in it, without its neighbours.
"""

import dataclasses
import json
import os
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from moejax.audio.flaws import Rejected
from moejax.audio.read import read
from moejax.data.manifest import Utterance
from moejax.data.sources.folder import FIELDS, TEXT, normalise, plain, resolve_columns, text_of
from moejax.errors import BadValue, NotThere

AUDIO = ("flac", "wav", "mp3", "ogg", "opus", "m4a", "webm", "aac")
WORDS = ("txt", "text", "transcript", "lab")  # the text, where no .json says it
_LARGEST = 1 << 20  # bytes of a .json or .txt; a longer one is something else


@dataclasses.dataclass(frozen=True)
class Member:
    """Reads a recording from inside a tar, by its place; `name` is for messages."""

    tar: str
    name: str
    start: int
    size: int

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.tar,)

    def __call__(self) -> tuple[np.ndarray, int]:
        return read(self.content())

    def content(self) -> bytes:
        """Its bytes. Errors: `Rejected`."""
        try:
            with open(self.tar, "rb") as file:
                file.seek(self.start)
                found = file.read(self.size)
        except OSError as error:
            raise Rejected("unreadable", error.strerror or str(error), self.tar) from error
        if len(found) < self.size:
            raise Rejected("truncated", f"{os.path.basename(self.tar)} ends within it", self.name)
        return found


def load(*, root: str, columns: Mapping[str, str] | None = None, text: str = "keep") -> list[Utterance]:
    """Utterances of the tars in the folder `root` (or of one .tar), in the order of their names and members.

    columns: {field of Utterance: key of the .json}; a field not named here is read from the key of its own name, the
    text also from a .txt. text: as in the folder source. Ids are the members' names without what follows the dot, with
    the tar's name in front where another tar has the same. Errors (one line each): no tar, one that is compressed or
    damaged, an unknown field, an utterance without audio or with two.
    """
    return list(utterances(root=root, columns=columns, text=text))


def utterances(
    *, root: str, columns: Mapping[str, str] | None = None, text: str = "keep", further: bool = False
) -> Iterator[Utterance]:
    """As `load`, tar by tar. `further`: with the keys of the .json that no field takes."""
    if text not in TEXT:
        raise BadValue(f"webdataset: text={text!r}; known: {', '.join(TEXT)}")
    tars, columns = _tars(root), columns or {}
    for tar in tars:
        for key, parts in _samples(tar):
            yield _utterance(tar, key, parts, columns, text, further, alone=len(tars) == 1)


def count(root: str) -> int:
    """How many recordings the tars hold; reads no more than their headers."""
    return sum(member.name.rpartition(".")[2].lower() in AUDIO for tar in _tars(root) for member in _members(tar))


def _utterance(tar, key, parts, columns, text, further, alone) -> Utterance:
    where = f"{tar}: {key}"
    audio = [part for name, part in parts.items() if name in AUDIO]
    if len(audio) != 1:
        have = ", ".join(parts) or "nothing"
        raise BadValue(f"{where} has {len(audio)} recordings ({have}); needs one of .{', .'.join(AUDIO)}")
    said = _said(where, parts)
    mapping = resolve_columns([{"audio": "", "text": "", **said}], columns, where=where)
    mapping.pop("audio", None)
    values = {field: text_of(said.get(column), field, f"{where}, {column!r}") for field, column in mapping.items()}
    values["id"] = values.get("id") or (key if alone else f"{Path(tar).stem}/{key}")
    values["text"] = normalise(values["text"], text)
    others = [name for name in said if name not in mapping.values() and name not in FIELDS] if further else ()
    return Utterance(audio=audio[0], further=plain(said, others), **values)


def _said(where: str, parts: Mapping) -> dict:
    """What .json and .txt say of an utterance."""
    said = {}
    if "json" in parts:
        try:
            said = json.loads(parts["json"].content())
        except ValueError as error:
            raise BadValue(f"{where}.json is not JSON: {error}") from error
        if not isinstance(said, dict):
            raise BadValue(f"{where}.json is a {type(said).__name__}, not an object")
    for name in WORDS:
        if name in parts and "text" not in said:
            try:
                said["text"] = parts[name].content().decode()
            except UnicodeDecodeError as error:
                raise BadValue(f"{where}.{name} is not UTF-8") from error
    return said


def _tars(root: str) -> list[str]:
    if root and os.path.isfile(root):
        found = [root]
    elif root and os.path.isdir(root):
        found = sorted(str(path) for path in Path(root).iterdir() if ".tar" in path.name or path.suffix == ".tgz")
    else:
        raise NotThere(f"webdataset: no folder or tar {root!r}")
    for path in found:
        if not path.endswith(".tar"):
            raise BadValue(f"webdataset: {path} is compressed; recordings are read by their place: unpack it to .tar")
    if not found:
        raise NotThere(f"webdataset: no .tar in {root}")
    return [os.path.abspath(path) for path in found]


def _members(tar: str) -> Iterator[tarfile.TarInfo]:
    archive: Any
    with tarfile.open(tar, "r:") as archive:
        for member in archive:
            archive.members = []  # else every name of the tar stays in memory
            yield member


def _samples(tar: str) -> Iterator[tuple[str, dict[str, Member]]]:
    """(key, {extension: member}) of neighbours with the same key."""
    key, parts = "", {}
    try:
        for member in _members(tar):
            folder, _, name = member.name.rpartition("/")
            base, _, extension = name.partition(".")
            if not member.isfile() or not base:
                continue
            its = f"{folder}/{base}" if folder else base
            if its != key and parts:
                yield key, parts
            key, parts = its, {} if its != key else parts
            if extension.lower() in parts:
                raise BadValue(f"{tar}: {member.name} stands in it twice")
            if extension.lower() in AUDIO or member.size <= _LARGEST:
                parts[extension.lower()] = Member(tar, member.name, member.offset_data, member.size)
    except tarfile.TarError as error:
        raise BadValue(f"webdataset: {tar} is no tar, or damaged ({error})") from error
    if parts:
        yield key, parts
