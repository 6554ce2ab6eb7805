"""SIGKILL at every named point of a save and of what is written beside it."""

import random
import shutil
import sys
from pathlib import Path

import job
import table
import training
from table import Row

# Point, and the passes among which one is drawn: the first save is left alone, what follows must never be without one.
POINTS = {
    "checkpoint.begin": (2, 6), "checkpoint.copied": (2, 6), "checkpoint.written": (2, 6), "checkpoint.listed": (2, 6),
    "checkpoint.manifest": (2, 6), "checkpoint.standing": (2, 6), "checkpoint.pruning": (1, 4),
    "metrics.record": (9, 24), "metrics.truncated": (1, 1), "params.partial": (1, 1), "params.standing": (1, 1),
    "train.step": (9, 24),
}  # fmt: skip


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    drawn, rows = random.Random(seed), []
    commands = job.Commands(folder)
    try:
        whole = training.whole(commands, folder)
        for point, (low, high) in POINTS.items():
            done = good = equal = lost = 0
            notes = []
            while done < tries and not table.over():
                work = folder / "killed"
                problems, different, steps = _once(commands, work, whole, point, drawn.randint(low, high))
                done, good, equal = done + 1, good + (not problems + different), equal + (not different)
                lost = max(lost, steps)
                notes += problems + different
                shutil.rmtree(work)
            note = "; ".join(dict.fromkeys(notes))
            print(f"{point}: {good} of {done} {note}", file=sys.stderr, flush=True)
            steps = f"{lost} steps (saved every {training.EVERY})"
            rows.append(Row(f"SIGKILL at {point}", done, good, steps, f"{equal} of {done}", note))
    finally:
        commands.close()
    return rows


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
