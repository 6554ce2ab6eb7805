"""What a fault suite found: one row per fault, printed as text or markdown."""

import dataclasses
import sys
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


class Tally:
    """Rows of several faults that are tried in turns, so that a run that is cut short has seen each."""

    def __init__(self):
        self._found: dict[str, dict] = {}

    def add(self, fault: str, problems: list[str], different: list[str], lost: int = 0, seconds: float = 0.0) -> None:
        """One try: what went wrong beside the bits, what is not the same, steps done again, how long it took to end."""
        found = self._found.setdefault(fault, dict(tries=0, good=0, equal=0, lost=0, seconds=0.0, notes=[]))
        found["tries"] += 1
        found["good"] += not (problems or different)
        found["equal"] += not different
        found["lost"], found["seconds"] = max(found["lost"], lost), max(found["seconds"], seconds)
        found["notes"] += [*problems, *different]
        print(f"{fault}: {found['good']} of {found['tries']} {problems} {different}", file=sys.stderr, flush=True)

    def rows(self, every: int = 0, note=lambda seconds: "") -> list[Row]:
        """`every`: steps from save to save; `note(longest seconds)` comes before what went wrong."""
        saved = f" steps (saved every {every})" if every else ""
        return [
            Row(
                fault,
                found["tries"],
                found["good"],
                f"{found['lost']}{saved}" if every else "none",
                f"{found['equal']} of {found['tries']}",
                "; ".join(part for part in (note(found["seconds"]), *dict.fromkeys(found["notes"])) if part),
            )
            for fault, found in self._found.items()
        ]


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
