"""What the stage `salmonn` leaves, as systems: a language model that hears, asked to transcribe or to translate."""

from moejax.systems.system import Kind, Network, Opened, System
from moejax.tasks.answers import Answerer
from moejax.train.params_file import load_params
from moejax.training import salmonn
from moejax.work.context import Context
from moejax.work.folder import Work

ROLES = {"salmonn": "base", "salmonn_lora": "adapter", "salmonn_moe": "mixture"}
MEANINGS = {
    "salmonn": "the published checkpoint of a language model that hears",
    "salmonn_lora": "a language model that hears, its connector and one LoRA trained here",
    "salmonn_moe": "a language model that hears, its connector, experts and gate trained here",
}


def _known(work: Work) -> list[System]:
    return [_record(name, entry) for name, entry in salmonn.index_of(work).items()]


def _record(name: str, entry: dict) -> System:
    asked = ("salmonn.systems", name)
    return System(name, ROLES[name], "salmonn", asked, writes=(entry["target"],), answers=True, meaning=MEANINGS[name])


def _open(context: Context, system: System) -> Opened:
    entry, saved = salmonn.index_of(context.work)[system.name], None
    if system.name != "salmonn":
        saved, _ = load_params(context.work.path("salmonn", system.name, salmonn.FILE))
    parts = salmonn.parts_of(context)
    graphdef, params, mixture, _ = salmonn.built(context, parts, system.name, saved, entry["scale"])
    answerer = Answerer(parts.config, graphdef, params, parts.tokenizer)
    route = "gate" if system.role == "mixture" else "label"
    opened = Network(graphdef, params, parts.config.whisper, mixture, route, answerer=answerer)
    return system.opened(opened, entry["trainable"])


KIND = Kind(_known, _open, salmonn.KINDS, asked=lambda name: ("salmonn.systems", name))
