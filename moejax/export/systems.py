"""Which systems of a workdir can leave it, and what each adds to the base: adapters and routes as low-rank updates."""

import dataclasses
import math
from pathlib import Path

import numpy as np

from moejax.convert import find, low_rank
from moejax.errors import BadValue
from moejax.ops import routing
from moejax.systems import emotion, registry
from moejax.systems.system import Network, Opened, System
from moejax.tasks import asr
from moejax.training import gate_inputs
from moejax.work.context import Context


@dataclasses.dataclass(frozen=True)
class Part:
    """One thing to write: what a system (or one expert of it) adds to the base, and what that means in words.

    `adapter` is {layer path: LowRank}, empty for the base; `weights` those of the experts, None without experts;
    `exact` says that the part computes what the workdir's system of that name computes.
    """

    name: str
    system: str
    adapter: dict
    meaning: str
    exact: bool
    weights: list[float] | None = None
    stabilised: bool = False


def name_of_base(context: Context) -> str:
    """What other libraries load the base by: an id of the hub, or the folder where it lies."""
    given, folder = context.cfg.model.pretrained, Path(context.base.folder)
    return find.published(given) if given and folder == find.here(given) else str(folder.resolve())


def check_system(context: Context, name: str) -> System:
    """The system's record. Errors: UnknownName for one that was not trained, BadValue for one that no other library
    runs, or that is a folder already.
    """
    there = registry.known(context.work)
    alone = [other for other, system in there.items() if _stands_alone(system)]
    if name in there and not _stands_alone(there[name]):
        raise BadValue(
            f"{name} is {there[name].of} with its choice of experts exchanged; export one of {', '.join(alone)}"
        )
    system = registry.find(context.work, name)
    if system.answers:
        raise BadValue(
            f"{name} is a language model that hears: what it learnt is in {context.work.path(system.stage, name)}"
        )
    if system.role == "hypernetwork":
        raise BadValue(f"{name} makes its weights anew from every utterance: no other library runs it")
    if system.stage == emotion.NAME:
        raise BadValue(f"{name} has tokens of its own behind the vocabulary: no other library knows where they stand")
    if system.role == "full":
        folder = context.work.path("adapters", name, "model")
        raise BadValue(f"{name} is a Hugging Face folder already: {folder}")
    return system


def _stands_alone(system: System) -> bool:
    """Whether it is one network or a mixture, and not another system on routes that differ from row to row."""
    return system.role != "control" or bool(system.meaning)


def one_model(context: Context, name: str, route: str | None) -> Part:
    """A system as one model: the base, an adapter, or a mixture on one route (`average` when none is given)."""
    role = check_system(context, name).role
    if route is not None and role != "mixture":
        raise BadValue(f"--route {route} belongs to a mixture; {name} has none")
    if role == "base":
        return Part(name, name, {}, "the base, without any adapter", True)
    system = registry.open_system(context, name)
    if role == "mixture":
        weights, meaning = weights_of(context, system, route or "average")
        always = " and the shared expert" if low_rank.has_shared(system.network.params["expert"]) else ""
        meaning = f"the experts{always} of {name} on one fixed route: {meaning}"
        return _on_route(system, weights, meaning, exact=False)
    if role == "control":
        return _on_route(system, _fixed_route(system.network), system.meaning, exact=True)
    stack, mixture = system.network.params["expert"], system.network.experts
    adapter = low_rank.one_expert(stack, system.network.label, mixture.scales(low_rank.layers(stack)))
    return Part(name, name, adapter, system.meaning, True, None, mixture.stabilised)


def _on_route(system: Opened, weights, meaning: str, *, exact: bool) -> Part:
    """A mixture's experts, folded by these weights."""
    expert, mixture = system.network.params["expert"], system.network.experts
    adapter = low_rank.one_route(expert, weights, mixture.scales(low_rank.layers(expert)))
    return Part(system.name, system.name, adapter, meaning, exact, weights, mixture.stabilised)


def every_lora(context: Context) -> list[Part]:
    """Every adapter, and every expert and shared expert of every mixture of the workdir."""
    parts = []
    for name, system in registry.known(context.work).items():
        if system.answers:
            continue
        if system.role == "mixture":
            parts += experts(context, name)
        elif system.role == "adapter" and system.stage != emotion.NAME:
            parts.append(one_model(context, name, None))
    if not parts:
        raise BadValue("this workdir has no LoRA: run its stage adapters, experts or joint first")
    return parts


def experts(context: Context, name: str) -> list[Part]:
    """Each expert of a mixture, and its shared expert, alone."""
    network = registry.open_system(context, name).network
    expert, mixture = network.params["expert"], network.experts
    scale, count = mixture.scales(low_rank.layers(expert)), mixture.num_experts
    shared = low_rank.has_shared(expert)
    parts = []
    for e in range(count):
        meaning = f"expert {e} of the {count} of {name}, alone (weight 1)"
        meaning += "; the system adds its shared expert to every route" if shared else ""
        one_hot = np.eye(count)[e].tolist()
        adapter = low_rank.one_expert(expert, e, scale)
        parts.append(Part(f"{name}/expert_{e}", name, adapter, meaning, False, one_hot, mixture.stabilised))
    if shared:
        meaning = f"the shared expert of {name}, which is on in every route"
        adapter = low_rank.shared_expert(expert, scale)
        parts.append(Part(f"{name}/shared", name, adapter, meaning, False, [0.0] * count, mixture.stabilised))
    return parts


def weights_of(context: Context, system: Opened, route: str) -> tuple[list[float], str]:
    """`(weights, what they mean)` of `average`, `cohort:NAME`, `speaker:NAME`, `expert:NUMBER` or `w0,w1,...`."""
    kind, _, name = route.partition(":")
    count = system.network.experts.num_experts
    if kind == "expert" and name.isdecimal() and int(name) < count:
        return np.eye(count)[int(name)].tolist(), f"expert {name} alone"
    if kind == "average" or (kind in ("cohort", "speaker") and name):
        return _gate_average(context, system.network, None if kind == "average" else (kind, name))
    try:
        weights = [float(part) for part in route.split(",")]
    except ValueError:
        weights = []
    if len(weights) != count or not all(map(math.isfinite, weights)):
        raise BadValue(
            f"--route {route!r} is none of average, cohort:NAME, speaker:NAME, expert:0 to expert:{count - 1}, "
            f"or {count} weights with commas"
        )
    return weights, f"weights {', '.join(f'{w:g}' for w in weights)} as given"


def _gate_average(context, network: Network, group):
    """The mean of what the gate gives to the training utterances of a group; to all where it trained on none."""
    select = {} if group is None else {group[0]: [group[1]]}
    if group is not None:
        known = sorted(set(context.corpus.manifest.column(group[0])))
        if group[1] not in known:
            raise BadValue(f"--route {':'.join(group)}: no such {group[0]}; there are {', '.join(known)}")
    heard = context.corpus.manifest.indices(split="train", **select)
    rows = heard if len(heard) else context.corpus.rows(None, select)
    embedding_NU = gate_inputs.embeddings_of(context, rows).astype(np.float32)
    told_T = np.asarray(network.embedding.told if network.embedding is not None else (), np.float32)
    embedding_NU = np.concatenate([embedding_NU, np.tile(told_T, (len(rows), 1))], axis=1)
    logits_BE = asr.make_gate(network.graphdef)(network.params, embedding_NU)
    weight_BE = routing.dense_weights(network.experts.route(logits_BE), network.experts.num_experts)
    whose = "all training utterances" if group is None else f"the {len(rows)} utterances of {group[0]} {group[1]}"
    if group is not None:
        whose += " in the training part" if len(heard) else " (of which none is in the training part)"
    weights = np.asarray(weight_BE, np.float64).mean(0).round(6).tolist()
    return weights, f"the mean of the gate's weights over {whose}"


def _fixed_route(network: Network) -> list[float]:
    """The weights that the evaluation gave to every utterance of a control that is one network."""
    mixture, logits_NE = network.experts, network.logits_NE
    route = mixture.uniform(1) if logits_NE is None else mixture.route(logits_NE[:1])
    return np.asarray(routing.dense_weights(route, mixture.num_experts), np.float64)[0].tolist()
