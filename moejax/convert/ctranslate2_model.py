"""CTranslate2's format, by its own converter (the extra `ctranslate2`, which brings torch: the converter wants it)."""

import importlib
import importlib.util
import pathlib
from typing import Any

from moejax.audio.constants import HOP
from moejax.errors import BadValue
from moejax.nn.whisper import WhisperConfig

QUANTIZATIONS = ("float32", "float16", "bfloat16", "int16", "int8", "int8_float32", "int8_float16", "int8_bfloat16")
COPIED = ("tokenizer.json", "preprocessor_config.json")  # what faster-whisper looks for beside the model


def check(config: WhisperConfig) -> None:
    """Raises a one-line ValueError for a model that CTranslate2's Whisper would run differently."""
    wrong = []
    if config.mask_padding:
        wrong.append("masked padding (it hears padding as silence)")
    if config.hop != HOP:
        wrong.append(f"a mel hop of {config.hop} samples (its times count {HOP})")
    if wrong:
        raise BadValue(f"CTranslate2 cannot express this model: {'; '.join(wrong)}. Export it with --to hf")


def converters() -> Any:
    """CTranslate2's converters. Errors: one line that says which extra is missing."""
    # The converters swallow a missing torch and fail on its name later.
    missing = [name for name in ("ctranslate2", "torch") if importlib.util.find_spec(name) is None]
    if missing:
        raise BadValue(f"--to ctranslate2 needs {' and '.join(missing)}: pip install 'moejax[ctranslate2]'")
    return importlib.import_module("ctranslate2.converters")


def convert(hf_folder: str | pathlib.Path, output: str | pathlib.Path, *, quantization: str | None = None) -> None:
    """Writes the CTranslate2 model of a Hugging Face folder into `output`, with the files that faster-whisper wants.

    `quantization` is one of `QUANTIZATIONS`; None keeps the folder's type.
    """
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise BadValue(f"unknown quantization {quantization!r}; known: {', '.join(QUANTIZATIONS)}")
    present = [name for name in COPIED if (pathlib.Path(hf_folder) / name).is_file()]
    converter = converters().TransformersConverter(str(hf_folder), copy_files=present)
    converter.convert(str(output), quantization=quantization, force=True)
