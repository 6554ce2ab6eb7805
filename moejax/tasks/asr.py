"""Speech recognition: how a batch becomes a loss, and audio becomes tokens.

Everything here is a pure function of `(params, batch, key)` made by closing over a graphdef; stages choose the row
(what trains, where the route comes from, which terms the loss has) and never write a forward pass of their own.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from moejax.errors import BadValue
from moejax.nn import functional, gates, inject, variables, whisper
from moejax.nn.functional import GraphDef
from moejax.ops import augment, losses, pooling, routing
from moejax.ops.audio import log_mel
from moejax.tasks.routes import Mixture, Routing, even, load_metrics, soften
from moejax.types import Array, Batch, Params, Route

__all__ = ["Mixture", "load_metrics", "soften"]  # of tasks.routes, known by this name too

ROUTES = ("none", "label", "gate", "uniform")


@dataclasses.dataclass(frozen=True)
class Embedding:
    """How an utterance's states are pooled into the gate's input: hidden layers (-1 the last), pooling, silence trimmed
    or not; and what else the gate is told, the same for all that is heard (`training.st`: the task).
    """

    layers: tuple[int, ...] = (-1,)
    how: str = "mean"
    trim_silence: bool = False
    told: tuple[float, ...] = ()


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the training table. `route` one of ROUTES; weights of the loss terms; noise in training only."""

    route: str = "none"
    balance: float = 0.0
    z: float = 0.0
    diversity: float = 0.0  # of `losses.likeness` of the experts
    # Share of utterances that train with the even route, so that the blocks stay one good LoRA for whoever falls back
    gate_dropout: float = 0.0
    voice_mix: bool = False  # the gate hears own embedding and speaker's mean, mixed at random; both in gate_in_BU
    ctc: float = 0.0
    smoothing: float = 0.0
    dropout: float = 0.0
    spec: bool = False
    time_masks: int = 2
    time_width: int = 10
    freq_masks: int = 2
    freq_width: int = 12
    warp_time: float = 0.0
    warp_freq: float = 0.0
    level: float = 0.0
    frozen: bool = False  # the backbone is not learnt: see `losses.frozen_cross_entropy`
    scored: int = 0  # most scored positions of an utterance, which follow on each other; 0: all may be
    temperature: float = 1.0  # the gate's logits are divided by this in the first step, and by 1 after so many
    temperature_steps: int = 0


def build(
    config: whisper.WhisperConfig,
    *,
    mixture: Mixture | None = None,
    gate: dict[str, Any] | None = None,
    ctc: bool = False,
    seed: int = 0,
) -> Callable[[], whisper.Whisper]:
    """A zero-argument function that makes the module; pass it to `functional.abstract` or to `init`.

    `gate` = {"mean": [U], "matrix": [U, K], "hidden": int, "zero_start": bool}, and for one that falls back
    {"voices": [P, K], "radius": float}; its kind is the mixture's.
    """

    def make():
        init = variables.Init(seed)
        model = whisper.Whisper(config, init=init)
        if ctc:
            whisper.add_ctc(model, init)
        hang(model, mixture, gate, init)
        return model

    return make


def hang(model: Any, mixture: Mixture | None, gate: dict[str, Any] | None, init: variables.Init) -> None:
    """Hangs experts, gate and what else the mixture's kind asks for on a model with a `decoder`; see `build`."""
    if mixture is None:
        return
    chosen = inject.add_experts(
        model,
        mixture.targets,
        num_experts=mixture.num_experts,
        rank=mixture.rank,
        alpha=mixture.alpha,
        shared_rank=mixture.shared_rank,
        stabilised=mixture.stabilised,
        kind=mixture.kind,
        init=init,
    )
    if gate is None:
        return
    model.gate = gates.KINDS[mixture.gate](
        gate["mean"],
        gate["matrix"],
        num_experts=mixture.num_experts,
        hidden=gate["hidden"],
        zero_start=gate["zero_start"],
        voices_PK=gate.get("voices"),
        radius=gate.get("radius", 0.0),
        layers=len(chosen),
        rank=mixture.rank,
        init=init,
    )
    if mixture.gate == "token":
        inject.add_routers(model, num_experts=mixture.num_experts, route=mixture.route, init=init)


def init(make: Callable[[], Any], base: Params | None = None) -> tuple[GraphDef, Params]:
    """`(graphdef, params)`: the base's arrays where it has them, fresh ones elsewhere. Errors: a shape that does not
    fit.
    """
    graphdef, recipe = functional.split(make())
    have = functional.paths(base or {})
    flat = functional.paths(recipe)
    for path, leaf in flat.items():
        if path in have and tuple(have[path].shape) != tuple(leaf.shape):
            raise BadValue(f"parameter {path} has shape {have[path].shape}, the model wants {leaf.shape}")
    chosen = functional.nest({path: have.get(path, leaf) for path, leaf in flat.items()})
    return graphdef, functional.materialise(chosen)


def embed(
    model: whisper.Whisper, mel_BNM: Array, audio_BS: Array, samples_B: Array, embedding: Embedding
) -> tuple[Array, Array]:
    """Pooled states [B, U] of the *unadapted* encoder and its last ones. Padding never enters: pooling is masked."""
    hop = model.config.hop
    valid_BT = pooling.valid_frames(samples_B, -(-mel_BNM.shape[1] // 2), hop)
    states_BTD, hidden = model.encode(mel_BNM, valid_BT, layers=True)
    chosen = [states_BTD if layer == -1 else hidden[layer] for layer in embedding.layers]
    return pooled(chosen, audio_BS, samples_B, embedding, hop), states_BTD


def pooled(chosen: Sequence[Array], audio_BS: Array | None, samples_B: Array, embedding: Embedding, hop: int) -> Array:
    """Embeddings [B, U] from the states of the embedding's layers, each [B, T, D]."""
    T = chosen[0].shape[1]
    if embedding.trim_silence:
        assert audio_BS is not None  # where silence is
        mask_BT = pooling.speech_frames(audio_BS, samples_B, T, hop)
    else:
        mask_BT = pooling.valid_frames(samples_B, T, hop)
    heard = [pooling.pool(x, mask_BT, embedding.how) for x in chosen]
    told = jnp.broadcast_to(jnp.asarray(embedding.told, jnp.float32), (len(samples_B), len(embedding.told)))
    return jnp.concatenate([*heard, told], axis=-1)


def make_loss(
    graphdef: GraphDef,
    row: Row,
    *,
    mixture: Routing | None = None,
    prior_E: Array | None = None,
    num_cohorts: int = 1,
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`loss_fn(params, batch, key, step=None) -> (loss, metrics)` of one row; `step` only matters to a temperature that
    falls, which is 1 without it.
    """
    if row.route not in ROUTES:
        raise ValueError(f"unknown route {row.route!r}; known: {', '.join(ROUTES)}")

    def loss_fn(params, batch: Batch, key, step=None):
        model = functional.merge(graphdef, params)
        key_augment, key_noise, key_route = jax.random.split(key, 3)
        if batch.states_BTD is None:
            mel_BNM, mask_BT = augmented(model, batch, key_augment, row)
        else:
            mel_BNM = None
            mask_BT = pooling.valid_frames(batch.samples_B, batch.states_BTD.shape[1], model.config.hop)
        route, terms = route_of(model, batch, key_route, row, mixture, prior_E, num_cohorts, step)
        dropout = mixture.expert_dropout if mixture is not None else 0.0
        noise = whisper.Noise(key_noise, row.dropout, dropout) if row.dropout or dropout else None
        states_BTD = batch.states_BTD if mel_BNM is None else model.encode(mel_BNM, mask_BT, route, noise)
        if row.frozen and jax.default_backend() == "cpu" and jax.device_count() == 1:
            x_BLD = model.decoder.norm(model.decoder.hidden(batch.tokens_BL, states_BTD, mask_BT, route, noise))
            embed_VD = model.decoder.embed[...]
            ce, accuracy = losses.frozen_cross_entropy(x_BLD, embed_VD, batch.targets_BL, batch.score_BL, row.smoothing)
        else:
            at_BK, targets_BK, score_BK = scored(batch, row.scored)
            logits_BKV = model.decoder(batch.tokens_BL, states_BTD, mask_BT, route, noise, at_BK)
            ce, _, count = losses.token_cross_entropy(logits_BKV, targets_BK, score_BK, row.smoothing)
            accuracy = ((logits_BKV.argmax(-1) == targets_BK) & score_BK).sum() / count
        metrics = {"ce": ce, "accuracy": accuracy, **terms.pop("metrics", {})}
        if row.diversity:
            terms["diversity"] = row.diversity * losses.likeness(_updates(params["expert"]))
        if row.ctc:
            terms["ctc"] = row.ctc * _ctc(model, states_BTD, mask_BT, batch)
        return ce + sum(terms.values()), metrics | terms

    return loss_fn


def scored(batch: Batch, most: int) -> tuple[Array | None, Array, Array]:
    """`(at_BK, targets_BK, score_BK)`: positions from the first scored one on, K = `most`; at None for all of them."""
    L = batch.targets_BL.shape[1]
    if not 0 < most < L:
        return None, batch.targets_BL, batch.score_BL
    first_B = jnp.argmax(batch.score_BL, axis=1)
    from_BK = first_B[:, None] + jnp.arange(most)[None]
    at_BK = jnp.minimum(from_BK, L - 1)
    score_BK = jnp.take_along_axis(batch.score_BL, at_BK, axis=1) & (from_BK < L)
    return at_BK, jnp.take_along_axis(batch.targets_BL, at_BK, axis=1), score_BK


def augmented(model: whisper.Whisper, batch: Batch, key: Array, row: Row) -> tuple[Array, Array]:
    """(mel_BNM, mask_BT) of the batch with the row's augmentation."""
    hop = model.config.hop
    mel_BNM = log_mel(batch.audio_BS, n_mels=model.config.num_mel_bins, hop=hop)
    frames_B = -(-batch.samples_B // hop)
    keys = jax.random.split(key, 3)
    if row.warp_time or row.warp_freq:
        mel_BNM, frames_B = augment.warp(keys[0], mel_BNM, frames_B, time=row.warp_time, freq=row.warp_freq)
    if row.level:
        mel_BNM = augment.level(keys[1], mel_BNM, shift=row.level)
    if row.spec:
        mel_BNM = augment.spec_augment(
            keys[2],
            mel_BNM,
            frames_B,
            time_masks=row.time_masks,
            time_width=row.time_width,
            freq_masks=row.freq_masks,
            freq_width=row.freq_width,
        )
    return mel_BNM, pooling.valid_frames(frames_B * hop, -(-mel_BNM.shape[1] // 2), hop)


def route_of(
    model: Any,
    batch: Batch,
    key: Array,
    row: Row,
    mixture: Routing | None,
    prior_E: Array | None,
    num_cohorts: int,
    step: Array | None,
) -> tuple[Route | None, dict[str, Any]]:
    """The route of this row and the loss terms that come with it; `model` needs a `gate` where the row asks it."""
    if row.route == "none":
        return None, {}
    if row.route == "label":
        return routing.one_hot(batch.label_B), {}
    assert mixture is not None  # both other routes are a mixture's
    if row.route == "uniform":
        return even(mixture, len(batch.label_B)), {}
    _, key_drop, key_mix = jax.random.split(key, 3)
    gate_in_BU = _mixed(key_mix, batch.gate_in_BU) if row.voice_mix else batch.gate_in_BU
    logits_BE, heard_B1 = model.gate(gate_in_BU), jnp.ones((len(gate_in_BU), 1), jnp.float32)
    if row.temperature_steps and step is not None:
        cooled = routing.temperature(step, row.temperature, row.temperature_steps)
        logits_BE, heard_B1 = logits_BE / cooled, heard_B1 / cooled
    if row.gate_dropout:
        keep_B1 = jax.random.bernoulli(key_drop, 1 - row.gate_dropout, (len(logits_BE), 1))
        logits_BE, heard_B1 = logits_BE * keep_B1, heard_B1 * keep_B1
    route = mixture.whole_route(logits_BE, model.gate, gate_in_BU, heard_B1, batch.label_B)
    share_BE = routing.shares(routing.dense_weights(route, mixture.num_experts))
    prob_BE = jax.nn.softmax(logits_BE, axis=-1)
    terms = {}
    if row.balance:
        terms["balance"] = row.balance * losses.balance(prob_BE, share_BE, prior_E, batch.real_B)
    if row.z:
        terms["z"] = row.z * losses.z_loss(logits_BE, batch.real_B)
    cohort_BC = jax.nn.one_hot(batch.cohort_B, num_cohorts) * batch.real_B[:, None]
    terms["metrics"] = load_metrics(share_BE, cohort_BC, batch.real_B)
    return route, terms


def _updates(expert: Params) -> list[tuple[Array, Array]]:
    """(A_EDR, B_ERO) of every layer with experts."""
    flat = functional.paths(expert)
    return [(leaf, flat[path.removesuffix("A") + "B"]) for path, leaf in flat.items() if path.endswith("/A")]


def _mixed(key, both_BU):
    """A random mixture of each utterance's embedding and its speaker's mean, which lie side by side."""
    own_BU, mean_BU = jnp.split(both_BU, 2, axis=1)
    own_B1 = jax.random.uniform(key, (len(own_BU), 1))
    return own_B1 * own_BU + (1 - own_B1) * mean_BU


def _ctc(model, states_BTD, mask_BT, batch):
    """CTC over the text tokens (targets without the end token)."""
    L = batch.targets_BL.shape[1]
    first_B = jnp.argmax(batch.score_BL, axis=1)
    at_BL = jnp.minimum(first_B[:, None] + jnp.arange(L)[None], L - 1)
    labels_BL = jnp.take_along_axis(batch.targets_BL, at_BL, axis=1)
    length_B = batch.score_BL.sum(1) - 1
    real_BL = jnp.arange(L)[None] < length_B[:, None]
    return losses.ctc(model.ctc(states_BTD), mask_BT, labels_BL, real_BL, blank=model.config.vocab_size)


def make_gate_loss(graphdef: GraphDef, num_experts: int) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`loss_fn(params, batch, key)` on {"embedding_BU", "target_BE", "weight_B"}: gate against memberships."""

    def loss_fn(params, batch, key):
        del key
        logits_BE = functional.merge(graphdef, params).gate(batch["embedding_BU"])
        loss = losses.soft_cross_entropy(logits_BE, batch["target_BE"], batch["weight_B"])
        hit_B = (logits_BE.argmax(-1) == batch["target_BE"].argmax(-1)) & (batch["weight_B"] > 0)
        return loss, {"accuracy": hit_B.sum() / jnp.maximum((batch["weight_B"] > 0).sum(), 1)}

    return loss_fn


def make_gradients(
    graphdef: GraphDef, mixture: Routing, *, dims: int, together: int
) -> Callable[..., dict[str, Array]]:
    """Jitted `(params, batch, key) -> {block: gradient_BU}`: each utterance's gradient of the cross-entropy with
    respect to the second factor of the one expert, by block (encoder, decoder) on `dims` random directions, of unit
    length.

    `together` utterances are differentiated at once.
    """
    loss_fn = make_loss(graphdef, Row(route="label"), mixture=mixture)

    @jax.jit
    def run(params, batch, key):
        flat = functional.paths(params["expert"])
        second = {path: leaf for path, leaf in flat.items() if path.endswith("/B")}

        def loss(second, one):
            expert = functional.nest(flat | second)
            return loss_fn({**params, "expert": expert}, jax.tree.map(lambda leaf: leaf[None], one), key)[0]

        def sketch(one):
            blocks: dict = {}
            for number, (path, leaf) in enumerate(sorted(jax.grad(loss)(second, one).items())):
                directions = jax.random.normal(jax.random.fold_in(key, number), (leaf.size, dims), jnp.float32)
                block = path.split("/")[0]
                blocks[block] = blocks.get(block, 0.0) + leaf.astype(jnp.float32).ravel() @ directions
            return {name: v_U / jnp.maximum(jnp.linalg.norm(v_U), 1e-12) for name, v_U in blocks.items()}

        return jax.lax.map(sketch, batch, batch_size=together)

    return run


def make_embed(graphdef: GraphDef, embedding: Embedding) -> Callable[..., Array]:
    """Jitted `(params, audio_BS, samples_B, mel_BNM=None) -> embedding_BU`; without features those of the audio."""

    @jax.jit
    def run(params, audio_BS, samples_B, mel_BNM=None):
        model = functional.merge(graphdef, params)
        if mel_BNM is None:
            mel_BNM = log_mel(audio_BS, n_mels=model.config.num_mel_bins, hop=model.config.hop)
        return embed(model, mel_BNM, audio_BS, samples_B, embedding)[0]

    return run


def make_pooled(embedding: Embedding, hop: int) -> Callable[[Array, Array, Array], Array]:
    """Jitted `(states_BTD, audio_BS, samples_B) -> embedding_BU` of the encoder's output, where it is known."""

    @jax.jit
    def run(states_BTD, audio_BS, samples_B):
        return pooled([states_BTD], audio_BS, samples_B, embedding, hop)

    return run


def make_gate(graphdef: GraphDef) -> Callable[[Params, Array], Array]:
    """Jitted `(params, embedding_BU) -> logits_BE`."""

    @jax.jit
    def run(params, embedding_BU):
        return functional.merge(graphdef, params).gate(embedding_BU)

    return run
