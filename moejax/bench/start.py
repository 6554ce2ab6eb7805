"""A fresh process up to its first training step, `python -m moejax.bench.start OPTIONS`; prints {"seconds": ..}.

The time runs from the first trace to the end of the first step; imports and reading the weights come before it.
"""

import json
import sys
import time

from moejax.runtime import allocator, compilation


def main(options) -> None:
    allocator.keep_pages()
    compilation.keep_programs(options["cache"])
    import jax

    from moejax.bench import training

    step, now, frozen, batch = training.prepared(options)
    begun = time.perf_counter()
    jax.block_until_ready(step(now, frozen, batch))
    print(json.dumps({"seconds": time.perf_counter() - begun}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
