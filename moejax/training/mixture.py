"""Gate, experts and joint: three rows of one table, trained by the one loop.

stage    trains          route                    loss
gate     gate            -                        cross-entropy with cluster memberships
experts  expert          gate, frozen (or label)  recognition
joint    expert + gate   gate                     recognition + balance + z
"""

import numpy as np

from moejax.cohorts import projection
from moejax.data.pipeline import BatchPlan
from moejax.errors import BadValue
from moejax.nn import gates
from moejax.runtime.files import write_json
from moejax.tasks import asr
from moejax.train.params_file import save_params
from moejax.training import dev, encoder_states, fitting, gate_inputs, network, probe, timed
from moejax.training.load_monitor import LoadMonitor
from moejax.work import fields
from moejax.work.context import Context
from moejax.work.fields import SHARE, SIZE, STEPS, Field, above, below
from moejax.work.stage import Stage

FITTED = 16_384  # utterances, and as many windows, that a discriminant is fitted on at most: 0.7 GB for large-v2

SECTIONS = {
    "gate": {
        **fields.but(fitting.PLAIN, steps=300, batch_size=64, learning_rate=1e-3, weight_decay=1e-3),
        "kind": Field(
            "utterance",
            "What the gate makes logits of.\n"
            "utterance: the whole utterance; layer: each layer with experts; rank: each rank of an expert; token: each"
            " token in each decoder layer; label: the known cluster where there is one (recordings that are new have"
            " none); mixed: utterance and label both; constant: the same for everybody, the control.",
            choices=tuple(gates.KINDS),
        ),
        "known_share": Field(
            0.5, "Share of the weight that the known cluster's expert gets, for kind mixed.", limits=SHARE
        ),
        "input": Field(
            "auto",
            "Fixed projection of the embedding that the gate sees.\n"
            "raw: standardised; pca: principal components; discriminant: what cluster.discriminant says, of speakers"
            " on the whole training part; auto: that where there is one, else raw.",
            choices=("auto", "raw", "pca", "discriminant"),
        ),
        "input_dims": Field(16, "Principal components that the gate sees, for input pca.", limits=SIZE),
        "num_experts": Field(
            8,
            "Number of experts; the clusters are matched to it by cluster.match.\n"
            "0: no mixture; nothing is embedded or clustered for one, which takes a pass over the whole corpus.",
            limits=(0, SIZE[1]),
        ),
        "hidden": Field(512, "Width of the gate's hidden layer; 0: one linear layer without a hidden one."),
        "targets": Field(
            "soft",
            "What the gate is pretrained on.\nsoft: cluster memberships; hard: cluster labels.",
            choices=("soft", "hard"),
        ),
        "class_weights": Field(True, "Whether clusters count the same in pretraining whatever their size."),
        "temperature": Field(
            1.0,
            "Divisor of the logits after pretraining; above 1 the mixture starts softer.",
            limits=(above(0), 1e6),
        ),
        "zero_start": Field(
            False,
            "Whether the gate's last layer starts at zero, so that all experts begin equally likely.\n"
            "Only useful with gate.steps = 0, when the joint stage is to teach the gate alone.",
        ),
        "fallback": Field(
            0.0,
            "Share of the training utterances within the radius around their own speaker's mean (such as 0.95); 0:"
            " none.\n"
            "Beyond it a voice is unlike any in training and gets the even route. With 0 whoever is nearest lends its"
            " route.",
            limits=(0.0, below(1)),
        ),
    },
    "experts": {
        **fields.but(fitting.TRAIN, steps=200),
        **fitting.DEV,
        "route": Field(
            "gate",
            "Which experts an utterance trains.\n"
            "gate: by the frozen gate; label: its own cluster's expert; uniform: all at once, which with dense routing"
            " is one LoRA of their total rank, for the joint stage to start from.",
            choices=("gate", "label", "uniform"),
        ),
        "part": Field(
            "sample",
            "Part that the experts are trained on.\nsample: the share of train that was clustered; train: all of it.",
            choices=("sample", "train"),
        ),
    },
    "joint": {
        **fields.but(fitting.TRAIN, steps=200),
        **fitting.DEV,
        "balance": Field(0.01, "Weight of the loss that keeps the experts' load near their clusters' shares."),
        "z": Field(1e-3, "Weight of the z-loss, which keeps the gate's logits small."),
        "diversity": Field(
            0.0,
            "Weight of the loss that keeps experts apart: the mean squared cosine between the updates of every two.",
            later=True,
        ),
        "gate_scale": Field(0.1, "Learning rate of the gate, as a multiple of joint.learning_rate."),
        "temperature": Field(
            1.0,
            "Divisor of the gate's logits at first; it falls to 1 geometrically.",
            limits=(above(0), 1e6),
        ),
        "temperature_steps": Field(0, "Steps after which that divisor is 1; 0: all of joint.steps.", limits=STEPS),
        "gate_dropout": Field(
            0.0,
            "Share of utterances that train with the even route: what gate.fallback falls back to.",
            limits=(0.0, below(1)),
        ),
        "voice_mix": Field(
            False,
            "Whether the gate trains on random mixtures of an utterance's embedding and its speaker's mean.",
        ),
    },
}


def gate(cfg, work) -> dict:
    """Trains the gate on the clustered sample; tests it on dev and test (whose speakers it may have heard)."""
    context = Context(cfg, work)
    clusters = gate_inputs.clusters_of(context)
    label, membership, keep = (clusters[name] for name in ("label", "membership", "keep"))
    E = membership.shape[1]
    everything = np.arange(len(context.corpus.manifest))
    embedding = gate_inputs.embeddings_of(context, everything)
    fit_rows = np.flatnonzero(context.corpus.manifest.column("sample") & keep)
    if not len(fit_rows):
        raise BadValue("no utterance of the sample was kept by cluster.noise; choose another noise policy")
    mean, matrix = _projection(context, clusters, embedding[fit_rows])
    target = membership if cfg.gate.targets == "soft" else np.eye(E, dtype=np.float32)[np.maximum(label, 0)]
    weight = _class_weights(target[fit_rows]) if cfg.gate.class_weights else np.ones(len(fit_rows), np.float32)
    config, base = context.base.config, context.base.params
    shape = {"mean": mean, "matrix": matrix, "hidden": cfg.gate.hidden, "zero_start": cfg.gate.zero_start}
    if cfg.gate.fallback:
        shape |= _voices(context, mean, matrix, cfg.gate.fallback)
    mixture = network.definition(cfg, E)
    graphdef, params = asr.init(asr.build(config, mixture=mixture, gate=shape, seed=cfg.seed), base)
    if cfg.gate.steps:
        batches = _GateBatches(embedding[fit_rows], target[fit_rows].astype(np.float32), weight.astype(np.float32))
        plan = BatchPlan(
            lengths=np.ones(len(fit_rows), np.int64),
            buckets=(1,),
            batch_size=cfg.gate.batch_size,
            seed=cfg.seed,
            multiple=context.multiple,
            names=context.corpus.manifest.column("id")[fit_rows],
        )
        params = fitting.train(
            context,
            fitting.Training("gate", asr.make_gate_loss(graphdef, E), ("gate",), cfg.gate, plan=plan, fetch=batches),
            params,
        )
    params = asr.soften(params, cfg.gate.temperature)
    # An expert is its cluster's only by what the gate learns of clusters; a gate that starts even owes nobody a share.
    prior = _prior(membership[context.corpus.rows("train")]) if cfg.gate.steps else np.full(E, 1.0 / E)
    scores = probe.gate_scores(context, graphdef, params, embedding, label, fit_rows)
    sizes = {"num_experts": E, "hidden": cfg.gate.hidden, "zero_start": cfg.gate.zero_start}
    meta = {**sizes, "prior": prior.tolist(), **scores}
    buffer = {"gate": params["buffer"]["gate"]}
    save_params(work.path("gate", "gate.safetensors"), {"gate": params["gate"], "buffer": buffer}, meta)
    write_json(work.path("gate", "scores.json"), meta)
    if not cfg.gate.steps:
        work.log("  nothing is trained here (gate.steps = 0): the joint stage is to teach the gate")
        return scores
    work.log(
        f"  gate accuracy {scores['gate_accuracy']:.3f} on {scores['rows']} utterances of dev and test"
        f" (majority {scores['majority']:.3f}, duration and silence {scores['nuisance']:.3f})"
    )
    return scores


def experts(cfg, work) -> dict:
    """Trains the experts with the gate frozen, on the sample."""
    context = Context(cfg, work)
    rows = gate_inputs.training_rows(context, {"sample": True} if cfg.experts.part == "sample" else {})
    graphdef, params, mixture, meta = network.with_gate(context)
    known = cfg.experts.route == "label" or mixture.known_share
    labels = gate_inputs.clusters_of(context)["label"] if known else None
    row = asr.Row(route=cfg.experts.route, frozen=True, **fitting.row_options(cfg.experts))
    return _train_mixture(context, "experts", rows, graphdef, params, mixture, meta, row, ("expert",), labels)


def joint(cfg, work) -> dict:
    """Trains experts and gate together on the whole training part."""
    context = Context(cfg, work)
    rows = gate_inputs.training_rows(context)
    graphdef, params, mixture, meta = network.with_gate(context, "experts")
    section = cfg.joint
    falls = (section.temperature_steps or section.steps) if section.temperature != 1 else 0
    terms = {name: section[name] for name in ("balance", "z", "diversity", "gate_dropout", "voice_mix", "temperature")}
    row = asr.Row(route="gate", frozen=True, temperature_steps=falls, **terms, **fitting.row_options(section))
    labels = gate_inputs.clusters_of(context)["label"] if mixture.known_share else None
    return _train_mixture(context, "joint", rows, graphdef, params, mixture, meta, row, ("expert", "gate"), labels)


def _train_mixture(context, name, rows, graphdef, params, mixture, meta, row, trainable, labels_N=None):
    """`labels_N`: of every row of the manifest, for the route "label" and gates that are told the cluster."""
    labels = None if labels_N is None else labels_N[rows]
    prior_E = np.asarray(meta["prior"], np.float32)
    loss_fn = asr.make_loss(graphdef, row, mixture=mixture, prior_E=prior_E, num_cohorts=len(context.corpus.cohorts))
    gate_in = gate_inputs.embeddings_of(context, rows)
    if row.voice_mix:
        gate_in = np.concatenate([gate_in, gate_inputs.speaker_means(context, rows)], axis=1)
    section, kept = context.cfg[name], encoder_states.why_not(row, mixture) is None
    plan, fetch = timed.material(context, rows, section, labels=labels, gate_in=gate_in, kept=kept)
    monitor = LoadMonitor(mixture.num_experts, context.corpus.cohorts, prior_E)
    if section.steps:
        params = fitting.train(
            context,
            fitting.Training(
                name,
                loss_fn,
                trainable,
                section,
                plan=plan,
                fetch=fetch,
                on_metrics=monitor,
                stepped=row.temperature_steps > 0,
                eval_fn=dev.judge(context, graphdef, mixture, row.route, section, labels_N, kept),
            ),
            params,
        )
    keep = {group: params[group] for group in ("expert", "gate")}
    save_params(context.work.path(name, "params.safetensors"), keep)
    if monitor.seen():
        context.work.log(monitor.table())
    return {
        "utterances": len(np.unique(rows)),
        "load": monitor.load().tolist(),
        "max_load": float(monitor.load().max()),
        "top1": monitor.top1().tolist(),
    }


class _GateBatches:
    """Batches of embeddings and targets; filler rows weigh nothing."""

    def __init__(self, embedding, target, weight):
        self.embedding, self.target, self.weight = embedding, target, weight

    def __call__(self, bucket, rows):
        pick = np.maximum(rows, 0)
        return {
            "embedding_BU": self.embedding[pick],
            "target_BE": self.target[pick],
            "weight_B": np.where(rows >= 0, self.weight[pick], 0.0).astype(np.float32),
        }


def _projection(context, clusters, embedding_NU):
    """(mean_U, matrix_UK): the gate's fixed affine input. Principal components are scaled to unit variance."""
    section = context.cfg.gate
    there = "proj_matrix" in clusters and clusters["proj_matrix"].size
    if section.input == "discriminant" and not there:
        raise BadValue("gate.input is discriminant, but cluster.discriminant is none; known: raw, pca, auto")
    if section.input == "pca":
        found = projection.fit_pca(embedding_NU, dims=section.input_dims)
        std_K = np.maximum(found(embedding_NU).std(0), 1e-4)
        return found.mean_U.astype(np.float32), (found.matrix_UK / std_K).astype(np.float32)
    if there and section.input != "raw":
        return _discriminant(context) or (clusters["proj_mean"], clusters["proj_matrix"])
    std_U = np.maximum(embedding_NU.std(0), 1e-4)
    return embedding_NU.mean(0), np.diag(1.0 / std_U).astype(np.float32)


def _discriminant(context):
    """What tells speakers apart, fitted on all of the training part and on joined windows where these are learnt; None
    where cluster.discriminant asks for something else, or fewer than two speakers are named.

    Clusters are found on the sample, whose discriminant serves the gate badly: of 40 speakers held back
    (speechocean762, tiny.en) variances between them were 9.7 times those within, here 13.7; and a window, which lies
    elsewhere than its utterances, lay up to 2.7 deviations off in its coordinates, here 0.1.
    """
    cfg, manifest, rows = context.cfg, context.corpus.manifest, context.corpus.rows("train")
    if cfg.cluster.discriminant != "speaker":
        return None
    speaker_N = manifest.column("speaker")
    if len(rows) > FITTED:
        rows = np.sort(np.random.default_rng(cfg.seed).choice(rows, FITTED, replace=False))
    group_N, heard_NU = speaker_N[rows], gate_inputs.embeddings_of(context, rows)
    every = timed.windows(context) if context.base.times else None
    if every:
        of_window = [heard[0] for heard in every.members[:FITTED]]
        group_N = np.concatenate([group_N, speaker_N[of_window]])
        heard_NU = np.concatenate([heard_NU, gate_inputs.of_windows(context, every)[:FITTED]])
    named_N = group_N != ""
    if len(np.unique(group_N[named_N])) < 2:
        return None
    sizes = cfg.cluster.discriminant_dims, cfg.cluster.shrinkage
    mean_U, matrix_UK = projection.fit_discriminant(heard_NU[named_N], group_N[named_N], *sizes)
    return mean_U.astype(np.float32), matrix_UK.astype(np.float32)


def _voices(context, mean_U, matrix_UK, share) -> dict:
    """Where the training speakers lie after the projection, and the radius around them that holds `share` of their
    utterances and, where windows are learnt, of these, which lie elsewhere. Errors: nobody has a name.
    """
    rows = context.corpus.rows("train")
    speaker_N = context.corpus.manifest.column("speaker")[rows]
    if not (speaker_N != "").any():
        raise BadValue("gate.fallback measures distances to training speakers; the corpus names none: set it to 0")
    named = rows[speaker_N != ""]
    own_NK = (gate_inputs.embeddings_of(context, named) - mean_U) @ matrix_UK
    mean_NK = (gate_inputs.speaker_means(context, named) - mean_U) @ matrix_UK
    _, first = np.unique(speaker_N[speaker_N != ""], return_index=True)
    far_N = np.linalg.norm(own_NK - mean_NK, axis=1)
    every = timed.windows(context) if context.base.times else None
    if every:
        place = {row: i for i, row in enumerate(named.tolist())}
        of_named = [(w, place[heard[0]]) for w, heard in enumerate(every.members) if heard[0] in place]
        window_N, mean_N = np.array(of_named, int).reshape(-1, 2).T
        heard_WK = (gate_inputs.of_windows(context, every)[window_N] - mean_U) @ matrix_UK
        far_N = np.concatenate([far_N, np.linalg.norm(heard_WK - mean_NK[mean_N], axis=1)])
    radius = float(np.quantile(far_N, share))
    return {"voices": mean_NK[first].astype(np.float32), "radius": max(radius, 1e-6)}


def _class_weights(target_NE):
    """Weight of each row such that every cluster has the same total weight; the mean weight is one."""
    mass_E = np.maximum(target_NE.sum(0), 1e-9)
    weight_N = (target_NE / mass_E).sum(1)
    return weight_N / weight_N.mean()


def _prior(membership_NE):
    """Share of each expert's cluster over the training part, floored so that no division explodes."""
    prior_E = np.maximum(membership_NE.mean(0), 1e-3)
    return prior_E / prior_E.sum()


GATE = Stage(
    "gate",
    gate,
    needs=("cluster",),
    reads=("gate",),
    switch="gate.num_experts",
    together=True,
    reseeded=True,
    sections={"gate": SECTIONS["gate"]},
)
EXPERTS = Stage(
    "experts",
    experts,
    needs=("gate",),
    reads=("mixture", "experts"),
    switch="gate.num_experts",
    together=True,
    reseeded=True,
    sections={"experts": SECTIONS["experts"]},
)
JOINT = Stage(
    "joint",
    joint,
    needs=("experts",),
    reads=("joint",),
    switch="gate.num_experts",
    together=True,
    reseeded=True,
    sections={"joint": SECTIONS["joint"]},
)
