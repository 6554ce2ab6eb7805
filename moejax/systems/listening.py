"""How the systems of a published base that writes times are evaluated: as `moejax transcribe` reads with such a model.

Windows of 30 s, the reference's rules, temperatures and guards, all at their defaults; only the language is told, as
the corpus knows it. What is sampled, where a temperature above 0 is needed, is what `moejax.load` would sample.
"""

import copy
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from moejax.decode.decoder import Decoder, Programs
from moejax.decode.enrolled import Context as Front
from moejax.decode.longform import Reading, transcribe_sequential
from moejax.decode.request import request
from moejax.systems.system import Opened
from moejax.tasks import recognition
from moejax.text.transcript import Transcript
from moejax.work.context import Context


def transcripts(
    context: Context,
    system: Opened,
    rows: np.ndarray,
    labels: np.ndarray,
    fronts: Sequence[Front | None] | None = None,
    **options,
) -> Iterator[tuple[int, Transcript, list[float] | None]]:
    """(i, Transcript, experts' weights) of each of these rows of the manifest, in the order in which they are finished.

    `labels`: the expert of a known route, or the cluster that a gate is told, for each row. The weights are there for
    silence too, of which a transcript says nothing. `fronts`: phrases of each row's speaker, if he is enrolled.
    `options`: others than the defaults of `Recognizer.transcribe`.
    """
    network, config = system.network, system.network.config
    tokenizer = network.tokenizer or context.base.tokenizer
    tokenizer = tokenizer.into(network.target) if network.target else tokenizer
    window = 2 * config.max_source_positions * config.hop
    decoder = Decoder(
        network.params,
        _programs(network.graphdef, network.route, network.mixture, network.embedding),
        config,
        tokenizer,
        samples=(window,),
        batch_size=context.cfg.evaluate.batch_size,
    )
    if _hears_as_base(context, network):
        decoder.heard = context.heard  # what another system or stage has heard is not encoded again
    options |= {"language": context.cfg.data.language} | ({"task": "translate"} if network.target else {})
    asked = request(options, timed=True, can_time=True, language=None, context=config.max_target_positions)
    reading = Reading(
        model=decoder,
        tokenizer=tokenizer,
        config=config,
        decoding=asked.decoding,
        options=asked.longform,
    )
    for own, label, logits_E in _alike(network, rows, labels):
        told = copy.copy(decoder)  # the compiled programs are shared
        told.label = int(label)
        if logits_E is not None:
            encode = functools.partial(decoder.programs.encode, given=True, logits_E=logits_E)
            told.programs = dataclasses.replace(decoder.programs, encode=encode)
        waves = (context.corpus.audio[int(rows[i])] for i in own)
        own_fronts = None if fronts is None else [fronts[int(i)] for i in own]
        mine = dataclasses.replace(reading, model=told, contexts=own_fronts and own_fronts.__getitem__)
        for place, found in transcribe_sequential(waves, mine):
            i = int(own[place])
            silent = network.mixture is not None and found.route is None
            yield i, found, _route(told, context.corpus.audio[int(rows[i])]) if silent else found.route


def _hears_as_base(context, network) -> bool:
    """Whether the base's encoder states are all that a system needs to hear."""
    other = network.tokenizer is not None and not network.tokenizer.emotions
    if other or not recognition.can_know(network.params, network.route, network.embedding):
        return False  # another published model, or experts in the encoder
    own, base = (jax.tree.leaves(params["backbone"]["encoder"]) for params in (network.params, context.base.params))
    return all(one is other or bool(jnp.array_equal(one, other)) for one, other in zip(own, base, strict=True))


def _alike(network, rows, labels):
    """(places in `rows`, label, logits or None) of the rows that share a label and what stands for the gate's logits:
    a decoder has one of each.
    """
    given_NE = None if network.logits_NE is None else network.logits_NE[rows]
    keys = np.asarray(labels, np.float64)[:, None]
    keys = keys if given_NE is None else np.concatenate([keys, given_NE], axis=1)
    _, first, place = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    for group, one in enumerate(first):
        own = np.flatnonzero(place.reshape(-1) == group)
        yield own, labels[one], None if given_NE is None else given_NE[one]


@functools.lru_cache(maxsize=8)
def _programs(graphdef, route, mixture, embedding) -> Programs:
    """Compiled once for all systems of the same shape."""
    encode = recognition.make_encode(graphdef, route=route, mixture=mixture, embedding=embedding)
    return Programs(encode, recognition.make_search(graphdef), recognition.make_detect(graphdef))


def _route(decoder, audio_S):
    """Experts' weights of the beginning of a recording; None without experts."""
    (encoded,) = decoder.encode([audio_S[: decoder.samples[-1]]])
    return None if encoded.weight_BE is None else np.asarray(encoded.weight_BE[0]).astype(float).tolist()
