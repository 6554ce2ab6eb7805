"""A folder of somebody's phrases: recordings with a table, or with a text file of the same name beside each."""

from collections.abc import Sequence
from pathlib import Path

from moejax.data.sources import folder
from moejax.errors import BadValue, NotThere

TABLES = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "manifest.json", "manifest.jsonl")


def texts(recordings: Sequence[Path]) -> list[str] | None:
    """What is said in each recording, None where nothing is known of any.

    Looked for in a table in the recording's folder (`data.sources.folder`; columns file and text), then in a .txt file
    of the same name, then in a table one folder above, as corpora have it. Errors: BadValue for a recording without a
    text among others that have one.
    """
    tables: dict[Path, dict[Path, str]] = {}
    found: list[str | None] = []
    for path in recordings:
        text = _listed(tables, path.parent, path)
        if not text and (beside := path.with_suffix(".txt")).is_file():
            text = beside.read_text(encoding="utf-8").strip()
        found.append(text or _listed(tables, path.parent.parent, path))
    if not any(found):
        return None
    lacking = [path.name for path, text in zip(recordings, found, strict=True) if not text]
    if lacking:
        raise BadValue(
            f"{lacking[0]} has no text; give every phrase its own, in metadata.csv (columns file, text) or in "
            f"{Path(lacking[0]).stem}.txt"
        )
    return [text for text in found if text]


def _listed(tables: dict[Path, dict[Path, str]], place: Path, path: Path) -> str | None:
    """What a folder's table says of a recording; each table is read once."""
    if place not in tables:
        tables[place] = _table(place)
    return tables[place].get(path.resolve())


def _table(place: Path) -> dict[Path, str]:
    if not any((place / name).is_file() for name in TABLES):
        return {}
    try:
        rows = folder.load(root=str(place))
    except NotThere:
        return {}
    return {Path(row.audio).resolve(): row.text for row in rows if isinstance(row.audio, str)}
