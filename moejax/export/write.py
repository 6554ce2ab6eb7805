"""A system of a workdir in the formats of other libraries: `moejax export`.

    hf           Hugging Face folder of the base with one route merged into its weights
    openai       the same as model.pt for openai-whisper
    ctranslate2  the same for CTranslate2 and faster-whisper
    peft         LoRA folders, one for each adapter or expert, or one for a route

Everything is built beside the output and renamed once whole. Every folder gets a model card, README.md, and
export.json, which says what is in it and lets a later export replace it.
"""

import dataclasses
import hashlib
import re
import shutil
from pathlib import Path

from moejax.convert import ctranslate2_model, hf_whisper, openai_whisper, peft_lora, whisper_folder
from moejax.convert.low_rank import merged
from moejax.errors import AlreadyThere, BadValue, NotThere
from moejax.export import card, systems
from moejax.job.opening import open_context
from moejax.runtime.files import read_json, replacing_folder, write_json, write_text
from moejax.systems import registry
from moejax.training import base

MANIFEST = "export.json"


@dataclasses.dataclass(frozen=True)
class Order:
    """What was asked for, checked."""

    to: str
    dtype: str
    quantization: str | None


def run(workdir, to, output, *, system=None, route=None, dtype="float32", quantization=None) -> list[Path]:
    """Exports and returns the folders that were written.

    Args:
      workdir: of a finished run.
      to: a key of `FORMATS`.
      output: folder; it must not exist, be empty, or hold an earlier export and nothing else.
      system: name in the workdir's table; None is its best (`moe`, ...), with peft every LoRA.
      route: of a mixture, see `moejax export --help`.
      dtype: of the weights (peft: float32 only).
      quantization: ctranslate2 only, see its documentation.
    Errors: one line, before any work, for what the format cannot express or the workdir does not have.
    """
    workdir, output = Path(workdir), Path(output).absolute()
    if to not in FORMATS:
        raise BadValue(f"unknown format {to!r}; known: {', '.join(FORMATS)}")
    if not (workdir / "config.json").is_file() or not (workdir / "base" / "model.json").is_file():
        raise NotThere(f"{workdir} is no moejax workdir: it has no config.json or no base/model.json")
    context = open_context(workdir)
    order = Order(to, dtype, quantization)
    _check(context, order, system)
    check_replaceable(output)
    with replacing_folder(output) as folder:
        parts = _parts(context, order, system, route)
        places = {part.name: folder / _safe(part.name) if len(parts) > 1 else folder for part in parts}
        if len(set(places.values())) < len(parts):
            raise BadValue("two systems would get the same folder; export them one by one with --system")
        for part in parts:
            places[part.name].mkdir(parents=True, exist_ok=True)
            FORMATS[to](context, part, order, places[part.name])
            write_text(places[part.name] / "README.md", card.card(context, part, to, dtype, quantization))
        if len(parts) > 1:
            write_text(folder / "README.md", card.index(context, parts, {p.name: _safe(p.name) for p in parts}))
        write_json(folder / MANIFEST, _manifest(folder, parts, order))
    return [output / place.relative_to(folder) for place in places.values()]


def _check(context, order, system):
    check_format(order, whisper_folder.load_config(context.base.folder), context.base.tokenizer)
    if order.to == "peft" and system == "base":
        raise BadValue("the base has no LoRA; export it with --to hf, openai or ctranslate2")
    if system is not None:
        systems.check_system(context, system)


def check_format(order: Order, config, tokenizer) -> None:
    """Errors: BadValue for what the format cannot hold, and for a converter that is not installed."""
    if order.dtype not in hf_whisper.DTYPES:
        raise BadValue(f"unknown weight type {order.dtype!r}; known: {', '.join(hf_whisper.DTYPES)}")
    if order.to == "peft" and order.dtype != "float32":
        raise BadValue("PEFT folders are written in float32, as the adapters were trained")
    if order.quantization is not None and order.to != "ctranslate2":
        raise BadValue(f"--quantization belongs to --to ctranslate2, not {order.to}")
    if order.to == "openai":
        openai_whisper.check(config, tokenizer)
    if order.to == "ctranslate2":
        ctranslate2_model.check(config)
        ctranslate2_model.converters()


def _parts(context, order, system, route):
    if order.to != "peft" or route is not None:
        return [systems.one_model(context, system or registry.best(context.work).name, route)]
    if system is None:
        return systems.every_lora(context)
    if registry.find(context.work, system).role == "mixture":
        parts = systems.experts(context, system)
        return [dataclasses.replace(part, name=part.name.removeprefix(f"{system}/")) for part in parts]
    return [systems.one_model(context, system, None)]


def _hf(context, part, order, folder):
    config, params = whisper_folder.load(context.base.folder)
    ours = whisper_folder.settings(context.base.folder)
    extra = {name: value for name, value in ours.items() if name not in ("hop", "mask_padding")}
    extra |= {"system": part.system, "route": part.weights, "meaning": part.meaning}
    hf_whisper.save(
        folder,
        config,
        merged(params, part.adapter),
        tokenizer=context.base.tokenizer,
        extra=extra,
        dtype=order.dtype,
        generation=_generation(context, config),
    )


def _generation(context, config):
    """What the base says about generation (alignment heads, suppressed tokens), and the run's language."""
    spoken = (
        {"language": context.cfg.data.language, "task": "transcribe"} if context.base.tokenizer.is_multilingual else {}
    )
    return base.generation(context.base.folder, config) | spoken


def _openai(context, part, order, folder):
    config, params = whisper_folder.load(context.base.folder)
    openai_whisper.save(
        folder / "model.pt", config, merged(params, part.adapter), tokenizer=context.base.tokenizer, dtype=order.dtype
    )
    context.base.tokenizer.save(folder)  # the vocabulary for `moejax.load`; openai-whisper brings its own


def _ctranslate2(context, part, order, folder):
    between = folder.with_name(f"{folder.name}.hf")
    try:
        _hf(context, part, order, between)
        ctranslate2_model.convert(between, folder, quantization=order.quantization)
    finally:
        shutil.rmtree(between, ignore_errors=True)


def _peft(context, part, order, folder):
    config = whisper_folder.load_config(context.base.folder)
    base = systems.name_of_base(context)
    peft_lora.save(folder, config, part.adapter, base=base, stabilised=part.stabilised)


FORMATS = {"hf": _hf, "openai": _openai, "ctranslate2": _ctranslate2, "peft": _peft}


def _safe(name):
    """The name of a part as a path: speakers and cohorts may be called anything."""
    return "/".join(re.sub(r"[^\w.+-]", "_", word) for word in name.split("/"))


def _manifest(folder, parts, order):
    said = {part.name: {"system": part.system, "meaning": part.meaning, "route": part.weights} for part in parts}
    return {**dataclasses.asdict(order), "parts": said, **listed(folder)}


def listed(folder: Path) -> dict:
    """{"files": {path: SHA-256}} of what an export wrote, by which a later one knows that it may replace it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {"files": {path.relative_to(folder).as_posix(): _sha256(path) for path in files}}


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_replaceable(output: Path) -> None:
    """Errors: AlreadyThere for a folder with something else in it than an earlier export."""
    if not output.exists():
        return
    if not output.is_dir():
        raise AlreadyThere(f"{output} is a file, not a folder")
    present = {path.relative_to(output).as_posix() for path in output.rglob("*") if not path.is_dir()}
    file = output / MANIFEST
    ours = {MANIFEST, *read_json(file)["files"]} if file.is_file() else set()
    if foreign := sorted(present - ours):
        raise AlreadyThere(f"{output} holds {foreign[0]}, which no export wrote; choose another folder")
