"""What is wrong with a recording, and what comes of it: a corpus refuses it, a transcription hears what is there."""

import csv
import io
from collections.abc import Iterable, Mapping

from moejax.errors import BadValue

REASONS = (
    *("unreadable", "truncated", "wrong_length", "empty", "wrong_shape", "wrong_scale", "nan", "silent", "too_short"),
    *("too_long", "no_text", "text_too_long"),
)


class Rejected(BadValue):
    """A recording that cannot be used: `reason` is one of REASONS, `what` one line for a person, `name` the file's."""

    def __init__(self, reason: str, what: str, name: str = ""):
        what = what.removeprefix(f"{reason}: ")
        super().__init__(f"{reason}: {name}: {what}" if name else f"{reason}: {what}")
        self.reason, self.what, self.name = reason, what, name

    @property
    def detail(self) -> str:
        """What is wrong with which file."""
        return f"{self.name}: {self.what}" if self.name else self.what


def listing(rejected: Iterable[Mapping]) -> str:
    """CSV of {id, reason, detail} of recordings that were left out."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, ("id", "reason", "detail"), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rejected)
    return stream.getvalue()


class Undecodable(BadValue):
    """`reason` is one of REASONS, `detail` in one line."""

    def __init__(self, reason: str, detail: str):
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Flaws:
    """Collects the flaws of one recording. `whole`: it is wanted whole or not at all, so the first flaw is raised."""

    def __init__(self, whole: bool = True):
        self.whole = whole
        self.lines: list[str] = []

    def add(self, reason: str, detail: str):
        """Errors: `Undecodable` where the recording is wanted whole."""
        if self.whole:
            raise Undecodable(reason, detail)
        if detail not in self.lines:  # a recording whose channels cancel is read twice
            self.lines.append(detail)
