"""A language model that hears (`nn.audio_llm`): how a question about a recording becomes tokens, a batch a loss, and
audio an answer.

    <s> USER: <Speech> 88 vectors of what is heard </Speech> question \\n ASSISTANT: answer </s>

SALMONN's order (Tang et al. 2024, arXiv 2310.13289): texts before and behind what is heard are tokenised apart, and so
is the answer; only the answer and its end are scored. The vectors are the ids from the vocabulary's end on, so batches,
collators and searches are those of recognition.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from moejax.decode.beam import beam_search
from moejax.decode.prefix import Start
from moejax.decode.search import Decoded, sample
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.nn.audio_llm import AudioLLM, AudioLLMConfig, Ears
from moejax.nn.functional import GraphDef
from moejax.nn.layers import Noise
from moejax.nn.llama_reader import LlamaReader
from moejax.nn.variables import Init
from moejax.ops import losses
from moejax.ops.audio import log_mel
from moejax.runtime import programs
from moejax.tasks import asr
from moejax.tasks.routes import Mixture, Routing
from moejax.types import Array, Batch, Params, Route

PLACE = "<SpeechHere>"
TEMPLATE = "USER: {}\nASSISTANT:"
MOST_TEXT = 300  # tokens of an answer that are learnt, its end included
QUESTIONS = {  # of SALMONN's own, so that its published weights know them
    "transcribe": "Recognize the speech and give me the transcription.",
    "translate_de": "Listen to the speech and translate it into German.",
    "describe": "Please describe the audio.",
    "emotion": "Describe the emotion of the speaker in one word.",
}


@dataclasses.dataclass(frozen=True)
class Lesson:
    """One of the three stages of a training: the groups that learn, and by how much the experts' scale is lowered.

    The scale counts in the forward pass, so it is what answers of that stage are made with, too.
    """

    trains: tuple[str, ...] = ("head", "expert")
    scale: float = 1.0


# Alignment learns to transcribe and to describe, instruction all tasks; activation brings back what the language model
# knew before it learnt them: half the scale, on long answers.
LESSONS = {"alignment": Lesson(), "instruction": Lesson(), "activation": Lesson(scale=0.5)}


class Vocabulary(Protocol):
    """What is asked of a tokenizer (`text.llama_tokenizer.LlamaTokenizer`)."""

    @property
    def bos(self) -> int: ...
    @property
    def eot(self) -> int: ...
    def encode(self, text: str, /) -> list[int]: ...
    def decode(self, ids: list[int], /) -> str: ...


def prompt(question: str, *, recordings: int = 1) -> str:
    """The prompt of a question about one recording or several, with a place for each."""
    return TEMPLATE.format(" ".join([f"<Speech>{PLACE}</Speech>"] * recordings + [question]))


def prompt_ids(tokenizer: Vocabulary, text: str, *, heard: int, vocab_size: int) -> list[int]:
    """Ids of a prompt: each `PLACE` becomes the next `heard` vectors of what is heard. Errors: a prompt without any."""
    parts = text.split(PLACE)
    if len(parts) < 2:
        raise BadValue(f"the prompt {text[:80]!r} has no {PLACE}, where the recording belongs")
    ids = [tokenizer.bos]
    for number, part in enumerate(parts):
        if number:
            ids += range(vocab_size + (number - 1) * heard, vocab_size + number * heard)
        if part:
            ids += tokenizer.encode(part)
    return ids


def example(tokenizer: Vocabulary, given: Sequence[int], answer: str, most: int = MOST_TEXT) -> tuple[list[int], int]:
    """(ids of prompt, answer and end, how many of them are given), for `data.collate.Utterances`.

    An answer of more than `most` ids is cut and then has no end, as in the reference: nobody stops in the middle.
    """
    return [*given, *[*tokenizer.encode(answer), tokenizer.eot][:most]], len(given)


def build(
    config: AudioLLMConfig, *, mixture: Mixture | None = None, gate: dict[str, Any] | None = None, seed: int = 0
) -> Callable[[], AudioLLM]:
    """A zero-argument function that makes the module, as `asr.build`; one LoRA is a mixture of one expert."""

    def make():
        init = Init(seed)
        model = AudioLLM(config, init=init)
        asr.hang(model, mixture, gate, init)
        return model

    return make


def scaled(route: Route | None, scale: float) -> Route | None:
    """The route with every weight times `scale`: the same experts with another alpha."""
    if route is None or scale == 1.0:
        return route
    if route.logits_BE is not None:
        raise BadValue("experts that a gate weighs token by token keep their scale; take another gate.kind")
    layers = None if route.layers is None else scaled(route.layers, scale)
    return dataclasses.replace(route, weight_BX=scale * route.weight_BX, layers=layers)


def make_loss(
    graphdef: GraphDef,
    row: asr.Row,
    *,
    scale: float = 1.0,
    mixture: Routing | None = None,
    prior_E: Array | None = None,
    num_cohorts: int = 1,
) -> Callable[..., tuple[Array, dict[str, Array]]]:
    """`loss_fn(params, batch, key, step=None) -> (loss, metrics)`: cross-entropy of answers, and the row's terms.

    Batches have audio of the encoder's whole window, or kept states of it (`make_states`). `row.route`, dropout and
    balance are those of recognition; noise on the features is not asked for.
    """

    def loss_fn(params, batch: Batch, key, step=None):
        model = functional.merge(graphdef, params)
        key_noise, key_route = jax.random.split(key)
        states_BTD = batch.states_BTD
        if states_BTD is None:
            states_BTD = states_of(model, batch.audio_BS, batch.samples_B)
        route, terms = asr.route_of(model, batch, key_route, row, mixture, prior_E, num_cohorts, step)
        dropout = mixture.expert_dropout if mixture is not None else 0.0
        noise = Noise(key_noise, row.dropout, dropout) if row.dropout or dropout else None
        heard_BAD = model.hear(states_BTD, batch.samples_B, noise)
        at_BK, targets_BK, score_BK = asr.scored(batch, row.scored)
        logits_BKV = model.decoder(batch.tokens_BL, heard_BAD, scaled(route, scale), noise, at_BK)
        targets_BK = jnp.minimum(targets_BK, logits_BKV.shape[-1] - 1)  # what is heard is no target, and never scored
        ce, _, count = losses.token_cross_entropy(logits_BKV, targets_BK, score_BK, row.smoothing)
        accuracy = ((logits_BKV.argmax(-1) == targets_BK) & score_BK).sum() / count
        metrics = {"ce": ce, "accuracy": accuracy, **terms.pop("metrics", {})}
        return ce + sum(terms.values()), metrics | terms

    return loss_fn


def states_of(model: Ears, audio_BS: Array, samples_B: Array) -> Array:
    """States [B, T, D + D'] of both encoders beside each other, of audio that fills the window."""
    config = model.config
    if audio_BS.shape[1] != config.samples:
        raise ValueError(f"{audio_BS.shape[1]} samples; an audio LLM hears windows of {config.samples}")
    states_BTD = model.encode(log_mel(audio_BS, n_mels=config.num_mel_bins, hop=config.hop))
    return model.beside(states_BTD, audio_BS, samples_B)


def make_states(config: AudioLLMConfig) -> tuple[Callable[[Params], Params], Callable[..., Array]]:
    """(what picks the encoders' parameters out of all, jitted `(these, audio_BS, samples_B) -> states_BTD`)."""
    graphdef, shapes = functional.abstract(lambda: Ears(config, init=Init(0)))

    @jax.jit
    def run(params, audio_BS, samples_B):
        return states_of(functional.merge(graphdef, params), audio_BS, samples_B)

    def pick(params):
        return {group: {name: params[group][name] for name in tree} for group, tree in shapes.items()}

    return pick, run


def make_hear(graphdef: GraphDef) -> Callable[..., Array]:
    """Jitted `(params, audio_BS, samples_B) -> heard_BAD` of windows."""

    @jax.jit
    def run(params, audio_BS, samples_B):
        model = functional.merge(graphdef, params)
        return model.hear(states_of(model, audio_BS, samples_B), samples_B)

    return programs.kept(run, graphdef)


def make_answer(graphdef: GraphDef) -> Callable[..., Decoded]:
    """Jitted `(params, heard_BAD, route, start, rules, *, plan) -> Decoded`, by the searches of recognition."""

    @functools.partial(jax.jit, static_argnames=("plan",))
    def run(params, heard_BAD, route, start, rules, *, plan):
        model = functional.merge(graphdef, params)
        search = beam_search if plan.beam else sample
        return search(model, heard_BAD, start, rules, plan=plan, route=route, reader=LlamaReader)

    return programs.kept(run, graphdef, static=("plan",))


def starts(prompts: Sequence[Sequence[int]], most: int, *, pad: int, multiple: int = 16) -> Start:
    """Prefixes of prompts, padded on the left to a multiple of 16, so that most questions share a program; an answer
    has at most `most` ids.
    """
    width = -(-max(map(len, prompts)) // multiple) * multiple
    tokens_BP = np.asarray([[pad] * (width - len(ids)) + list(ids) for ids in prompts], np.int32)
    pad_B = np.asarray([width - len(ids) for ids in prompts], np.int32)
    return Start(tokens_BP, pad_B, pad_B, np.full(len(prompts), most, np.int32))
