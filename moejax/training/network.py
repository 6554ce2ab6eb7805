"""The mixture of one run as stages see it: its definition from the config, its parameters from the workdir."""

import numpy as np

from moejax.errors import BadValue
from moejax.nn import functional
from moejax.ops import routing
from moejax.tasks import asr
from moejax.train.checkpoint import load_params
from moejax.work.context import Corpus, embeddings


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


def with_gate(corpus: Corpus, stage: str | None = None):
    """`(graphdef, params, mixture, meta)`: base + gate + experts; experts fresh, or as `stage` (experts, joint) left
    them.
    """
    cfg, work = corpus.cfg, corpus.work
    gate = gate_of(work)
    mixture = definition(cfg, gate["meta"]["num_experts"])
    config, base = corpus.base
    have = merge_groups(base, gate["params"])
    if stage is not None:
        have = merge_groups(have, load_params(work.path(stage, "params.safetensors"))[0])
    graphdef, params = asr.init(asr.build(config, mixture=mixture, gate=gate_shape(gate), seed=cfg.seed), have)
    return graphdef, params, mixture, gate["meta"]


def mean_logits(corpus: Corpus, graphdef, params, mixture: asr.Mixture) -> np.ndarray:
    """logits_E that give every utterance the mean route of the training part.

    With dense routing and sigmoid exactly that route; otherwise what the mixture itself chooses of its weights.
    """
    weight_NE = train_weights(corpus, graphdef, params, mixture)
    return routing.logits_of(weight_NE.mean(0), mixture.routing)


def train_weights(corpus: Corpus, graphdef, params, mixture: asr.Mixture) -> np.ndarray:
    """What the gate gives to the training part, weight_NE: shares, or the weights themselves where each is alone."""
    embedding_NU = gate_inputs(corpus, corpus.rows("train"))
    route = mixture.route(asr.make_gate(graphdef)(params, embedding_NU))
    weight_NE = routing.dense_weights(route, mixture.num_experts)
    return np.asarray(weight_NE if mixture.routing == "sigmoid" else routing.shares(weight_NE))


def with_experts(corpus: Corpus, mixture: asr.Mixture, saved=None):
    """`(graphdef, params)`: base + experts without a gate (adapters), fresh or the `saved` groups."""
    config, base = corpus.base
    have = merge_groups(base, saved) if saved else base
    return asr.init(asr.build(config, mixture=mixture, seed=corpus.cfg.seed), have)


def merge_groups(base: dict, more: dict) -> dict:
    """Union of two trees of groups, leaf by leaf; the second wins."""
    flat = functional.paths(base) | functional.paths(more)
    return functional.nest(flat)


def clusters_of(corpus: Corpus) -> dict[str, np.ndarray]:
    """The arrays of the cluster stage that have one entry per utterance, in the order of the manifest's rows, and the
    others as they are.
    """
    with np.load(corpus.work.path("cluster", "clusters.npz")) as file:
        found = dict(file)
    order = {name: i for i, name in enumerate(found["id"])}
    at = np.array([order[name] for name in corpus.manifest.column("id")])
    per_row = ("id", "label", "membership", "keep", "probability", "by")
    return {name: array[at] if name in per_row else array for name, array in found.items()}


def gate_inputs(corpus: Corpus, rows) -> np.ndarray:
    """Embeddings of these rows, in order. Errors: the embed stage saw another corpus."""
    found = embeddings(corpus.work)
    place = {name: i for i, name in enumerate(found["id"])}
    ids = corpus.manifest.column("id")[rows]
    missing = [name for name in ids if name not in place]
    if missing:
        raise BadValue(f"utterance {missing[0]!r} has no embedding; run the embed stage again")
    return found["embedding"][[place[name] for name in ids]]


def training_rows(corpus: Corpus, select=None) -> np.ndarray:
    """Rows of the training part that experts, mixture and adapters learn from. With mixture.even_speakers each row is
    there so many times that every speaker comes up about as often as the one with the most: what a majority has to say
    is otherwise most of what is learnt. Rows without a speaker are there once.
    """
    rows = corpus.rows("train", select)
    if not corpus.cfg.mixture.even_speakers:
        return rows
    speaker_N = corpus.manifest.column("speaker")[rows]
    known, place_N, count_P = np.unique(speaker_N, return_inverse=True, return_counts=True)
    most = max((count for name, count in zip(known, count_P, strict=True) if name), default=1)
    times_P = np.where(known == "", 1, np.maximum(np.round(most / count_P), 1)).astype(int)
    return np.repeat(rows, times_P[place_N])


def speaker_means(corpus: Corpus, rows) -> np.ndarray:
    """Embeddings of these rows with each speaker's mean over them in place of each; without a speaker, the own one."""
    embedding_NU, speaker_N = gate_inputs(corpus, rows), corpus.manifest.column("speaker")[rows]
    mean_NU = embedding_NU.copy()
    for name in set(speaker_N) - {""}:
        mean_NU[speaker_N == name] = embedding_NU[speaker_N == name].mean(0)
    return mean_NU


def enrolled(corpus: Corpus) -> np.ndarray:
    """For every row of the manifest the embedding by which a system would know its speaker: the mean of his utterances
    in training, or of his others in the same part where he has none there; without a name, the own one.
    """
    everything = np.arange(len(corpus.manifest))
    embedding_NU = gate_inputs(corpus, everything)
    speaker_N, split_N = corpus.manifest.column("speaker"), corpus.manifest.column("split")
    known_NU = embedding_NU.copy()
    for name in set(speaker_N) - {""}:
        own_N = speaker_N == name
        heard_N = own_N & (split_N == "train")
        if heard_N.any():
            known_NU[own_N] = embedding_NU[heard_N].mean(0)
            continue
        for part in set(split_N[own_N]):
            rows = np.flatnonzero(own_N & (split_N == part))
            if len(rows) > 1:
                known_NU[rows] = (embedding_NU[rows].sum(0) - embedding_NU[rows]) / (len(rows) - 1)
    return known_NU
