"""What the stage `adapters` leaves, as systems: single LoRAs, and the network that was fine-tuned as a whole."""

import jax
import numpy as np

from moejax.cohorts.embed import options as embedding_options
from moejax.runtime.files import read_json
from moejax.systems.system import Kind, Network, Opened, System
from moejax.tasks import asr
from moejax.train.params_file import load_params
from moejax.training import adapters, network
from moejax.work.context import Context
from moejax.work.folder import Work


def index_of(work: Work) -> dict:
    """{name: {kind, label, rank, trainable}} of the adapters that this workdir trained; {} for none."""
    file = work.path("adapters", "index.json")
    return read_json(file) if file.exists() else {}


def _known(work: Work) -> list[System]:
    return [_record(name, entry) for name, entry in index_of(work).items()]


def _record(name: str, entry: dict) -> System:
    kind = entry["kind"]
    return System(
        name,
        "full" if kind == adapters.FULL else "adapter",
        "adapters",
        asked=("adapters.kinds", "cohort" if name == adapters.MERGED else kind),
        group=(kind, name.removeprefix("lora_")) if kind in adapters.MANY else None,
        meaning=f"one LoRA of rank {entry['rank']} ({kind})",
    )


def _open(context: Context, system: System) -> Opened:
    index = index_of(context.work)
    entry, embedding = index[system.name], embedding_options(context.cfg)
    if system.role == "full":
        config, params = context.base.network(context.work.path("adapters", adapters.FULL, "model"))
        graphdef, params = asr.init(asr.build(config), params)
        return system.opened(Network(graphdef, params, config, embedding=embedding), entry["trainable"])
    family = [other for other, its in index.items() if its["rank"] == entry["rank"]]
    graphdef, params, mixture = _stacked(context, index, family)
    label = family.index(system.name)
    opened = Network(graphdef, params, context.base.config, mixture, "label", embedding, label)
    return system.opened(opened, entry["trainable"])


def _stacked(context: Context, index: dict, names: list[str]):
    """All adapters of one rank in one stack, in the order of `names`: they share one compiled search."""
    kinds = list(dict.fromkeys(index[name]["kind"] for name in names))
    files = [load_params(context.work.path("adapters", kind, "params.safetensors"))[0]["expert"] for kind in kinds]
    stacked = jax.tree.map(lambda *leaves: np.concatenate(leaves), *files)
    mixture = network.definition(context.cfg, len(names), rank=index[names[0]]["rank"], shared_rank=0)
    return *network.with_experts(context, mixture, {"expert": stacked}), mixture


def _asked(name: str) -> tuple[str, str]:
    return ("adapters.kinds", "cohort" if name == adapters.MERGED else name)


KIND = Kind(_known, _open, (*adapters.SINGLE, adapters.MERGED), ("lora_",), _asked)
