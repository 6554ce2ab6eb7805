"""A whole job that takes seconds: a folder of tones that spell words, and a config of a 1 + 1 layer Whisper for it.

Six speakers in two cohorts say strings of four words. A word is a pair of tones; a speaker shifts them all, and the
second cohort breathes noise over them: enough for a base to learn, clusters to be found, and adapters to differ.
"""

import contextlib
import csv
import dataclasses
import fcntl
import functools
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import soundfile
from ml_collections import ConfigDict

import moejax
from moejax.runtime import sharding

RATE = 16000
WORDS = {"ba": (500, 900), "do": (900, 1500), "ki": (1500, 700), "mu": (2200, 2200)}
GERMAN = {"ba": "eins", "do": "zwei", "ki": "drei", "mu": "vier"}
SPEAKERS = {"clear": ("ann", "bob", "cem"), "breathy": ("dan", "eva", "fay")}
COLUMNS = ("file", "text", "speaker", "cohort", "etiology", "translation", "translation_source")
BUCKET = 1.2  # seconds
STAGES = (
    *("describe", "base", "embed", "cluster", "gate", "experts", "joint", "adapters"),
    *("hyper", "targets", "st", "ctc", "emotion", "salmonn", "evaluate", "translate", "report"),
)


def sentences(count: int, seed: int) -> list[str]:
    """Strings of one to three words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(list(WORDS), rng.integers(1, 4))) for _ in range(count)]


def speak(text: str, shift: float, breath: float, seed: int) -> np.ndarray:
    """Two tones of 0.12 s for each word, 0.06 s of pause behind it."""
    rng = np.random.default_rng(seed)
    time = np.arange(int(0.12 * RATE)) / RATE
    edge = np.minimum(1, np.minimum(time, time[::-1]) / 0.01)
    pause = np.zeros(int(0.06 * RATE))
    parts = [pause]
    for word in text.split():
        parts += [0.3 * edge * np.sin(2 * np.pi * shift * pitch * time) for pitch in WORDS[word]] + [pause]
    wave = np.concatenate(parts)
    return (wave + breath * rng.standard_normal(len(wave))).astype(np.float32)


def write_corpus(root: Path, per_speaker: int = 24) -> Path:
    """`root`/wav/*.wav and `root`/metadata.csv; the same bytes every time."""
    (root / "wav").mkdir(parents=True)
    rows = []
    speakers = [(cohort, name) for cohort, names in SPEAKERS.items() for name in names]
    for number, (cohort, speaker) in enumerate(speakers):
        breath = 0.001 if cohort == "clear" else 0.05
        for i, text in enumerate(sentences(per_speaker, number)):
            file = f"wav/{speaker}-{i:03d}.wav"
            shift = 0.9 + 0.05 * (number % 3)
            soundfile.write(root / file, speak(text, shift, breath, 1000 * number + i), RATE, subtype="PCM_16")
            etiology = "" if cohort == "clear" else "asthma"
            german = " ".join(GERMAN[word] for word in text.split())
            rows.append((file, text, speaker, cohort, etiology, german, "human"))
    write_table(root, rows)
    return root


def write_table(root: Path, rows, columns=COLUMNS) -> None:
    with open(root / "metadata.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(rows)


def values(root="corpus", **changes) -> dict:
    """What the config file of the tiny job sets, flat; `changes` are laid over it (`joint__steps=6`)."""
    found = {
        "name": "tiny",
        "data.source": "folder",
        "data.root": str(root),
        "data.columns": {"audio": "file"},
        "data.sample_share": 0.5,
        "model.sizes": dict(
            d_model=32,
            encoder_layers=1,
            decoder_layers=1,
            encoder_heads=2,
            decoder_heads=2,
            encoder_ffn=64,
            decoder_ffn=64,
            num_mel_bins=40,
            max_source_positions=64,
            max_target_positions=16,
            hop=320,
        ),
        "model.vocab_size": 280,
        "model.buckets": (BUCKET,),
        "base.steps": 120,
        "base.learning_rate": 5e-3,
        "base.batch_size": 16,
        "embed.layers": (0, 1),
        "embed.pooling": "mean_std",
        "cluster.refits": 1,
        "gate.num_experts": 3,
        "gate.hidden": 8,
        "gate.steps": 20,
        "gate.batch_size": 16,
        "mixture.targets": ("encoder/layers/*/fc?", "decoder/layers/*/*attn/[qv]"),
        "mixture.rank": 2,
        "mixture.shared_rank": 2,
        "experts.steps": 6,
        "experts.batch_size": 16,
        "joint.steps": 6,
        "joint.batch_size": 16,
        "adapters.batch_size": 16,
        "evaluate.batch_size": 16,
        "translate.steps": 8,
        "translate.batch_size": 16,
        "translate.width": 16,
        "translate.layers": 1,
        "translate.heads": 2,
        "report.draws": 50,
        "report.typical": "clear",
    }
    every = {
        f"{stage}.{key}": value
        for stage in ("base", "gate", "experts", "joint", "adapters")
        for key, value in {"log_every": 1, "warmup": 2}.items()
    }
    return found | every | {key.replace("__", "."): value for key, value in changes.items()}


def config(root="corpus", **changes) -> ConfigDict:
    """The tiny job as `moejax.run` takes it."""
    nested: dict = {}
    for path, value in values(root, **changes).items():
        *sections, key = path.split(".")
        node = nested
        for section in sections:
            node = node.setdefault(section, {})
        node[key] = value
    return ConfigDict(nested)


def write_config(path: Path, root="corpus", **changes) -> Path:
    """The tiny job as a config file for the command line."""
    lines = ["from ml_collections import ConfigDict", "", "", "def get_config():", "    c = ConfigDict()"]
    sections = dict.fromkeys(key.split(".")[0] for key in values(root, **changes) if "." in key)
    lines += [f"    c.{section} = ConfigDict()" for section in sections]
    lines += [f"    c.{key} = {value!r}" for key, value in values(root, **changes).items()]
    path.write_text("\n".join([*lines, "    return c", ""]), encoding="utf-8")
    return path


def records(path: Path) -> list[dict]:
    """The objects of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@contextlib.contextmanager
def quick():
    """One of the pretend devices, and programs compiled with few optimizations: these networks are smaller than their
    compilation."""
    make_mesh, before = sharding.make_mesh, jax.config.read("jax_disable_most_optimizations")
    sharding.make_mesh = functools.partial(make_mesh, devices=jax.devices()[:1])
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
        sharding.make_mesh = make_mesh


def shared(tmp_path_factory) -> Path:
    """A folder with corpus/ and the finished workdir W/, made once per test session, whichever worker comes first.

    Its config names the corpus by a relative path, so that a copy of the folder is the same job: run it from within.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "tiny_job"
    folder.mkdir(exist_ok=True)
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            write_corpus(folder / "corpus")
            with contextlib.chdir(folder), quick():
                moejax.run(config(), "W", quiet=True)
            (folder / "ready").touch()
    return folder


def replace(batch, **changes):
    """The batch with other arrays."""
    return dataclasses.replace(batch, **changes)


def copy(folder: Path, to: Path) -> Path:
    """The job again elsewhere, finished as it is."""
    return Path(shutil.copytree(folder, to / "job"))
