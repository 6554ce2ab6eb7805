"""The command line: `moejax STAGE --config FILE --workdir W`, `moejax all ...`, `moejax transcribe FILE...`."""

import errno
import logging
import os
import sys

from moejax.commands import tree
from moejax.errors import Preempted, Refused

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)  # the file system says no, and not about which file
EXIT_BROKEN_PIPE = 141  # as if SIGPIPE had ended the process, which is what shells know


def main(argv=None) -> None:
    """Runs a command and leaves the process with its exit code."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("moejax").setLevel(logging.INFO)
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # orbax logs stacks of what it raises as well
    try:
        code = guarded(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()  # or a reader that went away is noticed only when the interpreter ends
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is still buffered goes nowhere
        code = EXIT_BROKEN_PIPE
    if argv is None and sys.argv[1:2] == ["transcribe"] and isinstance(code, int):
        sys.stderr.flush()
        os._exit(code)  # everything is written, and taking JAX apart costs a quarter of a second
    sys.exit(code)


def guarded(argv: list[str]) -> int | str:
    """What `sys.exit` is given after a command line; bad input is one line on stderr, a bug keeps its traceback."""
    try:
        return tree.run(argv)
    except SystemExit as stop:  # after --help; a signal
        return stop.code or 0
    except Exception as error:
        if isinstance(error, Preempted):
            print(f"moejax {argv[0]}: {error}", file=sys.stderr)
            return error.exit_code
        if "--traceback" in argv or not foreseen(error):
            raise
        print(f"moejax {argv[0]}: {' '.join(str(error).split())}", file=sys.stderr)
        return 1


def foreseen(error: Exception) -> bool:
    """Whether moejax refused something, or the file system said no; every other error is a bug."""
    if isinstance(error, OSError) and not isinstance(error, BrokenPipeError):
        return isinstance(error, Refused) or error.filename is not None or error.errno in DISK
    return isinstance(error, Refused)


if __name__ == "__main__":
    main()
