"""Stopped on one number of processes and gone on with another: one of four devices, two of two."""

import random
import shutil
import sys
from pathlib import Path

import job
import pair
import table
import training
from table import Row

CLOSE = 1e-6


def run(tries: int, folder: Path, seed: int) -> list[Row]:
    """`tries` in all, from one process to two and back in turns."""
    drawn, good, order_equal, done, notes = random.Random(seed), 0, 0, 0, []
    commands = [job.Commands(folder, loads="train"), job.Commands(folder, loads="train")]
    try:
        whole = folder / "whole"
        _train(commands[:1], whole)
        while done < tries and not table.over():
            work = folder / "moved"
            first, then = (commands[:1], commands) if done % 2 == 0 else (commands, commands[:1])
            stop = drawn.randint(2, training.STEPS - 2)
            problems = _train(first, work, fault=f"train.step:{stop}=term", want=75)
            problems += _train(then, work)
            different = training.differences(work, whole, CLOSE) if not problems else ["not done"]
            same = _order(work) == _order(whole)
            problems += different + job.leftovers(work) + ([] if same else ["the order of the data"])
            done, good, order_equal = done + 1, good + (not problems), order_equal + same
            notes += problems
            shutil.rmtree(work)
            print(f"{good} of {done} {problems}", file=sys.stderr, flush=True)
    finally:
        for each in commands:
            each.close()
    note = "; ".join([f"data order equal {order_equal} of {done}, numbers within {CLOSE:g}", *dict.fromkeys(notes)])
    return [Row("one process of 4 devices <-> two of 2", done, good, "none", "within 1e-6", note)]


def _train(commands, work, fault="", want=0) -> list[str]:
    """What went wrong with the training by one process of 4 devices, or two of 2."""
    work.mkdir(exist_ok=True)
    (work / "order.txt").touch()
    if len(commands) == 1:
        ended = [commands[0].run("train", work, 4, fault=fault)]
    else:
        pair.start(commands, work, 2, fault)
        ended = [each.end() for each in commands]
    return [f"code {code} instead of {want}: {said[-500:]}" for code, said in ended if code != want]


def _order(work) -> list[str]:
    """Every row of every batch that was read, by batch and place; a batch that was read twice stands once."""
    return sorted(set((work / "order.txt").read_text().splitlines()))
