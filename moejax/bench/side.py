"""The near end of a `worker`: starts the process, sends commands, waits with a limit."""

import contextlib
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from moejax.errors import Failed

ROOT = Path(__file__).parents[2]  # where `import moejax` finds this very copy


class SideError(Failed):
    """A side did not answer, died, or said that a job failed. The message is one line."""


class Side:
    """A process `python -m MODULE`, kept alive between commands. Use as a context manager or call `close`.

    `environment` is added to this process's.
    """

    def __init__(self, module: str, environment: dict[str, str] | None = None):
        self.module = module
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in close()
        read, write = os.pipe()
        paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(write)],
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            pass_fds=(write,),
            text=True,
            env={**os.environ, **(environment or {}), "PYTHONPATH": paths},
        )
        os.close(write)
        assert self.process.stdin is not None  # a pipe, as asked for above
        self.commands = self.process.stdin
        self.answers = read
        self.unread = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    @property
    def pid(self) -> int:
        return self.process.pid

    def ask(self, seconds: float, **command) -> dict:
        """The answer to one command. Errors: SideError when there is none in `seconds` (the process is ended), when the
        process is gone, or when it answers with an error.
        """
        try:
            self.commands.write(json.dumps(command) + "\n")
            self.commands.flush()
        except (BrokenPipeError, ValueError) as error:
            raise SideError(f"{self.module} is gone: {self.last_words()}") from error
        answer = json.loads(self._line(time.monotonic() + seconds, seconds, command))
        if "error" in answer:
            raise SideError(answer["error"])
        return answer

    def _line(self, deadline, seconds, command) -> bytes:
        while b"\n" not in self.unread:
            ready, _, _ = select.select([self.answers], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                self.close()
                raise SideError(f"{self.module} gave no answer to {command['do']} in {seconds:.0f} s")
            piece = os.read(self.answers, 65536)
            if not piece:
                self.process.wait()
                raise SideError(f"{self.module} ended with code {self.process.returncode}: {self.last_words()}")
            self.unread += piece
        line, _, self.unread = self.unread.partition(b"\n")
        return line

    def last_words(self) -> str:
        """The last line that the process printed."""
        if self.log.closed:
            return "it was ended"
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
        return lines[-1] if lines else "it printed nothing"

    def close(self) -> None:
        """Ends the process: first by closing its input, after two seconds by force."""
        with contextlib.suppress(BrokenPipeError):
            self.commands.close()
        try:
            self.process.wait(2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if not self.log.closed:
            self.log.close()
            os.close(self.answers)
