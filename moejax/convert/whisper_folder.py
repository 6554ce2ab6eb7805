"""A folder with a Whisper in it, in Hugging Face's format or in CTranslate2's."""

import pathlib
from types import ModuleType
from typing import Any

from moejax.audio.constants import SAMPLE_RATE, WINDOW_SECONDS
from moejax.convert import ctranslate2, hf_whisper
from moejax.nn.whisper import WhisperConfig
from moejax.types import Params

WEIGHTS = (hf_whisper.WEIGHTS, hf_whisper.INDEX, ctranslate2.WEIGHTS)  # one of them makes a folder a model


def load(folder: str | pathlib.Path, **options) -> tuple[WhisperConfig, Params]:
    """`(WhisperConfig, params)` of a folder, params = {"backbone": ..., "buffer": ...} of numpy arrays.

    `dtype`: of the arrays, float32 if not given. Errors: FileNotFoundError or a one-line ValueError that names the file
    or key.
    """
    return _format(folder).load(folder, **options)


def load_config(folder: str | pathlib.Path) -> WhisperConfig:
    """WhisperConfig of a folder."""
    return _format(folder).load_config(folder)


def settings(folder: str | pathlib.Path) -> dict:
    """What moejax wrote into a folder for itself; empty for published models."""
    return _format(folder).settings(folder)


def writes_times(folder: str | pathlib.Path, config: WhisperConfig, tokenizer: Any) -> bool:
    """Whether the model of a folder writes times in windows of 30 s as the published ones do, so that long audio can be
    read by the reference's algorithm: its vocabulary has them, it hears its padding, and nothing says otherwise.
    """
    window = 2 * config.max_source_positions * config.hop == WINDOW_SECONDS * SAMPLE_RATE
    timed = config.vocab_size > tokenizer.timestamp_begin and settings(folder).get("timestamps", True)
    return bool(timed) and window and not config.mask_padding


def alignment_heads(folder: str | pathlib.Path) -> list | None:
    """(layer, head) pairs whose attention follows the audio, where the folder names them."""
    return _format(folder).alignment_heads(folder)


def generation(folder: str | pathlib.Path) -> dict:
    """What a folder says about generation, as Hugging Face's generation_config.json has it."""
    return _format(folder).generation(folder)


def is_ctranslate2(folder: str | pathlib.Path) -> bool:
    """Whether the weights of a folder are CTranslate2's; Hugging Face's, where it has both, are the finer ones."""
    there = [name for name in WEIGHTS if (pathlib.Path(folder) / name).is_file()]
    return there == [ctranslate2.WEIGHTS]


def _format(folder) -> ModuleType:
    return ctranslate2 if is_ctranslate2(folder) else hf_whisper
