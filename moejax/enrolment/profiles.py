"""Enrolled speakers by name: their phrases and texts in a folder of this machine, never sent anywhere.

    ~/.local/share/moejax/speakers/anna/profile.json, 1.flac, 2.flac ...

$MOEJAX_SPEAKERS is another folder. A phrase whose file is no longer what was recorded is refused by its SHA-256.
"""

import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import ml_dtypes
import numpy as np
import soundfile

from moejax.audio.constants import SAMPLE_RATE
from moejax.errors import BadValue, NotThere, UnknownName
from moejax.runtime import files

ADAPTER = "adapter"  # a folder within a profile
FOLDER, VARIABLE = "~/.local/share/moejax/speakers", "MOEJAX_SPEAKERS"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclasses.dataclass(frozen=True)
class Profile:
    """A speaker's phrases: float32 [S] at 16 kHz, with what is said in each."""

    name: str
    waves: tuple[np.ndarray, ...]
    texts: tuple[str, ...]
    personal: dict | None = None  # what `moejax personalize` found: model, base, rank, context, rates; None: not asked

    @property
    def adapter(self) -> Path | None:
        """The folder of the PEFT LoRA that goes with it."""
        return place(self.name) / ADAPTER if self.personal and self.personal["rank"] else None


def digest_of(params) -> str:
    """Which model these parameters are of, however its weights are kept: a digest of the decoder's positions."""
    positions = np.asarray(params["backbone"]["decoder"]["positions"]).astype(ml_dtypes.bfloat16)
    return hashlib.sha256(positions.tobytes()).hexdigest()[:16]


def place(name: str | None = None) -> Path:
    """The folder of all profiles, or of one. Errors: BadValue for a name that is none."""
    root = Path(os.environ.get(VARIABLE) or FOLDER).expanduser()
    if name is None:
        return root
    if not NAME.fullmatch(name):
        raise BadValue(f"speaker {name!r}: letters, digits, dots, dashes and underscores, 64 at most")
    return root / name


def names() -> list[str]:
    """Who is enrolled."""
    root = place()
    return sorted(path.parent.name for path in root.glob("*/profile.json")) if root.is_dir() else []


def save(
    name: str,
    waves: Sequence[np.ndarray],
    texts: Sequence[str],
    *,
    replace: bool = False,
    personal: dict | None = None,
    write_adapter: Callable[[Path], None] | None = None,
) -> Path:
    """Keeps a profile, whole or not at all; `write_adapter` fills the folder of its adapter.

    Errors: BadValue for a name that is taken, without `replace`.
    """
    folder = place(name)
    if folder.exists() and not replace:
        raise BadValue(f"speaker {name!r} is enrolled already; --replace takes the new phrases instead")
    with files.replacing_folder(folder) as new:
        rows = []
        for number, (wave, text) in enumerate(zip(waves, texts, strict=True), 1):
            path = new / f"{number}.flac"
            _write(path, wave)
            rows.append({"file": path.name, "text": text, "sha256": _digest(path), "seconds": len(wave) / SAMPLE_RATE})
        if write_adapter is not None:
            (new / ADAPTER).mkdir()
            write_adapter(new / ADAPTER)
        facts = {"phrases": rows, **({"personal": personal} if personal else {})}
        (new / "profile.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    return folder


def load(name: str) -> Profile:
    """Errors: UnknownName with those that there are; BadValue for a phrase that is damaged."""
    folder = place(name)
    if not (folder / "profile.json").is_file():
        raise UnknownName(f"no speaker {name!r} is enrolled; enrolled: {', '.join(names()) or 'nobody'}")
    waves, texts, facts = [], [], files.read_json(folder / "profile.json")
    for row in facts["phrases"]:
        path = folder / row["file"]
        if not path.is_file():
            raise NotThere(f"speaker {name!r}: {path} is missing; enroll again")
        if _digest(path) != row["sha256"]:
            raise BadValue(f"speaker {name!r}: {path} is not what was recorded; enroll again")
        waves.append(soundfile.read(path, dtype="float32")[0])
        texts.append(row["text"])
    return Profile(name, tuple(waves), tuple(texts), facts.get("personal"))


def remove(name: str) -> None:
    """Errors: as `load` for a name that nobody has."""
    if name not in names():
        raise UnknownName(f"no speaker {name!r} is enrolled; enrolled: {', '.join(names()) or 'nobody'}")
    shutil.rmtree(place(name))


def export(name: str, folder: Path) -> None:
    """Copies a profile to a folder that is not there yet, as recordings with a table `metadata.csv` would lie."""
    profile = load(name)
    if folder.exists():
        raise BadValue(f"{folder} is there already; give a folder that is not")
    with files.replacing_folder(folder) as new:
        rows = ["file,text"]
        for number, (wave, text) in enumerate(zip(profile.waves, profile.texts, strict=True), 1):
            _write(new / f"{number}.flac", wave)
            quoted = text.replace('"', '""')
            rows.append(f'{number}.flac,"{quoted}"')
        if profile.adapter is not None:
            shutil.copytree(profile.adapter, new / ADAPTER)
        (new / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")


def _write(path: Path, wave: np.ndarray) -> None:
    """FLAC of 24 bits, which gives back what was recorded in 16 or 24 exactly."""
    samples = np.clip(np.round(wave.astype(np.float64) * 2**23), -(2**23), 2**23 - 1).astype(np.int32)
    soundfile.write(path, samples << 8, SAMPLE_RATE, subtype="PCM_24")


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
