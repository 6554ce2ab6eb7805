"""What a training is judged by: the same utterances of dev each time, one figure for each, so that two states of a
network are compared in pairs and a difference comes with its interval.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from moejax.cohorts.embed import options as embedding_options
from moejax.data.pipeline import FILLER
from moejax.runtime.sharding import process_shard, shard_batch
from moejax.score import bootstrap, wer
from moejax.tasks import asr, recognition
from moejax.text import normalize
from moejax.train.params_file import whole_array
from moejax.training import encoder_states, gate_inputs
from moejax.work.context import Context
from moejax.work.fields import COUNT, Field

SECTION = {
    "evals": Field(4, "How often in a stage dev is scored and logged; 0: never.", limits=(0, 10_000)),
    "dev_utterances": Field(
        2000,
        "Utterances of dev that are scored, spread evenly over it: the same ones each time, at most all.\n"
        "Fewer cost less and tell less: 250 know a word error rate of 18 % to two points or so.",
        limits=COUNT,
    ),
    "best": Field(
        "loss",
        "Score by which a checkpoint is kept as the best.\n"
        "loss: the cross-entropy of dev; wer: its word error rate, for which it is decoded too (greedily; one"
        " compilation more).",
        choices=("loss", "wer"),
    ),
    "keep": Field(
        "last",
        "Step whose parameters are what the stage has learnt.\n"
        "last; best: the best on dev, where the interval of its paired difference to the last excludes zero.",
        choices=("last", "best"),
    ),
}
Each = tuple[np.ndarray, np.ndarray]  # errors [U] (or -log p of all tokens) and words [U] (or tokens) of utterances


@dataclasses.dataclass
class Judge:
    """`judge(state, frozen) -> {name: rate}`, as `loop.fit` wants it, the first being what is judged by; `each` has the
    utterances one by one.
    """

    speakers: list[str]
    batches: Callable[[], Iterable[tuple[np.ndarray, Any]]]  # -> (numbers of the utterances in its first rows, batch)
    scores: Mapping[str, Callable[[Any, Any, np.ndarray], Each]]  # {name: (params, batch, numbers) -> theirs}
    _last: tuple[int, dict[str, Each]] | None = None

    @property
    def name(self) -> str:
        return next(iter(self.scores))

    def __call__(self, state, frozen) -> dict[str, float]:
        return {name: rate(each) for name, each in self._all(state, frozen).items()}

    def each(self, state, frozen) -> Each:
        """What it judges by, of a state of the training."""
        return self._all(state, frozen)[self.name]

    def _all(self, state, frozen) -> dict[str, Each]:
        """Of all scores; asked twice of the same step, found once."""
        step = int(state.step)
        if self._last is None or self._last[0] != step:
            params, size = {**frozen, **state.params}, len(self.speakers)
            found = {name: (np.zeros(size), np.zeros(size)) for name in self.scores}
            for numbers, batch in self.batches():
                for name, score in self.scores.items():
                    found[name][0][numbers], found[name][1][numbers] = score(params, batch, numbers)
            self._last = step, found
        return self._last[1]

    def compared(self, after: Each, before: Each) -> bootstrap.Interval:
        """Rate after minus rate before, below zero where it became better."""
        return bootstrap.difference(after[0], before[0], after[1].tolist(), self.speakers)

    def said(self, after: Each, before: Each) -> str:
        """Both rates and their difference, in a line that says what it is worth."""
        found = self.compared(after, before)
        line = f"dev {self.name} {rate(before):.3f} -> {rate(after):.3f}, {found.value:+.3f} "
        line += f"[{found.low:+.3f}, {found.high:+.3f}], {len(self.speakers)} utterances"
        if found.high < 0:
            return line
        return f"{line}: {'WORSE than it began' if found.low > 0 else 'no difference beyond doubt'}"


def rate(each: Each) -> float:
    return float(each[0].sum() / max(each[1].sum(), 1))


def judge(
    context: Context, graphdef, mixture, route: str, section, labels_N=None, kept: bool = False, asked=None
) -> Judge | None:
    """What `fitting.train` scores dev with, without noise; None where there is no dev part or `section.evals` is 0.

    All are padded to the longest bucket, so that it is one compilation. `labels_N` are those of every row of the
    manifest, for the route "label". `kept`: encoder states may be kept; those of dev are where the base writes times.
    `asked`: rows -> (rows, what the gate hears, what is written of each), where that is not what was said (loss alone).
    """
    rows = context.corpus.manifest.indices(split="dev")
    if not section.evals or not len(rows):
        return None
    count = min(section.get("dev_utterances", SECTION["dev_utterances"].default), len(rows))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
    written, gate_in = None, gate_inputs.embeddings_of(context, rows) if route == "gate" else None
    if asked is not None:
        rows, gate_in, written = asked(rows)
    decoded = asked is None and section.best == "wer"
    kept = kept and bool(context.base.times) and not decoded  # a word error rate is decoded from audio
    states = encoder_states.opened(context) if kept else None
    collate = context.collator(rows, None if labels_N is None else labels_N[rows], gate_in, states, written)
    bucket = context.buckets[-1]
    collate.lengths = {bucket: max(collate.lengths.values())}
    size = -(-min(section.batch_size, len(rows)) // context.multiple) * context.multiple
    part, parts = process_shard(context.mesh)

    def batches():
        for at in range(0, len(rows), size):
            numbers = np.arange(at, min(at + size, len(rows)))
            index_B = np.concatenate([numbers, np.full(size - len(numbers), FILLER)])
            yield numbers, shard_batch(collate(bucket, np.split(index_B, parts)[part]), context.mesh)

    calm = None if mixture is None else dataclasses.replace(mixture, expert_dropout=0.0)
    scores = {"wer": _word_errors(context, graphdef, calm, route, rows)} if decoded else {}
    scores["ce"] = _cross_entropy(graphdef, asr.Row(route=route, frozen=True), calm, len(context.corpus.cohorts))
    speakers = list(context.corpus.manifest.strings("speaker", rows))
    return Judge(speakers, batches, scores)


def _cross_entropy(graphdef, row, mixture, num_cohorts):
    """(-log p of all tokens, tokens) of utterances."""
    loss_fn = asr.make_loss(graphdef, row, mixture=mixture, num_cohorts=num_cohorts)
    # One utterance after the other on a processor, whose caches hold no more; side by side elsewhere
    alone = jax.default_backend() == "cpu" and jax.device_count() == 1

    @jax.jit
    def each(params, batch):
        def one(its):
            return loss_fn(params, jax.tree.map(lambda leaf: leaf[None], its), jax.random.key(0))[1]["ce"]

        return jax.lax.map(one, batch) if alone else jax.vmap(one)(batch)

    def score(params, batch, numbers):
        tokens_B = whole_array(batch.score_BL).sum(1)
        return (whole_array(each(params, batch)) * tokens_B)[: len(numbers)], tokens_B[: len(numbers)]

    return score


def _word_errors(context, graphdef, mixture, route, rows):
    """(word errors, words) of utterances, decoded greedily."""
    tokenizer, normal = context.base.tokenizer, normalize.get("lower")
    references = [normal(text) for text in context.corpus.manifest.strings("text", rows)]
    predict = recognition.make_predict(
        graphdef,
        prefix=context.prefix(),
        eot=tokenizer.eot,
        max_tokens=context.max_tokens(),
        route=route,
        mixture=mixture,
        embedding=embedding_options(context.cfg),
    )

    def score(params, batch, numbers):
        decoded, _ = predict(params, batch.audio_BS, batch.samples_B, batch.label_B)
        tokens_BL, lengths_B = whole_array(decoded.tokens_BL), whole_array(decoded.lengths_B)
        texts = [normal(tokenizer.decode(tokens_BL[b, : lengths_B[b]])) for b in range(len(numbers))]
        found = wer.count([references[number] for number in numbers], texts)
        return np.array([one.errors for one in found]), np.array([one.words for one in found])

    return score
