"""A published model with somebody's LoRA merged into its weights, for other libraries: `moejax export --speaker`."""

import shutil
from pathlib import Path

from moejax.convert import ctranslate2_model, find, hf_whisper, openai_whisper, peft_lora, whisper_folder
from moejax.errors import BadValue
from moejax.export import write
from moejax.runtime.files import replacing_folder, write_json, write_text
from moejax.text.tokenizer import Tokenizer
from moejax.training import base

FORMATS = ("hf", "openai", "ctranslate2")
CARD = """# {model}, with a LoRA merged

Written by `moejax export --to {to}` ({dtype}{kind}): the published {model} with the LoRA of {adapter} merged into its
weights. It was learnt from one person's recordings, whose voice it may give away: share it as you would share those.
Phrases in front of a window (`moejax transcribe --speaker`) are not part of it; its licence is that of {model}.
"""


def run(model: str, adapter: Path, to: str, output, *, dtype="float32", quantization=None) -> Path:
    """Writes the folder, whole or not at all, and returns it.

    Errors: one line, before any work, for a format that cannot hold it, an output that holds something else.
    """
    if to not in FORMATS:
        said = f"the adapter is in PEFT's layout already, in {adapter}" if to == "peft" else f"unknown format {to!r}"
        raise BadValue(f"{said}; a model with a LoRA merged is written as {', '.join(FORMATS)}")
    output, folder = Path(output).absolute(), find.model(model)
    order = write.Order(to, dtype, quantization)
    write.check_replaceable(output)
    config = whisper_folder.load_config(folder)
    write.check_format(order, config, Tokenizer.from_hf_folder(folder))
    config, params = whisper_folder.load(folder)
    params = peft_lora.merged(params, config, [adapter])
    with replacing_folder(output) as new:
        new.mkdir(parents=True, exist_ok=True)
        _save(order, folder, config, params, new)
        kind = f", {quantization}" if quantization else ""
        card = CARD.format(
            model=find.published_name(str(model)) or model, to=to, dtype=dtype, kind=kind, adapter=adapter
        )
        write_text(new / "README.md", card)
        write_json(new / write.MANIFEST, {"to": to, "dtype": dtype, "quantization": quantization, **write.listed(new)})
    return output


def _save(order, folder, config, params, new) -> None:
    tokenizer = Tokenizer.from_hf_folder(folder)
    if order.to == "openai":
        openai_whisper.save(new / "model.pt", config, params, tokenizer=tokenizer, dtype=order.dtype)
        tokenizer.save(new)
        return
    extra = {k: v for k, v in whisper_folder.settings(folder).items() if k not in ("hop", "mask_padding")}
    generation = base.generation(folder, config)
    between = new if order.to == "hf" else new.with_name(f"{new.name}.hf")
    try:
        hf_whisper.save(
            between, config, params, tokenizer=tokenizer, extra=extra, dtype=order.dtype, generation=generation
        )
        if order.to == "ctranslate2":
            ctranslate2_model.convert(between, new, quantization=order.quantization)
    finally:
        if between != new:
            shutil.rmtree(between, ignore_errors=True)
