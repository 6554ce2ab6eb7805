"""Every test runs on 8 pretend CPU devices, with warnings and silent broadcasting as errors."""

import os
import sys
from pathlib import Path

DEVICES = "--xla_force_host_platform_device_count=8"
if DEVICES not in os.environ.get("XLA_FLAGS", ""):  # before jax is imported, or it has no effect
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {DEVICES}".strip()
os.environ["JAX_PLATFORMS"] = "cpu"
# These networks are smaller than their compilation, and the tests compile a thousand programs; processes inherit it.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
CACHE = Path(__file__).parent.parent / ".cache" / "jax-tests"
os.environ.setdefault("MOEJAX_COMPILATION_CACHE", str(CACHE))  # of commands in processes of their own

# The suite asks what happens without published weights, also where the package is installed; processes inherit it.
if not os.environ.get("MOEJAX_TEST_PACKAGE"):
    ABSENT = str(Path(__file__).parent / "absent")
    sys.path.insert(0, ABSENT)
    os.environ["PYTHONPATH"] = os.pathsep.join([ABSENT, *filter(None, [os.environ.get("PYTHONPATH")])])

import ctypes  # noqa: E402
import gc  # noqa: E402

import jax  # noqa: E402
import pytest  # noqa: E402

# of third parties, each by name; ours are fixed, not listed
ALLOWED_WARNINGS = (
    # xdist workers share the compilation cache and may meet an entry that is half written: it is compiled again
    "ignore:Error reading persistent compilation cache entry:UserWarning",
    "ignore:Error writing persistent compilation cache entry:UserWarning",
    # Loops that gradio and playwright make and leave; collected whenever it pleases Python, in any test of the worker
    "ignore:Exception ignored in. <function BaseEventLoop.__del__:pytest.PytestUnraisableExceptionWarning",
    "ignore:Exception ignored in. <socket.socket fd=.*family=1:pytest.PytestUnraisableExceptionWarning",
)


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error")
    for line in ALLOWED_WARNINGS:
        config.addinivalue_line("filterwarnings", line)
    jax.config.update("jax_numpy_rank_promotion", "raise")
    jax.config.update("jax_compilation_cache_dir", str(CACHE))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
    jax.config.update("jax_threefry_partitionable", True)  # the same random numbers however an array is cut


# Mappings of memory from which on a worker lets its compiled programs go. Each has some, Linux gives a process 65,530,
# and a program that is loaded when there are none left is a segmentation fault in the middle of the suite.
MAPPED = 30_000


@pytest.fixture(scope="module", autouse=True)
def _programs_go():
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MAPPED:
        jax.clear_caches()
        gc.collect()
    # What compilations took and freed stays in the heaps of their threads until glibc is asked to give it back
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


# The longest files, longest first: a worker takes a whole file, and nobody should wait for the last one.
LONGEST = (
    *("job/test_study.py", "faults/test_suites.py", "faults/test_processes.py", "training/test_no_collapse.py"),
    *("training/test_hyper.py", "training/test_packed.py", "decode/test_search.py", "nn/test_hypernet.py"),
    *("systems/test_evaluate.py", "nn/test_gates.py", "tasks/test_windows.py", "tasks/test_asr.py", "job/test_job.py"),
    *("test_examples.py", "faults/test_kill.py", "cohorts/test_cluster.py", "test_mesh.py", "nn/test_kinds.py"),
)


# Of these most of the time goes into compiling networks: `launch/test.sh --fast` leaves them out.
COMPILED = (
    *("nn/", "tasks/", "test_mesh.py", "test_recognizer.py", "training/", "train/test_loop.py", "bench/test_run.py"),
    *("serve/test_answers.py", "serve/test_load.py", "serve/test_uploads.py"),
    *("decode/test_search.py", "decode/test_greedy.py", "decode/test_rules.py", "decode/test_longform.py"),
    *(
        "decode/test_decoder.py",
        "decode/test_alignment.py",
        "decode/test_company.py",
        "cohorts/",
        "test_types.py",
        "ops/test_warping.py",
    ),
)


def pytest_collection_modifyitems(items):
    """The longest files first; tests of these folders have their folder's mark, those that run whole jobs say so
    themselves.
    """
    here = Path(__file__).parent
    for item in items:
        name = item.path.relative_to(here).as_posix()
        if (folder := name.split("/")[0]) in ("faults", "parity"):
            item.add_marker(folder)
        if name.startswith(COMPILED):
            item.add_marker("compiled")
    place = {name: at for at, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path.relative_to(here).as_posix(), len(place)))  # stable
