"""What the stage `hyper` leaves, as systems, and two further uses of each hypernetwork:

<name>_enrolled        the mean over hyper.enroll other utterances of the speaker: his training ones where there are
<name>_mean_condition  the mean condition of the training part for everybody: what conditioning is worth
"""

import dataclasses

import numpy as np

from moejax.cohorts.embed import options as embedding_options
from moejax.runtime.files import read_json
from moejax.systems.system import Kind, Network, Opened, System
from moejax.tasks import asr
from moejax.tasks import hypernetwork as task
from moejax.train.params_file import load_params
from moejax.training import gate_inputs, hyper, network
from moejax.work.context import Context
from moejax.work.folder import Work

USES = ("enrolled", "mean_condition")


def index_of(work: Work) -> dict:
    """{name: {kind, rank, trainable, cohorts}} of the systems that this workdir trained; {} for none."""
    file = work.path(*hyper.INDEX)
    return read_json(file) if file.exists() else {}


def plain(name: str) -> str:
    """The name without a use."""
    return next((name.removesuffix(f"_{use}") for use in USES if name.endswith(f"_{use}")), name)


def _known(work: Work) -> list[System]:
    found = []
    for name, entry in index_of(work).items():
        role = "hypernetwork" if entry["kind"] == "hyper" else "adapter"
        meaning = f"one LoRA of rank {entry['rank']} (lora)" if role == "adapter" else ""
        found.append(System(name, role, "hyper", asked=("hyper.systems", name), meaning=meaning))
        uses = USES if role == "hypernetwork" else ()
        found += [System(f"{name}_{use}", "control", "hyper", of=name) for use in uses]
    return found


def _open(context: Context, system: System) -> Opened:
    name, cfg = system.of or system.name, context.cfg
    entry, embedding = index_of(context.work)[name], embedding_options(cfg)
    saved, meta = load_params(context.work.path("hyper", name, "params.safetensors"))
    config = context.base.config
    if system.role == "adapter":
        mixture = hyper.single(cfg, entry["rank"])
        graphdef, params = network.with_experts(context, mixture, saved)
        return system.opened(Network(graphdef, params, config, mixture, "label", embedding), entry["trainable"])
    definition, buffer = hyper.definition(cfg, name), saved["buffer"]["gate"]
    make = task.build(config, definition, buffer["mean"], buffer["matrix"], seed=cfg.seed)
    graphdef, params = asr.init(make, network.merge_groups(context.base.params, saved))
    opened = Network(graphdef, params, config, definition, "gate", embedding)
    if system.role == "control":
        condition_NU = _conditions(context, system, meta)
        opened = dataclasses.replace(opened, logits_NE=np.asarray(asr.make_gate(graphdef)(params, condition_NU)))
    return system.opened(opened, entry["trainable"])


def _conditions(context: Context, system: System, meta: dict) -> np.ndarray:
    """What the hypernetwork is told of every row of the manifest in place of the row's own embedding."""
    if system.name.endswith("_enrolled"):
        return gate_inputs.enrolled_by(context, context.cfg.hyper.enroll)
    return np.tile(np.asarray(meta["mean"], np.float32), (len(context.corpus.manifest), 1))


def _asked(name: str) -> tuple[str, str] | None:
    return ("hyper.systems", plain(name)) if plain(name) in hyper.SYSTEMS else None


KIND = Kind(_known, _open, hyper.SYSTEMS, ("hyper_", "moe_hyper_"), _asked)
