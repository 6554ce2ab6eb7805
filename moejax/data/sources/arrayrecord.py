"""A corpus that `moejax pack` made: its table is mapped into memory, its recordings are read one by one from shards."""

import dataclasses
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from moejax.audio import records
from moejax.data.manifest import Utterance
from moejax.data.shards import table
from moejax.data.shards.recording import TEXTS
from moejax.data.strings import Strings, shared
from moejax.errors import NotThere

_LOOKED_AT = ("speaker", "cohort", "split")  # columns of few values, which splits go through again and again


def load(*, root: str, split: str | None = None) -> "Shards":
    """The utterances of a packed folder, in the order in which they were packed.

    split: of these only the ones that the source called so. Errors: those of `shards.table.read_index`.
    """
    if not root:
        raise NotThere("arrayrecord: no folder given (data.root)")
    found = Shards.opened(root)
    if split is None:
        return found
    parts = found.column("split")
    rows = [row for row, part in enumerate(parts) if part == split]
    if not rows:
        raise NotThere(f"arrayrecord: {root} has no part {split!r}; it has {', '.join(sorted(set(parts)))}")
    return found.take(rows)


@dataclasses.dataclass(frozen=True, eq=False)
class Shards(Sequence[Utterance]):
    """Rows of a packed corpus, with what was measured of them; an Utterance is made when it is asked for.

    `table` has the columns of `shards.table.SCHEMA`; row i is record `place[i]` of shard `names[shard[i]]` in `folder`.
    """

    folder: str
    names: tuple[str, ...]
    table: pa.Table
    shard: np.ndarray
    place: np.ndarray
    digest: str  # of what the whole folder holds

    @classmethod
    def opened(cls, folder: str) -> "Shards":
        """All of a packed folder."""
        listed = table.read_index(folder)["shards"]
        sums = "".join(entry["sha256"] + entry["table_sha256"] for entry in listed)
        digest = hashlib.blake2b(sums.encode(), digest_size=16).hexdigest()
        names = tuple(entry["name"] for entry in listed)
        rows = pa.concat_tables(table.read_table(Path(folder) / table.table_name(name)) for name in names)
        counts = [entry["records"] for entry in listed]
        shard = np.repeat(np.arange(len(names), dtype=np.int32), counts)
        place = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
        return cls(str(Path(folder).absolute()), names, rows, shard, place, digest)

    def __len__(self) -> int:
        return self.table.num_rows

    def __getitem__(self, row) -> Any:
        if isinstance(row, slice):
            return self.take(range(len(self))[row])
        values = {name: self.table.column(name)[row].as_py() for name in TEXTS}
        return Utterance(audio=self.audio(row), **values)

    def __iter__(self) -> Iterator[Utterance]:
        return (self[row] for row in range(len(self)))

    def take(self, rows) -> "Shards":
        """These rows, in that order."""
        rows = np.asarray(rows, np.int64)
        return Shards(
            self.folder, self.names, self.table.take(pa.array(rows)), self.shard[rows], self.place[rows], self.digest
        )

    def audio(self, row: int) -> str:
        """What `audio.read` reads the recording of a row by."""
        shard = Path(self.folder, self.names[self.shard[row]])
        return records.reference(shard, int(self.place[row]))

    def column(self, name: str) -> Sequence[str]:
        """A column of text."""
        return shared(self.table.column(name)) if name in _LOOKED_AT else Strings(self.table.column(name))

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers [N]."""
        return self.table.column(name).to_numpy()
