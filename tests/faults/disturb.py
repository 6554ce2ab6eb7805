"""A job struck by one signal again and again, at random moments of its processor time, until it is done; many jobs."""

import collections
import dataclasses
import random
import shutil
import sys
import time
from pathlib import Path

import job
import table
from table import Row

from moejax.train import checkpoint

LIFE = 0.35  # a process is struck after at most this share of the undisturbed job's processor time


@dataclasses.dataclass
class Found:
    """What was seen over all jobs of a suite."""

    strikes: int = 0
    bad: list = dataclasses.field(default_factory=list)  # of single strikes
    jobs: int = 0
    equal: int = 0
    lost: int = 0  # steps that had to be done again after one strike, at most
    slowest: float = 0.0  # seconds from the signal to the end
    stages: collections.Counter = dataclasses.field(default_factory=collections.Counter)

    def row(self, fault: str, note: str = "") -> Row:
        stages = ", ".join(f"{name} {count}" for name, count in self.stages.most_common())
        problems = "; ".join(dict.fromkeys(self.bad))
        return Row(
            fault,
            self.strikes,
            self.strikes - len(self.bad),
            f"{self.lost} steps (saved every {job.EVERY})",
            f"{self.equal} of {self.jobs} jobs",
            "; ".join(part for part in (note, f"in {stages}", problems) if part),
        )


def many(folder: Path, number: int, tries: int, seed: int, want_code: int, within: float = 0.0) -> Found:
    """`tries` strikes with the signal; each process that is struck has to leave with `want_code` (and `within` so many
    seconds, where that is not 0), and every job has to end with the bits of the one that was left alone.
    """
    drawn, found = random.Random(seed), Found()
    commands = job.Commands(job.make(folder))
    try:
        job.undisturbed(folder, commands)  # compiles, once for all
        whole, seconds = job.undisturbed(folder, commands)
        while found.strikes < tries and not table.over():
            work = folder / f"W{found.jobs}"
            argv = ("all", "--config", "job.py", "--workdir", work.name)
            before: dict = {}
            while True:
                process = commands.start(*argv)
                running = (
                    found.strikes < tries and not table.over() and job.after(process, drawn.uniform(0, LIFE * seconds))
                )
                stage, at = job.stage_of(work) if work.exists() else "start", time.monotonic()
                if running:
                    job.strike(process, number)
                code, said = commands.end()
                took = time.monotonic() - at
                found.lost = max([found.lost, *lost(before, said)])
                if code == 0:
                    break
                if not running:  # nobody struck it
                    found.bad.append(f"ended with {code}: {said.strip().splitlines()[-1]}")
                    break
                found.strikes += 1
                found.stages[stage] += 1
                found.slowest = max(found.slowest, took)
                if code != want_code or (within and took > within) or "Traceback" in said:
                    found.bad.append(f"{stage}: code {code} after {took:.1f} s: {said.strip().splitlines()[-1:]}")
                before = job.recorded(work)
                found.bad += [f"{stage}: no whole checkpoint after {n} steps" for n in unsafe(work, before)]
            different = [*job.differences(work, whole), *job.leftovers(work)] if code == 0 else ["not done"]
            found.jobs += 1
            found.equal += not different
            found.bad += [f"job {found.jobs}: {what}" for what in different]
            if not different:
                shutil.rmtree(work)
            print(f"{found.strikes} of {tries}: {dict(found.stages)} {found.bad}", file=sys.stderr, flush=True)
    finally:
        commands.close()
    return found


def lost(before: dict, said: str):
    """Steps on record at the strike that the next process had to do again, of each training that it went on with."""
    again = job.resumed(said)
    yield from (before[name] - step for name, step in again.items() if before.get(name, 0) > step)


def unsafe(work: Path, recorded: dict):
    """Trainings two saves along that have no checkpoint which verifies."""
    for name, step in recorded.items():
        folder = work / name / "checkpoints"
        if step >= 2 * job.EVERY + 1 and not any(verified(each) for each in folder.iterdir() if each.name.isdigit()):
            yield f"{name} {step}"


def verified(step: Path) -> bool:
    try:
        checkpoint.verify(step)
    except (OSError, ValueError):
        return False
    return True
