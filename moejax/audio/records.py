"""Recordings in ArrayRecord shards: what `moejax pack` writes, and one of them read by `FOLDER/00012.arrayrecord#345`.

A record is four bytes (little-endian: the length of what follows), a JSON object of what is known of the utterance,
then the recording as a FLAC file. The object has `sha256` of that file, so that damage is told, not heard. Shards have
`group_size:1`: any record is read without its neighbours. The only import of array_record.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
import struct
from pathlib import Path

from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter

from moejax.audio.flaws import Rejected

SUFFIX = ".arrayrecord"
WRITING = "group_size:1,uncompressed"  # FLAC does not get smaller
_READING = "readahead_buffer_size:0,max_parallelism:0"  # random access
MARK = "#"
_REFERENCE = re.compile(rf"(.*{re.escape(SUFFIX)}){MARK}(\d+)", re.DOTALL)
_LENGTH = struct.Struct("<I")
_OPEN_SHARDS = 64  # of one process; 16 GB of speech


@dataclasses.dataclass(frozen=True)
class Record:
    """`fields`: id, text, rate, sha256 and what else is known; `audio`: a FLAC file."""

    fields: dict
    audio: bytes


def reference(shard: str | Path, index: int) -> str:
    """The name by which `moejax` reads one recording of a shard wherever it takes a file."""
    return f"{shard}{MARK}{index}"


def parted(source) -> tuple[str, int] | None:
    """(shard, index) of a `reference`; None for anything else."""
    found = _REFERENCE.fullmatch(source) if isinstance(source, str) else None
    return (found[1], int(found[2])) if found else None


def encoded(fields: dict, audio: bytes) -> bytes:
    """The bytes of a record; the same for the same content."""
    said = {**fields, "sha256": hashlib.sha256(audio).hexdigest()}
    head = json.dumps(said, ensure_ascii=False, sort_keys=True).encode()
    return _LENGTH.pack(len(head)) + head + audio


def decoded(content: bytes) -> Record:
    """Errors: ValueError for what `encoded` never makes."""
    (size,) = _LENGTH.unpack_from(content) if len(content) >= _LENGTH.size else (0,)
    if not 2 <= size <= len(content) - _LENGTH.size:
        raise ValueError("not a record of moejax pack")
    fields, audio = json.loads(content[_LENGTH.size : _LENGTH.size + size]), content[_LENGTH.size + size :]
    if hashlib.sha256(audio).hexdigest() != fields["sha256"]:
        raise ValueError("the recording is not the one that was packed (SHA-256)")
    return Record(fields, audio)


def fetch(shard: str, index: int) -> Record:
    """One record. Errors: `Rejected("unreadable")` naming the shard, for one that is missing, cut or damaged."""
    name = os.path.basename(shard)
    try:
        stat = os.stat(shard)
        reader = _reader(shard, stat.st_size, stat.st_mtime_ns)
        return decoded(reader.read([index])[0])
    except OSError as error:
        raise Rejected("unreadable", error.strerror or str(error), name) from error
    except (RuntimeError, ValueError, KeyError, IndexError) as error:  # of the library; of `decoded`
        said = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise Rejected("unreadable", f"record {index} is damaged or missing ({said})", name) from error


def writer(path: str | Path) -> ArrayRecordWriter:
    """A new shard with `write(bytes)` and `close()`."""
    return ArrayRecordWriter(str(path), WRITING)


@functools.lru_cache(maxsize=_OPEN_SHARDS)
def _reader(shard: str, size: int, changed: int) -> ArrayRecordReader:
    """An open shard; `size` and `changed` make another of a file that was replaced."""
    del size, changed
    return ArrayRecordReader(shard, _READING)
