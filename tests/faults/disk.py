"""A disk that is full, read-only or not ours, under a training that is half done."""

import contextlib
import random
import shutil
import subprocess
import time
from pathlib import Path

import disturb
import job
import table
from table import Row

STAGE = "experts"
AT_ONCE = 30.0  # seconds
# root may write anywhere, unless it gives that up
WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all")


@contextlib.contextmanager
def mounted(folder: Path, megabytes: int):
    """A small file system of its own; wants root."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


@contextlib.contextmanager
def full(disk: Path, drawn):
    """A file takes all but a few blocks."""
    filler = disk / "filler"
    step = max((p for p in disk.glob(f"W/{STAGE}/checkpoints/*") if p.name.isdigit()), key=lambda p: int(p.name))
    room = drawn.randrange(sum(p.stat().st_size for p in step.rglob("*") if p.is_file()))
    free = shutil.disk_usage(disk).free
    with open(filler, "wb") as file:
        for _ in range(max(0, free - room) // 4096):
            file.write(bytes(4096))
    try:
        yield "No space left"
    finally:
        filler.unlink()


@contextlib.contextmanager
def read_only(disk: Path, drawn):
    del drawn
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield "Read-only file system"
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)


@contextlib.contextmanager
def denied(disk: Path, drawn):
    """The folder of the checkpoints, of the stage, or the workdir may not be written to."""
    folder = disk / drawn.choice(["W", f"W/{STAGE}", f"W/{STAGE}/checkpoints"])
    files = [folder, *(path for path in folder.rglob("*") if path.is_dir()), *folder.glob("*.txt")]
    modes = [path.stat().st_mode for path in files]
    for path in files:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield "Permission denied"
    finally:
        for path, mode in zip(files, modes, strict=True):
            path.chmod(mode)


FAULTS = {"disk full": full, "disk read-only": read_only, "permission denied": denied}


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    """`tries` in all, the faults in turn."""
    drawn, tally = random.Random(seed), table.Tally()
    job.make(folder)
    helpers = {
        fault: job.Commands(folder, prefix=WITHOUT_RIGHTS if fault is denied else ()) for fault in FAULTS.values()
    }
    try:
        whole, _ = job.undisturbed(folder, helpers[full], STAGE)
        for name, fault in [each for _ in range(tries) for each in FAULTS.items()][:tries]:
            if table.over():
                break
            with mounted(folder / "disk", 64) as disk:
                tally.add(name, *_once(helpers[fault], folder, disk, whole, fault, drawn))
    finally:
        for commands in helpers.values():
            commands.close()
    return tally.rows()


def _once(commands, folder, disk, whole, fault, drawn) -> tuple[list[str], list[str]]:
    """(what went wrong, what is not the same) of one training that was stopped, met the fault, and went on without."""
    shutil.copytree(folder / "corpus", disk / "corpus")
    shutil.copy(folder / "job.py", disk)
    work = shutil.copytree(whole, disk / "W")
    shutil.rmtree(work / STAGE)
    argv, problems = (STAGE, "--config", "job.py", "--workdir", "W"), []
    stop = drawn.randint(job.EVERY, job.TRAINED[STAGE] - job.EVERY)
    code, said = commands.run(*argv, fault=f"train.step:{stop}=term", folder=disk)
    if code != 75:
        return [f"not stopped: {code} {said[-300:]}"], ["not done"]
    steps = sorted(path for path in work.glob(f"{STAGE}/checkpoints/*") if path.name.isdigit())
    with fault(disk, drawn) as reason:
        began = time.monotonic()
        code, said = commands.run(*argv, folder=disk)
        took = time.monotonic() - began
    last = said.strip().splitlines()[-1:]
    if code != 1 or not last or reason not in last[0] or "Traceback" in said or took > AT_ONCE:
        problems.append(f"code {code} after {took:.0f} s: {said[-2000:]}")
    if not all(disturb.verified(step) for step in steps[-1:]):
        problems.append("the last step is not intact")
    code, said = commands.run(*argv, folder=disk)
    if code:
        return [*problems, f"does not go on: {said[-300:]}"], ["not done"]
    return problems + job.leftovers(work), job.differences(work, whole, ("base", "gate", STAGE))
