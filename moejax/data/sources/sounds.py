"""Sounds in classes: a folder for each class, ESC-50 and UrbanSound8K as they are published.

A sound has a label in place of words, which is its text too. Its `speaker` is the recording that it was cut from, as
two clips of one recording may not lie on both sides of a test.
"""

import os
from pathlib import Path

from moejax.data.manifest import Utterance
from moejax.data.sources import folder
from moejax.errors import BadValue, NotThere

ENDINGS = (".wav", ".flac", ".ogg", ".mp3", ".aif", ".aiff", ".m4a", ".opus")


def classes(*, root: str) -> list[Utterance]:
    """root/<class>/**/<clip>: the first folder is the class. No folds and no recordings of origin are known."""
    found = []
    for path in audio_below(root, "classes"):
        inner = path.relative_to(root)
        if len(inner.parts) < 2:
            raise BadValue(f"classes: {path} lies in no folder of a class below data.root")
        label = inner.parts[0]
        found.append(Utterance(id=inner.with_suffix("").as_posix(), audio=str(path), text=label, label=label))
    return found


def esc50(*, root: str, esc10: bool = False) -> list[Utterance]:
    """ESC-50 (Piczak 2015) as its repository has it: meta/esc50.csv and audio/, five folds. `esc10`: its ten classes
    that are ESC-10.
    """
    rows = _table(root, "meta/esc50.csv", ("filename", "fold", "category", "esc10", "src_file"), "esc50")
    return [
        _sound(Path(root, "audio", row["filename"]), row["category"], row["fold"], row["src_file"])
        for row in rows
        if not esc10 or row["esc10"] == "True"
    ]


def urbansound8k(*, root: str) -> list[Utterance]:
    """UrbanSound8K (Salamon et al. 2014): metadata/UrbanSound8K.csv and audio/fold1 to fold10. Slices of one recording
    (fsID) lie in one fold; a split by slices inflates every figure (84 to 98 %).
    """
    columns = ("slice_file_name", "fsID", "fold", "class")
    rows = _table(root, "metadata/UrbanSound8K.csv", columns, "urbansound8k")
    return [
        _sound(
            Path(root, "audio", f"fold{row['fold']}", row["slice_file_name"]), row["class"], row["fold"], row["fsID"]
        )
        for row in rows
    ]


def audio_below(root: str, source: str) -> list[Path]:
    """All recordings below a folder, sorted. Errors: no folder, none in it."""
    if not root or not os.path.isdir(root):
        raise NotThere(f"{source}: no folder {root!r} (data.root)")
    found = sorted(path for path in Path(root).rglob("*") if path.suffix.lower() in ENDINGS)
    if not found:
        raise NotThere(f"{source}: no recordings below {root!r}; known endings: {', '.join(ENDINGS)}")
    return found


def _sound(path: Path, label: str, fold: str, recording: str) -> Utterance:
    return Utterance(id=path.stem, audio=str(path), text=label, label=label, fold=str(fold), speaker=str(recording))


def _table(root, name, columns, source) -> list[dict]:
    path = Path(root or ".", name)
    if not path.is_file():
        raise NotThere(f"{source}: no table {path} (data.root)")
    rows = folder.read_table(path)
    if missing := [column for column in columns if column not in rows[0]]:
        raise BadValue(f"{source}: {path} has no column {missing[0]!r}; it has {', '.join(rows[0])}")
    return rows
