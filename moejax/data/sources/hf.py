"""A Hugging Face `datasets` folder or id, decoded by soundfile: the library's own decoding would need torch."""

import dataclasses
import functools
import os
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from moejax.audio.flaws import Rejected
from moejax.audio.read import read
from moejax.data.manifest import Utterance
from moejax.data.sources.folder import TEXT, cell, normalise, plain, resolve_columns
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
        return Held(self.dataset[self.row][self.column], f"row {self.row}")()


@dataclasses.dataclass(frozen=True)
class Held:
    """Reads what a dataset's audio column holds in one row: a path, {bytes, path}, {array, sampling_rate}."""

    value: Any
    where: str

    @property
    def paths(self) -> tuple[str, ...]:
        return ()

    def content(self) -> bytes | None:
        """The file, where the row holds one."""
        return self.value.get("bytes") if isinstance(self.value, dict) else None

    def __call__(self) -> tuple[np.ndarray, int]:
        value = self.value
        if isinstance(value, str):
            return read(value)
        if not isinstance(value, dict):
            raise Rejected("unreadable", f"{self.where} holds {type(value).__name__}, not audio")
        if value.get("bytes"):
            return read(value["bytes"])
        if value.get("array") is not None and value.get("sampling_rate"):
            return np.asarray(value["array"]), int(value["sampling_rate"])
        if value.get("path"):
            return read(value["path"])
        raise Rejected("unreadable", f"{self.where} has neither bytes nor a path")


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
            values: dict[str, Any] = {
                field: _label(dataset.features[column], record[column]) for field, column in mapping.items()
            }
            values["text"] = normalise(values["text"], text)
            values["id"] = values.get("id") or f"{part}/{row}"
            values["split"] = values.get("split") or part
            utterances.append(Utterance(audio=Cell(dataset, row, audio), **values))
    return utterances


def utterances(
    *,
    path: str,
    name: str | None = None,
    split: str | None = None,
    columns: Mapping[str, str] | None = None,
    text: str = "keep",
) -> Iterator[Utterance]:
    """As `load`, from first to last with the recordings in hand, for `moejax pack`: one Arrow chunk or parquet group in
    memory at a time, and datasets of the hub and folders of parquet are streamed, not copied into the library's cache.

    `path` may also be a folder of chunks, each written by `save_to_disk`, which follow on one another by name.
    """
    import datasets

    if text not in TEXT:
        raise BadValue(f"hf: text={text!r}; known: {', '.join(TEXT)}")
    counts: dict[str, int] = {}
    for part, dataset in _streams(datasets, path, name, split):
        features = dataset.features or {}
        mapping = resolve_columns([dict.fromkeys(features)], columns or {}, where=f"hf: {path} ({part})")
        audio = mapping.pop("audio")
        if isinstance(features[audio], datasets.Audio):
            dataset = dataset.cast_column(audio, datasets.Audio(decode=False))
        others = [column for column in features if column not in (audio, *mapping.values())]
        for record in dataset:
            row = counts.setdefault(part, 0)
            counts[part] += 1
            values: dict[str, Any] = {
                field: _label(features[column], record[column]) for field, column in mapping.items()
            }
            values["text"] = normalise(values["text"], text)
            values["id"] = values.get("id") or f"{part}/{row}"
            values["split"] = values.get("split") or part
            held = Held(record[audio], f"row {row} of {part}")
            yield Utterance(audio=held, further=plain(record, others), **values)


def count(path: str, split: str | None) -> int | None:
    """Rows of a folder that `save_to_disk` wrote (or of one of chunks), by the sizes that it names; else None."""
    import datasets

    if not is_saved(path):
        return None
    parts = [_open(datasets, chunk, None) for chunk in _chunks(path) or [path]]
    return sum(len(dataset) for opened in parts for part, dataset in opened.items() if split in (None, part))


def _streams(datasets, path: str, name: str | None, split: str | None) -> Iterator[tuple[str, Any]]:
    """(part, dataset) in order; of a folder of chunks each with the part of its own, "train" where it names none."""
    chunks = _chunks(path)
    for chunk in chunks or [path]:
        parts = _open(datasets, chunk, name, streaming=not chunks)
        if split is not None and split not in parts:
            raise BadValue(f"hf: {chunk!r} has no part {split!r}; it has {', '.join(parts)}")
        yield from ((part, dataset) for part, dataset in parts.items() if split in (None, part))


def _chunks(path: str) -> list[str]:
    """Folders of `save_to_disk` inside a folder that is none itself, by name."""
    if not path or not os.path.isdir(path) or _saved(path):
        return []
    inside = sorted(os.path.join(path, name) for name in os.listdir(path))
    return [folder for folder in inside if os.path.isdir(folder) and _saved(folder)]


def is_saved(path: str) -> bool:
    """Whether `save_to_disk` wrote this folder, or all chunks in it."""
    return _saved(path) or bool(_chunks(path))


def _saved(path: str) -> bool:
    return any(os.path.isfile(os.path.join(path, file)) for file in ("dataset_dict.json", "state.json"))


def _label(feature, value) -> str:
    """A class number as its name, anything else as text."""
    names = getattr(feature, "names", None)
    return names[value] if names and isinstance(value, int) and value >= 0 else cell(value)


def _open(datasets, path: str, name: str | None, streaming: bool = False) -> dict:
    if not path:
        raise NotThere("hf: no folder or dataset id given (data.root)")
    try:
        if _saved(path):
            opened = datasets.load_from_disk(path)
        else:
            opened = datasets.load_dataset(path, name, **({"streaming": True} if streaming else {}))
    except Exception as error:  # the library raises a dozen unrelated types here, all of them meaning this
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise NotThere(f"hf: {path!r} is no dataset folder and cannot be fetched ({first})") from error
    return dict(opened) if isinstance(opened, dict) else {str(opened.split or "train"): opened}
