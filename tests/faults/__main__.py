"""The long form of the fault suite: `python -m tests.faults --all` prints one table.

A suite is a module of this folder with `run(tries, folder, seed) -> list[Row]`: `tries` are those of one fault,
`folder` is empty and its own. A row whose `survived` is less than its `tries` makes the exit code 1.
"""

import argparse
import datetime
import importlib
import logging
import os
import sys
import tempfile
import time
from pathlib import Path

# before jax is imported anywhere; the tests of the tiny job use the same cache
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "faults"), str(ROOT / "train")]  # as pytest does for these folders

# Name of the module, and how many tries it is run with unless --tries says otherwise.
SUITES = {
    "kill": 200,
    "save": 5,
    "term": 60,
    "pair": 10,
    "topology": 6,
    "damage": 3000,
    "disk": 10,
    "audio": 5000,
    "configs": 2000,
    "manifests": 2000,
    "weights": 400,
}


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="run every suite")
    parser.add_argument("--only", action="append", default=[], choices=SUITES, help="run this one (may be repeated)")
    parser.add_argument("--tries", type=int, help="tries of every fault, instead of each suite's own number")
    parser.add_argument("--minutes", type=float, help="no further try is begun after so many minutes of each suite")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and damages that are drawn")
    parser.add_argument("--folder", type=Path, help="where to work, and what to keep; else a temporary folder")
    parser.add_argument("--output", type=Path, help="file for the table, in markdown")
    options = parser.parse_args(argv)
    chosen = list(SUITES) if options.all else options.only
    if not chosen:
        parser.error("say --all, or --only NAME")
    import table

    logging.getLogger("moejax").setLevel(logging.ERROR)
    rows = []
    with tempfile.TemporaryDirectory(prefix="moejax-faults-") as temporary:
        for name in chosen:
            folder = (options.folder or Path(temporary)) / name
            folder.mkdir(parents=True, exist_ok=True)
            start = time.perf_counter()
            if options.minutes:
                table.end_after(60 * options.minutes)
            found = importlib.import_module(name).run(options.tries or SUITES[name], folder, options.seed)
            print(f"{table.text(found)}\n{name}: {time.perf_counter() - start:.0f} s\n", flush=True)
            rows += found
            if options.output:
                said = f"`python -m tests.faults {' '.join(sys.argv[1:] if argv is None else argv)}`"
                today = datetime.datetime.now(datetime.UTC).date()
                options.output.write_text(f"{said}, {today}\n\n{table.markdown(rows)}", encoding="utf-8")
    print(table.text(rows))
    return int(any(row.survived < row.tries for row in rows))


if __name__ == "__main__":
    sys.exit(main())
