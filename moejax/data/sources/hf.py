"""A Hugging Face `datasets` folder or id, decoded by soundfile: the library's own decoding would need torch."""

import dataclasses
import functools
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from moejax.audio.flaws import Rejected
from moejax.audio.read import read
from moejax.data.manifest import Utterance
from moejax.data.sources.folder import TEXT, cell, normalise, resolve_columns
from moejax.errors import BadValue, NotThere


@dataclasses.dataclass(frozen=True)
class Cell:
    """Reads the audio of one row when called; the dataset itself stays on disk (memory-mapped)."""

    dataset: Any
    row: int
    column: str

    @property
    def paths(self) -> tuple[str, ...]:
        return _cache_files(self.dataset)

    def __call__(self) -> tuple[np.ndarray, int]:
        value = self.dataset[self.row][self.column]
        if isinstance(value, str):
            return read(value)
        if not isinstance(value, dict):
            raise Rejected("unreadable", f"column {self.column!r} holds {type(value).__name__}, not audio")
        if value.get("bytes"):
            return read(value["bytes"])
        if value.get("array") is not None and value.get("sampling_rate"):
            return np.asarray(value["array"]), int(value["sampling_rate"])
        if value.get("path"):
            return read(value["path"])
        raise Rejected("unreadable", f"row {self.row} has neither bytes nor a path")


@functools.lru_cache(maxsize=64)
def _cache_files(dataset) -> tuple[str, ...]:
    return tuple(sorted({entry["filename"] for entry in dataset.cache_files}))


def load(
    *,
    path: str,
    name: str | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    text: str = "keep",
) -> list[Utterance]:
    """Utterances of a folder written by `save_to_disk`, or of whatever `datasets.load_dataset(path, name)` finds.

    split: read only this part (all by default); the part is the utterance's official split in either case.
    columns, text: as in the folder source; the audio column may be of type Audio, a path, or {array, sampling_rate}.
    Ids are the part and the row ("train/17") unless a column `id` exists. Nothing is decoded here.
    """
    import datasets

    if text not in TEXT:
        raise BadValue(f"hf: text={text!r}; known: {', '.join(TEXT)}")
    parts = _open(datasets, path, name)
    if split is not None:
        if split not in parts:
            raise BadValue(f"hf: {path!r} has no part {split!r}; it has {', '.join(parts)}")
        parts = {split: parts[split]}
    utterances = []
    for part, dataset in parts.items():
        mapping = resolve_columns([dict.fromkeys(dataset.column_names)], columns or {}, where=f"hf: {path} ({part})")
        audio = mapping.pop("audio")
        if isinstance(dataset.features[audio], datasets.Audio):
            dataset = dataset.cast_column(audio, datasets.Audio(decode=False))
        # Only the columns of text are read here; a row with audio would be loaded whole.
        wanted = sorted(set(mapping.values()))
        for row, record in enumerate(dataset.select_columns(wanted)):
            values = {field: _label(dataset.features[column], record[column]) for field, column in mapping.items()}
            values["text"] = normalise(values["text"], text)
            values["id"] = values.get("id") or f"{part}/{row}"
            values["split"] = values.get("split") or part
            utterances.append(Utterance(audio=Cell(dataset, row, audio), **values))
    return utterances


def _label(feature, value) -> str:
    """A class number as its name, anything else as text."""
    names = getattr(feature, "names", None)
    return names[value] if names and isinstance(value, int) and value >= 0 else cell(value)


def _open(datasets, path: str, name: str | None) -> dict:
    if not path:
        raise NotThere("hf: no folder or dataset id given (data.root)")
    saved = [file for file in ("dataset_dict.json", "state.json") if os.path.isfile(os.path.join(path, file))]
    try:
        opened = datasets.load_from_disk(path) if saved else datasets.load_dataset(path, name)
    except Exception as error:  # the library raises a dozen unrelated types here, all of them meaning this
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NotThere(f"hf: {path!r} is no dataset folder and cannot be fetched ({first})") from error
    return dict(opened) if isinstance(opened, dict) else {str(opened.split or "train"): opened}
