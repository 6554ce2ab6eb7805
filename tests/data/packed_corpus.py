"""A small corpus of real files in many formats, and packings of it, for tests of shards."""

import csv
import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import soundfile

from moejax.data.shards.packing import pack
from moejax.data.shards.source import Source

RATES = (16000, 8000, 44100)
COUNT = 14


def wave(number: int, rate: int, channels: int = 1) -> np.ndarray:
    """16-bit noise and a tone, [S] or [S, channels]; none like another."""
    rng = np.random.default_rng(number)
    tone = np.sin(2 * np.pi * (200 + 20 * number) * np.arange(int(rate * (0.3 + 0.02 * number))) / rate)
    samples = np.round(8000 * tone[:, None] + rng.normal(0, 300, (len(tone), channels))).astype(np.int16)
    return samples[:, 0] if channels == 1 else samples


def write(folder: Path, count: int = COUNT) -> list[dict]:
    """Writes clips and metadata.csv; returns the rows. Clip 3 is FLAC, clip 4 stereo, clip 5 has 24 bits."""
    rows = []
    for number in range(count):
        rate, name = RATES[number % 3], f"wav/{number:02d}.{'flac' if number == 3 else 'wav'}"
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        samples = wave(number, rate, 2 if number == 4 else 1)
        if number == 5:
            soundfile.write(path, samples.astype(np.int32) * 65536 + 256, rate, subtype="PCM_24")
        else:
            soundfile.write(path, samples, rate)
        speaker = f"s{number % 4}"
        rows.append(
            {
                **{"file": name, "id": f"u{number:02d}", "text": f"Wörter number {number}", "speaker": speaker},
                **{"cohort": "AB"[number % 2], "language": "de" if number == 2 else "", "age": str(20 + number)},
            }
        )
    with open(folder / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def tar(folder: Path, rows: list[dict], out: Path) -> None:
    """The same as WebDataset: NN.wav with NN.json."""
    with tarfile.open(out, "w") as archive:
        for row in rows:
            name = Path(row["file"])
            said = folder / f"{name.stem}.json"
            said.write_text(json.dumps({key: value for key, value in row.items() if key != "file"}))
            archive.add(folder / name, f"{name.stem}{name.suffix}")
            archive.add(said, said.name)


def packed(source: Path, out: Path, kind: str = "folder", shard_bytes: int = 60_000, processes: int = 0, **options):
    """Outcome of a packing; audio columns of tables are called `file`."""
    columns = {"audio": "file"} if kind in ("folder", "manifest") else {}
    taken = Source(kind, str(source), columns, **{"language": "en", **options})
    return pack(taken.utterances(), out, made_from=taken.described(), shard_bytes=shard_bytes, processes=processes)


def files(folder: Path) -> dict[str, str]:
    """{name: SHA-256} of everything below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
