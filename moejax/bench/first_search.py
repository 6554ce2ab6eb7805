"""How long the first search takes in a process, and the next: `python -m moejax.bench.first_search [SIZE [DTYPE]]`."""

import dataclasses
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from moejax.bench import weights
from moejax.nn import functional
from moejax.tasks import asr


def main(size: str = "tiny", dtype: str = "float32") -> None:
    """Prints the seconds of tracing, of compiling, and of one run of greedy decoding (8 x 30 s, 64 tokens)."""
    from moejax.decode.greedy import greedy

    config = dataclasses.replace(weights.sized(size, 30.0), dtype=jnp.dtype(dtype))
    graphdef, params = asr.init(asr.build(config))
    params = jax.tree.map(lambda x: x.astype(dtype), params)
    states_BTD = np.zeros((8, config.max_source_positions, config.d_model), config.dtype)

    @jax.jit
    def search(params, states_BTD):
        model = functional.merge(graphdef, params)
        return greedy(model, states_BTD, [50258], max_tokens=64, eot=config.vocab_size - 1).tokens_BL

    marks = [time.perf_counter()]
    lowered = search.lower(params, states_BTD)
    marks.append(time.perf_counter())
    compiled = lowered.compile()
    marks.append(time.perf_counter())
    for _ in range(2):
        jax.block_until_ready(compiled(params, states_BTD))
        marks.append(time.perf_counter())
    traced, built, first, second = np.diff(marks)
    print(
        f"{size} {dtype}: traced {traced:.1f} s, compiled {built:.1f} s, first run {first:.2f} s, second {second:.3f} s"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
