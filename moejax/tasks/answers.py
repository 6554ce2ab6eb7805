"""Answers to questions about recordings by one audio LLM, and one made of published files.

FOLDER/whisper/           a Whisper of Hugging Face (SALMONN: large-v2), of which the encoder is used
FOLDER/llama/             a LLaMA of Hugging Face with tokenizer.json (SALMONN: Vicuna 7B or 13B, v1.1)
FOLDER/*.pt               BEATs, where the checkpoint was trained with it
FOLDER/*.pth              SALMONN's checkpoint: connector and LoRA
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence

import numpy as np

from moejax.convert import beats, hf_llama, hf_whisper, salmonn
from moejax.decode.rules import Rules
from moejax.decode.search import SearchPlan
from moejax.errors import BadValue, NotThere
from moejax.nn import quantize
from moejax.nn.audio_llm import AudioLLMConfig
from moejax.nn.beats import BeatsConfig
from moejax.nn.connectors import ConnectorConfig
from moejax.nn.functional import GraphDef
from moejax.nn.llama import SIZES as LLAMAS
from moejax.nn.whisper import SIZES as WHISPERS
from moejax.ops import routing
from moejax.tasks import asr
from moejax.tasks.audio_llm import Vocabulary, build, make_answer, make_hear, prompt, prompt_ids, scaled, starts
from moejax.text.llama_tokenizer import LlamaTokenizer
from moejax.types import Params, Route

ALPHA = 32.0  # of SALMONN's LoRA; its file does not say
TARGETS = ("decoder/layers/*/self_attn/[qv]",)
MOST = 200  # tokens of an answer


@dataclasses.dataclass(frozen=True)
class Answerer:
    """Questions about recordings, answered by one model: what `make_hear` and `make_answer` give, and its tokenizer."""

    config: AudioLLMConfig
    graphdef: GraphDef
    params: Params
    tokenizer: Vocabulary

    @functools.cached_property
    def _programs(self):
        return make_hear(self.graphdef), make_answer(self.graphdef)

    @property
    def samples(self) -> int:
        """Of a window at 16 kHz."""
        return self.config.samples

    def __call__(
        self,
        waves: Sequence[np.ndarray],
        questions: Sequence[str],
        *,
        beams: int = 4,
        most: int = MOST,
        route: Route | None = None,
        scale: float = 1.0,
    ) -> list[str]:
        """An answer to each question about its wave (float, 16 kHz, no longer than a window), best of `beams`
        hypotheses by mean log-probability, as transformers ranks them (1: the likeliest token each time).

        Errors: BadValue for a wave that is too long, or prompt and answer longer than the language model.
        """
        if len(waves) != len(questions) or not waves:
            raise BadValue(
                f"{len(questions)} questions for {len(waves)} recordings; each needs its own, and one at least"
            )
        if longest := max((len(wave) for wave in waves if len(wave) > self.samples), default=0):
            raise BadValue(f"a recording of {longest} samples; an audio LLM hears {self.samples} at most")
        hear, answer = self._programs
        audio_BS = np.stack([np.pad(wave, (0, self.samples - len(wave))).astype(np.float32) for wave in waves])
        heard_BAD = hear(self.params, audio_BS, np.asarray([len(wave) for wave in waves], np.int32))
        sizes = {"heard": heard_BAD.shape[1], "vocab_size": self.config.vocab_size}
        begin = starts(
            [prompt_ids(self.tokenizer, prompt(one), **sizes) for one in questions], most, pad=self.tokenizer.eot
        )
        if begin.tokens_BP.shape[1] + most > self.config.llama.max_positions:
            raise BadValue(
                f"prompts of {begin.tokens_BP.shape[1]} tokens and answers of {most} exceed the language model's "
                f"{self.config.llama.max_positions}"
            )
        plan = SearchPlan(
            eot=self.tokenizer.eot,
            max_tokens=most,
            beam=beams > 1,
            width=beams,
            length_penalty=1.0 if beams > 1 else None,
            ranking="transformers",
        )
        rules = Rules(eot=self.tokenizer.eot)
        found = answer(self.params, heard_BAD, scaled(route, scale), begin, rules, plan=plan)
        rows = zip(np.asarray(found.tokens_BL), np.asarray(found.lengths_B), strict=True)
        return [self.tokenizer.decode(ids_L[:length].tolist()) for ids_L, length in rows]


@dataclasses.dataclass(frozen=True)
class Parts:
    """What a folder holds: sizes, the frozen parts in the format asked for, and of a checkpoint of SALMONN connector
    and LoRA (`rank` 0: there is no checkpoint, and params have neither).
    """

    config: AudioLLMConfig
    params: Params
    tokenizer: LlamaTokenizer
    rank: int


def parts(
    folder: str | pathlib.Path,
    *,
    weights: str = "",
    dtype: str = "float32",
    fresh: ConnectorConfig | None = None,
) -> Parts:
    """What a folder of published files holds, laid out as above.

    `weights`: how the frozen parts are kept ("float32", "bfloat16", "int8"), `dtype`: what the language model
    calculates in, `fresh`: the connector where there is no checkpoint, which is refused without. Errors: NotThere for a
    missing part, BadValue naming file and key for one that does not fit.
    """
    folder = pathlib.Path(folder)
    for name in ("whisper", "llama"):
        if not (folder / name).is_dir():
            raise NotThere(f"{folder / name}: there is no such folder; an audio LLM's has whisper/ and llama/ in it")
    sounds, trained = _one(folder, "*.pt", "BEATs"), _one(folder, "*.pth", "SALMONN")
    if trained is None and fresh is None:
        raise NotThere(f"{folder}: no checkpoint of SALMONN (*.pth); without connector and LoRA nothing is heard")
    tokenizer = LlamaTokenizer.from_folder(folder / "llama")
    kept = {"bfloat16": "bfloat16", "int8": "float16"}.get(
        weights, "float32"
    )  # published in float16: no number is lost
    rank, config, params = salmonn.load(
        folder / "whisper", folder / "llama", sounds, trained, connector=fresh, dtype=kept
    )
    if tokenizer.eot >= config.vocab_size or tokenizer.bos >= config.vocab_size:
        raise BadValue(f"{folder / 'llama'}: its tokenizer knows more tokens than its model")
    config = dataclasses.replace(config, llama=dataclasses.replace(config.llama, dtype=dtype))
    others = "bfloat16" if dtype == "bfloat16" else "float32"
    return Parts(config, quantize.quantize(params, weights, others=others), tokenizer, rank)


def sizes(folder: str | pathlib.Path, *, fresh: ConnectorConfig) -> tuple[AudioLLMConfig, int, list[str]]:
    """(sizes, rank of the LoRA or 0, parts that are not there) of a folder, of which no weights are read.

    What is not there has the size of the published 7B system; BEATs is missing, rather than a choice, where there is no
    model at all, and its absence a choice where there are both others. Errors: as `parts`.
    """
    folder = pathlib.Path(folder)
    there = {name: (folder / name / "config.json").is_file() for name in ("whisper", "llama")}
    heard = hf_whisper.load_config(folder / "whisper") if there["whisper"] else WHISPERS["large-v2"]
    said = hf_llama.load_config(folder / "llama") if there["llama"] else LLAMAS["7b"]
    sounds, trained = _one(folder, "*.pt", "BEATs"), _one(folder, "*.pth", "SALMONN")
    hearing = beats.load_config(sounds) if sounds else None
    connector = salmonn.connector_of(trained) if trained else fresh
    if sounds is None and not all(there.values()) and connector.kind == "qformer":
        hearing, there["BEATs"] = BeatsConfig(), False
    rank = salmonn.rank_of(trained) if trained else 0
    return AudioLLMConfig(heard, said, hearing, connector), rank, [name for name, found in there.items() if not found]


def opened(folder: str | pathlib.Path, *, weights: str = "", dtype: str = "float32") -> Answerer:
    """The answerer of a folder with SALMONN's checkpoint in it. Arguments and errors: as `parts`."""
    found = parts(folder, weights=weights, dtype=dtype)
    mixture = asr.Mixture(targets=TARGETS, num_experts=1, rank=found.rank, alpha=ALPHA)
    graphdef, params = asr.init(build(found.config, mixture=mixture), found.params)
    return Answerer(found.config, graphdef, params, found.tokenizer)


def one_lora(rows: int) -> Route:
    """The route of a model with one LoRA."""
    return routing.one_hot(np.zeros(rows, np.int32))


def _one(folder, pattern, what) -> pathlib.Path | None:
    found = sorted(folder.glob(pattern))
    if len(found) > 1:
        raise BadValue(
            f"{folder}: {len(found)} files {pattern}, such as {found[0].name} and {found[1].name}; {what} has one"
        )
    return found[0] if found else None
