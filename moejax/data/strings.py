"""Columns of text that stay in Arrow: an item is a Python string when it is asked for, and not before.

A million strings in a list are 60 bytes each beside their letters; a memory-mapped column is what is looked at.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute

from moejax.data import mapped

pc: Any = pyarrow.compute  # makes its functions when it is imported, where no checker sees them
_BLOCK = 4096  # strings made at once when all are gone through


class Strings(Sequence[str]):
    """Column of `pa.string()`, all of it or `rows` of it, in their order. With `origin` (a file of `data.mapped`, the
    column's name) it goes to other processes by that, not by its content.
    """

    def __init__(self, column: pa.ChunkedArray, rows: np.ndarray | None = None, origin: tuple[str, str] | None = None):
        self.column, self.origin = column, origin
        self.rows = None if rows is None else np.asarray(rows)

    def __getstate__(self):
        return {**self.__dict__, "column": self.column if self.origin is None else None}

    def __setstate__(self, state):
        self.__dict__.update(state)
        if self.origin is not None:
            self.column = mapped.column(*self.origin)

    def arrow(self) -> pa.ChunkedArray:
        """The same as a column of Arrow."""
        return self.column if self.rows is None else self.column.take(pa.array(self.rows))

    def __len__(self) -> int:
        return len(self.column) if self.rows is None else len(self.rows)

    def __getitem__(self, index) -> Any:
        if isinstance(index, slice | np.ndarray | list):
            rows = np.arange(len(self.column)) if self.rows is None else self.rows
            return Strings(self.column, rows[index], self.origin)
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = range(len(self))[index] if self.rows is None else int(self.rows[index])
        return self.column[row].as_py()

    def __iter__(self) -> Iterator[str]:
        for at in range(0, len(self), _BLOCK):
            if self.rows is None:
                yield from self.column.slice(at, _BLOCK).to_pylist()
                continue
            rows = self.rows[at : at + _BLOCK]
            low, high = int(rows.min()), int(rows.max())  # `take` joins all chunks of what it is called of
            yield from self.column.slice(low, high - low + 1).take(pa.array(rows - low)).to_pylist()


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """(number of each row's value int64 [N], the values, sorted as Python sorts them)."""
    found = column.combine_chunks().dictionary_encode()
    found = found.combine_chunks() if isinstance(found, pa.ChunkedArray) else found
    values = found.dictionary.to_pylist()
    order = sorted(range(len(values)), key=values.__getitem__)
    place = np.empty(len(values), np.int64)
    place[order] = np.arange(len(values))
    numbers = found.indices.to_numpy(zero_copy_only=False)
    return (place[numbers] if len(values) else np.zeros(0, np.int64)), [values[i] for i in order]


def shared(column: pa.ChunkedArray) -> list[str]:
    """The column as a list in which equal strings are one object: eight bytes a row where there are few values."""
    numbers, values = codes(column)
    return [values[number] for number in numbers]
