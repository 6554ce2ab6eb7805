"""The C allocator's settings that XLA's CPU backend needs.

Every execution on the CPU backend takes its buffers from malloc and gives them back. With glibc's defaults a large
buffer is a mapping of its own (or the top of a thread's arena) that goes back to the kernel at once, so that each step
faults all its pages in again: measured on a training step of a micro Whisper, 30,000 page faults and a third of the
step's time. One arena that is never trimmed keeps the pages.
"""

import ctypes
import functools
import importlib.util
import os
import sys

# From glibc's malloc.h
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8


@functools.cache
def keep_pages() -> bool:
    """Tell glibc to keep freed memory; true where that was possible. Call before JAX starts its threads; once is
    enough, and more calls do nothing.

    The process then holds on to its peak, which a training process does anyway. Nothing is done where JAX finds an
    accelerator: the buffers are there, and the compiler's many threads would wait for the one arena (NVIDIA H100,
    16 cores: a search of tiny in bfloat16 compiled in 6 s without this, and not within 30 s with it).
    """
    if not sys.platform.startswith("linux") or accelerated():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # musl
        return False
    settings = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**26))
    return all([mallopt(name, value) == 1 for name, value in settings])


def accelerated() -> bool:
    """Whether JAX would look for something other than the processor, asked without starting JAX."""
    if chosen := os.environ.get("JAX_PLATFORMS"):
        return chosen != "cpu"
    return any(importlib.util.find_spec(name) is not None for name in ("jax_plugins", "libtpu"))
