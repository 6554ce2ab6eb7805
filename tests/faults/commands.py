"""The command line in processes of its own that can be killed.

Reads JSON lines, each the arguments of one `moejax` command, forks a child that runs it, and answers with two lines:
the child's process id, then its exit code (-9 for SIGKILL) and what it wrote to stderr, as JSON. Imports cost seconds,
so this process pays them once; jax has no threads before it first computes.
"""

import json
import os
import sys
import tempfile

import tensorboardX  # noqa: F401  (imported by the first log otherwise: once per run)

from moejax import __main__ as cli
from moejax.stages import run as graph

graph.stage_modules()


def child(argv, stderr):
    """Runs one command and leaves."""
    os.dup2(stderr.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    try:
        cli.main(argv)
    except SystemExit as stop:
        os._exit(stop.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(70)


def serve():
    for line in sys.stdin:
        with tempfile.TemporaryFile() as stderr:
            process = os.fork()
            if process == 0:
                child(json.loads(line), stderr)
            print(process, flush=True)
            code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
            stderr.seek(0)
            print(json.dumps([code, stderr.read().decode()]), flush=True)


if __name__ == "__main__":
    serve()
