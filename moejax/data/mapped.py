"""Large tables, mapped into memory: a copy of a parquet file beside it, without compression, which costs what is read.

Parquet stays what is kept and exchanged. The copy says which file it is of (size and time), and is made again for
another one.
"""

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from moejax.runtime.files import replacing

LARGE = 1 << 16  # rows; smaller tables are read, which is quicker and leaves no second file
_MARK = b"moejax.of"


def path_of(parquet: Path) -> Path:
    """Where the copy of a parquet file lies."""
    return parquet.with_suffix(".arrow")


def opened(
    parquet: Path, completed: Callable[[pa.Table], pa.Table], check: Callable[[pa.Table], Any]
) -> tuple[pa.Table, Path | None]:
    """(table, the file that it is mapped from), `completed` and found good by `check` when the copy was made.

    The file is None where the table is small, or where nothing can be written beside it: it is in memory then.
    Errors: those of `check`, and of Arrow for what is no parquet.
    """
    if pq.read_metadata(parquet).num_rows <= LARGE or not os.access(parquet.parent, os.W_OK):
        table = completed(pq.read_table(parquet))
        check(table)
        return table, None
    copy, mark = path_of(parquet), _mark(parquet)
    with contextlib.suppress(pa.ArrowException, OSError):
        if (found := _mapped(copy)).schema.metadata == {_MARK: mark}:
            return found, copy
    with replacing(copy) as partial:
        _write(parquet, partial, mark, completed)
        table = _mapped(partial)
        check(table)
    return table, copy


def column(path: str, name: str) -> pa.ChunkedArray:
    """One column of a copy, mapped."""
    return _mapped(Path(path)).column(name)


def _mapped(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path), "r")).read_all()


def _mark(parquet: Path) -> bytes:
    stat = os.stat(parquet)
    return f"{stat.st_size} {stat.st_mtime_ns}".encode()


def _write(parquet: Path, out: Path, mark: bytes, completed) -> None:
    """Row group by row group: memory holds one."""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(pq.ParquetFile(parquet))
        writer = None
        for batch in file.iter_batches(LARGE):
            table = completed(pa.Table.from_batches([batch])).replace_schema_metadata({_MARK: mark})
            if writer is None:
                sink = stack.enter_context(pa.OSFile(str(out), "wb"))
                writer = stack.enter_context(pa.ipc.new_file(sink, table.schema))
            writer.write_table(table)
