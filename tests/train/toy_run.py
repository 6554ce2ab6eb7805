"""Runs of the toy in processes of their own, which kill themselves.

Reads JSON lines [directory, steps, kill_at] and answers each with the exit code of the run (-9 for SIGKILL). Imports
cost seconds, so this process pays them once and forks a child per run; jax has no threads before it first computes.

kill_at: "n" dies (SIGKILL) when batch n is asked for; "save:n" dies right after the save of step n began, so while
it is written; "term:n" sends itself SIGTERM at batch n; "" runs through.
"""

import json
import os
import signal
import sys
import traceback
from pathlib import Path

import jax
import tensorboardX  # noqa: F401  (imported by the first log otherwise: once per run)
import toy

from moejax.runtime import sharding
from moejax.train import checkpoint, loop, optim, params_file, state


def main(directory, steps, kill_at):
    kind, _, number = kill_at.rpartition(":")
    number = int(number or -1)

    def on_next(n):
        if n == number and kind != "save":
            os.kill(os.getpid(), signal.SIGTERM if kind == "term" else signal.SIGKILL)

    save = checkpoint.Checkpointer.save

    def save_and_die(self, step, *rest):
        save(self, step, *rest)
        if kind == "save" and step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoint.Checkpointer.save = save_and_die
    mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
    optimizer, schedule = optim.make_optimizer(learning_rate=1e-2, steps=steps, warmup=2)
    fresh, frozen = state.init_state(toy.params(), toy.TRAINABLE, optimizer, jax.random.key(3))
    fresh, frozen, *shardings = state.place(fresh, frozen, optimizer, mesh)
    step = state.make_step(toy.loss, optimizer, mesh, *shardings, schedule=schedule)
    try:
        last = loop.fit(
            fresh,
            frozen,
            step,
            loop.Batches(toy.Batches(on_next)),
            loop.Cadence(steps, checkpoint_every=3, log_every=1),
            loop.Home(directory, progress=False),
        )
    except loop.Preempted as stop:
        sys.exit(stop.exit_code)
    flat = {path.replace("/", "."): array for path, array in params_file.flat_state(last).items()}
    params_file.save_params(Path(directory) / "last.safetensors", flat)


def serve():
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                main(*json.loads(line))
                code = 0
            except SystemExit as stop:
                code = stop.code
            except BaseException:
                traceback.print_exc()
                code = 1
            sys.stderr.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    serve()
