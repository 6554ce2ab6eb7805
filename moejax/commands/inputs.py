"""Which recordings a command line means: files, folders, patterns, standard input; and where their results go."""

import collections
import dataclasses
import glob
from pathlib import Path

from moejax.errors import BadValue
from moejax.text.writers import FORMATS

SUFFIXES = (
    *("wav", "flac", "mp3", "ogg", "oga", "opus", "aif", "aiff", "au", "caf", "w64", "m4a", "mp4", "webm", "mkv"),
    *("mka", "aac", "wma", "3gp", "amr", "mov", "avi", "flv", "ts", "wave", "rf64", "bwf", "aifc", "snd", "spx", "mp2"),
    *("mpga", "m4b", "m4v", "weba", "wmv", "asf", "3g2", "awb", "f4v", "mts", "m2ts", "mpg", "mpeg", "vob", "ogv"),
    *("ac3", "eac3", "dts", "ape", "wv", "tta", "mpc", "ra", "rm", "gsm", "sph", "voc"),
)
_SHOWN = 5  # names of files that are left out
STDIN = "-"


@dataclasses.dataclass(frozen=True)
class Source:
    """One recording: `name` as a person calls it, `path` None for standard input, `stem` its results' relative path."""

    name: str
    path: Path | None
    stem: str


def find(arguments: list[str]) -> tuple[list[Source], dict[str, str]]:
    """(recordings in order, each once; {argument: why it stands for none}).

    A folder stands for the audio files in it and below it, known by their suffix, in the order of their names; results
    keep their folders. Errors: ValueError in one line if nothing at all was found.
    """
    found: dict[Path | None, Source] = {}
    missing: dict[str, str] = {}
    for argument in arguments:
        sources = _stdin() if argument == STDIN else _on_disk(argument)
        if isinstance(sources, str):
            missing[argument] = sources
            continue
        for source in sources:
            found.setdefault(source.path and source.path.resolve(), source)
    if not found:
        raise BadValue("; ".join(f"{argument}: {reason}" for argument, reason in missing.items()))
    return _with_stems_apart(list(found.values())), missing


def _stdin():
    return [Source("stdin", None, "stdin")]


def _on_disk(argument) -> list[Source] | str:
    """Recordings of a path or pattern, or why there are none."""
    path = Path(argument)
    if path.is_dir():
        return _folder(path) or f"no audio file in this folder; looked for {' '.join(SUFFIXES)}"
    if path.exists():
        return [Source(argument, path, path.stem)]
    if not glob.has_magic(argument):
        return "no such file"
    matches = [Path(match) for match in sorted(glob.glob(argument, recursive=True))]
    found = [source for match in matches for source in (_folder(match) if match.is_dir() else [_file(match)])]
    return found or "no file matches"


def _file(path):
    return Source(str(path), path, path.stem)


def _folder(folder) -> list[Source]:
    files = sorted(path for path in folder.rglob("*") if _is_audio(path, folder))
    return [Source(str(path), path, str(path.relative_to(folder).with_suffix(""))) for path in files]


def _is_audio(path, folder):
    return not _hidden(path, folder) and path.suffix[1:].lower() in SUFFIXES and path.is_file()


def _hidden(path, folder):
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def left_out(arguments: list[str]) -> dict[str, str]:
    """{folder: which of its files are no recordings by their names, in one line}; results of moejax do not count."""
    found = {}
    for argument in arguments:
        folder = Path(argument)
        if argument == STDIN or not folder.is_dir():
            continue
        files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not _hidden(path, folder)]
        stems = {path.with_suffix("") for path in files if path.suffix[1:].lower() in SUFFIXES}
        others = [
            path.relative_to(folder)
            for path in files
            if path.suffix[1:].lower() not in SUFFIXES
            and not (path.suffix[1:] in FORMATS and (path.with_suffix("") in stems or path.with_suffix("") in files))
        ]
        if others:
            more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
            names = ", ".join(map(str, others[:_SHOWN]))
            found[argument] = f"left out, no audio by the name: {names}{more}"
    return found


def _with_stems_apart(sources):
    """Recordings whose results would overwrite one another are called by more of their name: a.wav beside a.mp3, or
    with their folders, day1/a.wav beside day2/a.wav.
    """
    for longer in (lambda source: source.stem + source.path.suffix, lambda source: _spelled(source.path)):
        count = collections.Counter(source.stem for source in sources)
        sources = [
            dataclasses.replace(source, stem=longer(source)) if count[source.stem] > 1 and source.path else source
            for source in sources
        ]
    return sources


def _spelled(path) -> str:
    """The path as given, but never out of the folder that it will be joined to."""
    return "/".join(part for part in path.parts if part not in (path.anchor, ".."))


def check_apart(sources: list[Source]):
    """Raises ValueError where two recordings' results would still have one name."""
    names: dict[str, Source] = {}
    for source in sources:
        other = names.setdefault(source.stem, source)
        if other is not source:
            raise BadValue(f"the results of {other.name} and {source.name} would both be called {source.stem}")
