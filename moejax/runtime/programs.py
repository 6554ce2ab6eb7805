"""Compiled programs that the next process runs without tracing them again.

JAX's cache (`compilation`) is asked with a finished trace, and tracing a search takes half a second of Python in every
process. Here a program is found by what a trace is made of: the function's own facts (a graphdef, a route ...), the
shapes and types of its arguments, the sources of moejax, the versions and settings of JAX, and the processor. Whatever
cannot be told so is compiled as ever, and a file that is not what was written is made again.
"""

import functools
import hashlib
import importlib.metadata
import logging
import os
import pickle
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.core
from jax.experimental import serialize_executable
from jax.experimental.compilation_cache import compilation_cache

from moejax.runtime import compilation, files

MOST = 256  # files that stay; those not used for longest go first
SETTINGS = (  # of JAX, which a program depends on
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_threefry_partitionable",
    "jax_default_prng_impl",
    "jax_debug_nans",
    "jax_debug_infs",
    "jax_disable_most_optimizations",
)

log = logging.getLogger(__name__)


def kept(jitted: Callable, *facts: Any, static: tuple[str, ...] = ()) -> Callable:
    """The same function, whose programs outlive the process where `compilation.keep_programs` has a folder.

    Args:
      jitted: what `jax.jit` gave; it closes over nothing that its source, the arguments and `facts` do not tell.
      facts: what it closes over; picklable, else nothing is kept.
      static: its static arguments, by name; hashable, and their `repr` tells them apart.
    """
    return _Kept(jitted, facts, static)


class _Kept:
    def __init__(self, jitted, facts, static):
        self.jitted, self.facts, self.static = jitted, facts, static
        self.ready: dict[Any, Callable] = {}
        functools.update_wrapper(self, jitted)

    def __call__(self, *args, **named):
        fixed = {name: value for name, value in named.items() if name in self.static}
        traced = {name: value for name, value in named.items() if name not in self.static}
        leaves, tree = jax.tree.flatten((args, traced))
        if not _usable() or any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return self.jitted(*args, **named)
        types = tuple(_type(leaf) for leaf in leaves)
        asked = tree, types, tuple(sorted(fixed.items()))
        program = self.ready.get(asked)
        if program is None:
            program = self.ready[asked] = self._program(args, named, str(tree), types, repr(sorted(fixed.items())))
        return self.jitted(*args, **named) if program is self.jitted else program(*args, **traced)

    def _program(self, args, named, *asked):
        """From the file, else compiled and written; the function itself where its facts cannot be written down."""
        try:
            facts = pickle.dumps((self.jitted.__module__, self.jitted.__qualname__, self.facts, asked))
        except Exception as error:  # pickle raises whatever the objects raise
            log.info("%s is not kept: %s", self.jitted.__qualname__, error)
            return self.jitted
        path = _folder() / hashlib.sha256(facts + _surroundings()).hexdigest()
        program = _read(path)
        if program is None:
            program = _compiled(self.jitted, args, named)
            _write(path, program)
        return program


def _usable() -> bool:
    # One device: where a program's arrays lie is then no question. A processor: nothing else was tried, and a compiler
    # that takes twenty seconds has JAX's own cache, which the half second of a trace does not spoil.
    one = jax.device_count() == 1 and jax.default_backend() == "cpu"
    return one and compilation.folder() is not None and not jax.config.values["jax_disable_jit"]


def _folder() -> Path:
    place = compilation.folder()
    assert place is not None  # as `_usable` has made sure
    return place / "programs"


def _type(leaf):
    aval = jax.typeof(leaf)
    return aval.shape, str(aval.dtype), aval.weak_type


@functools.cache
def _surroundings() -> bytes:
    """What else a program depends on, in this process."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(str(path.relative_to(root)).encode() + b"\0" + path.read_bytes())
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("jax", "jaxlib", "flax", "numpy")]
    device = jax.devices()[0]
    machine = [device.platform, device.device_kind, device.client.platform_version, platform.machine(), *_processor()]
    settings = [f"{name}={jax.config.values[name]}" for name in SETTINGS] + [os.environ.get("XLA_FLAGS", "")]
    digest.update("\n".join([*versions, *machine, *settings, platform.python_version()]).encode())
    return digest.digest()


def _processor() -> list[str]:
    """Its model and instructions: a folder may be shared by hosts of several kinds."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line.strip() for line in file if line.startswith(("model name", "flags", "Features", "CPU part"))]
    except OSError:
        return [platform.processor()]
    return sorted(set(lines))


def _read(path: Path):
    """The program, or None where there is no such file or not a whole one."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    digest, payload = content[:32], content[32:]
    if hashlib.sha256(payload).digest() != digest:
        return None
    try:
        os.utime(path)  # used: it stays
        return serialize_executable.deserialize_and_load(*pickle.loads(payload))
    except Exception as error:  # another process's program is a help and no more
        log.info("a kept program could not be read: %s", error)
        return None


def _compiled(jitted, args, named):
    """Compiled here and now: what JAX's own cache gives out cannot be written again."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        return jitted.lower(*args, **named).compile()
    finally:
        jax.config.update("jax_enable_compilation_cache", True)
        compilation_cache.reset_cache()


def _write(path: Path, program) -> None:
    try:
        payload = pickle.dumps(serialize_executable.serialize(program))
        with files.replacing(path, sync=False) as temporary:
            temporary.write_bytes(hashlib.sha256(payload).digest() + payload)
        others = sorted(path.parent.iterdir(), key=lambda other: other.stat().st_mtime)
        for old in others[: max(0, len(others) - MOST)]:
            old.unlink(missing_ok=True)
    except Exception as error:  # a full disk, a program that cannot be written: it is there in this process
        log.info("a program could not be kept: %s", error)
