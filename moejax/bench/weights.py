"""One folder of random weights that every side reads: Hugging Face's layout, tokenizer included."""

import base64
import dataclasses
import itertools
from pathlib import Path

import jax
import numpy as np

from moejax.convert import hf_whisper
from moejax.errors import BadValue
from moejax.nn import functional, whisper
from moejax.nn.variables import Init
from moejax.text.tokenizer import Tokenizer

PUBLISHED = {51864: (50256, False, 99), 51865: (50257, True, 99), 51866: (50257, True, 100)}
# The smallest network that the peers read, for trying the harness: their control tokens want the published vocabulary.
NANO = whisper.WhisperConfig(64, 1, 1, 2, 2, 256, 256, vocab_size=51865)
SIZES = {"nano": NANO} | {name: c for name, c in whisper.SIZES.items() if c.vocab_size in PUBLISHED}


def write(folder: Path, *, size: str, seconds: float, seed: int = 0) -> dict:
    """Writes the folder; returns what the jobs want to know of it: prefix, suppress, eot, and the sizes.

    The audio context is that of `seconds` exactly, because every peer insists on its full context. No array is zero or
    one throughout, so that a forgotten bias would show. Errors: ValueError for a size without published vocabulary.
    """
    config = sized(size, seconds)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        array = leaf.make()
        return array + 0.1 * rng.standard_normal(array.shape, np.float32) if leaf.kind == "constant" else array

    _, recipe = functional.split(whisper.Whisper(config, init=Init(seed)))
    params = {**recipe, "backbone": jax.tree.map(draw, recipe["backbone"])}
    tokenizer = _tokenizer(config.vocab_size, folder.with_name(f"{folder.name}.tiktoken"))
    hf_whisper.save(folder, config, params, tokenizer=tokenizer)
    return {
        "prefix": tokenizer.prefix("en", "transcribe"),
        "suppress": _suppressed(tokenizer),
        "eot": tokenizer.eot,
        "bins": config.num_mel_bins,
        "width": config.d_model,
    }


def sized(size: str, seconds: float) -> whisper.WhisperConfig:
    if size not in SIZES:
        raise BadValue(f"bench has no size {size!r}; known: {', '.join(SIZES)} (the peers need Whisper's vocabulary)")
    return dataclasses.replace(SIZES[size], max_source_positions=round(seconds * 50))


def _suppressed(tokenizer) -> list[int]:
    """The end token, so that all sides write equally many tokens, and what openai-whisper always suppresses."""
    eot, sot = tokenizer.eot, tokenizer.sot
    after = range(tokenizer.no_timestamps - 5, tokenizer.no_timestamps)  # translate .. no speech
    return [eot, sot, *after]


def _tokenizer(vocab_size: int, file: Path) -> Tokenizer:
    """A byte-level vocabulary of the published size whose text tokens are all bytes and pairs of bytes."""
    text, multilingual, languages = PUBLISHED[vocab_size]
    pairs = itertools.islice(itertools.product(range(256), repeat=2), text - 256)
    entries = [bytes([byte]) for byte in range(256)] + [bytes(pair) for pair in pairs]
    lines = (f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(entries))
    file.write_text("".join(lines), encoding="ascii")
    tokenizer = Tokenizer.from_tiktoken(file, multilingual=multilingual, num_languages=languages)
    file.unlink()
    return tokenizer
