"""The compiled programs of recognition: audio to encoder states and a route, these to tokens or logits.

Pure functions of a graphdef, as the losses of `tasks.asr`; the host side of decoding is `decode.decoder.Decoder`.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from moejax.decode.beam import beam_search
from moejax.decode.decoder import Decoder, Programs
from moejax.decode.greedy import greedy
from moejax.decode.language import detect
from moejax.decode.search import Decoded, sample
from moejax.nn import functional, whisper
from moejax.nn.functional import GraphDef
from moejax.ops import pooling, routing
from moejax.ops.audio import log_mel
from moejax.runtime import programs
from moejax.tasks.asr import ROUTES, Embedding, embed, pooled
from moejax.tasks.routes import Routing, even, replaced
from moejax.types import Array, Params, Route


def make_predict(
    graphdef: GraphDef,
    *,
    prefix: list[int],
    eot: int,
    max_tokens: int,
    route: str = "none",
    mixture: Routing | None = None,
    embedding: Embedding | None = None,
    suppress: Sequence[int] | None = None,
) -> Callable[..., tuple[Decoded, Array | None]]:
    """Jitted `(params, audio_BS, samples_B, label_B, given=False, logits_E=None, limit_B=None)` to
    `(Decoded, weight_BE | None)`.

    Encoding (see `make_encode`) and greedy decoding (`limit_B` see `decode.greedy`) with the same route in one program.
    """
    encode = _encoder(graphdef, route, mixture, embedding)

    @jax.jit
    def run(params, audio_BS, samples_B, label_B, given=False, logits_E=None, limit_B=None):
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
            limit_B=limit_B,
        )
        return decoded, weight_BE

    return run


def make_encode(
    graphdef: GraphDef, *, route: str = "none", mixture: Routing | None = None, embedding: Embedding | None = None
) -> Callable[..., tuple[Array, Array, Route | None, Array | None]]:
    """Jitted `(params, audio_BS, samples_B, label_B, given=False, logits_E=None, mel_BNM=None, states_BTD=None)` to
    `(states_BTD, mask_BT, Route | None, weight_BE | None)`.

    With a gate the route is folded in once per utterance: unadapted encoder, pooling, gate, then the adapted encoder
    (only when the encoder has experts). `given` (traced, so that it costs no compilation where `logits_E` is always
    there) puts `logits_E` in place of what the gate says, one row for all or one each. Where `mel_BNM`
    is given it is encoded, and `audio_BS`, which may then be None, only says where silence is (a gate that trims it
    then takes all that is real). `states_BTD` are the encoder's where they are known (`can_know`): nothing is encoded.
    """
    encode = jax.jit(_encoder(graphdef, route, mixture, embedding))
    return programs.kept(encode, graphdef, route, mixture, embedding)


def _encoder(graphdef: GraphDef, route: str, mixture: Routing | None, embedding: Embedding | None):
    if route not in ROUTES:
        raise ValueError(f"unknown route {route!r}; known: {', '.join(ROUTES)}")

    def encode(params, audio_BS, samples_B, label_B, given=False, logits_E=None, mel_BNM=None, states_BTD=None):
        model = functional.merge(graphdef, params)
        known, hop = states_BTD is not None, model.config.hop
        if states_BTD is not None:
            T = states_BTD.shape[1]
        else:
            mel_BNM = log_mel(audio_BS, n_mels=model.config.num_mel_bins, hop=hop) if mel_BNM is None else mel_BNM
            T = -(-mel_BNM.shape[1] // 2)
        mask_BT = pooling.valid_frames(samples_B, T, hop)
        chosen, weight_BE = None, None
        if route == "label":
            chosen = routing.one_hot(label_B)
        elif route == "uniform":
            assert mixture is not None  # the route is one of its experts
            chosen = even(mixture, len(label_B))
            weight_BE = routing.dense_weights(chosen, mixture.num_experts)
        elif route == "gate":
            assert mixture is not None and embedding is not None  # what a gate belongs to, and what it hears
            heard = embedding if audio_BS is not None else dataclasses.replace(embedding, trim_silence=False)
            if states_BTD is not None:
                embedding_BU = pooled([states_BTD], audio_BS, samples_B, heard, hop)
            else:
                embedding_BU, states_BTD = embed(model, mel_BNM, audio_BS, samples_B, heard)
            logits_BE = replaced(model.gate(embedding_BU), given, logits_E)
            heard_B1 = jnp.full((len(logits_BE), 1), ~jnp.asarray(given), jnp.float32)
            chosen = mixture.whole_route(logits_BE, model.gate, embedding_BU, heard_B1, label_B)
        if chosen is not None:
            assert mixture is not None  # who routes has experts
            weight_BE = routing.dense_weights(chosen, mixture.num_experts)
        if states_BTD is None or (encoder_adapted(params) and not known):
            states_BTD = model.encode(mel_BNM, mask_BT, chosen)
        return states_BTD, mask_BT, chosen, weight_BE

    return encode


def make_search(graphdef: GraphDef) -> Callable[..., Decoded]:
    """Jitted `(params, states_BTD, mask_BT, route, start, rules, temperature, draws, *, plan) -> Decoded`.

    `start`, `rules`, `plan`: `decode.prefix.Start`, `decode.rules.Rules`, `decode.search.SearchPlan`; `draws`: its
    `Draws`, or None for greedy whatever the temperature. `plan` and the shapes are static, temperature is not. A plan
    with `beam` ignores temperature and draws.
    """

    @functools.partial(jax.jit, static_argnames=("plan",))
    def run(params, states_BTD, mask_BT, route, start, rules, temperature, draws, *, plan):
        model, common = functional.merge(graphdef, params), {"plan": plan, "mask_BT": mask_BT, "route": route}
        if plan.beam:
            return beam_search(model, states_BTD, start, rules, **common)
        keys_B = None if draws is None else draws.keys()
        return sample(model, states_BTD, start, rules, temperature=temperature, keys_B=keys_B, **common)

    return programs.kept(run, graphdef, static=("plan",))


def make_detect(graphdef: GraphDef) -> Callable[..., Array]:
    """Jitted `(params, states_BTD, mask_BT, route, before, token_C) -> probability_BC`, as `decode.language.detect`."""

    @jax.jit
    def run(params, states_BTD, mask_BT, route, before, token_C):
        model = functional.merge(graphdef, params)
        return detect(model, states_BTD, before, token_C, mask_BT=mask_BT, route=route)

    return programs.kept(run, graphdef)


def make_decoder(
    graphdef: GraphDef,
    params: Params,
    config: whisper.WhisperConfig,
    tokenizer: Any,
    *,
    samples: Sequence[int] = (480_000,),
    route: str = "none",
    mixture: Routing | None = None,
    embedding: Embedding | None = None,
    logits_E: Array | None = None,
    **options: Any,
) -> Decoder:
    """The host side of recognition, `decode.decoder.Decoder`, of one model; `logits_E` stand in place of the gate's for
    every window (an enrolled speaker); options: batch_size, label, seed.
    """
    encode = make_encode(graphdef, route=route, mixture=mixture, embedding=embedding)
    if logits_E is not None:
        encode = functools.partial(encode, given=True, logits_E=logits_E)
    compiled = Programs(encode=encode, search=make_search(graphdef), detect=make_detect(graphdef))
    return Decoder(params, compiled, config, tokenizer, samples=samples, **options)


def can_know(params: Params, route: str, embedding: Embedding | None) -> bool:
    """Whether a model's encoder states may come from elsewhere: those of the unadapted encoder are all it needs."""
    of_output = embedding is not None and embedding.layers == (-1,)
    return not encoder_adapted(params) and (route != "gate" or of_output)


def encoder_adapted(params: Params) -> bool:
    """Whether any expert sits in the encoder."""
    return "encoder" in params.get("expert", {})


def make_logits(
    graphdef: GraphDef,
    *,
    route: str = "none",
    mixture: Routing | None = None,
    embedding: Embedding | None = None,
    label: int = 0,
    logits_E: Array | None = None,
) -> Callable[[Params, Array, Array], Array]:
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
            assert mixture is not None  # as below
            chosen = mixture.route(jnp.broadcast_to(logits_E, (B, len(logits_E))))
        elif route == "gate":
            assert mixture is not None and embedding is not None  # what a gate belongs to, and what it hears
            samples_B = jnp.full((B,), N * model.config.hop)
            untrimmed = dataclasses.replace(embedding, trim_silence=False)
            embedding_BU, heard_B1 = embed(model, mel_BNM, None, samples_B, untrimmed)[0], jnp.ones((B, 1))
            chosen = mixture.whole_route(model.gate(embedding_BU), model.gate, embedding_BU, heard_B1)
        elif route != "none":
            raise ValueError(f"logits are defined for the routes none, label and gate, not {route!r}")
        return model.decode(tokens_BL, model.encode(mel_BNM, route=chosen), route=chosen)

    return run
