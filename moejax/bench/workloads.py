"""What `moejax bench transcribe` and `serve` let everybody hear: recordings as 16 kHz WAV files, and their texts."""

import csv
import dataclasses
from pathlib import Path

import numpy as np
import soundfile

from moejax.audio import read as audio_io
from moejax.audio.constants import SAMPLE_RATE
from moejax.errors import BadValue, NotThere

NAMES = ("short", "clips", "talk", "hour")
SHORT, TALK, HOUR = 11.0, 300.0, 3600.0  # seconds
CLIPS, LONGEST = 100, 30.0  # how many, and what still is a clip
GAP = 0.3  # seconds of silence between joined clips
SOUNDS = (".wav", ".flac", ".ogg", ".mp3", ".m4a", ".opus")


@dataclasses.dataclass(frozen=True)
class Recording:
    """A sound file of `seconds`, and what is said in it (None where nobody wrote it down)."""

    path: Path
    seconds: float
    text: str | None


@dataclasses.dataclass(frozen=True)
class Workload:
    """What one command hears; `about` says it in words."""

    name: str
    recordings: tuple[Recording, ...]
    about: str

    @property
    def seconds(self) -> float:
        return sum(one.seconds for one in self.recordings)


def found(data: str | None, files: tuple[str, ...]) -> list[Recording]:
    """The recordings of a folder (its metadata.csv with columns file and text, else all sound files in it) or a list.

    A text that no table has is looked for beside the recording, as NAME.txt. Errors: NotThere for what is not there,
    BadValue for a table without the columns.
    """
    if data is not None:
        root = Path(data).expanduser()
        if not root.is_dir():
            raise NotThere(f"--data {data} is no folder")
        table = root / "metadata.csv"
        listed = _listed(table) if table.is_file() else [(path, None) for path in _sounds(root)]
    else:
        listed = [(Path(file).expanduser(), None) for file in files]
    if missing := [path for path, _ in listed if not path.is_file()]:
        raise NotThere(f"{missing[0]} is no file")
    if not listed:
        raise NotThere(f"{data}: no recordings ({', '.join(SOUNDS)}) and no metadata.csv")
    return [_recording(path, text) for path, text in listed]


def _listed(table: Path) -> list[tuple[Path, str | None]]:
    with open(table, encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    if not rows or "file" not in rows[0]:
        raise BadValue(f"{table}: wants a line for each recording and the columns file,text")
    return [(table.parent / row["file"], row.get("text")) for row in rows]


def _sounds(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.suffix.lower() in SOUNDS)


def _recording(path: Path, text: str | None) -> Recording:
    beside = path.with_suffix(".txt")
    if text is None and beside.is_file():
        text = beside.read_text(encoding="utf-8")
    return Recording(path, len(_samples(path)) / SAMPLE_RATE, text)


def _samples(path: Path) -> np.ndarray:
    """Audio [S] at 16 kHz, of any length and loudness."""
    limits = {"min_seconds": 0.0, "max_seconds": float("inf"), "silence_db": float("-inf")}
    return audio_io.load(path, whole=False, **limits).samples


def made(recordings: list[Recording], names: tuple[str, ...], folder: Path) -> list[Workload]:
    """The workloads of these names, their files written into the folder.

    short: the recording nearest to 11 s. clips: the first 100 that are at most 30 s long. talk: the recording nearest
    to five minutes if it lasts 4 to 6, else recordings joined in order with 0.3 s of silence. hour: the same, joined
    again and again up to an hour. Errors: BadValue where no recording is a clip.
    """
    found = []
    for name in names:
        (folder / name).mkdir(parents=True)
        found.append({"short": _short, "clips": _clips, "talk": _talk, "hour": _hour}[name](recordings, folder / name))
    return found


def _short(recordings, folder):
    nearest = min(recordings, key=lambda one: abs(one.seconds - SHORT))
    return Workload("short", (copied(nearest, folder, 0),), f"one recording of {nearest.seconds:.1f} s")


def _clips(recordings, folder):
    chosen = [one for one in recordings if one.seconds <= LONGEST][:CLIPS]
    if not chosen:
        raise BadValue(f"no recording is at most {LONGEST:g} s long: --workloads talk leaves the clips out")
    copies = tuple(copied(one, folder, place) for place, one in enumerate(chosen))
    seconds = sum(one.seconds for one in copies)
    return Workload("clips", copies, f"{len(copies)} recordings, {seconds:.0f} s in all, one command")


def _talk(recordings, folder):
    nearest = min(recordings, key=lambda one: abs(one.seconds - TALK))
    if abs(nearest.seconds - TALK) <= 60.0:
        return Workload("talk", (copied(nearest, folder, 0),), f"one recording of {nearest.seconds:.0f} s")
    return _joined("talk", recordings, folder, TALK, repeat=False)


def _hour(recordings, folder):
    return _joined("hour", recordings, folder, HOUR, repeat=True)


def _joined(name, recordings, folder, seconds, *, repeat):
    parts, texts, samples, place = [], [], 0, 0
    gap_S = np.zeros(round(GAP * SAMPLE_RATE), np.float32)
    while samples < seconds * SAMPLE_RATE and (repeat or place < len(recordings)):
        one = recordings[place % len(recordings)]
        parts += [_samples(one.path), gap_S]
        texts.append(one.text)
        samples += len(parts[-2]) + len(gap_S)
        place += 1
    text = None if None in texts else " ".join(texts)
    written = _written(np.concatenate(parts), text, folder / "joined.wav")
    return Workload(name, (written,), f"one recording of {written.seconds:.0f} s, joined from {place}")


def copied(one: Recording, folder: Path, place: int) -> Recording:
    """The recording as a 16 kHz WAV file in the folder."""
    return _written(_samples(one.path), one.text, folder / f"{place:03d}.wav")


def _written(audio_S, text, path):
    soundfile.write(path, audio_S, SAMPLE_RATE, subtype="PCM_16")
    return Recording(path, len(audio_S) / SAMPLE_RATE, text)
