"""What DeepL answered, on disk: one file a text, by a digest of text, languages and options."""

import contextlib
import fcntl
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from moejax.mt.deepl_errors import TranslationError
from moejax.runtime.files import replacing


class Cache:
    """`folder` may be shared by any number of runs, also at the same time."""

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder).expanduser()

    def read(self, identity: dict) -> str | None:
        """The translation, None where there is none. Errors: `TranslationError` naming a file that is damaged."""
        path = self._file(identity)
        try:
            return json.loads(path.read_text(encoding="utf-8"))["translation"]
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise TranslationError(f"unreadable cache file {path}: delete it to translate its text again") from error
        except OSError as error:
            raise TranslationError(f"cache file {path} cannot be read ({error.strerror or error})") from error

    def write(self, answers: Sequence[tuple[dict, dict]]) -> None:
        """Stores (identity, {"translation": ..., more}) of a whole response: under their names as fast as can be, for a
        kill between two of them would have the rest translated again; then safe from a loss of power.
        """
        paths = []
        for identity, answer in answers:
            paths.append(path := self._file(identity))
            with replacing(path, sync=False) as partial:
                # As ASCII: what cannot be encoded must not be lost after it was paid for
                partial.write_text(json.dumps({**identity, **answer}), encoding="ascii")
        for path in paths:
            with open(path, "rb") as file:
                os.fsync(file.fileno())

    def ready(self) -> None:
        """Errors: `TranslationError` where nothing could be stored, so that nothing is paid for in vain."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".", suffix=".tmp") as file:
                file.write(b"x" * 4096)
                file.flush()
        except OSError as error:
            reason = error.strerror or error
            raise TranslationError(
                f"the cache {self.folder} cannot be written to ({reason}), so nothing is sent to DeepL; give another"
            ) from error

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Waits until no other run is between a request and its storing: two runs do not pay for one text."""
        with open(self.folder / ".lock", "ab") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.flock(file, fcntl.LOCK_EX)
            yield  # a lock goes with its process, however that ends

    def _file(self, identity: dict) -> Path:
        key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        return self.folder / key[:2] / f"{key}.json"
