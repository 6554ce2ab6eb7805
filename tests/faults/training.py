"""One training in milliseconds a step, with all that a stage's training has: for faults that need many tries.

The model is that of tests/train/toy.py; step, loop, checkpoints, signals, watchdog and processes are the product's.
"""

import contextlib
import logging
import os
import shutil
import sys
import time
from pathlib import Path

import jax
import job
import numpy as np
import toy

from moejax.runtime import files, processes, sharding, stopping, watchdog
from moejax.train import checkpoint, loop, metrics, optim, params_file, state

STEPS, EVERY = 24, 4
PAUSE = 0.02  # seconds that a batch takes, or what FAULTS_PAUSE says


class Batches(toy.Batches):
    """This process's rows of the toy's batches, read slowly."""

    def __init__(self, mesh, order):
        super().__init__()
        self.part, self.parts = sharding.process_shard(mesh)
        self.order = order

    def __next__(self):
        time.sleep(float(os.environ.get("FAULTS_PAUSE", PAUSE)))
        batch = super().__next__()
        batch = {name: np.split(leaf, self.parts)[self.part] for name, leaf in batch.items()}
        if self.order is not None:  # appended in one piece, also by several processes
            rows = len(batch["x_BD"])
            lines = [f"{self.number - 1} {self.part * rows + i} {x_D.sum()!r}\n" for i, x_D in enumerate(batch["x_BD"])]
            with open(self.order, "a") as file:
                file.write("".join(lines))
        return batch


def main(folder, devices="1", heartbeat="30", limit="0"):
    """Trains in `folder`, on so many devices of each process; then writes params.safetensors."""
    logging.getLogger("moejax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # as the command line does
    jax.config.update("jax_num_cpu_devices", int(devices))
    folder = Path(folder)
    try:
        with watchdog.watching(float(limit)), stopping.listening("train", 25):
            processes.start(float(heartbeat))
            try:
                _train(folder)
            except Exception as error:
                processes.failed(error)
                raise
    except loop.Preempted as stop:
        print(stop, file=sys.stderr)
        sys.exit(stop.exit_code)
    except (OSError, ValueError) as error:
        print(f"moejax train: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)


def _train(folder):
    if processes.first():
        files.sweep(folder, within=False)  # as a stage does when it begins
    mesh = sharding.make_mesh({"data": -1})
    optimizer, schedule = optim.make_optimizer(learning_rate=1e-2, steps=STEPS, warmup=2)
    fresh, frozen = state.init_state(toy.params(), toy.TRAINABLE, optimizer, jax.random.key(3))
    fresh, frozen, *shardings = state.place(fresh, frozen, optimizer, mesh)
    step = state.make_step(toy.loss, optimizer, mesh, *shardings, schedule=schedule)
    order = folder / "order.txt" if (folder / "order.txt").exists() else None
    last = loop.fit(
        fresh,
        frozen,
        step,
        loop.Batches(Batches(mesh, order), lambda batch: sharding.shard_batch(batch, mesh)),
        loop.Cadence(STEPS, checkpoint_every=EVERY, log_every=1),
        loop.Home(folder, "train", {"base": params_file.digest_of(frozen)}, progress=False),
    )
    params_file.save_params(folder / "params.safetensors", last.params)


def recorded(folder: Path) -> int:
    """The newest step on record."""
    file = folder / metrics.FILE
    return max((record["step"] for record in metrics.read(file)), default=0) if file.exists() else 0


def saved(folder: Path) -> list[int]:
    """Steps of the checkpoints that verify."""
    found = []
    for step in sorted(int(p.name) for p in (folder / "checkpoints").glob("*") if p.name.isdigit()):
        with contextlib.suppress(OSError, ValueError):
            checkpoint.verify(folder / "checkpoints" / str(step))
            found.append(step)
    return found


def differences(one: Path, other: Path, close: float = 0.0) -> list[str]:
    """What two finished trainings do not share bit for bit, or where numbers may differ by `close`."""

    def same(left, right):
        return job.same_bits(left, right) if not close else np.allclose(left, right, rtol=0, atol=close)

    left, right = (job.arrays_of(folder / "checkpoints" / str(STEPS)) for folder in (one, other))
    found = [path for path in left if not same(left[path], right[path])]
    records = [metrics.read(folder / metrics.FILE) for folder in (one, other)]
    for record in (*records[0], *records[1]):
        del record["seconds"]
    if [record["step"] for record in records[0]] != list(range(1, STEPS + 1)):
        found.append("the steps in metrics.jsonl")
    if not close and records[0] != records[1]:
        found.append("metrics.jsonl")
    if not close and (one / "params.safetensors").read_bytes() != (other / "params.safetensors").read_bytes():
        found.append("params.safetensors")
    return found


def whole(commands, folder: Path) -> Path:
    """The training left alone."""
    place = folder / "whole"
    shutil.rmtree(place, ignore_errors=True)
    code, said = commands.run("train", place)
    if code:
        raise RuntimeError(f"the training does not run: {said}")
    return place


def address(index: int, count: int, port: int) -> dict:
    """The environment of one of several processes."""
    where = f"localhost:{port}"
    return {"MOEJAX_COORDINATOR": where, "MOEJAX_PROCESSES": str(count), "MOEJAX_PROCESS": str(index)}
