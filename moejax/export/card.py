"""Model cards of exports: Markdown from what the workdir knows, and nothing else."""

import csv
import hashlib
import json

import numpy as np

from moejax.convert import whisper_folder
from moejax.export import systems
from moejax.runtime import versions
from moejax.runtime.files import read_json
from moejax.score.tables import pipe
from moejax.work.context import Context

LIBRARY = {"hf": "transformers", "openai": "whisper", "ctranslate2": "ctranslate2", "peft": "peft"}
LOAD = {
    "hf": """from transformers import WhisperForConditionalGeneration, WhisperProcessor

model = WhisperForConditionalGeneration.from_pretrained(FOLDER)
processor = WhisperProcessor.from_pretrained(FOLDER)
features = processor(audio, sampling_rate=16000, return_tensors="pt").input_features
print(processor.batch_decode(model.generate(features), skip_special_tokens=True))

import moejax  # or without torch

print(moejax.load(FOLDER).transcribe("audio.wav").text)""",
    "openai": """import whisper

model = whisper.load_model(FOLDER + "/model.pt")
print(model.transcribe("audio.wav", language=LANGUAGE)["text"])""",
    "ctranslate2": """from faster_whisper import WhisperModel

segments, _ = WhisperModel(FOLDER).transcribe("audio.wav", language=LANGUAGE)
print("".join(segment.text for segment in segments))""",
    "peft": """from peft import PeftModel
from transformers import WhisperForConditionalGeneration

model = WhisperForConditionalGeneration.from_pretrained(BASE)
model = PeftModel.from_pretrained(model, FOLDER)""",
}
BOTH = """
# The system adds its shared expert to every route: load both and use both.
model = PeftModel.from_pretrained(model, FOLDER, adapter_name="expert")
model.load_adapter(FOLDER + "/../shared", adapter_name="shared")
model.base_model.set_adapter(["expert", "shared"])"""


def card(context: Context, part, to: str, dtype: str, quantization: str | None) -> str:
    """README.md of one exported folder."""
    title = f"{context.cfg.name}: {part.name} for {LIBRARY[to]}"
    config = whisper_folder.load_config(context.base.folder)
    sections = [
        _front(context, to),
        f"# {title}\n\nExported by moejax: {part.meaning}.",
        *_warnings(config),
        _facts(context, part, config, to, dtype, quantization),
        _errors(context, part),
        "## How to load it\n\n```python\n" + _load(context, part, to) + "\n```",
        _versions(context),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def index(context: Context, parts, folders: dict[str, str]) -> str:
    """README.md of a folder of folders: which is what."""
    rows = [[f"[{part.name}]({folders[part.name]}/README.md)", part.meaning] for part in parts]
    title = f"# {context.cfg.name}: LoRA adapters for PEFT"
    table = "\n".join(pipe(["folder", "what it is"], rows, align_left=True))
    return "\n\n".join([_front(context, "peft"), title, table]) + "\n"


def _front(context, to):
    """What the Hugging Face hub reads. No licence is invented."""
    lines = [f"library_name: {LIBRARY[to]}", "pipeline_tag: automatic-speech-recognition", "tags:", "- whisper"]
    lines += ["- moejax", *(["- lora"] if to == "peft" else [])]
    lines += ["language:", f"- {context.cfg.data.language}"]
    if context.cfg.export.license:
        lines.append(f"license: {json.dumps(context.cfg.export.license)}")
    return "\n".join(["---", *lines, "---"])


def _warnings(config):
    found = []
    if config.mask_padding:
        found.append("it was trained to ignore padding, which other libraries hear as silence: their text will differ")
    if config.hop != 160:
        found.append(f"its mel hop is {config.hop} samples instead of 160: use the feature extractor of the base")
    return ["> **Not a standard Whisper:** " + "; ".join(found) + "."] if found else []


def _facts(context, part, config, to, dtype, quantization):
    rows = [["base", _base(context)], ["network", _network(config)], ["corpus", _corpus(context)]]
    rows.append(["data digest", _data_digest(context)])
    if part.weights is not None:
        rows.append(["weights of the experts", ", ".join(f"{e}: {w:g}" for e, w in enumerate(part.weights))])
    if part.adapter:
        ranks = sorted({update.rank for update in part.adapter.values()})
        rows.append(["layers changed", f"{len(part.adapter)}, by updates of rank {', '.join(map(str, ranks))}"])
    rows.append(["numbers", f"{dtype}" + (f", quantized to {quantization}" if quantization else "")])
    rows.append(["licence", context.cfg.export.license or "not stated (the run's config has no export.license)"])
    return "## Facts\n\n" + "\n".join(pipe(["", ""], rows, align_left=True))


def _base(context):
    cfg = context.cfg
    if not cfg.model.pretrained:
        return f"trained from scratch by this run, size {cfg.model.size} ({cfg.base.steps} steps)"
    tuned = f", fine-tuned for {cfg.base.steps} steps by this run" if cfg.base.steps else ""
    return f"{cfg.model.pretrained}{tuned}"


def _network(config):
    layers = f"{config.encoder_layers} + {config.decoder_layers} layers of width {config.d_model}"
    return f"Whisper, {layers}, {config.vocab_size} tokens, {config.num_mel_bins} mel bins"


def _corpus(context):
    manifest = context.corpus.manifest
    split, seconds = manifest.column("split"), manifest.column("seconds")
    parts = [
        f"{name} {int((split == name).sum())} utterances ({seconds[split == name].sum() / 3600:.2f} h)"
        for name in ("train", "dev", "test")
        if (split == name).any()
    ]
    speakers = len(np.unique(manifest.column("speaker")[split == "train"]))
    return f"{context.cfg.data.source}: {', '.join(parts)}; {speakers} speakers to train on"


def _data_digest(context):
    data = context.work.path("describe", "manifest.parquet").read_bytes()
    return f"sha256 of the manifest {hashlib.sha256(data).hexdigest()}"


def _errors(context, part):
    """The rows of this system in W/report/table.csv, where it is the same system."""
    file = context.work.path("report", "table.csv")
    head = "## Word error rate"
    if not file.exists():
        return f"{head}\n\nNot measured: the run has no report."
    with open(file, encoding="utf-8", newline="") as lines:
        rows = [row for row in csv.DictReader(lines) if row["system"] == part.system]
    if not rows:
        return f"{head}\n\nNot measured: {part.system} is not in the run's report."
    note = f"On the {context.cfg.evaluate.split} part, decoded by moejax."
    if not part.exact:
        note += f" Of {part.system} itself, which chooses a route for each utterance; this export was not scored."
    cells = [[r["group"], r["name"], r["utterances"], _percent(r["wer"]), _interval(r)] for r in rows]
    table = "\n".join(pipe(["group", "name", "utterances", "WER %", "95 %"], cells))
    return f"{head}\n\n{note}\n\n{table}"


def _percent(text):
    return f"{100 * float(text):.1f}"


def _interval(row):
    low, high = float(row["wer_low"]), float(row["wer_high"])
    return "-" if np.isnan(low) else f"{100 * low:.1f} to {100 * high:.1f}"


def _load(context, part, to):
    code = LOAD[to]
    if to == "peft" and part.weights is not None and part.name.rpartition("/")[2].startswith("expert_"):
        if "shared expert" in part.meaning:
            code = code[: code.rindex("model = PeftModel")].rstrip() + BOTH
    code = code.replace("FOLDER", '"path/to/this/folder"').replace("LANGUAGE", repr(context.cfg.data.language))
    return code.replace("BASE", json.dumps(systems.name_of_base(context)))


def _versions(context):
    ran = read_json(context.work.path("config.json"))
    trained = ", ".join(f"{name} {version}" for name, version in ran["versions"].items())
    lines = [f"- trained with {trained}", f"- exported with moejax {versions.of(['moejax'])['moejax']}"]
    lines += [f"- config digest {ran['digest']}" + (f", commit {ran['commit']}" if ran["commit"] else "")]
    return "\n".join(["## Versions", "", *lines])
