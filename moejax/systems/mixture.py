"""The mixture as a system: `moe_frozen` after the stage experts, whose gate stood still, and `moe` after joint."""

from moejax.cohorts.embed import options as embedding_options
from moejax.systems.system import Kind, Network, Opened, System
from moejax.training import network
from moejax.work.context import Context
from moejax.work.folder import Work

FROZEN = System("moe_frozen", "mixture", "experts")
JOINT = System("moe", "mixture", "joint")


def _known_frozen(work: Work) -> list[System]:
    trained = (work.finished("experts") or {"inputs": {}})["inputs"].get("experts.steps", 1)  # else they are the base
    return [FROZEN] if trained and work.path("experts", "params.safetensors").exists() else []


def _known_joint(work: Work) -> list[System]:
    return [JOINT] if work.path("joint", "params.safetensors").exists() else []


def open_mixture(context: Context, system: System) -> Opened:
    """The experts and the gate as the system's stage left them."""
    graphdef, params, mixture, _ = network.with_gate(context, system.stage)
    opened = Network(graphdef, params, context.base.config, mixture, "gate", embedding_options(context.cfg), label=-1)
    groups = ("expert",) if system.stage == "experts" else ("expert", "gate")
    return system.opened(opened, opened.count(*groups))


KIND_FROZEN = Kind(_known_frozen, open_mixture, names=("moe_frozen",))
KIND = Kind(_known_joint, open_mixture, names=("moe",))
