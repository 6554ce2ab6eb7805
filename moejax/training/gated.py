"""What passes the gate, as columns of the manifest: listened to, or as `moejax pack` measured it."""

import collections
import contextlib
import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile

from moejax.audio import read, records
from moejax.audio.constants import SAMPLE_RATE
from moejax.audio.flaws import Rejected
from moejax.data.manifest import Utterance
from moejax.data.sources.arrayrecord import Shards
from moejax.data.strings import Strings, pc, shared
from moejax.errors import BadValue
from moejax.runtime import faults, processes
from moejax.runtime.files import read_json, write_json
from moejax.training import text_room

FIELDS = (
    "translation",
    "translation_source",
    "speaker",
    "cohort",
    "etiology",
    "severity",
    "accent",
    "gender",
    "prompt",
    "device",
    "label",
    "fold",
)
LATER = ("device", "label", "fold")  # of these, what came when there were workdirs without it


HEARD = "heard.*.jsonl"  # one line for each utterance, until the manifest stands; a file for each process or shard
SHARDS = "shards.json"  # {"of": n} while n processes that know nothing of one another listen to a shard each
Part = tuple[int, int]  # number of a shard, from 1, and how many there are


@dataclasses.dataclass(frozen=True)
class Kept:
    """Columns of the manifest but split and sample; a digest of what is heard in each row; {id, reason, detail} of what
    was left out; how often each of `read.FIXES` was needed.
    """

    columns: dict[str, Any]  # lists, `Strings` and arrays [rows]
    recordings: Sequence[str]
    skipped: list[dict]
    fixes: collections.Counter


def columns(utterances: Sequence[Utterance]) -> dict[str, Any]:
    """{column: what the corpus says of each utterance}, without what is measured."""
    if isinstance(utterances, Shards):
        return {name: utterances.column(name) for name in ("id", "text", *FIELDS, "split")}
    found: dict[str, Any] = {
        "id": [u.id for u in utterances],
        "text": [" ".join(u.text.split()) for u in utterances],
    }
    return found | {name: [getattr(u, name) or "" for u in utterances] for name in (*FIELDS, "split")}


def texts(utterances: Sequence[Utterance]) -> Sequence[str]:
    """What is said in each."""
    return utterances.column("text") if isinstance(utterances, Shards) else [u.text for u in utterances]


def take(utterances: Sequence[Utterance], rows: list[int]) -> Sequence[Utterance]:
    """These rows of a corpus."""
    return utterances.take(rows) if isinstance(utterances, Shards) else [utterances[row] for row in rows]


def heard(cfg, work, utterances: Sequence[Utterance], folder: Path) -> Kept:
    """Listens to all of them. Recordings that are 16 kHz mono WAV or FLAC stay where they are, others are written once
    into `folder`, to be moved to W/describe/audio. Several processes listen to a share each; what one had heard when it
    was killed is not listened to again.
    """
    known = _known(work, folder)
    processes.meet()  # all know the same
    mine = processes.share([utterance for utterance in utterances if utterance.id not in known])
    _listen(cfg, work, utterances, mine, folder, str(processes.index()))
    processes.meet()
    known = _lines(work)
    lines = [known[utterance.id] for utterance in utterances]
    kept = [row for row, line in enumerate(lines) if "reason" not in line]
    fixes = collections.Counter(fix for row in kept for fix in lines[row]["fixes"])
    found = columns([utterances[row] for row in kept])
    found |= {name: [lines[row][name] for row in kept] for name in ("seconds", "silence", "snr", "audio")}
    skipped = [{name: line[name] for name in ("id", "reason", "detail")} for line in lines if "reason" in line]
    return Kept(found, [lines[row]["recording"] for row in kept], skipped, fixes)


def hear_shard(cfg, work, utterances: Sequence[Utterance], folder: Path, part: Part) -> int:
    """Listens to every n-th of them from the i-th on, for `heard` to find; how many these are. What this shard had
    heard before it was killed is not listened to again. Errors: BadValue where other shards are of another number.
    """
    number, of = part
    said = _begun_shards(work)
    if said not in (None, of):
        raise BadValue(f"describe: --shard {number}/{of}, but {work.path('describe')} was begun in {said} shards")
    write_json(work.path("describe", SHARDS), {"of": of})
    own, known = utterances[number - 1 :: of], _known(work, folder)
    mine = [utterance for utterance in own if utterance.id not in known]
    if len(mine) < len(own):
        work.log(f"  shard {number}/{of}: {len(own) - len(mine)} of {len(own)} utterances heard before")
    _listen(cfg, work, utterances, mine, folder, f"shard{number}")
    return len(own)


def _begun_shards(work) -> int | None:
    """In how many shards the stage was begun, if it was."""
    file = work.path("describe", SHARDS)
    return read_json(file)["of"] if file.exists() else None


def check_shards(work, utterances: Sequence[Utterance], folder: Path) -> None:
    """Errors: BadValue where shards were begun, naming the first that has not heard all of its utterances."""
    of = _begun_shards(work)
    if not of:
        return
    known = _known(work, folder)
    missing = collections.Counter(row % of + 1 for row, utterance in enumerate(utterances) if utterance.id not in known)
    if missing:
        number = min(missing)
        more = f", as are {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BadValue(
            f"describe: shard {number}/{of} is not finished, {missing[number]} utterances are not heard{more}; run"
            f" `moejax describe --shard {number}/{of}` with the same config and workdir"
        )


def forget(work) -> None:
    """Removes what was kept of every utterance until the manifest stood."""
    for file in (*work.path("describe").glob(HEARD), work.path("describe", SHARDS)):
        file.unlink(missing_ok=True)


def _known(work, folder: Path) -> dict[str, dict]:
    """What runs before have heard, where the sound that they wrote is there, too."""
    known = _lines(work)
    for name, line in list(known.items()):
        if line.get("audio") == f"describe/audio/{audio_name(name)}" and not (folder / audio_name(name)).exists():
            del known[name]
    return known


def _listen(cfg, work, utterances: Sequence[Utterance], mine: list[Utterance], folder: Path, name: str) -> None:
    """Writes what is heard of `mine` to W/describe/heard.NAME.jsonl: manifest columns, or {id, reason, detail}."""
    root = str(work.path())
    limits = {name: cfg.data[name] for name in ("min_seconds", "max_seconds", "silence_db")}
    too_long = text_room.room(cfg, texts(utterances))
    own = work.path("describe", HEARD.replace("*", name))
    own.parent.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max(1, cfg.describe.threads)) as pool, open(own, "a", 1, encoding="utf-8") as file:
        if file.tell() and not own.read_bytes().endswith(b"\n"):
            file.write("\n")  # a kill has left half a line
        results = _ordered(pool, lambda utterance: _gate_one(utterance, limits, folder, too_long, root), mine)
        for line in work.progress(results, len(mine), "describe"):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            faults.point("describe.heard")


def _lines(work) -> dict[str, dict]:
    """{id: what was heard} of all that any process has written so far."""
    found = {}
    for file in work.path("describe").glob(HEARD):
        for line in file.read_text(encoding="utf-8", errors="replace").split("\n"):
            with contextlib.suppress(ValueError):  # half a line
                record = json.loads(line)
                found[record["id"]] = record
    return found


def measured(cfg, work, utterances: Shards) -> Kept:
    """The same of a packed corpus, by what was measured when it was packed: nothing is listened to or written."""
    too_long = text_room.room(cfg, texts(utterances))
    limits = {name: cfg.data[name] for name in ("min_seconds", "max_seconds", "silence_db")}
    seconds, loud = utterances.numbers("seconds"), utterances.numbers("loud")
    suspect = (seconds < limits["min_seconds"]) | (seconds > limits["max_seconds"]) | (loud < limits["silence_db"])
    skipped, left_out = [], []
    for row, text in enumerate(work.progress(texts(utterances), len(utterances), "describe")):
        try:
            if not text.strip():
                raise Rejected("no_text", "the text is empty")
            if why := too_long(text):
                raise Rejected("text_too_long", why)
            if suspect[row]:
                read.check_limits(float(seconds[row]), float(loud[row]), **limits)
        except Rejected as rejected:
            left_out.append(row)
            skipped.append({"id": utterances[row].id, "reason": rejected.reason, "detail": rejected.detail})
    if left_out:
        utterances = utterances.take(np.delete(np.arange(len(utterances)), left_out))
    fixes = collections.Counter()
    for said in shared(utterances.table.column("fixes")):
        fixes.update(filter(None, said.split(",")))
    found = columns(utterances) | {name: utterances.numbers(name) for name in ("seconds", "silence", "snr")}
    found["audio"] = _references(utterances, str(work.path()))
    return Kept(found, Strings(utterances.table.column("recording")), skipped, fixes)


def _references(utterances: Shards, root: str) -> Strings:
    """What each recording is read by, made in Arrow."""
    shards = pa.array([_stored(os.path.join(utterances.folder, name), root) for name in utterances.names])
    numbers = pa.array(utterances.place).cast(pa.string())
    found = pc.binary_join_element_wise(shards.take(pa.array(utterances.shard)), numbers, records.MARK)
    return Strings(pa.chunked_array([found]))


def _ordered(pool: ThreadPoolExecutor, function, items, ahead: int = 64) -> Iterator:
    """Results in order, with few in flight: a million utterances do not become a million waiting jobs."""
    waiting: collections.deque = collections.deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _gate_one(
    utterance: Utterance, limits: dict, folder: Path, too_long: Callable[[str], str | None], root: str
) -> dict:
    """{id, audio, seconds, silence, snr, recording, fixes} of one utterance, or {id, reason, detail} if it cannot be
    used.
    """
    try:
        if not utterance.text.strip():
            raise Rejected("no_text", "the text is empty")
        if why := too_long(utterance.text):
            raise Rejected("text_too_long", why)
        checked = read.load(utterance.audio, target_rate=SAMPLE_RATE, **limits)
    except Rejected as rejected:
        return {"id": utterance.id, "reason": rejected.reason, "detail": rejected.detail}
    fixes, path = checked.fixes, utterance.audio
    if isinstance(path, str) and not fixes and not (checked.direct and path.lower().endswith((".wav", ".flac"))):
        fixes = ("decoded",)
    if not isinstance(path, str) or fixes:
        path = folder / audio_name(utterance.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, checked.samples, SAMPLE_RATE, subtype="PCM_16", format="FLAC")
        path = Path("describe", "audio", audio_name(utterance.id))
    return {
        **{"id": utterance.id, "audio": _stored(path, root), "fixes": list(fixes)},
        **{"seconds": checked.seconds, "silence": checked.silence_share, "snr": checked.snr},
        "recording": hashlib.blake2b(checked.samples.tobytes(), digest_size=12).hexdigest(),
    }


def audio_name(identity: str) -> str:
    """A file name for an id: readable, unique by a hash, spread over 256 folders."""
    mark = hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()
    return f"{mark[:2]}/{re.sub(r'[^A-Za-z0-9._-]+', '-', identity)[-80:].strip('.-')}-{mark}.flac"


def _stored(path: str | Path, root: str) -> str:
    """Relative to the workdir for what lies in it, so that it can be moved; absolute for originals elsewhere."""
    if isinstance(path, Path):
        return path.as_posix()
    absolute, root = os.path.abspath(path), os.path.abspath(root)
    return os.path.relpath(absolute, root) if os.path.commonpath([absolute, root]) == root else absolute
