"""What the stage `st` leaves, as systems: they write what is said, and translate it when they are asked to."""

import dataclasses

from moejax.cohorts.embed import options as embedding_options
from moejax.systems.system import Kind, Network, Opened, System
from moejax.train.params_file import load_params
from moejax.training import network, st
from moejax.work.context import Context
from moejax.work.folder import Work


def _known(work: Work) -> list[System]:
    return [_record(name, entry) for name, entry in st.index_of(work).items()]


def _record(name: str, entry: dict) -> System:
    one = name == "lora_st"
    meaning = f"{'one LoRA' if one else 'the mixture'}, trained to translate into {entry['target']} too"
    asked = ("st.kinds", name)
    return System(name, "adapter" if one else "mixture", "st", asked, writes=(entry["target"],), meaning=meaning)


def _open(context: Context, system: System) -> Opened:
    saved, entry = load_params(context.work.path("st", system.name, "params.safetensors"))
    embedding = embedding_options(context.cfg)
    if system.role == "adapter":
        mixture = network.definition(context.cfg, 1, rank=entry["rank"], shared_rank=0)
        graphdef, params = network.with_experts(context, mixture, saved)
        opened = Network(graphdef, params, context.base.config, mixture, "label", embedding)
    else:
        graphdef, params, mixture = network.of_saved(context, saved, entry)
        told = dataclasses.replace(embedding, told=(0.0,))
        opened = Network(graphdef, params, context.base.config, mixture, "gate", told, label=-1)
    return system.opened(opened, entry["trainable"])


KIND = Kind(_known, _open, st.KINDS, asked=lambda name: ("st.kinds", name))
