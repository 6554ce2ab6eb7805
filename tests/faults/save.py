"""SIGKILL at every named point of a save."""

import random
import shutil
import sys
from pathlib import Path

import disturb
import job
import table
from table import Row

POINTS = (
    "checkpoint.begin", "checkpoint.copied", "checkpoint.written", "checkpoint.listed", "checkpoint.manifest",
    "checkpoint.standing", "checkpoint.pruning", "metrics.record", "params.partial", "params.standing",
    "artifact.partial", "stage.finish",
)  # fmt: skip
ONCE = {"params.partial", "params.standing", "stage.finish", "artifact.partial"}  # passed once or twice in a stage
STAGE = "experts"


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    drawn, rows = random.Random(seed), []
    commands = job.Commands(job.make(folder))
    try:
        whole, _ = job.undisturbed(folder, commands, STAGE)
        for point in POINTS:
            good, equal, lost, notes = 0, 0, 0, []
            done = 0
            while done < tries and not table.over():
                done += 1
                work = folder / "killed"
                shutil.copytree(whole, work)
                shutil.rmtree(work / STAGE)
                argv = (STAGE, "--config", "job.py", "--workdir", work.name)
                at = 1 if point in ONCE else drawn.randint(2, job.TRAINED[STAGE] // job.EVERY - 1)
                code, said = commands.run(*argv, fault=f"{point}:{at}=kill")
                before = job.recorded(work)
                unsafe = list(disturb.unsafe(work, before))
                again, told = commands.run(*argv)
                lost = max([lost, *disturb.lost(before, told)])
                different = (
                    job.differences(work, whole, trained=("base", "gate", STAGE)) if again == 0 else [told[-300:]]
                )
                problems = [*unsafe, *different, *job.leftovers(work)] + ([f"code {code}"] if code != -9 else [])
                good, equal = good + (not problems), equal + (not different)
                notes += problems
                shutil.rmtree(work)
            steps = f"{lost} steps (saved every {job.EVERY})"
            note = "; ".join(dict.fromkeys(notes))
            print(f"{point}: {good} of {done} {note}", file=sys.stderr, flush=True)
            rows.append(Row(f"SIGKILL at {point}", done, good, steps, f"{equal} of {done}", note))
    finally:
        commands.close()
    return rows
