"""What `moejax pack` takes: a folder with a table, a table on its own, WebDataset tars, a dataset of Hugging Face."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from moejax.audio.records import SUFFIX
from moejax.data.manifest import Utterance
from moejax.data.shards.table import INDEX
from moejax.data.sources import folder, hf, webdataset
from moejax.errors import BadValue, NotThere, Refused

KINDS = ("folder", "hf", "webdataset", "manifest")
_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_COLUMNAR = (".arrow", ".parquet")


@dataclasses.dataclass(frozen=True)
class Source:
    """Where utterances come from. `place`: a folder, a file or, for hf, an id of the hub; the rest as in
    `sources.folder.load` and `sources.hf.load`. `language` is of rows that name none.
    """

    kind: str
    place: str
    columns: Mapping[str, str]
    text: str = "keep"
    language: str = ""
    split: str | None = None
    name: str | None = None

    def described(self) -> dict:
        """What decides which utterances these are, as JSON."""
        place = os.path.abspath(self.place) if os.path.exists(self.place) else self.place
        return {**dataclasses.asdict(self), "place": place, "columns": dict(self.columns)}

    def utterances(self) -> Iterator[Utterance]:
        """All of them, in their order. Errors: one line each, as the sources say."""
        for utterance in self._read():
            known = utterance.language or not self.language
            yield utterance if known else dataclasses.replace(utterance, language=self.language)

    def count(self) -> int | None:
        """About how many there are, where that is quick to know; for a progress bar."""
        try:
            if self.kind == "hf":
                return hf.count(self.place, self.split)
            if self.kind == "webdataset":
                return webdataset.count(self.place)
            if self.kind == "manifest":
                return _lines(self.place)
            return sum(_lines(table) or 0 for table, _ in folder.tables(self.place, "metadata.csv")) or None
        except (Refused, OSError):
            return None  # reading it says what is wrong

    def _read(self) -> Iterator[Utterance]:
        said = {"columns": self.columns, "text": self.text}
        if self.kind == "hf":
            yield from hf.utterances(path=self.place, name=self.name, split=self.split, **said)
        elif self.kind == "webdataset":
            yield from webdataset.utterances(root=self.place, further=True, **said)
        elif self.kind == "manifest":
            if not os.path.isfile(self.place):
                raise NotThere(f"pack: no table {self.place!r}")
            beside = os.path.dirname(os.path.abspath(self.place))
            yield from folder.utterances(os.path.abspath(self.place), os.sep, further=True, below=beside, **said)
        else:
            if not os.path.isdir(self.place):
                raise NotThere(f"pack: no folder {self.place!r}")
            root = os.path.abspath(self.place)
            for table, split in folder.tables(root, "metadata.csv"):
                yield from folder.utterances(table, root, split=split, further=True, **said)


def _lines(table: str | Path) -> int | None:
    path = Path(table)
    if path.suffix == ".json":
        return None
    with open(path, "rb") as file:
        return sum(line.strip() != b"" for line in file) - (path.suffix in (".csv", ".tsv"))


def guessed(place: str) -> str:
    """The kind of source that lies there. Errors: NotThere, BadValue naming what would be one."""
    path = Path(place)
    if path.is_file():
        if path.suffix.lower() in _TABLES:
            return "manifest"
        if path.suffix == ".tar":
            return "webdataset"
        raise BadValue(f"pack: {place} is no table ({', '.join(_TABLES)}) and no .tar; --source says what it is")
    if not path.is_dir():
        raise NotThere(f"pack: no file or folder {place!r}; for a dataset of the hub say --source hf")
    if (path / INDEX).is_file() and any(path.glob(f"*{SUFFIX}")):
        raise BadValue(f"pack: {place} is packed already; data.source=arrayrecord reads it")
    if hf.is_saved(place):
        return "hf"
    if any(path.glob("*.tar")):
        return "webdataset"
    try:
        folder.tables(place, "metadata.csv")
        return "folder"
    except NotThere:
        if any(found.suffix in _COLUMNAR for found in path.rglob("*")):
            return "hf"
    raise BadValue(
        f"pack: {place} has no table (metadata.csv, .tsv, .jsonl), no .tar, no .arrow or .parquet; --source says what"
        f" it is: {', '.join(KINDS)}"
    )
