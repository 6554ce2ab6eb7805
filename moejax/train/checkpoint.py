"""Checkpoints of a run (orbax, asynchronous) and single files of final parameters (safetensors). The only orbax import.

    <dir>/<step>/state  every array of the train state, under its path
                 data   where the input stands (JSON)
                 meta   anything else that is JSON
                 manifest.json  size and SHA-256 of every file of the step, and a digest of itself
    <dir>/best.json     the step with the best score, if scores are given, which is kept too

A step is written under a temporary name; once all of it is on disk, its manifest is written and it gets its name. So a
process killed at any moment leaves steps that are whole, and leftovers that the next start removes. Older steps are
deleted only after a newer one stands. Orbax's own `latest_step()` returns steps with missing files and empty folders,
and restores some flipped bits in silence; here the newest step whose every file has its digest is taken, and the others
are moved to `<dir>/damaged/`, where nobody looks for steps.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from moejax.errors import BadValue, NotThere, NotWritten
from moejax.runtime import faults
from moejax.runtime.files import replacing
from moejax.runtime.sharding import path_string
from moejax.train.params_file import barrier, flat_state, is_key

MANIFEST = "manifest.json"
BEST = "best.json"
DAMAGED = "damaged"
LEFTOVERS = ("*.orbax-checkpoint-tmp*", ".*.saving*", ".*.old", ".*.partial")  # of a run that was killed
UNREADABLE = (OSError, ValueError, KeyError)  # what orbax and tensorstore raise on damaged files
UNWRITABLE = (OSError, ValueError)  # and where they cannot write

log = logging.getLogger(__name__)


class Checkpointer:
    """One run's steps in `directory`, of which the newest `keep` stay, and the one with the best score. Every process
    of a run calls every method.
    """

    def __init__(self, directory: Path | str, keep: int = 2):
        if keep < 2:
            raise ValueError(f"keep={keep}: at least two checkpoints must be kept, as the newest may get damaged")
        self.directory, self.keep = Path(directory).resolve(), keep
        self._finishing: threading.Thread | None = None  # ends the save in flight
        self._error: BaseException | None = None  # what a save failed with
        _hush_late_writes()
        # handlers are named so that a folder's metadata can be read before anything was saved or restored
        self._io = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(
                state=ocp.PyTreeCheckpointHandler(), data=ocp.JsonCheckpointHandler(), meta=ocp.JsonCheckpointHandler()
            ),
        )
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in {path for pattern in LEFTOVERS for path in self.directory.glob(pattern)}:
                log.info("removing %s, left by a run that was killed while it saved", leftover.name)
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        barrier("checkpointer_open")

    def steps(self) -> list[int]:
        """Sorted steps that stand in the directory, damaged or not."""
        return sorted(int(entry.name) for entry in self.directory.iterdir() if entry.is_dir() and entry.name.isdigit())

    def save(self, step: int, state: Any, data: dict, meta: dict, score: float | None = None) -> None:
        """Start writing step; returns once the arrays are copied, so the caller may donate `state` at once.

        `score`: the lowest of all saved ones makes this step the best. Raises what an earlier save failed with, and
        ValueError if the step stands already.
        """
        self.wait()
        if step in self.steps():
            raise BadValue(f"checkpoint {step} already stands in {self.directory}")
        faults.point("checkpoint.begin")
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(flat_state(state)), data=ocp.args.JsonSave(data), meta=ocp.args.JsonSave(meta)
        )
        unnamed = self.directory / f".{step}.saving"
        try:
            self._io.save(unnamed, args=items)
        except UNWRITABLE as error:
            if _of_another_process(error):
                raise
            raise self._unwritten(step, error) from error
        faults.point("checkpoint.copied")
        self._finishing = threading.Thread(target=self._finish, args=(step, unnamed, score), name=f"checkpoint {step}")
        self._finishing.start()

    def _finish(self, step, unnamed, score):
        """On a thread of its own: once all is written, the manifest and the name; then older steps go."""
        try:
            self._io.wait_until_finished()
            if jax.process_index() == 0:
                faults.point("checkpoint.written")
                _write_manifest(unnamed)
                faults.point("checkpoint.manifest")
                os.replace(unnamed, self.directory / str(step))
                faults.point("checkpoint.standing")
                self._prune(step, score)
        except UNWRITABLE as error:
            self._error = error
            if not _of_another_process(error):
                self._error = self._unwritten(step, error)
                self._error.__cause__ = error
        except BaseException as error:  # a bug; raised where the run can see it
            self._error = error

    def _prune(self, step, score):
        best = self.best()
        if score is not None and (best is None or score < best["score"]):
            best = {"step": step, "score": float(score)}
            _write_whole(self.directory / BEST, json.dumps(best))
        for old in self.steps()[: -self.keep]:
            if best is None or old != best["step"]:
                unnamed = self.directory / f".{old}.old"
                os.replace(self.directory / str(old), unnamed)
                faults.point("checkpoint.pruning")
                shutil.rmtree(unnamed)

    def best(self) -> dict | None:
        """{"step", "score"} of the best step saved with a score, or None."""
        try:
            found = json.loads((self.directory / BEST).read_text())
            return {"step": int(found["step"]), "score": float(found["score"])}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("%s in %s cannot be read (%s): no step is the best any more", BEST, self.directory, error)
            return None

    def _unwritten(self, step, error):
        stand = [other for other in self.steps() if other != step]
        last = f"the newest that stands is of step {stand[-1]}" if stand else "there is none yet"
        return SaveError(f"checkpoint {step} could not be written to {self.directory}: {_first_line(error)}; {last}")

    def check(self) -> None:
        """Raise what an earlier save failed with; cheap, for every step."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def wait(self) -> None:
        """Block until the save in flight stands (or raise its error)."""
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None
        self.check()

    def close(self) -> None:
        """Wait, then release orbax's threads."""
        try:
            self.wait()
        finally:
            self._io.close()

    def restore_latest(self, template: Any) -> tuple[Any, dict, dict] | None:
        """(state, data, meta) of the newest step that verifies, or None.

        `template` has the structure of what was saved; leaves are arrays or ShapeDtypeStructs with the shardings
        wanted (which may differ from those saved). A step with a file that is missing, or whose digest is another, is
        moved aside with a line in the log. A whole step whose paths, shapes or dtypes differ from the template is an
        error (ValueError): it is another model's, and starting over would hide it.
        """
        self.wait()
        like = flat_state(template)
        while (step := self.newest_verified()) is not None:
            folder = self.directory / str(step)
            try:
                _same_model(_read_metadata(self._io, folder), like, folder)
                found = self._read(folder, like)
            except OtherModel:
                raise
            except UNREADABLE as error:  # its files have the right digests: a library that cannot read its own
                if jax.process_count() > 1:
                    raise
                self._set_aside(step, error)
                continue
            return _unflatten(template, found["state"]), found["data"], found["meta"]
        return None

    def restore_best(self, template: Any) -> Any | None:
        """The state with the best score, as `restore_latest`; None where there is none, or it is damaged."""
        self.wait()
        found, like = self.best(), flat_state(template)
        if found is None or found["step"] not in self.steps():
            return None
        folder = self.directory / str(found["step"])
        try:
            verify(folder)
        except UNREADABLE as error:
            log.warning("checkpoint %s in %s, the best, is passed over: %s", *(folder.name, self.directory, error))
            return None
        return _unflatten(template, self._read(folder, like)["state"])

    def newest_verified(self) -> int | None:
        """The step, the same in every process, or None; damaged newer ones are moved aside."""
        found = -1
        if jax.process_index() == 0:
            for step in reversed(self.steps()):
                try:
                    verify(self.directory / str(step))
                    found = step
                    break
                except UNREADABLE as error:
                    if not _is_damage(error):
                        raise
                    self._set_aside(step, error)
        if jax.process_count() > 1:
            found = int(multihost_utils.broadcast_one_to_all(np.int32(found)))
        return None if found < 0 else found

    def _read(self, folder, like):
        targets = {path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for path, x in like.items()}
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(targets, restore_args=ocp.checkpoint_utils.construct_restore_args(targets)),
            data=ocp.args.JsonRestore(),
            meta=ocp.args.JsonRestore(),
        )
        return self._io.restore(folder, args=args)

    def _set_aside(self, step, error):
        log.warning("checkpoint %s in %s passed over: %s", step, self.directory, _first_line(error))
        faults.point("checkpoint.aside")
        (self.directory / DAMAGED).mkdir(exist_ok=True)
        place, number = self.directory / DAMAGED / str(step), 1
        while place.exists():
            place, number = self.directory / DAMAGED / f"{step}.{number}", number + 1
        os.replace(self.directory / str(step), place)


class SaveError(NotWritten):
    """A checkpoint could not be written."""


class OtherModel(BadValue):
    """A checkpoint is whole, and not of this model."""


def _is_damage(error):
    """Whether a step that could not be verified is bad itself; a file system that is away or refuses (rights, a stale
    mount, too many open files) says nothing of it.
    """
    innocent = isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError)
    return not innocent or error.errno in (None, errno.EIO, errno.EISDIR)


def _of_another_process(error):
    """Whether it is a collective that failed: somebody is gone, and the disk is innocent."""
    return any(name in str(error) for name in ("Gloo", "NCCL"))


def _hush_late_writes():
    """Where one array of a save fails, orbax closes its event loop, and the others print a traceback each when they are
    written. The error of the save says it all.
    """
    before = sys.unraisablehook
    if getattr(before, "__module__", "") == __name__:
        return

    def hook(unraisable):
        if str(unraisable.exc_value) != "Event loop is closed":
            before(unraisable)

    sys.unraisablehook = hook


def _first_line(error):
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _files(folder):
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.relative_to(folder).as_posix() != MANIFEST)


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_whole(path, text):
    with replacing(path) as partial:
        partial.write_text(text)


def _manifest_text(files):
    """{name: [size, SHA-256]} as JSON, its own digest behind it; the same text for the same files."""
    listed = json.dumps(files, indent=1, sort_keys=True)
    return f"{listed}\n{hashlib.sha256(listed.encode()).hexdigest()}\n"


def _write_manifest(folder):
    files = {p.relative_to(folder).as_posix(): [p.stat().st_size, _sha256(p)] for p in _files(folder)}
    faults.point("checkpoint.listed")
    _write_whole(folder / MANIFEST, _manifest_text(files))


def verify(folder: Path) -> None:
    """Raises OSError or ValueError, naming the file, unless every file of a step is as it was written."""
    if not (folder / MANIFEST).is_file():
        raise NotThere(f"{MANIFEST} is missing")
    raw = (folder / MANIFEST).read_bytes()
    try:
        text = raw.decode()
        files = json.loads(text.rpartition("\n")[0].rpartition("\n")[0])
        genuine = text == _manifest_text(files)
    except (ValueError, TypeError):  # what is no JSON, or no such JSON
        genuine = False
    if not genuine:
        raise BadValue(f"{MANIFEST} is not as it was written")
    for name, (size, digest) in files.items():
        path = folder / name
        if not path.is_file():
            raise NotThere(f"{name} is missing")
        if (has := path.stat().st_size) != size:
            raise BadValue(f"{name} has {has} bytes of {size}")
        if _sha256(path) != digest:
            raise BadValue(f"{name} has the wrong SHA-256")


def _read_metadata(io, folder):
    tree = io.metadata(folder).item_metadata["state"].tree
    return {path: (tuple(leaf.shape), jnp.dtype(leaf.dtype)) for path, leaf in tree.items()}


def _same_model(stored, like, folder):
    wanted = {path: (tuple(leaf.shape), jnp.dtype(leaf.dtype)) for path, leaf in like.items()}
    for path in sorted(set(stored) | set(wanted)):
        if stored.get(path) != wanted.get(path):
            has, wants = (str(side.get(path, "nothing")) for side in (stored, wanted))
            raise OtherModel(f"checkpoint {folder} is of another model: {path} holds {has}, this run wants {wants}")


def _unflatten(template, flat):
    def pick(path, like):
        if not like.size:
            return jnp.zeros(like.shape, like.dtype)
        value = flat[path_string(path)]
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like)) if is_key(like) else value

    return jax.tree_util.tree_map_with_path(pick, template)
