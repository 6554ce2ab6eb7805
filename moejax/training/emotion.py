"""Stage `emotion`: a published model learns to say a speaker's emotion before the text (`tasks.emotion`).

What trains is one LoRA of the decoder, which is there for this one token alone, and a row of the embedding for each
emotion; all else stays as it was published, bit for bit. The encoder's states are kept, so a step is the decoder over a
prefix of four tokens. Utterances of which nobody knows the emotion teach nothing.
"""

import dataclasses

import numpy as np

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
    every = context.corpus.rows("train")
    rows = material.labelled(every)
    work.log(f"  {len(names)} emotions: {', '.join(names)}; of {len(rows)} of {len(every)} utterances one is known")
    params = fitting.train(
        context,
        fitting.Training(
            "emotion",
            task.make_loss(graphdef),
            ("expert", "head"),
            cfg.emotion,
            plan=material.plan(rows),
            fetch=material.collator(rows),
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
class Material:
    """Utterances as encoder states and prefixes that say their emotion."""

    context: Context
    states: States
    tokenizer: Tokenizer

    def labelled(self, rows) -> np.ndarray:
        """Those of which one of the emotions is known."""
        labels = self.context.corpus.manifest.column("label")
        return np.array([row for row in map(int, rows) if str(labels[row]) in self.tokenizer.emotions], int)

    def written(self, row: int) -> list[int]:
        """Ids up to the emotion: the last, which is not given."""
        label = str(self.context.corpus.manifest.column("label")[row])
        return self.tokenizer.prefix(self.context.cfg.data.language, "transcribe", True, label)

    def plan(self, rows: np.ndarray) -> BatchPlan:
        corpus, section = self.context.corpus, self.context.cfg.emotion
        return BatchPlan(
            lengths=corpus.samples[rows],
            buckets=self.context.buckets,
            batch_size=section.batch_size,
            seed=self.context.cfg.seed,
            multiple=self.context.multiple,
            names=corpus.manifest.strings("id", rows),
        )

    def collator(self, rows: np.ndarray) -> Collator:
        """Batches by place among these rows."""
        said = [self.written(int(row)) for row in rows]
        states = _States(self.states, rows)
        utterances = Utterances(
            audio=states,  # never asked: there are states
            samples=self.context.corpus.samples[rows],
            tokens=said,
            prefix=[len(ids) - 1 for ids in said],
            eot=self.tokenizer.eot,
            states=states,
            stride=2 * self.context.base.config.hop,
        )
        return Collator(utterances, self.context.buckets, labels=np.zeros(len(rows)))


@dataclasses.dataclass(frozen=True)
class _States:
    """Encoder states of row number `rows[i]`; pickles for loader processes."""

    states: States
    rows: np.ndarray

    def __call__(self, index) -> np.ndarray:
        return self.states(int(self.rows[int(index)]))


def _judge(context: Context, material: Material, graphdef) -> dev.Judge | None:
    """-log p of the emotions of dev."""
    manifest, section = context.corpus.manifest, context.cfg.emotion
    rows = material.labelled(manifest.indices(split="dev"))
    if not section.evals or not len(rows):
        return None
    count = min(section.dev_utterances, len(rows))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
    collate = material.collator(rows)
    size = -(-section.batch_size // context.multiple) * context.multiple
    each, (part, parts) = task.make_each(graphdef), process_shard(context.mesh)

    def batches():
        for at in range(0, len(rows), size):
            numbers = np.arange(at, min(at + size, len(rows)))
            index_B = np.concatenate([numbers, np.full(size - len(numbers), FILLER)])
            yield numbers, shard_batch(collate(context.window, np.split(index_B, parts)[part]), context.mesh)

    def score(params, batch, numbers):
        felt_B = whole_array(each(params, batch)[0])[: len(numbers)]
        return felt_B, np.ones(len(numbers))

    return dev.Judge(list(manifest.strings("speaker", rows)), batches, {"emotion": score})


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
