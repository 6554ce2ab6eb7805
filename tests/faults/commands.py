"""The command line in processes of its own that can be killed.

Reads JSON lines {"argv": [..], "fault": MOEJAX_FAULT, "folder": .., "environment": ..}, forks a child that runs
`moejax argv` (or, for `train FOLDER ..`, the training of training.py), and answers with two lines: the child's process
id, then its exit code (-9 for SIGKILL), what it wrote to stderr and the seconds of processor time that it took, as
JSON. Imports cost seconds, so this process pays them once; jax has no threads before it first computes.
"""

import atexit
import json
import os
import sys
import tempfile

import tensorboardX  # noqa: F401  (as the others below: imported when first wanted otherwise, once per run)
import training

from moejax import __main__ as cli
from moejax.runtime import faults

if "stages" in sys.argv:
    import hdbscan  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import transformers.models.whisper  # noqa: F401

    import moejax.job.stages  # noqa: F401


def child(task, stderr):
    """Runs one command and leaves."""
    os.dup2(stderr.fileno(), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.chdir(task["folder"])
    os.environ.update(task["environment"])
    faults.arm(task.get("fault", ""))
    try:
        if task["argv"][0] == "train":
            training.main(*task["argv"][1:])
        else:
            cli.main(task["argv"])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(70)
    atexit._run_exitfuncs()  # several processes take leave of each other there
    os._exit(code)


def serve():
    for line in sys.stdin:
        with tempfile.TemporaryFile() as stderr:
            process = os.fork()
            if process == 0:
                child(json.loads(line), stderr)
            print(process, flush=True)
            _, status, used = os.wait4(process, 0)
            stderr.seek(0)
            said = stderr.read().decode(errors="replace")
            code = os.waitstatus_to_exitcode(status)
            print(json.dumps([code, said, used.ru_utime + used.ru_stime]), flush=True)


if __name__ == "__main__":
    serve()
