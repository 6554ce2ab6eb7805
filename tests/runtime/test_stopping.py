"""Signals and the watchdog, in processes of their own: what ends them, when, and what they say."""

import os
import signal
import subprocess
import sys
import time

import pytest

BUSY = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"  # minutes inside a library, as a compilation would be


def ended(code, number=None):
    """(exit code, stderr, seconds) of a program that gets a signal once it has said that it is ready."""
    program = f"import hashlib, sys, time\nfrom moejax.runtime import stopping, watchdog\n{code}"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "ready\n"
    began = time.monotonic()
    if number:
        time.sleep(0.5)  # from the print into the call that follows it
        os.kill(process.pid, number)
    _, said = process.communicate(timeout=60)
    return process.returncode, said, time.monotonic() - began


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_python_code_is_left_through_its_finallys(number):
    code = "with stopping.listening('embed', 30):\n  try:\n    print('ready', flush=True)\n    time.sleep(60)\n"
    code, said, _ = ended(code + "  finally:\n    print('tidied', file=sys.stderr)", number)
    assert code == stopping_code() and said.splitlines()[-2:] == [
        "moejax embed: stopped on request; run it again to go on",
        "tidied",
    ]


def test_a_long_call_into_a_library_ends_when_the_time_is_over():
    code = f"with stopping.listening('joint', 1.0):\n  print('ready', flush=True)\n  {BUSY}"
    code, said, seconds = ended(code, signal.SIGTERM)
    assert code == stopping_code() and seconds < 20
    assert "joint: asked to stop and not at the end of its step within 1 s" in said and "most recent call first" in said


def test_a_stuck_run_ends_with_its_name_and_the_stacks():
    code = f"with watchdog.watching(1.0):\n  watchdog.beat('stage embed')\n  print('ready', flush=True)\n  {BUSY}"
    code, said, seconds = ended(code)
    assert code == 76 and seconds < 20 and "stage embed is stuck: nothing was done for" in said
    assert "most recent call first" in said


def test_a_run_that_beats_is_left_alone():
    code = "with watchdog.watching(0.5):\n  print('ready', flush=True)\n  for _ in range(20):\n    watchdog.beat()\n"
    assert ended(code + "    time.sleep(0.1)")[:2] == (0, "")


def stopping_code():
    from moejax.runtime.stopping import EXIT_PREEMPTED

    return EXIT_PREEMPTED


def test_a_signal_before_the_run_begins_asks_to_be_run_again():
    """While the libraries are imported and the config is read."""
    code = "with stopping.leaving('all'):\n  print('ready', flush=True)\n  time.sleep(60)"
    for number in (signal.SIGTERM, signal.SIGINT):
        assert ended(code, number)[:2] == (stopping_code(), "moejax all: stopped on request; run it again to go on\n")
