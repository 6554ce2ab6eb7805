"""Manifests of lhotse (JSONL, plain or gzipped) without lhotse, whose import wants torch.

Records stay dicts with lhotse's keys: what others put into them (`custom`, `alignment`) comes through untouched.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

from moejax.diarize.turns import Turn, Turns, merged
from moejax.errors import BadValue, NotThere
from moejax.runtime.files import write_bytes

# {kind: {key: type}} that a record must have
KINDS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "recording": {"id": str, "sources": list, "sampling_rate": int, "num_samples": int, "duration": (int, float)},
    "supervision": {"id": str, "recording_id": str, "start": (int, float), "duration": (int, float)},
    "cut": {"id": str, "start": (int, float), "duration": (int, float), "type": str},
}


def read(path: Path | str, kind: str) -> list[dict]:
    """Records of a manifest, each with what its kind (one of KINDS) must have. Errors: BadValue naming the line."""
    path = Path(path)
    if not path.is_file():
        raise NotThere(f"no manifest {path}")
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise BadValue(f"{path} is damaged: {error}") from error
    found = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise BadValue(f"{path} line {number} is not JSON: {error}") from error
        _check(record, kind, f"{path} line {number}")
        found.append(record)
    return found


def write(path: Path | str, records: Iterable[dict], kind: str) -> None:
    """One record a line, gzipped where the name ends in .gz; the same records give the same bytes."""
    lines = []
    for number, record in enumerate(records, 1):
        _check(record, kind, f"{path} record {number}")
        lines.append(json.dumps(record, ensure_ascii=False) + "\n")
    data = "".join(lines).encode()
    if str(path).endswith(".gz"):
        packed = io.BytesIO()
        with gzip.GzipFile(fileobj=packed, mode="wb", filename="", mtime=0) as file:
            file.write(data)
        data = packed.getvalue()
    write_bytes(Path(path), data)


def _check(record, kind: str, where: str) -> None:
    if not isinstance(record, dict):
        raise BadValue(f"{where} is no object")
    for key, types in KINDS[kind].items():
        value = record.get(key)
        if not isinstance(value, types) or isinstance(value, bool):
            said = "is missing" if key not in record else f"is {value!r}"
            raise BadValue(f"{where}: {key!r} {said}; a {kind} has {', '.join(KINDS[kind])}")
    for key in ("start", "duration"):
        if key in KINDS[kind] and record[key] < 0:
            raise BadValue(f"{where}: {key!r} is {record[key]}; it takes 0 or more")


def recording(identity: str, source: str, rate: int, samples: int, channels: int = 1) -> dict:
    """A record of one file."""
    ids = list(range(channels))
    found = {"id": identity, "sources": [{"type": "file", "channels": ids, "source": source}], "sampling_rate": rate}
    return found | {"num_samples": samples, "duration": samples / rate, "channel_ids": ids}


def supervisions(turns: Turns) -> list[dict]:
    """A record of each turn, numbered within its recording."""
    found = []
    for name, some in turns.items():
        for number, turn in enumerate(sorted(some)):
            record = {"id": f"{name}-{number:06d}", "recording_id": name, "start": turn.start}
            record |= {"duration": round(turn.end - turn.start, 8), "channel": 0, "speaker": turn.speaker}
            found.append(record)
    return found


def turns_of(records: Iterable[dict]) -> Turns:
    """Of supervisions. Errors: BadValue for one that names no speaker."""
    found: Turns = {}
    for record in records:
        if not record.get("speaker"):
            raise BadValue(f"supervision {record['id']!r} names no speaker")
        end = round(record["start"] + record["duration"], 8)
        if end > record["start"]:
            found.setdefault(record["recording_id"], []).append(Turn(record["start"], end, record["speaker"]))
    return {name: sorted(some) for name, some in found.items()}


def cut(identity: str, of: dict, start: float, duration: float, turns: Iterable[Turn] = ()) -> dict:
    """A part of a recording with the turns in it, whose times count from the cut's start (lhotse's MonoCut)."""
    inside = []
    for turn in merged(turns):
        begin, end = max(turn.start, start), min(turn.end, start + duration)
        if end > begin:
            inside.append(Turn(round(begin - start, 8), round(end - start, 8), turn.speaker))
    held = [{**one, "recording_id": of["id"]} for one in supervisions({identity: inside})]
    found = {"id": identity, "start": start, "duration": duration, "channel": 0, "supervisions": held}
    return found | {"recording": of, "type": "MonoCut"}
