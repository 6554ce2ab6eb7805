"""Programs that a process compiled are run by the next one without a trace, and never where they would be wrong."""

import os
import subprocess
import sys

import pytest

from moejax.runtime import compilation

PROGRAM = """
import functools, sys
import jax, jax.numpy as jnp, numpy as np
from moejax.runtime import compilation, programs
compilation.keep_programs(sys.argv[1])
if len(sys.argv) > 3 and sys.argv[3] == "x64":
    jax.config.update("jax_enable_x64", True)
traced = []
def make(factor):
    @functools.partial(jax.jit, static_argnames=("power",))
    def scale(tree, x, *, power):
        traced.append(power)
        key = jax.random.key(x.sum().astype(int))
        return {"y": factor * tree["a"] ** power + x, "drawn": jax.random.normal(key, (2,))}
    return programs.kept(scale, factor, static=("power",))
args = {"a": np.arange(3, dtype=np.float32)}, np.ones(3, np.float32)
scale = make(float(sys.argv[2]))
found = [scale(*args, power=power) for power in (2, 2, 3)] + [scale({"a": np.float32(2)}, args[1], power=2)]
print(len(traced), [np.asarray(one["y"]).tolist() for one in found], np.asarray(found[0]["drawn"]).tolist())
"""


def run(folder, factor="2", *more):
    """(how often it was traced, what it found)"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    for name in ("JAX_COMPILATION_CACHE_DIR", "XLA_FLAGS"):  # as a user has it: one device
        environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), factor, *more], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    traced, _, found = done.stdout.partition(" ")
    return int(traced), found


def test_the_next_process_traces_nothing_and_finds_the_same(tmp_path):
    traced, found = run(tmp_path)
    assert traced == 3 and "[1.0, 3.0, 9.0]" in found and "[1.0, 3.0, 17.0]" in found
    assert run(tmp_path) == (0, found)
    # What the function closes over, JAX's settings: other programs.
    other = run(tmp_path, "3")
    assert other[0] == 3 and "[1.0, 4.0, 13.0]" in other[1]
    assert run(tmp_path, "2", "x64")[0] == 3
    assert run(tmp_path) == (0, found)


@pytest.mark.parametrize("harm", ["cut", "flipped", "another file"])
def test_a_file_that_is_not_what_was_written_is_made_again(tmp_path, harm):
    _, found = run(tmp_path)
    for path in (tmp_path / "programs").iterdir():
        content = bytearray(path.read_bytes())
        if harm == "cut":
            del content[-10:]
        elif harm == "flipped":
            content[len(content) // 2] ^= 1
        path.write_bytes(b"" if harm == "another file" else bytes(content))
    assert run(tmp_path) == (3, found)
    assert run(tmp_path) == (0, found)


def test_nothing_is_kept_where_nothing_shall_be(tmp_path):
    assert run("")[0] == 3 and run("")[0] == 3
    assert compilation.folder() is None  # the tests' own process has a cache of JAX's, which is left alone


def test_the_folder_does_not_grow_for_ever(tmp_path, monkeypatch):
    from moejax.runtime import programs

    place = tmp_path / "programs"
    place.mkdir()
    for number in range(6):
        (place / f"{number}").write_bytes(b"")
        os.utime(place / f"{number}", (number, number))
    monkeypatch.setattr(programs, "MOST", 3)
    monkeypatch.setattr(programs.serialize_executable, "serialize", lambda program: program)
    programs._write(place / "new", "a program")
    assert sorted(path.name for path in place.iterdir()) == ["4", "5", "new"]
