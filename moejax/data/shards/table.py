"""What stands beside a shard: a table of its utterances, and an index of all shards.

    FOLDER/index.json            counts, hours, and of each shard its records, bytes, hours and SHA-256; written last
    FOLDER/00000.arrayrecord     recordings (`audio.records`), about as large as was asked for
    FOLDER/00000.arrow           one row for each, in their order: everything but the recording, measured when packed
    FOLDER/bad.csv               what could not be packed, and why

Tables are Arrow files without compression: they are mapped into memory, so a million rows cost what is looked at.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from moejax.audio import records
from moejax.data.shards.recording import TEXTS
from moejax.errors import BadValue, NotThere
from moejax.runtime.files import read_json, replacing

FORMAT = 1
INDEX, BAD = "index.json", "bad.csv"
LATER = ("label", "fold")  # columns that shards packed before there were classes of sounds have not
SCHEMA = pa.schema(
    [
        *((name, pa.string()) for name in TEXTS),
        *(("rate", pa.int32()), ("channels", pa.int16())),
        *((name, pa.float64()) for name in ("seconds", "silence", "snr", "loud")),
        *((name, pa.string()) for name in ("fixes", "recording", "further")),
    ]
)


def shard_name(number: int) -> str:
    return f"{number:05d}{records.SUFFIX}"


def table_name(shard: str) -> str:
    return shard.removesuffix(records.SUFFIX) + ".arrow"


def write_table(path: Path, rows: Iterable[dict]) -> None:
    """Writes a shard's table whole or not at all; the same bytes for the same rows."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA)
    with replacing(path) as partial, pa.OSFile(str(partial), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_table(table)


def read_table(path: Path) -> pa.Table:
    """A shard's table, mapped. Errors: NotThere, BadValue naming the file."""
    if not path.is_file():
        raise NotThere(f"{path} is missing; `moejax pack` writes it beside its shard")
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()
    except (pa.ArrowException, OSError) as error:
        raise BadValue(f"{path} is damaged ({str(error).splitlines()[0][:200]})") from error
    for place, name in enumerate(SCHEMA.names):
        if name in LATER and name not in table.column_names:
            table = table.add_column(place, SCHEMA.field(name), pa.repeat(pa.scalar(""), len(table)))
    if table.schema != SCHEMA:
        raise BadValue(f"{path} has other columns than this moejax packs: {', '.join(table.column_names)}")
    return table


def sha256(path: Path) -> str:
    """Of a file, block by block."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_index(folder: str | Path) -> dict:
    """The index of a packed corpus, its shards looked at by name and size (`verify` reads them).

    Errors: NotThere for a folder that is none, or not finished; BadValue naming a shard that is cut, and the like.
    """
    folder = Path(folder)
    if not (folder / INDEX).is_file():
        if (folder / "packing").is_dir():
            raise NotThere(f"{folder}: packing it is not finished; the same `moejax pack` command goes on with it")
        raise NotThere(f"{folder}: no {INDEX}, so no packed corpus; `moejax pack SOURCE {folder}` makes one")
    index = read_json(folder / INDEX)
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise BadValue(f"{folder / INDEX} is not of format {FORMAT}, which this moejax reads")
    for shard in index["shards"]:
        path = folder / shard["name"]
        size = os.path.getsize(path) if path.is_file() else None
        if size != shard["bytes"]:
            have = "is missing" if size is None else f"has {size} bytes, not {shard['bytes']}"
            raise BadValue(f"{path} {have}: a damaged shard; copy it again, or pack the corpus again")
    return index


def verify(folder: str | Path) -> None:
    """Reads all shards and tables. Errors: BadValue naming the first whose SHA-256 is another than when packed."""
    for shard in read_index(folder)["shards"]:
        for name, expected in ((shard["name"], shard["sha256"]), (table_name(shard["name"]), shard["table_sha256"])):
            if sha256(Path(folder) / name) != expected:
                raise BadValue(f"{Path(folder) / name}: damaged, its SHA-256 is not that of {INDEX}")
