"""Checkpoints of a run (orbax, asynchronous) and single files of final parameters (safetensors). The only orbax import.

    <dir>/<step>/state  every array of the train state, under its path
                 data   where the input stands (JSON)
                 meta   anything else that is JSON
                 files.json  name and size of every file of the step, written last (killed before, a step is whole)

A step is written under a temporary name and renamed once whole, so a process killed at any moment leaves either a
whole step or a leftover that the next start removes. Older steps are deleted only after a newer one stands. Orbax's
own `latest_step()` returns steps with missing files and empty folders; here the newest step that *restores* is taken
and the others are moved to `<dir>/damaged/`, where nobody looks for steps.
"""

import json
import logging
import os
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import safetensors
import safetensors.numpy
from jax.experimental import multihost_utils

from moejax.sharding import path_string

WHOLE = ("_CHECKPOINT_METADATA", "state/_METADATA", "state/manifest.ocdbt", "data/metadata", "meta/metadata")
FILES = "files.json"
DAMAGED = "damaged"
UNREADABLE = (OSError, ValueError, KeyError)  # what orbax and tensorstore raise on damaged files

log = logging.getLogger(__name__)


def is_key(leaf):
    """True for typed PRNG keys, which are stored as their integer data."""
    return hasattr(leaf, "dtype") and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def flat_state(tree):
    """{path: array} of a pytree, keys as integers; arrays of size 0, which orbax refuses, are left out."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    flat = {path_string(path): jax.random.key_data(leaf) if is_key(leaf) else leaf for path, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two leaves of the state have the same path")
    return {path: leaf for path, leaf in flat.items() if leaf.size}


class Checkpointer:
    """One run's steps in `directory`, of which the newest `keep` stay. Every process of a run calls every method."""

    def __init__(self, directory, keep=2):
        if keep < 1:
            raise ValueError(f"keep={keep}: at least one checkpoint must be kept")
        self.directory, self.keep = Path(directory).resolve(), keep
        self._unlisted = None  # the step in flight
        # handlers are named so that a folder's metadata can be read before anything was saved or restored
        self._io = ocp.AsyncCheckpointer(
            ocp.CompositeCheckpointHandler(
                state=ocp.PyTreeCheckpointHandler(), data=ocp.JsonCheckpointHandler(), meta=ocp.JsonCheckpointHandler()
            ),
        )
        if jax.process_index() == 0:
            self.directory.mkdir(parents=True, exist_ok=True)
            for leftover in self.directory.glob("*.orbax-checkpoint-tmp*"):
                log.info("removing %s, left by a run that was killed while it saved", leftover.name)
                shutil.rmtree(leftover)
        _barrier("checkpointer_open")

    def steps(self):
        """Sorted steps that stand in the directory, whole or not."""
        return sorted(int(entry.name) for entry in self.directory.iterdir() if entry.is_dir() and entry.name.isdigit())

    def save(self, step, state, data, meta):
        """Start writing step; returns once the arrays are copied, so the caller may donate `state` at once.

        Raises what an earlier save failed with, and ValueError if the step stands already.
        """
        self.wait()
        if step in self.steps():
            raise ValueError(f"checkpoint {step} already stands in {self.directory}")
        items = ocp.args.Composite(
            state=ocp.args.PyTreeSave(flat_state(state)), data=ocp.args.JsonSave(data), meta=ocp.args.JsonSave(meta)
        )
        self._io.save(self.directory / str(step), args=items)
        self._unlisted = step

    def check(self):
        """Raise what an earlier save failed with; cheap, for every step."""
        self._io.check_for_errors()

    def wait(self):
        """Block until the save in flight stands (or raise its error); list its files, delete steps beyond `keep`."""
        step, self._unlisted = self._unlisted, None
        self._io.wait_until_finished()
        if step is not None and jax.process_index() == 0:
            _list_files(self.directory / str(step))
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self.directory / str(old))

    def close(self):
        """Wait, then release orbax's threads."""
        try:
            self.wait()
        finally:
            self._io.close()

    def restore_latest(self, template):
        """(state, data, meta) of the newest step that restores, or None.

        `template` has the structure of what was saved; leaves are arrays or ShapeDtypeStructs with the shardings
        wanted (which may differ from those saved). Incomplete or unreadable steps are moved aside with a line in the
        log. A whole step whose paths, shapes or dtypes differ from the template is an error (ValueError): it is
        another model's, and starting over would hide it.
        """
        self._io.wait_until_finished()
        for step in reversed(self.steps()):
            folder = self.directory / str(step)
            like = flat_state(template)
            try:
                _check_files(folder)
                stored = _read_metadata(self._io, folder)
            except UNREADABLE as error:
                self._set_aside(step, error)
                continue
            _same_model(stored, like, folder)
            try:
                found = self._read(folder, like)
            except UNREADABLE as error:  # the same model, so the files are at fault
                self._set_aside(step, error)
                continue
            return _unflatten(template, found["state"]), found["data"], found["meta"]
        return None

    def _read(self, folder, like):
        targets = {path: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding) for path, x in like.items()}
        args = ocp.args.Composite(
            state=ocp.args.PyTreeRestore(targets, restore_args=ocp.checkpoint_utils.construct_restore_args(targets)),
            data=ocp.args.JsonRestore(),
            meta=ocp.args.JsonRestore(),
        )
        return self._io.restore(folder, args=args)

    def _set_aside(self, step, error):
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        log.warning("checkpoint %s in %s passed over: %s", step, self.directory, reason)
        if jax.process_index() == 0:
            (self.directory / DAMAGED).mkdir(exist_ok=True)
            place, number = self.directory / DAMAGED / str(step), 1
            while place.exists():
                place, number = self.directory / DAMAGED / f"{step}.{number}", number + 1
            os.replace(self.directory / str(step), place)
        _barrier(f"checkpoint_set_aside_{step}")


def _barrier(name):
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def _sizes(folder):
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and FILES not in path.name)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def _list_files(folder):
    partial = folder / f".{FILES}.partial"
    partial.write_text(json.dumps({"files": _sizes(folder)}, indent=1))
    os.replace(partial, folder / FILES)


def _check_files(folder):
    """Raises unless every listed file is there in full size; without a list, unless those of WHOLE are there."""
    listed = folder / FILES
    want = json.loads(listed.read_text())["files"] if listed.is_file() else dict.fromkeys(WHOLE)
    have = _sizes(folder)
    for name, size in want.items():
        if name not in have:
            raise FileNotFoundError(f"{name} is missing")
        if size not in (None, have[name]):
            raise ValueError(f"{name} has {have[name]} bytes of {size}")


def _read_metadata(io, folder):
    tree = io.metadata(folder).item_metadata["state"].tree
    return {path: (tuple(leaf.shape), jnp.dtype(leaf.dtype)) for path, leaf in tree.items()}


def _same_model(stored, like, folder):
    wanted = {path: (tuple(leaf.shape), jnp.dtype(leaf.dtype)) for path, leaf in like.items()}
    for path in sorted(set(stored) | set(wanted)):
        if stored.get(path) != wanted.get(path):
            has, wants = (str(side.get(path, "nothing")) for side in (stored, wanted))
            raise ValueError(f"checkpoint {folder} is of another model: {path} holds {has}, this run wants {wants}")


def _unflatten(template, flat):
    def pick(path, like):
        if not like.size:
            return jnp.zeros(like.shape, like.dtype)
        value = flat[path_string(path)]
        return jax.random.wrap_key_data(value, impl=jax.random.key_impl(like)) if is_key(like) else value

    return jax.tree_util.tree_map_with_path(pick, template)


def save_params(path, params, meta=None):
    """One safetensors file from nested dicts of arrays, written whole or not at all; `meta` is JSON.

    Names are paths with '/'; an integer key is written '[3]', so that it comes back an integer. Every process calls
    this (arrays cut across processes are gathered), the first one writes.
    """
    flat = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        if bad := [key.key for key in keys if not isinstance(key.key, str) or "/" in key.key]:
            raise ValueError(f"parameter name {bad[0]!r} must be a string without '/'")
        flat[path_string(keys)] = np.ascontiguousarray(_whole_array(leaf)).reshape(np.shape(leaf))
    if jax.process_index() == 0:
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            safetensors.numpy.save_file(flat, partial, metadata={"moejax": json.dumps(meta or {})})
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    _barrier("save_params")


def _whole_array(leaf):
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def load_params(path):
    """(params, meta) of a file of `save_params`, arrays in numpy. FileNotFoundError or ValueError naming the file."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no parameter file {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            meta = json.loads((file.metadata() or {}).get("moejax", "{}"))
            flat = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is not a whole safetensors file: {error}") from error
    params = {}
    for name, array in flat.items():
        *parents, leaf = name.split("/")
        node = params
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = array
    return params, meta
