"""Stage `emotion`: a published model learns to say a speaker's emotion before the text (`tasks.emotion`).

What trains is one LoRA of the decoder and a row of the embedding for each emotion; all else stays as it was published,
bit for bit. The encoder's states are kept, so a step is the decoder alone. Utterances of which nobody knows the
emotion stand behind one that is drawn: they teach the rows to leave the text what it was.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.audio.constants import TIMESTAMP_STEP, WINDOW_SECONDS
from moejax.cohorts.hearing import States
from moejax.data.collate import Collator, Utterances
from moejax.data.pipeline import FILLER, BatchPlan
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.runtime.sharding import process_shard, shard_batch
from moejax.tasks import asr
from moejax.tasks import emotion as task
from moejax.text.tokenizer import Tokenizer
from moejax.train.params_file import save_params, whole_array
from moejax.training import dev, encoder_states, fitting, network
from moejax.work import fields
from moejax.work.context import Context
from moejax.work.fields import SIZE, Field, above
from moejax.work.stage import Stage

FILE = "params.safetensors"
SECTIONS = {
    "emotion": {
        **fields.but(fitting.PLAIN, learning_rate=1e-3, batch_size=16),
        **{name: fitting.DEV[name] for name in ("evals", "dev_utterances", "keep")},
        "classes": Field(
            (), "Emotions, in the order of their tokens; () for all labels of the training part (column label)."
        ),
        "rank": Field(8, "Rank of the LoRA that learns beside the tokens.", limits=SIZE),
        "rows_rate": Field(
            0.03,
            "Learning rate of the tokens' rows, as a multiple of emotion.learning_rate.\n"
            "The decoder's last states are large numbers: a small change of a row changes its logit much.",
            limits=(above(0), 1000.0),
        ),
        "weight": Field(1.0, "Weight of an utterance's emotion beside a token of its text.", limits=(0.0, 1000.0)),
    },
}


def run(cfg, work) -> dict:
    """Writes W/emotion/params.safetensors: LoRA, rows and the names of the emotions.

    Errors: BadValue for a base that writes no times, a corpus without labels, experts in the encoder.
    """
    if not cfg.emotion.steps:
        return {}
    context = Context(cfg, work)
    mixture = definition(cfg, cfg.emotion.rank)
    names = classes(context)  # what is refused is refused before hours of hearing
    states = _checked(context, mixture)
    base = context.base.config
    material = Material(context, states, context.base.tokenizer.with_emotions(names, base.vocab_size))
    graphdef, params = task.init(base, mixture, context.base.params, len(names), cfg.seed)
    rows = context.corpus.rows("train")
    turns = material.turns(rows, np.random.default_rng(cfg.seed))
    known = sum(one.known for one in turns)
    work.log(f"  {len(names)} emotions: {', '.join(names)}; {known} of {len(turns)} turns of an epoch say one")
    params = fitting.train(
        context,
        fitting.Training(
            "emotion",
            task.make_loss(graphdef, cfg.emotion.weight),
            ("expert", "head"),
            cfg.emotion,
            plan=material.plan(turns),
            fetch=material.collator(turns),
            eval_fn=_judge(context, material, graphdef),
            leaf_scale={"rows": cfg.emotion.rows_rate},
        ),
        params,
    )
    kept = {"expert": params["expert"], "head": params["head"]}
    save_params(work.path("emotion", FILE), kept, {"emotions": names, "rank": cfg.emotion.rank})
    return {"emotions": names, "trainable": sum(functional.count(tree) for tree in kept.values())}


def definition(cfg, rank: int) -> asr.Mixture:
    """The one LoRA."""
    return network.definition(cfg, 1, rank=rank, shared_rank=0, expert_dropout=0.0)


def classes(context: Context) -> list[str]:
    """The emotions that have a token. Errors: none, one alone, one that no training utterance has."""
    manifest, asked = context.corpus.manifest, list(context.cfg.emotion.classes)
    there = sorted({str(one) for one in manifest.column("label")[context.corpus.rows("train")]} - {""})
    if lacking := [name for name in asked if name not in there]:
        raise BadValue(f"emotion.classes has {lacking[0]!r}; labels of train are {', '.join(there) or 'none'}")
    names = asked or there
    if len(names) < 2:
        raise BadValue(
            f"emotion: the training part has {len(names)} labels, two are the least: take a source that has"
            " emotions (ravdess, cremad, emodb), or map data.columns.label"
        )
    return names


def _checked(context: Context, mixture: asr.Mixture) -> States:
    """The kept encoder states of what can be learnt from."""
    if not context.base.times:
        raise BadValue(
            "emotion: tokens are taught to published models that write times: set model.pretrained, and model.times"
            " above 0"
        )
    if why := encoder_states.why_not(asr.Row(), mixture):
        raise BadValue(f"emotion learns from kept encoder states, and {why} (mixture.targets)")
    states = encoder_states.opened(context)
    if states is None:
        raise BadValue("emotion learns from kept encoder states: raise runtime.encoder_cache_bytes")
    return states


@dataclasses.dataclass(frozen=True)
class Turn:
    """One way to learn an utterance: behind its emotion's token, or where nobody knows it behind any, with times or
    without.
    """

    row: int  # of the manifest
    emotion: str
    timed: bool
    known: bool = True


@dataclasses.dataclass(frozen=True)
class Material:
    """Utterances as encoder states and tokens."""

    context: Context
    states: States
    tokenizer: Tokenizer

    def turns(self, rows: Sequence[int] | np.ndarray, rng: np.random.Generator) -> list[Turn]:
        """Those of an epoch: each utterance with times and without."""
        labels, names, found = self.context.corpus.manifest.column("label"), list(self.tokenizer.emotions), []
        for row in map(int, rows):
            for timed in (False, True):
                drawn, label = names[int(rng.integers(len(names)))], str(labels[row])
                known = label in self.tokenizer.emotions
                found.append(Turn(row, label if known else drawn, timed, known))
        return found

    def written(self, turn: Turn) -> tuple[list[int], int]:
        """(ids of prefix, text and end token, how many of them are given)."""
        corpus, tokenizer = self.context.corpus, self.tokenizer
        prefix = tokenizer.prefix(self.context.cfg.data.language, "transcribe", turn.timed, turn.emotion)
        ids = tokenizer.encode(str(corpus.manifest.column("text")[turn.row]))
        if turn.timed:
            seconds = min(float(corpus.manifest.column("seconds")[turn.row]), float(WINDOW_SECONDS))
            begin = tokenizer.timestamp_begin
            ids = [begin, *ids, begin + round(seconds / TIMESTAMP_STEP)]
        found, room = [*prefix, *ids, tokenizer.eot], self.context.base.config.max_target_positions
        if len(found) - 1 > room:
            name = corpus.manifest.column("id")[turn.row]
            raise BadValue(f"utterance {str(name)!r} has {len(found) - 1} tokens; the model takes {room}")
        return found, len(prefix)

    def plan(self, turns: Sequence[Turn]) -> BatchPlan:
        corpus, section = self.context.corpus, self.context.cfg.emotion
        rows = np.array([one.row for one in turns])
        return BatchPlan(
            lengths=corpus.samples[rows],
            buckets=self.context.buckets,
            batch_size=section.batch_size,
            seed=self.context.cfg.seed,
            multiple=self.context.multiple,
            names=corpus.manifest.strings("id", rows),
        )

    def collator(self, turns: Sequence[Turn]) -> Collator:
        """Batches by number of a turn; label -1 where nobody knows the emotion."""
        rows = np.array([one.row for one in turns])
        said = [self.written(one) for one in turns]
        states = _States(self.states, rows)
        utterances = Utterances(
            audio=states,  # never asked: there are states
            samples=self.context.corpus.samples[rows],
            tokens=[ids for ids, _ in said],
            prefix=[given for _, given in said],
            eot=self.tokenizer.eot,
            states=states,
            stride=2 * self.context.base.config.hop,
        )
        return Collator(utterances, self.context.buckets, labels=np.array([one.known - 1 for one in turns]))


@dataclasses.dataclass(frozen=True)
class _States:
    """Encoder states of row number `rows[i]`; pickles for loader processes."""

    states: States
    rows: np.ndarray

    def __call__(self, index) -> np.ndarray:
        return self.states(int(self.rows[int(index)]))


def _judge(context: Context, material: Material, graphdef) -> dev.Judge | None:
    """-log p of the emotions of dev, by which it is judged, and the drift of its texts behind them."""
    manifest, section = context.corpus.manifest, context.cfg.emotion
    labels = manifest.column("label")
    rows = [row for row in manifest.indices(split="dev").tolist() if str(labels[row]) in material.tokenizer.emotions]
    if not section.evals or not rows:
        return None
    count = min(section.dev_utterances, len(rows))
    rows = np.array(rows)[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
    collate = material.collator([Turn(int(row), str(labels[row]), False) for row in rows])
    size = -(-section.batch_size // context.multiple) * context.multiple
    each, (part, parts) = task.make_each(graphdef), process_shard(context.mesh)

    def batches():
        for at in range(0, len(rows), size):
            numbers = np.arange(at, min(at + size, len(rows)))
            index_B = np.concatenate([numbers, np.full(size - len(numbers), FILLER)])
            yield numbers, shard_batch(collate(context.window, np.split(index_B, parts)[part]), context.mesh)

    def score(first):
        def found(params, batch, numbers):
            text_B, tokens_B, felt_B, has_B = (whole_array(one)[: len(numbers)] for one in each(params, batch))
            return (felt_B, has_B.astype(float)) if first else (text_B, tokens_B)

        return found

    return dev.Judge(list(manifest.strings("speaker", rows)), batches, {"emotion": score(True), "drift": score(False)})


STAGE = Stage(
    "emotion",
    run,
    needs=("base",),
    together=True,
    reseeded=True,
    switch="emotion.steps",
    reads=("emotion", "mixture", "model.weights"),
    sections=SECTIONS,
)
