"""Published models as rows of the table: decoded as published, beside the systems that were trained on another one."""

from pathlib import Path

from moejax.convert import find
from moejax.errors import BadValue
from moejax.systems.system import Network, Opened, System
from moejax.tasks import asr
from moejax.text.tokenizer import Tokenizer
from moejax.work.context import Context


def label(name: str) -> str:
    """What the row of a model is called: "whisper-base" of "base", "openai/whisper-base" and .../whisper-base."""
    last = Path(name).name
    return last if "whisper" in last.lower() else f"whisper-{last}"


def systems(names) -> dict[str, System]:
    """{name of the model: its row}. Errors: two that would have one row."""
    found = {name: System(label(name), "base", "evaluate", meaning=f"{name} as published") for name in names}
    labels = [system.name for system in found.values()]
    if twice := [one for one in labels if labels.count(one) > 1]:
        raise BadValue(f"evaluate.published names two models that would both be the row {twice[0]!r}")
    return found


def open_model(context: Context, name: str, system: System) -> Opened:
    """The model by its name or folder, in the number formats of the run. Errors: as `find.model`; one that writes no
    times.
    """
    folder = find.model(name)
    config, params = context.base.network(folder)
    tokenizer = Tokenizer.from_hf_folder(folder)
    if config.mask_padding or config.vocab_size <= tokenizer.timestamp_begin:
        raise BadValue(f"evaluate.published: {name} is not read as published Whispers are: it writes no times")
    graphdef, params = asr.init(asr.build(config), params)
    return system.opened(Network(graphdef, params, config, tokenizer=tokenizer), 0)
