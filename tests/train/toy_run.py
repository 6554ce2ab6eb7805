"""A run of the toy in a process of its own, which kills itself: toy_run.py DIRECTORY STEPS KILL_AT.

KILL_AT: "n" dies (SIGKILL) when batch n is asked for; "save:n" dies right after the save of step n was started, so while it
is written; "term:n" sends itself SIGTERM at batch n; "" runs through.
"""

import os
import signal
import sys
from pathlib import Path

import jax
import toy

from moejax import sharding
from moejax.train import checkpoint, loop, optim, state


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
            state=fresh,
            frozen=frozen,
            step_fn=step,
            loader=toy.Batches(on_next),
            steps=steps,
            dir=directory,
            checkpoint_every=3,
            log_every=1,
            progress=False,
        )
    except loop.Preempted as stop:
        sys.exit(stop.exit_code)
    flat = {path.replace("/", "."): array for path, array in checkpoint.flat_state(last).items()}
    checkpoint.save_params(Path(directory) / "last.safetensors", flat)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3])
