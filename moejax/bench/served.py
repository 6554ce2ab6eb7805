"""A server in a process of its own, and clients that ask it all at once."""

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from moejax.bench import load
from moejax.errors import Failed

ROUTE = "/audio/transcriptions"
BOUNDARY = "moejax-bench-5c1d0f"
NAME = "bench"  # what the model is called
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # no proxy between this machine and itself


class ServerError(Failed):
    """A server that did not come up, or did not answer. The message is one line."""


@dataclasses.dataclass(frozen=True)
class Load:
    """`texts` in the order of the files, `waits` seconds of each client, `seconds` until the last answer; `processor`
    seconds of the server, `others`: cores that all but it and the clients used (None where nobody keeps the books).
    """

    texts: list[str]
    waits: list[float]
    seconds: float
    processor: float | None
    others: float | None

    @property
    def clean(self) -> bool:
        return self.others is None or self.others < load.LIMIT


class Served:
    """A server from its start on. `started`: seconds until it took requests; `address`: as it printed it."""

    def __init__(self, argv: list[str], environment: dict[str, str], limit: float):
        """Waits until it prints an address that begins with http. Errors: ServerError after `limit` seconds, or when
        it ends.
        """
        self.limit, begun = limit, time.perf_counter()
        self.log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed in close()
        asked = {**os.environ, **environment}
        asked.pop("PYTHONDONTWRITEBYTECODE", None)  # what is installed has its byte code beside it
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=self.log, text=True, env=asked)
        clock = threading.Timer(limit, self.process.kill)
        clock.start()
        try:
            self.address = self._address()
        except BaseException:
            self.close()
            raise
        finally:
            clock.cancel()
        self.started = time.perf_counter() - begun

    def _address(self) -> str:
        assert self.process.stdout is not None  # a pipe, as asked for above
        for line in self.process.stdout:
            if line.startswith("http"):
                return line.split()[0]
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().splitlines() if line.strip()]
        raise ServerError(f"the server ended with code {self.process.wait()}: {lines[-1] if lines else 'said nothing'}")

    def ask(self, file: Path, language: str) -> tuple[str, float]:
        """(text, seconds) of one recording. Errors: ServerError."""
        fields = {"model": NAME, "language": language, "response_format": "json"}
        body = form(fields, file.name, file.read_bytes())
        asked = urllib.request.Request(self.address + ROUTE, body)
        asked.add_header("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        begun = time.perf_counter()
        try:
            with DIRECT.open(asked, timeout=self.limit) as answer:
                text = json.load(answer)["text"]
        except urllib.error.HTTPError as error:
            said = " ".join(error.read(300).decode(errors="replace").split())
            raise ServerError(f"answer {error.code}: {said}") from error
        except (OSError, ValueError) as error:
            raise ServerError(f"no answer: {error}") from error
        return " ".join(text.split()), time.perf_counter() - begun

    def load(self, files: Sequence[Path], language: str, clients: int) -> Load:
        """All files, each asked for by a client of its own, `clients` of them at once. Errors: ServerError."""
        meter = load.Meter() if load.available() else None
        before = load.process_seconds(self.process.pid) if meter else 0.0
        if meter:
            meter.begin(self.process.pid)
        begun = time.perf_counter()
        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            found = list(pool.map(lambda file: self.ask(file, language), files))
        seconds = time.perf_counter() - begun
        used = load.process_seconds(self.process.pid) - before if meter else None
        texts, waits = map(list, zip(*found, strict=True))
        return Load(texts, waits, seconds, used, meter.others() if meter else None)

    def close(self):
        """Ends it, by force after a while."""
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(10)
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.log.close()


def form(fields: dict[str, str], name: str, content: bytes) -> bytes:
    """The body of a form with a file."""
    head = "".join(
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'
        for key, value in fields.items()
    )
    file = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
    return f"{head}{file}Content-Type: audio/wav\r\n\r\n".encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
