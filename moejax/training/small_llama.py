"""A LLaMA small enough to be trained here, on lines of text: the language model of an experiment for which a published
one is too large (docs/audio_llm.md).

    python -m moejax.training.small_llama TEXTS DEST --layers 3 --width 192 --steps 600

TEXTS has a text on each line, in any languages; a backslash and an n in it are a line break. DEST becomes a folder of
Hugging Face (config.json, model.safetensors, tokenizer.json): `llama/` of an audio LLM, or what transformers opens.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from moejax.convert import hf_llama, hf_whisper
from moejax.errors import BadValue, NotThere, Refused
from moejax.nn import functional
from moejax.nn.llama import Llama, LlamaConfig
from moejax.nn.variables import Init
from moejax.ops import losses
from moejax.runtime import sharding
from moejax.text.llama_tokenizer import LlamaTokenizer
from moejax.train import optim
from moejax.train.state import init_state, make_step, place
from moejax.types import Params

FFN = 8 / 3  # of the width, as LLaMA's
HELD_OUT = 50  # one line of so many, at the end, is not learnt but asked about


def _option(default: Any, meaning: str) -> Any:
    return dataclasses.field(default=default, metadata={"help": f"{meaning} (%(default)s)"})


@dataclasses.dataclass(frozen=True)
class Recipe:
    """Sizes of the network, and of its training: the options of the command."""

    layers: int = _option(3, "layers")
    width: int = _option(192, "width of the network")
    heads: int = _option(4, "heads of the attention")
    vocabulary: int = _option(1500, "tokens of the vocabulary, at most")
    tokens: int = _option(256, "tokens of the longest line that is taken")
    steps: int = _option(600, "steps of the training")
    batch: int = _option(16, "lines in a step")
    learning_rate: float = _option(2e-3, "learning rate at its highest")
    seed: int = _option(0, "of the first weights, and of what is drawn for a step")
    after: str = _option("", "only what stands behind the first of it in a line is learnt, as in chat models")

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value, least = getattr(self, field.name), 0 if field.name == "seed" else 1
            if field.type is not str and not (value > 0 if field.type is float else value >= least):
                raise BadValue(f"{field.name} is {value}; it takes {'more than 0' if least else '0 or more'}")

    def network(self, vocabulary: int) -> LlamaConfig:
        """Errors: BadValue for sizes that do not go together."""
        ffn = -(-round(FFN * self.width) // 8) * 8
        return LlamaConfig(self.width, self.layers, self.heads, self.heads, ffn, vocabulary, tied=True)


@dataclasses.dataclass(frozen=True)
class Learnt:
    """What became of a training; perplexities are those of tokens of lines that were held out."""

    config: LlamaConfig
    params: Params
    tokenizer: LlamaTokenizer
    lines: int
    untrained: float
    trained: float


def read(file: Path | str) -> list[str]:
    """The texts of a file, blank lines left out. Errors: NotThere; BadValue for one that is no UTF-8."""
    file = Path(file)
    if not file.is_file():
        raise NotThere(f"{file}: there is no such file; it has a text on each line")
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise BadValue(f"{file}: not UTF-8 ({error.reason} at byte {error.start})") from None
    return [line.strip().replace("\\n", "\n") for line in lines if line.strip()]


def learn(texts: Sequence[str], recipe: Recipe = Recipe(), say: Callable[[str], None] = lambda line: None) -> Learnt:
    """A network that has learnt to go on with these texts; the same texts and recipe give the same numbers.

    The last fiftieth of the texts is for the perplexity alone, here and wherever it stands. Errors: BadValue for too
    few texts, for one that is too long or lacks `recipe.after`, and for sizes that do not go together.
    """
    known, asked = _parted(texts)
    tokenizer = LlamaTokenizer.train(known, recipe.vocabulary)
    config = recipe.network(tokenizer.vocab_size)
    graphdef, params = functional.split(Llama(config, init=Init(recipe.seed)))
    params = functional.materialise(params)
    (known_NL, mask_NL), held = _rows(tokenizer, known, recipe), _rows(tokenizer, asked, recipe)
    say(f"{len(known)} lines of {known_NL.shape[1]} tokens, {functional.count(params):,} parameters")

    def loss_fn(params, batch, key):
        del key  # there is no noise
        loss, _, _ = _entropy(functional.merge(graphdef, params), *batch)
        return loss, {}

    optimizer, schedule = optim.make_optimizer(
        learning_rate=recipe.learning_rate,
        steps=recipe.steps,
        warmup=min(recipe.steps // 10, 100),
        weight_decay=0.01,
        b2=0.98,
    )
    mesh = sharding.make_mesh({}, jax.devices()[:1])
    state, frozen = init_state(params, ("backbone",), optimizer, jax.random.key(recipe.seed))
    state, frozen, state_on, frozen_on = place(state, frozen, optimizer, mesh)
    step = make_step(loss_fn, optimizer, mesh, state_on, frozen_on, schedule=schedule)
    perplexity, rng, metrics = _judge(graphdef, held), np.random.default_rng(recipe.seed), {}
    before = perplexity(params)
    for number in range(1, recipe.steps + 1):
        pick = rng.integers(len(known), size=recipe.batch)
        state, metrics = step(state, frozen, sharding.shard_batch((known_NL[pick], mask_NL[pick]), mesh))
        if number % 50 == 0 or number == recipe.steps:
            say(f"step {number}/{recipe.steps}  loss {float(metrics['loss']):.3f}")
    if int(state.skipped):
        raise BadValue(f"{int(state.skipped)} of {recipe.steps} steps gave no finite number; lower the learning rate")
    learnt = {**frozen, **state.params}
    return Learnt(config, learnt, tokenizer, len(known), before, perplexity(learnt))


def _parted(texts: Sequence[str]) -> tuple[list[str], list[str]]:
    """(texts to learn, texts to ask about), none in both."""
    asked = dict.fromkeys(texts[-max(1, len(texts) // HELD_OUT) :])
    known = [text for text in texts if text not in asked]
    if len(known) < 2:
        raise BadValue(f"{len(texts)} texts, too few of them different; take {HELD_OUT} at least")
    return known, list(asked)


def _rows(tokenizer: LlamaTokenizer, texts: Sequence[str], recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """(ids [N, L] between begin and end, which of them are learnt), L as far as the longest needs."""
    if missing := [text for text in texts if recipe.after not in text]:
        raise BadValue(f"the line {missing[0][:80]!r} has no {recipe.after!r}, behind which is what is to be learnt")
    given = [text[: text.index(recipe.after) + len(recipe.after)] if recipe.after else "" for text in texts]
    first = [[tokenizer.bos, *tokenizer.encode(part)] for part in given]
    ids = [
        [*own, *tokenizer.encode(text[len(part) :].strip()), tokenizer.eot]
        for own, part, text in zip(first, given, texts, strict=True)
    ]
    if long := [at for at, own in enumerate(ids) if len(own) > recipe.tokens]:
        at = max(long, key=lambda at: len(ids[at]))
        raise BadValue(f"the line {texts[at][:80]!r} has {len(ids[at])} tokens; tokens = {recipe.tokens} are taken")
    length = -(-max(map(len, ids)) // 8) * 8
    rows_NL = np.full((len(ids), length), tokenizer.eot, np.int32)
    for row_L, own in zip(rows_NL, ids, strict=True):
        row_L[: len(own)] = own
    begin_N1, end_N1 = (np.array([len(own) for own in part])[:, None] for part in (first, ids))
    at_1L = np.arange(length)[None]
    return rows_NL, (at_1L >= begin_N1) & (at_1L < end_N1)


def _entropy(model: Any, tokens_BL, mask_BL):
    """`losses.token_cross_entropy` of every token by those before it."""
    return losses.token_cross_entropy(model(tokens_BL)[:, :-1], tokens_BL[:, 1:], mask_BL[:, 1:])


def _judge(graphdef: functional.GraphDef, rows: tuple[np.ndarray, np.ndarray]) -> Callable[[Params], float]:
    """Perplexity of what is learnt of these rows, some rows at a time."""
    run = jax.jit(lambda params, *batch: _entropy(functional.merge(graphdef, params), *batch)[1])
    size = min(64, len(rows[0]))
    places = [np.arange(at, at + size) for at in range(0, len(rows[0]), size)]

    def perplexity(params: Params) -> float:
        total = 0.0
        for pick in places:
            tokens_BL, mask_BL = (array[np.minimum(pick, len(array) - 1)] for array in rows)  # filled up: one shape
            mask_BL = mask_BL & (pick < len(rows[0]))[:, None]
            total += float(run(params, jnp.asarray(tokens_BL), jnp.asarray(mask_BL)).sum())
        return float(np.exp(total / max(rows[1][:, 1:].sum(), 1)))

    return perplexity


def write(texts: Sequence[str], dest: Path | str, recipe: Recipe = Recipe(), say=print) -> Learnt:
    """`learn`, written to the folder `dest`, whole or not at all. Errors: AlreadyThere for other people's files."""
    dest = Path(dest)
    hf_whisper.replaceable(dest)  # before the work, not after it
    found = learn(texts, recipe, say)
    hf_llama.save(dest, found.config, found.params, found.tokenizer)
    return found


def main() -> None:
    """The command above."""
    ours = argparse.ArgumentParser(
        prog="python -m moejax.training.small_llama", description=" ".join((__doc__ or "").split("\n\n", 1)[0].split())
    )
    ours.add_argument("texts", help="a file of one text a line")
    ours.add_argument("dest", help="the folder to write")
    for field in dataclasses.fields(Recipe):
        ours.add_argument(
            f"--{field.name}", type=type(field.default), default=field.default, help=field.metadata["help"]
        )
    given = vars(ours.parse_args())
    try:
        texts, dest = read(given.pop("texts")), given.pop("dest")
        found = write(texts, dest, Recipe(**given))
    except Refused as error:
        sys.exit(f"{ours.prog}: {error}")
    print(f"perplexity of lines that were held out: {found.untrained:.1f} untrained, {found.trained:.2f} trained")


if __name__ == "__main__":
    main()
