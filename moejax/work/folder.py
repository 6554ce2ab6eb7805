"""The workdir: stages that know whether they are finished.

A stage is finished when its `done.json` stands and the digest in it equals the digest of what the stage depends on now:
its config sections, the seed, what it reads from outside, and what the stages before it pass on (`job/graph.py`).
`started.json` carries the same digest while a stage runs, so that half-trained checkpoints are resumed only by the run
that they belong to.
"""

import hashlib
import json
import os
import shutil
import sys
import time
from pathlib import Path

from tqdm import tqdm

from moejax.errors import BadValue, NotAFolder
from moejax.runtime import faults, processes, watchdog
from moejax.runtime.files import link, read_json, sweep, write_json

LOG_EVERY = 60.0  # seconds between two lines of progress where there is no terminal
VARIANTS = "variants"  # below a study's workdir, those of its runs


def digest(value) -> str:
    """12 hex digits of SHA-256 over canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def flatten(tree: dict, prefix: str = "") -> dict:
    """{"a.b": leaf}; lists stay leaves."""
    flat = {}
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        flat.update(flatten(value, path) if isinstance(value, dict) and value else {path: value})
    return flat


def nest(flat: dict) -> dict:
    """Inverse of `flatten`."""
    nested: dict = {}
    for path, value in flat.items():
        *sections, key = path.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    return nested


class Work:
    """One run's folder, its log and its progress bars. The folder is made by what is first written to it.

    Errors: NotADirectoryError where a file stands.
    """

    def __init__(self, root, quiet: bool = False):
        self.root = Path(root)
        for place in (self.root, *self.root.parents):
            if place.exists() and not place.is_dir():
                raise NotAFolder(f"workdir {self.root}: {place} is a file; a workdir is a folder, or not there")
        self.quiet = quiet

    def path(self, *parts) -> Path:
        return self.root.joinpath(*parts)

    @property
    def study(self) -> Path:
        """The workdir of the study that this is a run of (`job.study`: W/variants/...), or this one."""
        root = self.root.absolute()
        above = [folder.parent for folder in root.parents if folder.name == VARIANTS]
        return next((folder for folder in reversed(above) if (folder / "config.json").is_file()), root)

    def log(self, message: str) -> None:
        """Prints, and appends to W/log.txt."""
        watchdog.beat()
        if not processes.first():
            return
        if not self.quiet:
            tqdm.write(message, file=sys.stdout)
            sys.stdout.flush()
        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.path("log.txt"), "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}\n")

    def progress(self, iterable, total=None, desc: str = ""):
        """Progress bar with ETA on a terminal, else a line in the log every `LOG_EVERY` seconds: a job of a cluster
        says how far it is, too. Each item is a sign of life.
        """
        terminal = sys.stderr.isatty()
        shown = tqdm(iterable, total=total, desc=desc, disable=self.quiet or not terminal, mininterval=1.0, leave=False)
        begun = said = time.monotonic()
        for done, item in enumerate(shown):
            watchdog.beat()
            if not terminal and done and (now := time.monotonic()) - said >= LOG_EVERY:
                said = now
                self.log(f"  {desc}: {_so_far(done, total, now - begun)}")
            yield item

    def finished(self, stage: str) -> dict | None:
        """The stage's done.json, or None."""
        file = self.path(stage, "done.json")
        return read_json(file) if file.exists() else None

    def why_run(self, stage: str, inputs: dict) -> str | None:
        """None when the stage is finished for these inputs, else the reason to run it, in one line."""
        done = self.finished(stage)
        if done is None:
            started = self.path(stage, "started.json")
            return "resuming" if started.exists() and read_json(started)["digest"] == digest(inputs) else "not done yet"
        if done["digest"] == digest(inputs):
            return None
        return difference(done["inputs"], inputs)

    def begin(self, stage: str, inputs: dict, force: bool = False, keep: bool = False) -> None:
        """Marks the stage as started; what an earlier run with other inputs left is removed, unless told to `keep` it.

        Errors: ValueError where that is a training that was not finished, naming what changed; `force` removes it too.
        """
        folder = self.path(stage)
        started = folder / "started.json"
        if self._is_of_others(stage, inputs, force) and folder.exists() and not keep:
            faults.point("stage.clearing")
            started.unlink(missing_ok=True)  # first: a half-removed stage must not look like one that was stopped
            shutil.rmtree(folder)
        sweep(folder)
        (folder / "done.json").unlink(missing_ok=True)
        write_json(started, {"digest": digest(inputs), "inputs": inputs})
        faults.point("stage.started")

    def join(self, stage: str, inputs: dict) -> bool:
        """`begin` of one of many who write a part of the stage each, none of whom removes anything; whether the stage
        is finished already. Errors: BadValue where it was begun or finished for other inputs.
        """
        done, started = self.finished(stage), self.path(stage, "started.json")
        before = done or (read_json(started) if started.exists() else None)
        if before and before["digest"] != digest(inputs):
            raise BadValue(
                f"{self.path(stage)} was begun for something else ({difference(before.get('inputs', {}), inputs)}):"
                f" remove it, or take another workdir"
            )
        if not before:
            write_json(started, {"digest": digest(inputs), "inputs": inputs})
        return done is not None

    def _is_of_others(self, stage: str, inputs: dict, force: bool) -> bool:
        """Whether what lies in the stage's folder belongs to other inputs. Errors: as `begin`."""
        folder = self.path(stage)
        started = folder / "started.json"
        before = read_json(started) if started.exists() else None
        if before and before["digest"] == digest(inputs):
            return False
        if before and not force and not (folder / "done.json").exists() and steps_below(folder):
            raise BadValue(
                f"{folder} holds a training that is not finished (step {max(steps_below(folder))} is saved), "
                f"and the config is another ({difference(before.get('inputs', {}), inputs)}): run it as it was, "
                "take another workdir, or say --force to begin the stage anew"
            )
        return True

    def take_over(self, stage: str, donor: "Work", inputs: dict, force: bool = False) -> None:
        """Makes a stage that `donor` has finished this workdir's own, whole or not at all, by hard links (copies where
        the file system has none), so that it stays whatever becomes of the donor. Checkpoints stay behind: nobody
        resumes what is finished. Errors: as `begin`.
        """
        self._is_of_others(stage, inputs, force)
        temporary, folder = self.path(f".{stage}.tmp"), self.path(stage)
        for old in (temporary, folder):
            if old.exists():
                shutil.rmtree(old)
        left = shutil.ignore_patterns("checkpoints")
        shutil.copytree(donor.path(stage), temporary, copy_function=link, ignore=left)
        os.replace(temporary, folder)

    def abandon(self, stage: str) -> None:
        """Takes the mark of `begin` back when the stage has left nothing else."""
        folder = self.path(stage)
        if folder.is_dir() and [file.name for file in folder.iterdir()] == ["started.json"]:
            shutil.rmtree(folder)

    def finish(self, stage: str, inputs: dict, seconds: float, summary: dict, **more) -> None:
        faults.point("stage.finish")
        write_json(
            self.path(stage, "done.json"),
            {"digest": digest(inputs), "seconds": round(seconds, 2), "summary": summary, "inputs": inputs, **more},
        )
        faults.point("stage.finished")


def steps_below(folder: Path) -> list[int]:
    """Steps of checkpoints in a stage's folder."""
    return [int(path.name) for path in folder.rglob("checkpoints/*") if path.name.isdigit()]


def difference(old: dict, new: dict) -> str:
    """What changed between two flat dicts of inputs, as a reason to run again."""
    changed = []
    for key in sorted(set(old) | set(new)):
        before, after = old.get(key, "absent"), new.get(key, "absent")
        if json.dumps(before, sort_keys=True, default=str) != json.dumps(after, sort_keys=True, default=str):
            changed.append(f"{key} {before} -> {after}")
    shown = "; ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    return f"changed: {shown}"


def _so_far(done: int, total: int | None, seconds: float) -> str:
    """How far a loop is, and how long it will take at the pace that it had."""
    took = tqdm.format_interval(seconds)
    return (
        f"{done} of {total}, {took} so far, {tqdm.format_interval(seconds * (total - done) / done)} to go"
        if total
        else f"{done}, {took} so far"
    )
