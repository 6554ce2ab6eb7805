"""Damaged checkpoints: one flipped bit, a cut, zeros, a file deleted, in any file of the newest steps."""

import contextlib
import logging
import os
import random
import shutil
from pathlib import Path

import jax
import job
import numpy as np
import table
from table import Row

from moejax.runtime import sharding
from moejax.train import checkpoint, params_file, state

RESTORED = 20  # one try in so many goes on to read the arrays; all others end with the step that was chosen
STEPS = (2, 4, 6, 8)


def flip(path, drawn):
    data = bytearray(path.read_bytes())
    data[drawn.randrange(len(data))] ^= 1 << drawn.randrange(8)
    path.write_bytes(data)


def cut(path, drawn):
    os.truncate(path, drawn.randrange(path.stat().st_size))


def zero(path, drawn):
    size = path.stat().st_size
    begin = drawn.randrange(size)
    with open(path, "r+b") as file:
        file.seek(begin)
        file.write(bytes(drawn.randint(1, size - begin)))


def delete(path, drawn):
    del drawn
    path.unlink()


DAMAGES = {"one flipped bit": flip, "cut": cut, "zeroed": zero, "deleted": delete}


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    """`tries` damages in all, the kinds in turn; in one try in four the next newest step is damaged as well."""
    drawn = random.Random(seed)
    template, saved = _save(folder / "whole")
    logging.getLogger("moejax").setLevel(logging.CRITICAL)  # two lines for each of thousands of tries
    rows = []
    for number, (name, damage) in enumerate(DAMAGES.items()):
        done = good = 0
        wrong = []
        while done < tries // len(DAMAGES) + (number < tries % len(DAMAGES)) and not table.over():
            work = shutil.copytree(folder / "whole", folder / "damaged", copy_function=os.link)
            hurt = {max(STEPS): None} | ({STEPS[-2]: None} if done % 4 == 3 else {})
            for step in hurt:
                hurt[step] = _hurt(work / str(step), damage, drawn)
            if None in hurt.values():  # zeros in the place of zeros
                shutil.rmtree(work)
                continue
            want = max(set(STEPS) - set(hurt))
            problem = _look(work, template, want, saved if done % RESTORED == 0 else None)
            done, good = done + 1, good + (problem is None)
            wrong += [f"{hurt}: {problem}"] if problem else []
            shutil.rmtree(work)
        rows.append(
            Row(f"checkpoint damaged: {name}", done, good, bitwise=f"{good} of {done}", note="; ".join(wrong[:3]))
        )
    return rows


def _save(folder):
    """(template, {step: arrays}) of steps of a state with optimizer, counters and key."""
    rng = np.random.default_rng(0)
    params = {"expert": {str(i): {"A": rng.normal(size=(3, 16, 2)).astype(np.float32)} for i in range(3)}}
    optimizer = job.optimizer()
    now, _ = state.init_state(params, ("expert",), optimizer, jax.random.key(1))
    now, *_ = state.place(now, {}, optimizer, sharding.make_mesh({}, jax.devices()[:1]))
    saved = {}
    with contextlib.closing(checkpoint.Checkpointer(folder, keep=len(STEPS))) as io:
        for step in STEPS:
            now = jax.tree.map(lambda leaf: leaf * 1.5 if leaf.dtype == np.float32 else leaf, now)
            saved[step] = {path: np.array(leaf) for path, leaf in params_file.flat_state(now).items()}
            io.save(step, now, {"batch": step}, {"identity": {}})
    return now, saved


def _hurt(step, damage, drawn):
    """The file of a step that was damaged (a copy: others share theirs with the whole one), None if unchanged."""
    path = drawn.choice(sorted(file for file in step.rglob("*") if file.is_file() and file.stat().st_size))
    before = path.read_bytes()
    path.unlink()
    path.write_bytes(before)
    damage(path, drawn)
    return path.name if not path.exists() or path.read_bytes() != before else None


def _look(work, template, want, saved):
    """What is wrong with what the loader does, or None."""
    with contextlib.closing(checkpoint.Checkpointer(work, keep=len(STEPS))) as io:
        if saved is None:
            found = io.newest_verified()
            return None if found == want else f"step {found} instead of {want}"
        found, data, _ = io.restore_latest(template)
    flat = params_file.flat_state(found)
    if data != {"batch": want} or any(not job.same_bits(flat[path], saved[want][path]) for path in saved[want]):
        return f"restored {data}, not the bits of {want}"
    return None
