"""Utterances of any source become shards, in their order, and a packing that was killed goes on.

A shard gets its name when it is whole, and FOLDER/packing/NNNNN.json, written behind it, says which rows of the source
it holds: what a kill leaves is finished shards, from which the same command goes on. Where a shard ends depends on
sizes alone, so the files are the same, byte for byte, with any number of workers and kills.
"""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from moejax.audio import flaws, records
from moejax.data.manifest import Utterance
from moejax.data.shards import table, workers
from moejax.data.shards.recording import Bad, Packed
from moejax.errors import AlreadyThere, BadValue
from moejax.runtime import faults
from moejax.runtime.files import read_json, sweep, write_json, write_text

WORK, _PLAN = "packing", "plan.json"
Told = Callable[[int, float, int, bool], None]  # so many more rows, seconds, bad rows; whether they stood before


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What stands: numbers of records, hours, bad rows and shards; `before`: it stood already."""

    records: int
    hours: float
    bad: int
    shards: int
    before: bool = False


def pack(
    utterances: Iterable[Utterance],
    folder: str | Path,
    *,
    made_from: dict,
    shard_bytes: int = 256_000_000,
    processes: int = 0,
    told: Told = lambda rows, seconds, bad, before: None,
) -> Outcome:
    """Packs `utterances` into `folder`, or goes on with that; returns at once where it is done.

    made_from: what the utterances are, as JSON: a folder that was begun from something else is refused. processes:
    how many read and encode; 0: this one. A row that cannot be read is listed in bad.csv.
    Errors: AlreadyThere for a folder with something else in it; BadValue for an id that stands twice, no readable row,
    a source that changed since the packing was begun; Failed where a worker died.
    """
    folder = Path(folder)
    said = json.dumps([table.FORMAT, made_from, shard_bytes], sort_keys=True)
    mark = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    if (folder / table.INDEX).is_file():
        return _stands(folder, mark)
    work = _begun(folder, {"mark": mark, "made_from": made_from, "shard_bytes": shard_bytes})
    done = _shards_of(folder, work)
    for entry in done:
        told(entry["rows"], entry["seconds"], len(entry["bad"]), True)
    rows = iter(utterances)
    seen = _passed(rows, folder, done)
    shard = _Shard(folder, len(done), shard_bytes)
    try:
        with contextlib.closing(workers.packed(rows, processes)) as results:
            for result in results:
                if (name := _number(result.id)) in seen:
                    raise BadValue(f"pack: id {result.id!r} stands in more than one row (--columns id=COLUMN)")
                seen.add(name)
                if isinstance(result, Packed) and shard.is_full(result):
                    done.append(shard.close(work))
                    shard = _Shard(folder, len(done), shard_bytes)
                shard.take(result)
                told(1, *((0.0, 1) if isinstance(result, Bad) else (result.row["seconds"], 0)), False)
        if shard.rows:
            done.append(shard.close(work))
        elif not done:
            why = f"cannot use any of {len(shard.bad)} rows, such as" if shard.bad else "the source has no rows"
            raise BadValue(f"pack: {' '.join([why, *(one.detail for one in shard.bad[:1])])}")
    finally:
        shard.leave()
        if not done:
            _leave(folder, work)
    return _finish(folder, work, done, mark)


class _Shard:
    """A shard that is being filled, under a temporary name until it is whole."""

    def __init__(self, folder: Path, number: int, limit: int):
        self.path, self.number, self.limit = folder / table.shard_name(number), number, limit
        self.partial = folder / f".{self.path.name}.tmp"
        self.rows, self.bytes = [], 0
        self.bad: list[Bad] = []
        self.last = ""
        self._writer = None

    def is_full(self, result: Packed) -> bool:
        """Whether the next record belongs into the next shard."""
        return bool(self.rows) and self.bytes + len(result.record) > self.limit

    def take(self, result: Packed | Bad) -> None:
        self.last = result.id
        if isinstance(result, Bad):
            self.bad.append(result)
            return
        if self._writer is None:
            self._writer = records.writer(self.partial)
        self._writer.write(result.record)
        self.rows.append(result.row)
        self.bytes += len(result.record)
        faults.point("pack.record")

    def close(self, work: Path) -> dict:
        """Finishes the shard and its table; returns, and writes down in `work`, what they hold."""
        assert self._writer is not None  # a shard has at least one record
        self._writer.close()
        self._writer = None
        with open(self.partial, "rb") as file:
            os.fsync(file.fileno())
        digest, size = table.sha256(self.partial), self.partial.stat().st_size
        faults.point("pack.shard")
        os.replace(self.partial, self.path)
        faults.point("pack.standing")
        listed = self.path.with_name(table.table_name(self.path.name))
        table.write_table(listed, self.rows)
        seconds = sum(row["seconds"] for row in self.rows)
        entry = {
            **{"name": self.path.name, "records": len(self.rows), "bytes": size, "seconds": round(seconds, 6)},
            **{"sha256": digest, "table_sha256": table.sha256(listed)},
            **{"rows": len(self.rows) + len(self.bad), "last": self.last},
            "bad": [dataclasses.asdict(one) for one in self.bad],
        }
        write_json(work / f"{self.number:05d}.json", entry)
        faults.point("pack.listed")
        return entry

    def leave(self) -> None:
        """Removes what was not finished."""
        if self._writer is not None:
            self._writer.close()
        self.partial.unlink(missing_ok=True)


def _stands(folder: Path, mark: str) -> Outcome:
    index = table.read_index(folder)
    if index["made_from"] != mark:
        raise AlreadyThere(f"{folder} holds a corpus that was packed from something else, or otherwise; name another")
    shutil.rmtree(folder / WORK, ignore_errors=True)
    return dataclasses.replace(_outcome(index), before=True)


def _begun(folder: Path, plan: dict) -> Path:
    """The folder of what is known of finished shards, made now or by the run before."""
    work = folder / WORK
    if (work / _PLAN).is_file():
        before = read_json(work / _PLAN)
        if before["mark"] != plan["mark"] and (work / "00000.json").is_file():
            was = {**before["made_from"], "shard_bytes": before["shard_bytes"]}
            now = {**plan["made_from"], "shard_bytes": plan["shard_bytes"]}
            names = sorted(name for name in {*was, *now} if was.get(name) != now.get(name))
            differ = "; ".join(f"{name} was {was.get(name)}, is {now.get(name)}" for name in names)
            raise AlreadyThere(f"{folder}: another packing was begun there: {differ}; go on with that, or name another")
        sweep(folder)
    else:
        there = [path.name for path in folder.iterdir() if path != work] if folder.is_dir() else []
        if there:
            raise AlreadyThere(f"{folder} is not empty ({sorted(there)[0]} is in it); name a new folder")
    write_json(work / _PLAN, plan)
    return work


def _leave(folder: Path, work: Path) -> None:
    """Nothing was packed: what was begun goes, so that the folder can be named again with other options."""
    for name in (table.shard_name(0), table.table_name(table.shard_name(0))):  # of a kill before they were listed
        (folder / name).unlink(missing_ok=True)
    shutil.rmtree(work, ignore_errors=True)
    with contextlib.suppress(OSError):  # something else lies in it
        folder.rmdir()


def _shards_of(folder: Path, work: Path) -> list[dict]:
    """What the run before finished: shards from the first on, each whole by its size."""
    done = []
    for number in itertools.count():
        listed, shard = work / f"{number:05d}.json", folder / table.shard_name(number)
        if not listed.is_file() or not shard.is_file():
            return done
        entry = read_json(listed)
        if shard.stat().st_size != entry["bytes"]:
            return done
        done.append(entry)
    return done


def _passed(rows: Iterator[Utterance], folder: Path, done: list[dict]) -> set[int]:
    """Passes over the rows of finished shards; the numbers of their ids. Errors: BadValue where they are others now."""
    seen = set()
    for entry in done:
        last = None
        for last in itertools.islice(rows, entry["rows"]):
            seen.add(_number(last.id))
        if last is None or last.id != entry["last"]:
            have = "ends before" if last is None else f"has {last.id!r} in place of"
            raise BadValue(
                f"{folder}: the source changed since this packing was begun: it {have} row {entry['last']!r}; "
                "pack into a new folder"
            )
    return seen


def _number(name: str) -> int:
    """Eight bytes for an id: a million ids of any length are 60 MB."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big")


def _finish(folder: Path, work: Path, done: list[dict], mark: str) -> Outcome:
    bad = [one for entry in done for one in entry["bad"]]
    kept = ("name", "records", "bytes", "seconds", "sha256", "table_sha256")
    index = {
        **{"format": table.FORMAT, "records": sum(entry["records"] for entry in done)},
        "hours": round(sum(entry["seconds"] for entry in done) / 3600, 6),
        **{"bad": len(bad), "made_from": mark},
        "shards": [{name: entry[name] for name in kept} for entry in done],
    }
    write_text(folder / table.BAD, flaws.listing(bad))
    faults.point("pack.index")
    write_json(folder / table.INDEX, index)
    shutil.rmtree(work, ignore_errors=True)
    return _outcome(index)


def _outcome(index: dict) -> Outcome:
    return Outcome(index["records"], index["hours"], index["bad"], len(index["shards"]))
