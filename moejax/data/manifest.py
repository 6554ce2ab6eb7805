"""The manifest: one row per utterance, and the only thing that later stages read about a corpus."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from moejax.data import mapped
from moejax.data.strings import Strings, pc
from moejax.errors import BadValue, NotThere, UnknownName
from moejax.runtime.files import replacing

_TEXT_COLUMNS = (
    *("id", "audio", "text", "translation", "translation_source", "speaker", "cohort"),
    *("etiology", "severity", "accent", "gender", "prompt", "device", "label", "fold"),
)
COLUMNS: dict[str, pa.DataType] = {
    **{name: pa.string() for name in _TEXT_COLUMNS},
    "seconds": pa.float64(),
    "silence": pa.float64(),
    "split": pa.string(),
    "sample": pa.bool_(),
    "snr": pa.float64(),
}
# What stands in columns that older manifests lack: they load as if nobody knew, and their digest stays what it was
UNKNOWN = {"device": "", "label": "", "fold": "", "snr": float("nan")}
SPLITS = ("train", "dev", "test")


@dataclasses.dataclass(kw_only=True)
class Utterance:
    """One utterance as a source hands it over, before the gate has listened to it.

    `audio` is a path, or a function without arguments giving (samples [S] or [S, channels], rate). A function that
    reads files may list them in an attribute `paths`, so that a changed corpus is noticed without reading it.
    """

    id: str
    audio: str | Callable[[], tuple[np.ndarray, int]]
    text: str
    speaker: str = ""
    translation: str | None = None
    translation_source: str | None = None
    cohort: str | None = None
    etiology: str | None = None
    severity: str | None = None
    accent: str | None = None
    gender: str | None = None
    prompt: str | None = None
    device: str | None = None
    label: str | None = None  # class of what is heard: a kind of sound, an emotion
    fold: str | None = None  # part of the corpus' own cross-validation
    split: str | None = None
    language: str | None = None  # of what is said, where a corpus has several; kept by `moejax pack`
    further: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # other columns, where they were asked for


class Manifest:
    """A read-only table with the columns of `COLUMNS`; what is unknown is the empty string (NaN for `snr`), never null.

    `seconds` and `silence` (a share of the frames) and `snr` (dB) are measured, `audio.read` says how.
    `root` is the folder that relative audio paths are relative to. The stored paths stay as they are, so a working
    directory can be moved; `row`, `rows` and `audio_paths` give resolved ones.
    """

    def __init__(self, table: pa.Table, root: str | Path = ".", file: Path | None = None):
        """`file`: what the table is mapped from, if it is (`data.mapped`)."""
        self.table, self.file = table, file
        self.root = Path(root)
        self._arrays: dict[str, np.ndarray] = {}

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence], root: str | Path = ".") -> "Manifest":
        """A checked manifest from {column: values}; those of `UNKNOWN` may lack. Raises ValueError like `load`."""
        missing = [name for name in COLUMNS if name not in columns and name not in UNKNOWN]
        if missing:
            raise ValueError(f"manifest: no column {missing[0]!r}; needed: {', '.join(COLUMNS)}")
        given = {name: _array(columns[name], kind) for name, kind in COLUMNS.items() if name in columns}
        table = _completed(pa.table(given)).select(list(COLUMNS))
        _check(table, "manifest")
        return cls(table, root)

    @classmethod
    def load(cls, path: str | Path, root: str | Path | None = None) -> "Manifest":
        """Reads and checks a manifest; `root` defaults to the folder above the manifest's own (W for W/describe/...).

        Raises FileNotFoundError, or ValueError naming the first wrong column, type, null, id, text, split or length.
        """
        path = Path(path)
        if not path.is_file():
            raise NotThere(f"manifest: no file {path}; `moejax describe` writes it")
        try:
            table, file = mapped.opened(path, _completed_and_ordered, lambda table: _check(table, str(path)))
        except (pa.ArrowException, OSError) as error:  # not parquet, damaged, or text that is no UTF-8
            said = (str(error) or type(error).__name__).splitlines()[0][:300]
            raise BadValue(f"manifest: {path} is not a parquet file, or damaged ({said})") from error
        return cls(table, path.resolve().parent.parent if root is None else root, file)

    def save(self, path: str | Path) -> None:
        """Writes the table as parquet, whole or not at all; a large one with the copy that is mapped, for which it is
        checked.
        """
        with replacing(path) as partial:
            pq.write_table(self.table, partial, row_group_size=mapped.LARGE)
        if len(self) > mapped.LARGE:
            mapped.opened(Path(path), _completed_and_ordered, lambda table: _check(table, str(path)))

    def __len__(self) -> int:
        return self.table.num_rows

    def column(self, name: str) -> np.ndarray:
        """One column as a numpy array [rows] (objects for text, float64, bool), read once, kept and locked."""
        if name not in COLUMNS:
            raise UnknownName(f"manifest: no column {name!r}; columns: {', '.join(COLUMNS)}")
        if name not in self._arrays:
            array = self.table.column(name).to_numpy()
            array.setflags(write=False)
            self._arrays[name] = array
        return self._arrays[name]

    def strings(self, name: str, rows: np.ndarray | None = None) -> Strings:
        """A column of text, or `rows` of it, without making a string of each."""
        origin = None if self.file is None else (str(self.file), name)
        return Strings(self.table.column(name), rows, origin)

    def row(self, index: int) -> dict:
        """Row `index` as {column: value}, with `audio` resolved against `root`."""
        row = {name: self.column(name)[index] for name in COLUMNS}
        row["audio"] = str(self.root / row["audio"])
        row |= {name: float(row[name]) for name in ("seconds", "silence", "snr")} | {"sample": bool(row["sample"])}
        return row

    def rows(self) -> list[dict]:
        """All rows, as `row` gives them."""
        return [self.row(index) for index in range(len(self))]

    def audio_paths(self) -> list[str]:
        """The audio files, resolved against `root`."""
        return [str(self.root / path) for path in self.column("audio")]

    def paths(self) -> "Paths":
        """`audio_paths`, each made when it is asked for."""
        return Paths(str(self.root), self.strings("audio"))

    def indices(self, **equal) -> np.ndarray:
        """Row numbers where every named column has the value given, or one of a list: `indices(split="train")`."""
        mask = np.ones(len(self), bool)
        for name, value in equal.items():
            wanted = value if isinstance(value, list | tuple | set | frozenset) else [value]
            if COLUMNS.get(name) == pa.string() and all(isinstance(one, str) for one in wanted):
                found = pc.is_in(self.table.column(name), value_set=pa.array([str(one) for one in wanted], pa.string()))
                mask &= found.to_numpy()
            else:
                mask &= np.isin(self.column(name), np.array(list(wanted), dtype=self.column(name).dtype))
        return np.flatnonzero(mask)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Manifest":
        """The rows of `indices`, in that order."""
        return Manifest(self.table.take(pa.array(np.asarray(indices, np.int64))), self.root)

    def where(self, **equal) -> "Manifest":
        """The rows that `indices(**equal)` finds."""
        return self.take(self.indices(**equal))

    def digest(self, without: Sequence[str] = ()) -> str:
        """A hexadecimal digest of every value in order; independent of `root` and of how parquet packed the rows.

        Columns in `without` are left out, and those of `UNKNOWN` in which nothing is known.
        """
        digest = hashlib.blake2b(digest_size=16)
        for name, kind in COLUMNS.items():
            if name in without or (name in UNKNOWN and self._unknown(name)):
                continue
            digest.update(name.encode())
            if pa.types.is_string(kind):
                values = self.table.column(name)
                digest.update(pc.binary_length(values).to_numpy().astype("<i4").tobytes())
                for letters in _letters(values):
                    digest.update(letters)
            else:
                digest.update(np.ascontiguousarray(self.column(name)).tobytes())
        return digest.hexdigest()

    def _unknown(self, name: str) -> bool:
        if COLUMNS[name] == pa.string():
            return pc.max(pc.binary_length(self.table.column(name))).as_py() in (0, None)
        return bool(np.isnan(self.column(name)).all())


@dataclasses.dataclass(frozen=True)
class Paths(Sequence[str]):
    """Stored paths, resolved against `root` when they are asked for."""

    root: str
    stored: Strings

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, index):
        return str(Path(self.root) / str(self.stored[index]))


def _letters(column: pa.ChunkedArray) -> Iterator[memoryview]:
    """The UTF-8 of all strings of a column, one after the other."""
    for chunk in column.chunks:
        _, offsets, letters = chunk.buffers()
        if letters is not None and len(chunk):
            at = np.frombuffer(offsets, np.int32, len(chunk) + 1, chunk.offset * 4)
            yield memoryview(letters)[int(at[0]) : int(at[-1])]


def _completed_and_ordered(table: pa.Table) -> pa.Table:
    table = _completed(table)
    known = all(table.column_names.count(name) == 1 for name in COLUMNS)
    return table.select(list(COLUMNS)) if known else table  # `_check` names what is missing


def _array(values, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    return values.arrow() if isinstance(values, Strings) else pa.array(values, type=kind)


def _blank(column: pa.ChunkedArray) -> np.ndarray:
    """Whether each text is white space, some rows at a time."""
    parts = (column.slice(at, mapped.LARGE) for at in range(0, max(1, len(column)), mapped.LARGE))
    return np.concatenate([pc.equal(pc.utf8_trim_whitespace(part), "").to_numpy() for part in parts])


def _completed(table: pa.Table) -> pa.Table:
    """The table with the columns of `UNKNOWN` that it lacks."""
    for name, unknown in UNKNOWN.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array([unknown] * table.num_rows, type=COLUMNS[name]))
    return table


def _check(table: pa.Table, where: str) -> None:
    missing = [name for name in COLUMNS if table.column_names.count(name) != 1]
    if missing:
        raise BadValue(f"{where}: no column {missing[0]!r}; it has {', '.join(table.column_names)}")
    for name, kind in COLUMNS.items():
        column = table.column(name)
        if column.type != kind:
            raise BadValue(f"{where}: column {name!r} is {column.type}, not {kind}")
        if column.null_count:
            raise BadValue(f"{where}: column {name!r} has {column.null_count} null values; write '' for unknown text")
    if pc.count_distinct(table.column("id")).as_py() < table.num_rows:
        counts = pc.value_counts(table.column("id"))
        twice = next(entry["values"].as_py() for entry in counts if entry["counts"].as_py() > 1)
        raise BadValue(f"{where}: id {twice!r} stands in more than one row")
    for name in ("id", "audio", "text"):
        empty = _blank(table.column(name))
        if empty.any():
            row = int(empty.argmax())
            raise BadValue(f"{where}: row {row} (id {table['id'][row].as_py()!r}) has an empty {name}")
    unknown = set(pc.unique(table.column("split")).to_pylist()) - set(SPLITS)
    if unknown:
        raise BadValue(f"{where}: split {sorted(unknown)[0]!r} is unknown; known: {', '.join(SPLITS)}")
    for name, high in (("seconds", np.inf), ("silence", 1.0)):
        values = table.column(name).to_numpy()
        wrong = ~(np.isfinite(values) & (values >= 0) & (values <= high))
        if wrong.any():
            row = int(np.argmax(wrong))
            raise BadValue(f"{where}: row {row} (id {table['id'][row].as_py()!r}) has {name} {values[row]}")
