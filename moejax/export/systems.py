"""Which systems of a workdir can leave it, and what each adds to the base: adapters and routes as low-rank updates."""

import dataclasses
import math

import numpy as np

from moejax.convert import low_rank
from moejax.errors import BadValue, UnknownName
from moejax.nn import inject
from moejax.ops import routing
from moejax.runtime.files import read_json
from moejax.systems import controls, evaluate
from moejax.tasks import asr
from moejax.train.checkpoint import load_params
from moejax.training import hyper, network
from moejax.work.context import Corpus

MIXTURES = {"moe": "joint", "moe_frozen": "experts"}  # system: the stage that left its experts
FULL = "full"  # the network that was trained as a whole: no LoRA
# The mixture on one route for everybody: the systems of a gate that are one network
CONSTANT = {
    "moe_mean_gate": "moe on the mean route of its training part for every utterance",
    "moe_uniform_gate": "moe on even weights for every utterance",
}


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


def default_system(corpus: Corpus) -> str:
    """The best trained system there is, as `moejax.load` chooses it."""
    known = evaluate.known_systems(corpus.work)
    return next(name for name in ("moe", "moe_frozen", "base") if name in known)


def check_system(corpus: Corpus, name: str) -> None:
    """Raises KeyError for a system that was not trained, ValueError for a control that is no network."""
    known = [system for system in evaluate.known_systems(corpus.work) if _exists_alone(system)]
    if not _exists_alone(name):
        raise BadValue(f"{name} is moe with its gate's choice exchanged; export one of {', '.join(known)}")
    if name not in known:
        raise UnknownName(f"no system {name!r} in this workdir; it has {', '.join(known)}")
    if _generated(corpus, name):
        raise BadValue(f"{name} makes its weights anew from every utterance: no other library runs it")
    if name == FULL:
        raise BadValue(f"{name} is a Hugging Face folder already: {corpus.work.path('adapters', FULL, 'model')}")


def one_model(corpus: Corpus, system: str, route: str | None) -> Part:
    """A system as one model: the base, an adapter, or a mixture on one route (`average` when none is given)."""
    check_system(corpus, system)
    if system in MIXTURES:
        expert, mixture = _mixture(corpus, system)
        weights, meaning = weights_of(corpus, system, route or "average", mixture)
        adapter = low_rank.one_route(expert, weights, scale_of(mixture, expert))
        always = " and the shared expert" if low_rank.has_shared(expert) else ""
        return Part(
            system,
            system,
            adapter,
            f"the experts{always} of {system} on one fixed route: {meaning}",
            False,
            weights,
            mixture.stabilised,
        )
    if system in CONSTANT and route is None:
        weights = _fixed_route(corpus, system)
        expert, mixture = _mixture(corpus, "moe")
        adapter = low_rank.one_route(expert, weights, scale_of(mixture, expert))
        return Part(system, system, adapter, CONSTANT[system], True, weights, mixture.stabilised)
    if route is not None:
        raise BadValue(f"--route {route} belongs to a mixture; {system} has none")
    if system == "base":
        return Part(system, system, {}, "the base, without any adapter", True)
    entry, adapter, mixture = _adapter(corpus, system)
    meaning = f"one LoRA of rank {entry['rank']} ({entry['kind']})"
    return Part(system, system, adapter, meaning, True, None, mixture.stabilised)


def every_lora(corpus: Corpus) -> list[Part]:
    """Every adapter, and every expert and shared expert of every mixture of the workdir."""
    known = evaluate.known_systems(corpus.work)
    parts = []
    for system in known:
        if system in MIXTURES:
            parts += experts(corpus, system)
        elif system not in ("base", FULL, *controls.CONTROLS) and not _generated(corpus, system):
            parts.append(one_model(corpus, system, None))
    if not parts:
        raise BadValue("this workdir has no LoRA: run its stage adapters, experts or joint first")
    return parts


def experts(corpus: Corpus, system: str) -> list[Part]:
    """Each expert of a mixture, and its shared expert, alone."""
    expert, mixture = _mixture(corpus, system)
    scale, count = scale_of(mixture, expert), mixture.num_experts
    shared = low_rank.has_shared(expert)
    parts = []
    for e in range(count):
        meaning = f"expert {e} of the {count} of {system}, alone (weight 1)"
        meaning += "; the system adds its shared expert to every route" if shared else ""
        one_hot = np.eye(count)[e].tolist()
        adapter = low_rank.one_expert(expert, e, scale)
        parts.append(Part(f"{system}/expert_{e}", system, adapter, meaning, False, one_hot, mixture.stabilised))
    if shared:
        meaning = f"the shared expert of {system}, which is on in every route"
        adapter = low_rank.shared_expert(expert, scale)
        parts.append(Part(f"{system}/shared", system, adapter, meaning, False, [0.0] * count, mixture.stabilised))
    return parts


def weights_of(corpus: Corpus, system: str, route: str, mixture: asr.Mixture) -> tuple[list[float], str]:
    """`(weights, what they mean)` of `average`, `cohort:NAME`, `speaker:NAME`, `expert:NUMBER` or `w0,w1,...`."""
    kind, _, name = route.partition(":")
    count = mixture.num_experts
    if kind == "expert" and name.isdecimal() and int(name) < count:
        return np.eye(count)[int(name)].tolist(), f"expert {name} alone"
    if kind == "average" or (kind in ("cohort", "speaker") and name):
        return _gate_average(corpus, system, None if kind == "average" else (kind, name), mixture)
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


def _gate_average(corpus, system, group, mixture):
    """The mean of what the gate gives to the training utterances of a group; to all where it trained on none."""
    select = {} if group is None else {group[0]: [group[1]]}
    if group is not None:
        known = sorted(set(corpus.manifest.column(group[0])))
        if group[1] not in known:
            raise BadValue(f"--route {':'.join(group)}: no such {group[0]}; there are {', '.join(known)}")
    heard = corpus.manifest.indices(split="train", **select)
    rows = heard if len(heard) else corpus.rows(None, select)
    graphdef, params, _, _ = network.with_gate(corpus, MIXTURES[system])
    logits_BE = asr.make_gate(graphdef)(params, network.gate_inputs(corpus, rows).astype(np.float32))
    weight_BE = routing.dense_weights(mixture.route(logits_BE), mixture.num_experts)
    whose = "all training utterances" if group is None else f"the {len(rows)} utterances of {group[0]} {group[1]}"
    if group is not None:
        whose += " in the training part" if len(heard) else " (of which none is in the training part)"
    weights = np.asarray(weight_BE, np.float64).mean(0).round(6).tolist()
    return weights, f"the mean of the gate's weights over {whose}"


def _fixed_route(corpus, system):
    """The weights that the evaluation gave to every utterance of one of `CONSTANT`."""
    opened = evaluate.open_system(corpus, system)
    route = opened.mixture.route(opened.logits_NE[:1])
    return np.asarray(routing.dense_weights(route, opened.mixture.num_experts), np.float64)[0].tolist()


def _generated(corpus, system) -> bool:
    """Whether a system is a hypernetwork."""
    name = hyper.trained_name(system)
    return name is not None and hyper.index_of(corpus.work)[name]["kind"] == "hyper"


def _exists_alone(system):
    return system in CONSTANT or system not in controls.CONTROLS


def scale_of(mixture: asr.Mixture, expert: dict) -> dict[str, float]:
    """{layer path: what the product of an expert's factors is multiplied by}."""
    found = {}
    for layer in low_rank.layers(expert):
        rank, alpha = inject.sizes(layer, mixture.targets, mixture.rank, mixture.alpha)
        found[layer] = alpha / (math.sqrt(rank) if mixture.stabilised else rank)
    return found


def _mixture(corpus, system):
    expert = load_params(corpus.work.path(MIXTURES[system], "params.safetensors"))[0]["expert"]
    return expert, network.definition(corpus.cfg, low_rank.num_experts(expert))


def _adapter(corpus, system):
    if hyper.trained_name(system):
        entry = hyper.index_of(corpus.work)[system]
        opened = hyper.open_system(corpus, system)
        stack, mixture = opened["params"]["expert"], opened["mixture"]
        return entry, low_rank.one_expert(stack, 0, scale_of(mixture, stack)), mixture
    entry = read_json(corpus.work.path("adapters", "index.json"))[system]
    stack = load_params(corpus.work.path("adapters", entry["kind"], "params.safetensors"))[0]["expert"]
    mixture = network.definition(corpus.cfg, 1, rank=entry["rank"], shared_rank=0)
    return entry, low_rank.one_expert(stack, entry["label"], scale_of(mixture, stack)), mixture
