"""A folder of audio with a table beside it: CSV, TSV or JSON lines; audiofolder and NeMo conventions are recognised."""

import collections
import csv
import dataclasses
import io
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from moejax.audio.opening import excerpt
from moejax.data.manifest import Utterance
from moejax.errors import BadValue, NotThere
from moejax.text.sentence import sentence

FIELDS = tuple(field.name for field in dataclasses.fields(Utterance) if field.name != "further")
_METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "manifest.json", "manifest.jsonl")
_SPLIT_FOLDERS = ("train", "training", "dev", "valid", "validation", "test")
_ALIASES = {
    "audio": ("file_name", "audio_filepath", "file", "path"),
    "text": ("transcription", "transcript", "sentence"),
}
_ANY_CONTROL, _CONTROL = re.compile(r"[\x00-\x1f]"), re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_PLAIN = re.compile(r"[^/.\\\0][^/\\\0]*(/[^/.\\\0][^/\\\0]*)*")  # a relative path that leads downwards only
_SURROGATE = re.compile(r"[\ud800-\udfff]")
TEXT = {"keep": lambda text: text, "lower": str.lower, "sentence": sentence}


@dataclasses.dataclass(frozen=True)
class Segment:
    """Reads `seconds` of a file from `offset` on (both in seconds), as NeMo manifests name them."""

    path: str
    offset: float
    seconds: float | None

    @property
    def paths(self) -> tuple[str, ...]:
        return (self.path,)

    def __call__(self) -> tuple[np.ndarray, int]:
        return excerpt(self.path, self.offset, self.seconds)


def load(
    *,
    root: str,
    metadata: str = "metadata.csv",
    columns: Mapping[str, str] | None = None,
    text: str = "keep",
) -> list[Utterance]:
    """Utterances of the folder `root`, in the order of its table.

    metadata: the table, relative to root. If there is none of that name, the usual other names are tried, and then the
        audiofolder layout with one table in each of train/, dev/, test/ (the folder is then the split).
    columns: {field of Utterance: column of the table}; a field not named here is read from the column of its own name
        (audio and text also from file_name, audio_filepath, transcription, ...); "" leaves a field empty. Where there
        are labels and no texts, the label is the text.
    text: keep; for transcripts in capitals lower, or sentence ("We call it bear.", as published models write). Runs of
        white space become one space either way.
    Audio paths are relative to the table, and may not lead out of root. Ids are those paths without their suffix.
    Errors (one line each): missing folder, table, column; a row that is no row; a path that leaves root.
    """
    _check_text(text)
    if not root or not os.path.isdir(root):
        raise NotThere(f"folder: no folder {root!r} (data.root)")
    root, seen, found = os.path.abspath(root), {}, []
    for table, split in tables(root, metadata):
        found += utterances(table, root, columns, text, split, seen=seen)
    return found


def utterances(
    table: str | Path,
    root: str,
    columns: Mapping[str, str] | None = None,
    text: str = "keep",
    split: str = "",
    further: bool = False,
    seen: dict[str, str] | None = None,
    below: str = "",
) -> Iterator[Utterance]:
    """The rows of one table, as `load` says; `split` is of rows that name none. `further`: with the columns that no
    field takes. `seen`: {id: where} of rows before, if an id that stands twice is to be refused here. `below`: the
    folder that ids are relative to, if not root. Errors: as `load`. One row is in memory at a time.
    """
    _check_text(text)
    names = _names(table)
    mapping = resolve_columns([dict.fromkeys(names)], columns or {}, where=str(table))
    others = [name for name in names if name not in mapping.values()] if further else ()
    base = os.path.dirname(table)
    for number, row in enumerate(each_row(table), start=1):
        where = f"{table}: row {number}"
        values = {field: text_of(row.get(column), field, f"{where}, {column!r}") for field, column in mapping.items()}
        if not values["audio"]:
            raise BadValue(f"{where} has an empty {mapping['audio']!r}")
        path = inside(root, base, values.pop("audio"), where=where)
        name = (
            "" if values.get("id") else os.path.splitext(os.path.relpath(path, below or root))[0].replace(os.sep, "/")
        )
        audio: str | Segment = path
        if "audio_filepath" in row and cell(row.get("offset")):
            seconds = _seconds(row.get("duration"), f"{where}, 'duration'") if cell(row.get("duration")) else None
            audio = Segment(path, _seconds(row["offset"], f"{where}, 'offset'"), seconds)
            name = f"{name}@{audio.offset:g}"
        values["id"] = values.get("id") or name
        if seen is not None and (other := seen.setdefault(values["id"], where)) != where:
            raise BadValue(f"{where} has the id {values['id']!r}, as has {other} (data.columns.id)")
        values["text"] = normalise(values["text"] if "text" in values else values.get("label", ""), text)
        if split and not values.get("split"):
            values["split"] = split
        yield Utterance(audio=audio, further=plain(row, others), **values)


def _check_text(text: str) -> None:
    if text not in TEXT:
        raise BadValue(f"folder: text={text!r}; known: {', '.join(TEXT)}")


def plain(row: Mapping, names: Iterable[str]) -> dict:
    """What a row says in these columns, where that is a text or a number and not empty."""
    return {name: row[name] for name in names if isinstance(row.get(name), str | int | float) and row[name] != ""}


def normalise(text: str, how: str) -> str:
    """Single spaces, and what `how` (of TEXT) does."""
    return " ".join(TEXT[how](text).split())


def cell(value) -> str:
    """The text of one field: nothing, null and not-a-number become the empty string."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    return str(value).strip()


def text_of(value, field: str, where: str) -> str:
    """`cell` of a value that can be one line of text (the spoken text and its translation: of any number of lines)."""
    if isinstance(value, bool | list | dict) or (field == "audio" and not isinstance(value, str | None)):
        raise BadValue(f"{where} is a {type(value).__name__} ({repr(value)[:60]}); it takes text")
    found = cell(value)
    lines = field in ("text", "translation", "prompt")
    if (_CONTROL if lines else _ANY_CONTROL).search(found):
        raise BadValue(f"{where} has control characters: {found[:60]!r}")
    if _SURROGATE.search(found):
        raise BadValue(f"{where} has half a character (a lone surrogate): {found[:60]!r}")
    return found


def _seconds(value, where: str) -> float:
    """A number of seconds. Errors: one that is none, negative or endless."""
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 <= seconds < 1e6:
        raise BadValue(f"{where} is {repr(value)[:60]}; it takes seconds, 0 or more")
    return seconds


def tables(root: str, metadata: str) -> list[tuple[Path, str]]:
    for name in (metadata, *_METADATA):
        if (path := Path(root, name)).is_file():
            return [(path, "")]
        if name == metadata and metadata != "metadata.csv":
            raise NotThere(f"folder: no table {path} (data.options.metadata)")
    found = []
    for split in _SPLIT_FOLDERS:
        tables = [Path(root, split, name) for name in _METADATA if Path(root, split, name).is_file()]
        found += [(table, split) for table in tables[:1]]
    if not found:
        raise NotThere(f"folder: no table in {root}; known names: {', '.join(_METADATA)} (data.options.metadata)")
    return found


def read_table(path: str | Path) -> list[dict]:
    """All of `each_row`."""
    return list(each_row(path))


def each_row(path: str | Path) -> Iterator[dict]:
    """Rows of a CSV, TSV (by name or by its header), JSON-lines file or JSON array, as dicts, one by one; at least one.

    Errors: BadValue naming the line or row that is none.
    """
    path, row = Path(path), None
    for row in _json_rows(path) if path.suffix in (".json", ".jsonl", ".ndjson") else _csv_rows(path):
        yield row
    if row is None:
        raise BadValue(f"{path}: no rows")


def _names(table: str | Path) -> list[str]:
    """All columns of a table; of JSON those of any row."""
    rows = each_row(table)
    if Path(table).suffix in (".json", ".jsonl", ".ndjson"):
        return list(dict.fromkeys(name for row in rows for name in row))
    return list(next(rows))


def _lines(path: Path) -> Iterator[str]:
    """Lines of a table with "\\n" at their ends. Errors: BadValue naming the first that is no text."""
    number = 0
    with open(path, "rb") as file:
        for raw in file:
            try:
                text = raw.decode("utf-8-sig" if number == 0 else "utf-8")
            except UnicodeDecodeError as error:
                byte = f"(byte 0x{raw[error.start]:02x})"
                raise BadValue(f"{path}: line {number + 1} is not UTF-8 {byte}") from error
            text = text.replace("\r\n", "\n").replace("\r", "\n")
            for line in io.StringIO(text) if "\n" in text[:-1] else (text,):
                number += 1
                if "\0" in line:
                    raise BadValue(f"{path}: line {number} has a NUL byte; tables are UTF-8 text")
                yield line


def _csv_rows(path: Path) -> Iterator[dict]:
    lines = _lines(path)
    header = next(lines, "")
    tab = path.suffix == ".tsv" or ("\t" in header and "," not in header)
    reader = csv.DictReader(itertools.chain([header], lines), delimiter="\t" if tab else ",", strict=True)
    try:
        names = reader.fieldnames or []
        if twice := [name for name, count in collections.Counter(names).items() if count > 1]:
            raise BadValue(f"{path}: the column {twice[0]!r} stands twice in the header")
        for number, row in enumerate(reader, start=1):
            if None in row or None in row.values():
                raise BadValue(f"{path}: row {number} has not as many fields as the header ({len(names)})")
            yield row
    except csv.Error as error:
        raise BadValue(f"{path}: line {reader.line_num}: {error}") from error


def _json_rows(path: Path) -> Iterator[dict]:
    lines = enumerate(_lines(path), start=1)
    number, first = next(((number, line) for number, line in lines if line.strip()), (1, ""))
    if first.lstrip().startswith("["):
        rows = _parsed("\n" * (number - 1) + first + "".join(line for _, line in lines), path, 1)
    else:
        lines = itertools.chain([(number, first)], lines)
        rows = (_parsed(line.rstrip("\n"), path, number) for number, line in lines if line.strip())
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise BadValue(f"{path}: row {number} is a {type(row).__name__}, not an object")
        yield row


def _parsed(text: str, path, line: int):
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadValue(f"{path}: line {line + error.lineno - 1}: {error.msg}") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists in lists
        raise BadValue(f"{path}: line {line}: {str(error)[:100]}") from error


def resolve_columns(rows: list[dict], columns: Mapping[str, str], *, where: str) -> dict[str, str]:
    """{field: column} for the fields that the table has; ValueError for a field or column that does not exist."""
    existing = list(dict.fromkeys(name for row in rows for name in row))
    mapping = {}
    for field, column in columns.items():
        if field not in FIELDS:
            raise BadValue(f"data.columns: unknown field {field!r}; known: {', '.join(FIELDS)}")
        if column and column not in existing:
            raise BadValue(f"{where}: no column {column!r} (data.columns.{field}); it has {', '.join(existing)}")
        if column:
            mapping[field] = column
    for field in FIELDS:
        for name in (field, *_ALIASES.get(field, ())):
            if field not in mapping and field not in columns and name in existing:
                mapping[field] = name
    for field in ("audio", "text"):
        if field not in mapping and not (field == "text" and "label" in mapping):
            raise BadValue(f"{where}: no column for {field} (data.columns.{field}); it has {', '.join(existing)}")
    return mapping


def inside(root: str, base: str, path: str, *, where: str) -> str:
    """The absolute path of `path` (relative to `base`), refused if it is not below `root`; links are not followed."""
    if _PLAIN.fullmatch(path) and (base == root or base.startswith(root.rstrip(os.sep) + os.sep)):
        return f"{base.rstrip(os.sep)}{os.sep}{path}"  # most of a million; what follows takes 20 us
    absolute = os.path.abspath(os.path.join(base, path))
    if os.path.commonpath([root, absolute]) != root or absolute == root:
        raise BadValue(f"{where}: {path!r} leads out of {root}")
    return absolute
