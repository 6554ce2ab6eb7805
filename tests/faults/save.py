"""SIGKILL at every named point of a save and of what is written beside it."""

import random
import shutil
from pathlib import Path

import job
import table
import training
from table import Row

# Point, and the passes among which one is drawn: the first save is left alone, what follows must never be without one.
POINTS = {
    "checkpoint.begin": (2, 6),
    "checkpoint.copied": (2, 6),
    "checkpoint.written": (2, 6),
    "checkpoint.listed": (2, 6),
    "checkpoint.manifest": (2, 6),
    "checkpoint.standing": (2, 6),
    "checkpoint.pruning": (1, 4),
    "metrics.record": (9, 24),
    "metrics.truncated": (1, 1),
    "params.partial": (1, 1),
    "params.standing": (1, 1),
    "train.step": (9, 24),
}


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    drawn, tally = random.Random(seed), table.Tally()
    commands = job.Commands(folder, loads="train")
    try:
        whole = training.whole(commands, folder)
        for point, (low, high) in [each for _ in range(tries) for each in POINTS.items()]:
            if table.over():
                break
            work = folder / "killed"
            problems, different, lost = _once(commands, work, whole, point, drawn.randint(low, high))
            tally.add(f"SIGKILL at {point}", problems, different, lost)
            shutil.rmtree(work)
    finally:
        commands.close()
    return tally.rows(training.EVERY)


def _once(commands, work, whole, point, at) -> tuple[list, list, int]:
    """(what went wrong, what differs from the undisturbed training, steps that were done again)."""
    problems = []
    if point == "metrics.truncated":  # when a run goes on
        commands.run("train", work, fault="train.step:11=kill")
    code, said = commands.run("train", work, fault=f"{point}:{at}=kill")
    if code != -9:
        problems.append(f"code {code}: {said[-300:]}")
    before = training.recorded(work)
    if not training.saved(work):
        problems.append(f"no verified step at step {before}")
    code, said = commands.run("train", work)
    steps = job.resumed(said).get("train", before)
    if code:
        return [*problems, f"does not go on: {said[-300:]}"], ["not done"], 0
    return problems + job.leftovers(work), training.differences(work, whole), max(0, before - steps)
