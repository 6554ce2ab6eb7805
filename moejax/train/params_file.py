"""Parameters as one safetensors file, whole or absent, and digests of them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy
from jax.experimental import multihost_utils

from moejax.errors import BadValue, NotThere
from moejax.runtime import faults
from moejax.runtime.files import replacing
from moejax.runtime.sharding import path_string
from moejax.types import Array, Params


def is_key(leaf: Any) -> bool:
    """True for typed PRNG keys, which are stored as their integer data."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def flat_state(tree: Any) -> dict[str, Array]:
    """{path: array} of a pytree, keys as integers; arrays of size 0, which orbax refuses, are left out."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    flat = {path_string(path): jax.random.key_data(leaf) if is_key(leaf) else leaf for path, leaf in leaves}
    if len(flat) != len(leaves):
        raise ValueError("two leaves of the state have the same path")
    return {path: leaf for path, leaf in flat.items() if leaf.size}


def save_params(path: Path | str, params: Params, meta: dict | None = None) -> None:
    """One safetensors file from nested dicts of arrays, written whole or not at all; `meta` is JSON.

    Names are paths with '/'; an integer key is written '[3]', so that it comes back an integer. Every process calls
    this (arrays cut across processes are gathered), the first one writes.
    """
    flat = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        if bad := [key.key for key in keys if not isinstance(key.key, str) or "/" in key.key]:
            raise ValueError(f"parameter name {bad[0]!r} must be a string without '/'")
        flat[path_string(keys)] = np.ascontiguousarray(whole_array(leaf)).reshape(np.shape(leaf))
    if jax.process_index() == 0:
        with replacing(path) as partial:
            safetensors.numpy.save_file(flat, partial, metadata={"moejax": json.dumps(meta or {})})
            faults.point("params.partial")
        faults.point("params.standing")
    barrier("save_params")


def whole_array(leaf: Array) -> np.ndarray:
    """The array in numpy, gathered where it is cut across processes; every process calls this."""
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
    return np.asarray(leaf)


def digest_of(tree: Any) -> str:
    """16 hex digits over names, types and bytes of all arrays; every process of a run calls it (a second a GB)."""
    found = hashlib.blake2b(digest_size=8)
    for path, leaf in sorted(flat_state(tree).items()):
        array = np.ascontiguousarray(whole_array(leaf))
        found.update(f"{path} {array.dtype} {array.shape};".encode())
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def load_params(path: Path | str) -> tuple[Params, dict]:
    """(params, meta) of a file of `save_params`, arrays in numpy. FileNotFoundError or ValueError naming the file."""
    path = Path(path)
    if not path.is_file():
        raise NotThere(f"no parameter file {path}")
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            meta = json.loads((file.metadata() or {}).get("moejax", "{}"))
            flat = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise BadValue(f"{path} is not a whole safetensors file: {error}") from error
    params = {}
    for name, array in flat.items():
        *parents, leaf = name.split("/")
        node = params
        for part in parents:
            node = node.setdefault(part, {})
        node[leaf] = array
    return params, meta


def barrier(name):
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
