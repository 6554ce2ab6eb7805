"""Freed memory stays with the process: large buffers do not fault their pages in again."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from moejax.runtime import allocator
if sys.argv[1] == "keep":
    assert allocator.keep_pages()
def use():
    b"x" * 2**26  # 64 MB, 16,000 pages: above any threshold that glibc learns by itself
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.parametrize("mode,low,high", [("keep", 0, 2_000), ("as it comes", 100_000, 10**9)])
def test_large_buffers_are_faulted_in_once(mode, low, high):
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    assert low <= int(done.stdout) <= high


@pytest.mark.parametrize("platforms,kept", [("cpu", True), ("", True), ("cuda", False), ("cuda,cpu", False)])
def test_nothing_is_done_where_an_accelerator_is_asked_for(platforms, kept):
    program = "from moejax.runtime import allocator; print(allocator.keep_pages())"
    environment = {**os.environ, "JAX_PLATFORMS": platforms}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == str(kept)
