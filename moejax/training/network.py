"""The mixture of one run as stages see it: its definition from the config, its parameters from the workdir."""

import numpy as np

from moejax.nn import functional
from moejax.ops import routing
from moejax.tasks import asr
from moejax.train.params_file import load_params
from moejax.training import gate_inputs
from moejax.work.context import Context


def definition(cfg, num_experts: int, rank: int | None = None, **changes) -> asr.Mixture:
    """Mixture of the config; `rank` other than the config's keeps alpha / rank, so that only the capacity differs."""
    m = cfg.mixture
    times = (rank or m.rank) / m.rank
    options = dict(
        kind=m.kind,
        targets=tuple(_resized(target, times) for target in m.targets),
        num_experts=num_experts,
        rank=rank or m.rank,
        alpha=m.alpha * (rank or m.rank) / m.rank,
        stabilised=m.stabilised,
        shared_rank=m.shared_rank,
        routing=m.routing,
        top_k=min(m.top_k, num_experts),
        threshold=m.threshold,
        top_p=m.top_p,
        expert_dropout=m.expert_dropout,
        gate=cfg.gate.kind,
        known_share={"label": 1.0, "mixed": cfg.gate.known_share}.get(cfg.gate.kind, 0.0),
    )
    return asr.Mixture(**{**options, **changes})


def _resized(target, times: float):
    """A target with its own rank and alpha, where it has them, so many times as large; tuples, as they are hashed."""
    if isinstance(target, str):
        return target
    pattern, rank, alpha = target
    return pattern, max(round(rank * times), 1), alpha * times


def gate_of(work) -> dict:
    """The trained gate: {"params": {"gate": ..., "buffer": ...}, "meta": {...}} of the gate stage."""
    params, meta = load_params(work.path("gate", "gate.safetensors"))
    return {"params": params, "meta": meta}


def gate_shape(gate: dict) -> dict:
    """What `asr.build` wants to know of a gate: its fixed projection and its sizes."""
    buffer = gate["params"]["buffer"]["gate"]
    return {
        "mean": buffer["mean"],
        "matrix": buffer["matrix"],
        "hidden": gate["meta"]["hidden"],
        "zero_start": gate["meta"]["zero_start"],
        "voices": buffer.get("voices"),
        "radius": buffer.get("radius", 0.0),
    }


def with_gate(context: Context, stage: str | None = None):
    """`(graphdef, params, mixture, meta)`: base + gate + experts; experts fresh, or as `stage` (experts, joint) left
    them.
    """
    cfg, work = context.cfg, context.work
    gate = gate_of(work)
    mixture = definition(cfg, gate["meta"]["num_experts"])
    config, base = context.base.config, context.base.params
    have = merge_groups(base, gate["params"])
    if stage is not None:
        have = merge_groups(have, load_params(work.path(stage, "params.safetensors"))[0])
    graphdef, params = asr.init(asr.build(config, mixture=mixture, gate=gate_shape(gate), seed=cfg.seed), have)
    return graphdef, params, mixture, gate["meta"]


def minding_task(context: Context):
    """As `with_gate` after the stage joint, with a gate that is told one number more, the task, which as yet changes
    nothing; and the gate's meta. Layout: the number follows the embedding, and passes by its projection.
    """
    gate, (trained, _) = gate_of(context.work), load_params(context.work.path("joint", "params.safetensors"))
    params = merge_groups(gate["params"], trained)
    own, fixed = params["gate"]["gate"], params["buffer"]["gate"]
    first = ("hidden_kernel",) if "hidden_kernel" in own else ("kernel", "extra")  # what reads the projection
    own = {name: _with_row(leaf) if name in first else leaf for name, leaf in own.items()}
    U, K = fixed["matrix"].shape
    matrix = np.zeros((U + 1, K + 1), np.float32)
    matrix[:U, :K], matrix[U, K] = fixed["matrix"], 1.0
    buffer = {**fixed, "mean": _with_row(fixed["mean"]), "matrix": matrix}
    params = {**params, "gate": {**params["gate"], "gate": own}, "buffer": {"gate": buffer}}
    return *of_saved(context, params, gate["meta"]), gate["meta"]


def _with_row(leaf):
    return np.concatenate([leaf, np.zeros((1, *np.shape(leaf)[1:]), np.float32)])


def of_saved(context: Context, saved: dict, meta: dict):
    """`(graphdef, params, mixture)`: base, and the experts, gate and fixed projection that were `saved`."""
    mixture = definition(context.cfg, meta["num_experts"])
    shape = gate_shape({"params": saved, "meta": meta})
    make = asr.build(context.base.config, mixture=mixture, gate=shape, seed=context.cfg.seed)
    return *asr.init(make, merge_groups(context.base.params, saved)), mixture


def mean_logits(context: Context, graphdef, params, mixture: asr.Mixture) -> np.ndarray:
    """logits_E that give every utterance the mean route of the training part.

    With dense routing and sigmoid exactly that route; otherwise what the mixture itself chooses of its weights.
    """
    weight_NE = train_weights(context, graphdef, params, mixture)
    return routing.logits_of(weight_NE.mean(0), mixture.routing)


def train_weights(context: Context, graphdef, params, mixture: asr.Mixture) -> np.ndarray:
    """What the gate gives to the training part, weight_NE: shares, or the weights themselves where each is alone."""
    embedding_NU = gate_inputs.embeddings_of(context, context.corpus.rows("train"))
    route = mixture.route(asr.make_gate(graphdef)(params, embedding_NU))
    weight_NE = routing.dense_weights(route, mixture.num_experts)
    return np.asarray(weight_NE if mixture.routing == "sigmoid" else routing.shares(weight_NE))


def with_experts(context: Context, mixture: asr.Mixture, saved=None):
    """`(graphdef, params)`: base + experts without a gate (adapters), fresh or the `saved` groups."""
    config, base = context.base.config, context.base.params
    have = merge_groups(base, saved) if saved else base
    return asr.init(asr.build(config, mixture=mixture, seed=context.cfg.seed), have)


def merge_groups(base: dict, more: dict) -> dict:
    """Union of two trees of groups, leaf by leaf; the second wins."""
    flat = functional.paths(base) | functional.paths(more)
    return functional.nest(flat)
