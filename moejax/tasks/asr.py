"""Speech recognition: how a batch becomes a loss, and audio becomes tokens.

Everything here is a pure function of `(params, batch, key)` made by closing over a graphdef; stages choose the row
(what trains, where the route comes from, which terms the loss has) and never write a forward pass of their own.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from moejax.decode.beam import beam_search
from moejax.decode.decoder import Decoder, Programs
from moejax.decode.greedy import greedy
from moejax.decode.language import detect
from moejax.decode.search import sample
from moejax.errors import BadValue
from moejax.nn import functional, gates, inject, variables, whisper
from moejax.ops import augment, losses, pooling, routing
from moejax.ops.audio import log_mel
from moejax.tasks.routes import Mixture, load_metrics, replaced, soften
from moejax.types import Batch

__all__ = ["Mixture", "load_metrics", "soften"]  # of tasks.routes, known by this name too

ROUTES = ("none", "label", "gate", "uniform")


@dataclasses.dataclass(frozen=True)
class Embedding:
    """How an utterance's states are pooled into the gate's input: hidden layers (-1 the last), pooling, silence trimmed
    or not.
    """

    layers: tuple[int, ...] = (-1,)
    how: str = "mean"
    trim_silence: bool = False


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of the training table. `route` one of ROUTES; weights of the loss terms; noise in training only."""

    route: str = "none"
    balance: float = 0.0
    z: float = 0.0
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
    scored: int = 0  # most scored positions of an utterance, which follow on each other; 0: all may be
    temperature: float = 1.0  # the gate's logits are divided by this in the first step, and by 1 after so many
    temperature_steps: int = 0


def build(
    config: whisper.WhisperConfig, *, mixture: Mixture | None = None, gate: dict | None = None, ctc=False, seed=0
):
    """A zero-argument function that makes the module; pass it to `functional.abstract` or to `init`.

    `gate` = {"mean": [U], "matrix": [U, K], "hidden": int, "zero_start": bool}, and for one that falls back
    {"voices": [P, K], "radius": float}; its kind is the mixture's.
    """

    def make():
        init = variables.Init(seed)
        model = whisper.Whisper(config, init=init)
        if ctc:
            whisper.add_ctc(model, init)
        chosen = []
        if mixture is not None:
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
        if gate is not None:
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
        return model

    return make


def init(make, base: dict | None = None):
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


def embed(model, mel_BNM, audio_BS, samples_B, embedding: Embedding):
    """Pooled states [B, U] of the *unadapted* encoder and its last ones. Padding never enters: pooling is masked."""
    hop = model.config.hop
    T = -(-mel_BNM.shape[1] // 2)
    valid_BT = pooling.valid_frames(samples_B, T, hop)
    states_BTD, hidden = model.encode(mel_BNM, valid_BT, layers=True)
    chosen = [states_BTD if layer == -1 else hidden[layer] for layer in embedding.layers]
    mask_BT = pooling.speech_frames(audio_BS, samples_B, T, hop) if embedding.trim_silence else valid_BT
    pooled = [pooling.pool(x, mask_BT, embedding.how) for x in chosen]
    return jnp.concatenate(pooled, axis=-1), states_BTD


def make_loss(graphdef, row: Row, *, mixture: Mixture | None = None, prior_E=None, num_cohorts: int = 1):
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
        route, terms = _route(model, batch, key_route, row, mixture, prior_E, num_cohorts, step)
        dropout = mixture.expert_dropout if mixture is not None else 0.0
        noise = whisper.Noise(key_noise, row.dropout, dropout) if row.dropout or dropout else None
        states_BTD = batch.states_BTD if mel_BNM is None else model.encode(mel_BNM, mask_BT, route, noise)
        at_BK, targets_BK, score_BK = scored(batch, row.scored)
        logits_BKV = model.decoder(batch.tokens_BL, states_BTD, mask_BT, route, noise, at_BK)
        ce, _, count = losses.token_cross_entropy(logits_BKV, targets_BK, score_BK, row.smoothing)
        hit_BK = (logits_BKV.argmax(-1) == targets_BK) & score_BK
        metrics = {"ce": ce, "accuracy": hit_BK.sum() / count, **terms.pop("metrics", {})}
        if row.ctc:
            terms["ctc"] = row.ctc * _ctc(model, states_BTD, mask_BT, batch)
        return ce + sum(terms.values()), metrics | terms

    return loss_fn


def scored(batch, most):
    """`(at_BK, targets_BK, score_BK)`: positions from the first scored one on, K = `most`; at None for all of them."""
    L = batch.targets_BL.shape[1]
    if not 0 < most < L:
        return None, batch.targets_BL, batch.score_BL
    first_B = jnp.argmax(batch.score_BL, axis=1)
    from_BK = first_B[:, None] + jnp.arange(most)[None]
    at_BK = jnp.minimum(from_BK, L - 1)
    score_BK = jnp.take_along_axis(batch.score_BL, at_BK, axis=1) & (from_BK < L)
    return at_BK, jnp.take_along_axis(batch.targets_BL, at_BK, axis=1), score_BK


def augmented(model, batch, key, row):
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


def _route(model, batch, key, row, mixture, prior_E, num_cohorts, step):
    """The route of this row and the loss terms that come with it."""
    if row.route == "none":
        return None, {}
    if row.route == "label":
        return routing.one_hot(batch.label_B), {}
    if row.route == "uniform":
        return mixture.uniform(len(batch.label_B)), {}
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


def make_gate_loss(graphdef, num_experts: int):
    """`loss_fn(params, batch, key)` on {"embedding_BU", "target_BE", "weight_B"}: gate against memberships."""

    def loss_fn(params, batch, key):
        del key
        logits_BE = functional.merge(graphdef, params).gate(batch["embedding_BU"])
        loss = losses.soft_cross_entropy(logits_BE, batch["target_BE"], batch["weight_B"])
        hit_B = (logits_BE.argmax(-1) == batch["target_BE"].argmax(-1)) & (batch["weight_B"] > 0)
        return loss, {"accuracy": hit_B.sum() / jnp.maximum((batch["weight_B"] > 0).sum(), 1)}

    return loss_fn


def make_gradients(graphdef, mixture: Mixture, *, dims: int, together: int):
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


def make_embed(graphdef, embedding: Embedding):
    """Jitted `(params, audio_BS, samples_B) -> embedding_BU`."""

    @jax.jit
    def run(params, audio_BS, samples_B):
        model = functional.merge(graphdef, params)
        mel_BNM = log_mel(audio_BS, n_mels=model.config.num_mel_bins, hop=model.config.hop)
        return embed(model, mel_BNM, audio_BS, samples_B, embedding)[0]

    return run


def make_predict(graphdef, *, prefix, eot, max_tokens, route="none", mixture=None, embedding=None, suppress=None):
    """Jitted `(params, audio_BS, samples_B, label_B, given=False, logits_E=None) -> (Decoded, weight_BE | None)`.

    Encoding (see `make_encode`) and greedy decoding with the same route in one program.
    """
    encode = _encoder(graphdef, route, mixture, embedding)

    @jax.jit
    def run(params, audio_BS, samples_B, label_B, given=False, logits_E=None):
        states_BTD, mask_BT, chosen, weight_BE = encode(params, audio_BS, samples_B, label_B, given, logits_E)
        decoded = greedy(
            functional.merge(graphdef, params),
            states_BTD,
            prefix,
            max_tokens=max_tokens,
            eot=eot,
            mask_BT=mask_BT,
            route=chosen,
            suppress=suppress,
        )
        return decoded, weight_BE

    return run


def make_encode(graphdef, *, route="none", mixture=None, embedding=None):
    """Jitted `(params, audio_BS, samples_B, label_B, given=False, logits_E=None, mel_BNM=None)` to
    `(states_BTD, mask_BT, Route | None, weight_BE | None)`.

    With a gate the route is folded in once per utterance: unadapted encoder, pooling, gate, then the adapted encoder
    (only when the encoder has experts). `given` (traced, so that it costs no compilation where `logits_E` is always
    there) puts `logits_E` in place of what the gate says, one row for all or one each. Where `mel_BNM`
    is given it is encoded, and `audio_BS`, which may then be None, only says where silence is (a gate that trims it
    then takes all that is real).
    """
    return jax.jit(_encoder(graphdef, route, mixture, embedding))


def _encoder(graphdef, route, mixture, embedding):
    if route not in ("none", "label", "gate", "uniform"):
        raise ValueError(f"unknown route {route!r}; known: none, label, gate, uniform")

    def encode(params, audio_BS, samples_B, label_B, given=False, logits_E=None, mel_BNM=None):
        model = functional.merge(graphdef, params)
        if mel_BNM is None:
            mel_BNM = log_mel(audio_BS, n_mels=model.config.num_mel_bins, hop=model.config.hop)
        mask_BT = pooling.valid_frames(samples_B, -(-mel_BNM.shape[1] // 2), model.config.hop)
        chosen, weight_BE, states_BTD = None, None, None
        if route == "label":
            chosen = routing.one_hot(label_B)
        elif route == "uniform":
            chosen = mixture.uniform(len(label_B))
            weight_BE = routing.dense_weights(chosen, mixture.num_experts)
        elif route == "gate":
            pooled = embedding if audio_BS is not None else dataclasses.replace(embedding, trim_silence=False)
            embedding_BU, states_BTD = embed(model, mel_BNM, audio_BS, samples_B, pooled)
            logits_BE = replaced(model.gate(embedding_BU), given, logits_E)
            heard_B1 = jnp.full((len(logits_BE), 1), ~jnp.asarray(given), jnp.float32)
            chosen = mixture.whole_route(logits_BE, model.gate, embedding_BU, heard_B1, label_B)
        if chosen is not None:
            weight_BE = routing.dense_weights(chosen, mixture.num_experts)
        if states_BTD is None or encoder_adapted(params):
            states_BTD = model.encode(mel_BNM, mask_BT, chosen)
        return states_BTD, mask_BT, chosen, weight_BE

    return encode


def make_search(graphdef):
    """Jitted `(params, states_BTD, mask_BT, route, start, rules, temperature, keys_B, *, plan) -> Decoded`.

    `start`, `rules`, `plan`: `decode.prefix.Start`, `decode.rules.Rules`, `decode.search.SearchPlan`; `plan` and the
    shapes are static, temperature is not. A plan with `beam` ignores temperature and keys.
    """

    @functools.partial(jax.jit, static_argnames=("plan",))
    def run(params, states_BTD, mask_BT, route, start, rules, temperature, keys_B, *, plan):
        model, common = functional.merge(graphdef, params), {"plan": plan, "mask_BT": mask_BT, "route": route}
        if plan.beam:
            return beam_search(model, states_BTD, start, rules, **common)
        return sample(model, states_BTD, start, rules, temperature=temperature, keys_B=keys_B, **common)

    return run


def make_detect(graphdef):
    """Jitted `(params, states_BTD, mask_BT, route, sot, language_C) -> probability_BC`."""

    @jax.jit
    def run(params, states_BTD, mask_BT, route, sot, language_C):
        model = functional.merge(graphdef, params)
        return detect(model, states_BTD, sot, language_C, mask_BT=mask_BT, route=route)

    return run


def make_decoder(
    graphdef,
    params,
    config,
    tokenizer,
    *,
    samples=(480_000,),
    route="none",
    mixture=None,
    embedding=None,
    logits_E=None,
    **options,
) -> Decoder:
    """The host side of recognition, `decode.decoder.Decoder`, of one model; `logits_E` stand in place of the gate's for
    every window (an enrolled speaker); options: batch_size, label, seed.
    """
    encode = make_encode(graphdef, route=route, mixture=mixture, embedding=embedding)
    if logits_E is not None:
        encode = functools.partial(encode, given=True, logits_E=logits_E)
    programs = Programs(
        encode=encode,
        search=make_search(graphdef),
        detect=make_detect(graphdef),
    )
    return Decoder(params, programs, config, tokenizer, samples=samples, **options)


def encoder_adapted(params) -> bool:
    """Whether any expert sits in the encoder."""
    return "encoder" in params.get("expert", {})


def make_gate(graphdef):
    """Jitted `(params, embedding_BU) -> logits_BE`."""

    @jax.jit
    def run(params, embedding_BU):
        return functional.merge(graphdef, params).gate(embedding_BU)

    return run


def make_logits(graphdef, *, route="none", mixture=None, embedding=None, label=0, logits_E=None):
    """Jitted `(params, mel_BNM, tokens_BL) -> logits_BLV`: every frame is taken as real; `logits_E` as `make_decoder`.

    Silence is not trimmed for the gate here, as there is no audio to look at: with an embedding that trims silence the
    route can differ slightly from that of `make_predict`.
    """

    @jax.jit
    def run(params, mel_BNM, tokens_BL):
        model = functional.merge(graphdef, params)
        B, N = mel_BNM.shape[:2]
        chosen = None
        if route == "label":
            chosen = routing.one_hot(jnp.full((B,), label, jnp.int32))
        elif route == "gate" and logits_E is not None:
            chosen = mixture.route(jnp.broadcast_to(logits_E, (B, len(logits_E))))
        elif route == "gate":
            samples_B = jnp.full((B,), N * model.config.hop)
            untrimmed = dataclasses.replace(embedding, trim_silence=False)
            embedding_BU, heard_B1 = embed(model, mel_BNM, None, samples_B, untrimmed)[0], jnp.ones((B, 1))
            chosen = mixture.whole_route(model.gate(embedding_BU), model.gate, embedding_BU, heard_B1)
        elif route != "none":
            raise ValueError(f"logits are defined for the routes none, label and gate, not {route!r}")
        return model.decode(tokens_BL, model.encode(mel_BNM, route=chosen), route=chosen)

    return run
