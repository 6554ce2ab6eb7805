"""What a fault suite found: one row per fault, printed as text or markdown."""

import dataclasses
import time

COLUMNS = ("fault", "tries", "survived", "lost work", "bitwise equal", "note")


@dataclasses.dataclass(frozen=True)
class Row:
    """One kind of fault. `lost_work` and `bitwise` say "-" where nothing is trained."""

    fault: str
    tries: int
    survived: int
    lost_work: str = "-"  # the most that one fault cost, such as "3 of 4 steps"
    bitwise: str = "-"  # "200 of 200"
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        return self.fault, str(self.tries), str(self.survived), self.lost_work, self.bitwise, self.note


def markdown(rows: list[Row]) -> str:
    lines = [f"| {' | '.join(COLUMNS)} |", "|" + "---|" * len(COLUMNS)]
    return "\n".join([*lines, *(f"| {' | '.join(row.cells())} |" for row in rows), ""])


def text(rows: list[Row]) -> str:
    table = [COLUMNS, *(row.cells() for row in rows)]
    width = [max(len(line[i]) for line in table) for i in range(len(COLUMNS))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, width, strict=True)).rstrip() for line in table)


_end = float("inf")


def end_after(seconds: float) -> None:
    """Suites begin no further try when so much time has passed."""
    global _end
    _end = time.monotonic() + seconds


def over() -> bool:
    return time.monotonic() > _end
