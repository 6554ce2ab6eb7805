"""Named places where a test can make the process die, fail or wait, each at its n-th pass.

    MOEJAX_FAULT="checkpoint.written:3=kill,params.partial=raise,stage.finish=delay:0.5"

kill: SIGKILL to itself; term: SIGTERM to itself; raise: OSError, no space left; delay: sleep that many seconds.
Without a number the first pass is meant. Unset, a point costs one comparison. The suite is `python -m tests.faults`.
"""

import collections
import errno
import os
import signal
import time

from moejax.errors import BadValue

# Every point in the code, and what has happened when it is passed.
POINTS = {
    "checkpoint.begin": "a save was asked for, nothing is written",
    "checkpoint.copied": "the arrays were copied, a thread writes them while training goes on",
    "checkpoint.written": "all arrays are written, nothing vouches for them",
    "checkpoint.listed": "the digests of all files are computed, not written",
    "checkpoint.manifest": "the manifest stands, the step does not have its name yet",
    "checkpoint.standing": "the step has its name, older ones are still there",
    "checkpoint.pruning": "an older step has lost its name, its files are still there",
    "checkpoint.aside": "a damaged step is about to be moved aside",
    "params.partial": "a file of parameters is written under its temporary name",
    "params.standing": "a file of parameters has its name",
    "metrics.record": "a record is in the buffer of metrics.jsonl, not on disk",
    "metrics.truncated": "the shortened metrics.jsonl is written under its temporary name",
    "artifact.partial": "a text or JSON file is written under its temporary name",
    "embed.partial": "the embeddings are written under their temporary name",
    "stage.clearing": "what a run with other inputs left is about to be removed",
    "stage.started": "started.json stands, the stage has not begun",
    "stage.finish": "the results of a stage stand, its done.json does not",
    "stage.finished": "done.json stands",
    "train.step": "a training step was dispatched",
    "states.block": "encoder states of a block of windows were kept",
    "describe.heard": "an utterance was listened to, and what is to be kept of it is written",
    "embed.batch": "a batch was embedded",
    "clips.block": "a block of clips, or of what an encoder says of them, was kept",
    "cluster.fit": "a partition is about to be fitted",
    "evaluate.batch": "a batch was decoded",
    "translate.block": "texts were translated by what costs nothing, and written to this process' share",
    "pack.record": "a record was added to a shard that has no name yet",
    "pack.shard": "a shard is whole under its temporary name",
    "pack.standing": "a shard has its name, nothing says what it holds",
    "pack.listed": "what a shard holds is written down",
    "pack.index": "all shards stand, the index does not",
}
KINDS = ("kill", "term", "raise", "delay")

_armed: dict[str, tuple[int, str, float]] | None = None  # {point: (pass, kind, seconds)}
_passes = collections.Counter()


def point(name: str) -> None:
    """Passes a point of POINTS."""
    if _armed is not None:
        _pass(name)


def arm(text: str) -> None:
    """Sets the faults of a text as in MOEJAX_FAULT; "" sets none. Errors: one that names the known points or kinds."""
    global _armed
    _passes.clear()
    _armed = dict(_parsed(item) for item in text.split(",") if item.strip()) or None


def _parsed(item):
    name, equals, kind = item.strip().partition("=")
    name, _, number = name.partition(":")
    kind, _, seconds = kind.partition(":")
    if name not in POINTS:
        raise BadValue(f"MOEJAX_FAULT names {name!r}; the points are {', '.join(POINTS)}")
    if kind not in KINDS or (number and not number.isdecimal()):
        raise BadValue(f"MOEJAX_FAULT: {item!r} is not POINT[:PASS]=KIND with a kind of {', '.join(KINDS)}")
    return name, (int(number or 1), kind, float(seconds or 1))


def _pass(name):
    if name not in POINTS:
        raise AssertionError(f"{name!r} is not in moejax.runtime.faults.POINTS")
    _passes[name] += 1
    number, kind, seconds = (_armed or {}).get(name, (0, "", 0.0))
    if _passes[name] != number:
        return
    if kind == "raise":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
    if kind == "delay":
        time.sleep(seconds)
    else:
        os.kill(os.getpid(), signal.SIGKILL if kind == "kill" else signal.SIGTERM)


arm(os.environ.get("MOEJAX_FAULT", ""))
