"""What is in a corpus: counts by part, cohort and speaker, and what test and dev share with the rest; as data and as
markdown.
"""

import collections
import unicodedata
from collections.abc import Sequence

import numpy as np

from moejax.data import splits
from moejax.data.manifest import SPLITS, Manifest
from moejax.data.strings import codes


def summarise(manifest: Manifest, skipped: list[dict], fixes: dict, recordings: Sequence[str]) -> dict:
    """Everything that is reported: counts, one row per split, cohort and speaker, and the leakage table."""
    columns = {name: manifest.strings(name) for name in ("id", "text", "speaker", "prompt", "split")}
    return {
        **{"utterances": len(manifest), "hours": _hours(manifest.column("seconds"))},
        "silence": _silence(manifest, slice(None)),
        "sample": int(manifest.column("sample").sum()),
        "skipped": dict(collections.Counter(entry["reason"] for entry in skipped)),
        "fixes": dict(fixes),
        "split": _group_rows(manifest, ("split",)),
        "cohort": _group_rows(manifest, ("cohort",)),
        "speaker": _group_rows(manifest, ("cohort", "speaker")),
        "leakage": splits.leakage(columns, recordings),
    }


def _hours(seconds: np.ndarray) -> float:
    return round(float(seconds.sum()) / 3600, 4)


def _silence(manifest: Manifest, rows) -> float:
    """Share of the time, so weighted by length."""
    seconds = manifest.column("seconds")[rows]
    return round(float((manifest.column("silence")[rows] * seconds).sum() / max(seconds.sum(), 1e-9)), 4)


def _group_rows(manifest: Manifest, by: tuple[str, ...]) -> list[dict]:
    numbers, names = zip(*(codes(manifest.table.column(name)) for name in by), strict=True)
    keys, group = np.unique(np.stack(numbers), axis=1, return_inverse=True)
    order = np.split(np.argsort(group.ravel(), kind="stable"), np.cumsum(np.bincount(group.ravel()))[:-1])
    groups = {
        tuple(names[i][number] for i, number in enumerate(key)): rows for key, rows in zip(keys.T, order, strict=True)
    }
    place = {name: f"{position}" for position, name in enumerate(SPLITS)}
    (split, parts), table = codes(manifest.table.column("split")), []
    for key, rows in sorted(groups.items(), key=lambda item: [place.get(name, name) for name in item[0]]):
        entry = dict(zip(by, key, strict=True)) | {"utterances": len(rows)}
        if "split" not in by:
            counts = dict(zip(parts, np.bincount(split[rows], minlength=len(parts)).tolist(), strict=True))
            entry |= {part: counts.get(part, 0) for part in SPLITS}
        entry["hours"] = _hours(manifest.column("seconds")[rows])
        table.append(entry | {"silence": _silence(manifest, rows)})
    return table


def alike(speakers: Sequence[str]) -> list[list[str]]:
    """Names of speakers that differ only by case or by how their letters are encoded, as lists of two or more."""
    groups: dict[str, set[str]] = {}
    for name in dict.fromkeys(speakers):
        groups.setdefault(unicodedata.normalize("NFKC", name).casefold(), set()).add(name)
    return [sorted(names) for _, names in sorted(groups.items()) if len(names) > 1]


def markdown(summary: dict, limit: int | None = None) -> list[str]:
    """The summary as lines of markdown; tables longer than `limit` end in a line that says so."""
    counts = ", ".join(f"{name} {count}" for name, count in sorted(summary["skipped"].items())) or "none"
    fixes = ", ".join(f"{name} {count}" for name, count in sorted(summary["fixes"].items())) or "none"
    lines = [
        f"{summary['utterances']} utterances, {summary['hours']:.3f} h, {100 * summary['silence']:.1f} % silence, "
        f"{summary['sample']} in the sample",
        f"skipped: {counts}",
        f"repaired: {fixes}",
    ]
    for title in ("split", "cohort", "speaker"):
        rows = summary[title]
        if title != "split" and not any(row[title] for row in rows):
            lines += ["", f"The corpus names no {title}."]
            continue
        lines += ["", *_table([_shown(row) for row in rows[:limit]])]
        if limit is not None and len(rows) > limit:
            lines.append(f"and {len(rows) - limit} more in describe/summary.md")
    return lines


def _shown(row: dict) -> dict:
    shown = {name: value or "(none)" if isinstance(value, str) else value for name, value in row.items()}
    return shown | {"hours": f"{row['hours']:.3f}", "silence": f"{100 * row['silence']:.1f} %"}


def leakage_markdown(table: list[dict]) -> list[str]:
    """The leakage table as markdown: what part of test and dev was also heard elsewhere."""
    return _table([row | {"share": f"{100 * row['share']:.1f} %"} for row in table])


def _table(rows: list[dict]) -> list[str]:
    cells = [list(rows[0])] + [[str(value).replace("|", "/") for value in row.values()] for row in rows]
    widths = [max(len(line[column]) for line in cells) for column in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(value.ljust(width) for value, width in zip(line, widths, strict=True)) + " |"
        for line in cells
    ]
    return [lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]]
