"""Two processes that train together: SIGTERM, SIGKILL or SIGSTOP to one of them, and going on afterwards."""

import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import job
import table
import training
from table import Row

from moejax.runtime.stopping import EXIT_PREEMPTED
from moejax.runtime.watchdog import EXIT_STUCK

HEARTBEAT = float(os.environ.get("FAULTS_HEARTBEAT", "20"))  # seconds
FAULTS = {"SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL, "SIGSTOP": signal.SIGSTOP}


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    """`tries` of each signal."""
    drawn, tally = random.Random(seed), table.Tally()
    both = [job.Commands(folder, loads="train"), job.Commands(folder, loads="train")]
    try:
        whole = folder / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        start(both, whole)
        said = [commands.end() for commands in both]
        if any(code for code, _ in said):
            raise RuntimeError(f"two processes do not train: {said}")
        for name, number in [each for _ in range(tries) for each in FAULTS.items()]:
            if table.over():
                break
            work = folder / "struck"
            problems, took, lost = _once(both, work, number, drawn)
            different = ["not done"] if problems else training.differences(work, whole) + job.leftovers(work)
            tally.add(f"two processes, {name} to one", problems, different, lost, took)
            shutil.rmtree(work)
    finally:
        for commands in both:
            commands.close()
    return tally.rows(
        training.EVERY, lambda slowest: f"the other out after {slowest:.1f} s at most (runtime.heartbeat {HEARTBEAT:g})"
    )


def start(both, work, devices=1, fault="") -> list[int]:
    """Process ids of the training in `work`, begun by several processes; the fault is the first one's."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    argv = ("train", work, devices, HEARTBEAT)
    slowly = {"FAULTS_PAUSE": "0.1"}  # so that a strike meets the step that it was meant for, on a busy machine too
    return [
        each.start(*argv, fault="" if i else fault, environment=training.address(i, len(both), port) | slowly)
        for i, each in enumerate(both)
    ]


def _once(both, work, number, drawn) -> tuple[list[str], float, int]:
    """(what went wrong, seconds until the other one had ended, steps that were done again)."""
    running = start(both, work)
    step, struck = drawn.randint(training.EVERY + 1, training.STEPS - 4), drawn.randrange(2)
    while training.recorded(work) < step and job.used(running[0]) is not None:
        time.sleep(0.005)
    began = time.monotonic()
    job.strike(running[struck], number)
    code, said = both[1 - struck].end()
    took = time.monotonic() - began
    job.strike(running[struck], signal.SIGCONT if number != signal.SIGSTOP else signal.SIGKILL)
    own, own_said = both[struck].end()
    before, stand, problems = training.recorded(work), training.saved(work), []
    if number == signal.SIGTERM:
        if (code, own) != (EXIT_PREEMPTED, EXIT_PREEMPTED) or took > 30:
            problems.append(f"codes {own}, {code} after {took:.1f} s: {said[-500:]} {own_said[-500:]}")
        steps = {text.split("; step ")[1].split()[0] for text in (said, own_said) if "; step " in text}
        if steps != {str(stand[-1] if stand else None)}:
            problems.append(f"stopped at steps {sorted(steps)}, saved {stand}")
    elif not _named(struck, code, said) or took > 2 * HEARTBEAT:
        problems.append(f"{signal.Signals(number).name} to {struck}: code {code} after {took:.1f} s: {said[:700]}")
    if not stand:
        problems.append(f"no verified step at step {before}")
    start(both, work)
    again = [commands.end() for commands in both]
    if any(code for code, _ in again):
        problems.append(f"does not go on: {[(code, said[-300:]) for code, said in again]}")
    gone_on = job.resumed(again[0][1]).get("train", 0)
    return problems, took, max(0, before - gone_on)


def _named(struck: int, code: int, said: str) -> bool:
    """Whether a process says who was lost. Where that is the first one, jax may be sooner: it aborts, in its own words,
    when the connection to the store breaks.
    """
    ours = code == EXIT_STUCK and f"process {struck} of 2" in said
    return ours or (struck == 0 and code == -signal.SIGABRT and "leader task was preempted/died" in said)
