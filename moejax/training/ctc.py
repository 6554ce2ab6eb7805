"""A CTC head on the frozen encoder: what `moejax align` finds the borders of words and letters with.

It learns from texts alone; nobody has to say when a word begins. Its units are letters, phones, or the initials and
finals of Mandarin. The encoder's states are kept (`cohorts.hearing`): a step is two small layers and a sum over paths.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from moejax.cohorts import hearing
from moejax.cohorts.hearing import States
from moejax.data.pipeline import FILLER, BatchPlan, bucket_of
from moejax.errors import BadValue
from moejax.nn import functional
from moejax.ops.ctc import needed
from moejax.runtime.sharding import process_shard, shard_batch
from moejax.tasks import asr
from moejax.tasks import ctc as task
from moejax.text.units import SPELLINGS, Inventory, spelling_of
from moejax.train.params_file import save_params, whole_array
from moejax.training import dev, fitting
from moejax.work import fields
from moejax.work.context import Context, bucket_samples
from moejax.work.fields import SIZE, Field
from moejax.work.stage import Stage

BUCKETS = (2.0, 4.0, 8.0, 16.0, 30.0)  # seconds that a batch of states is cut to

SECTIONS = {
    "ctc": {
        **fields.but(fitting.PLAIN, learning_rate=2e-3),
        **{name: fitting.DEV[name] for name in ("evals", "dev_utterances", "keep")},
        "hidden": Field(256, "Width of the head's hidden layers.", limits=SIZE),
        "units": Field(
            "letters",
            "What the head writes.\n"
            "letters of the texts; phones: IPA, as espeak-ng reads data.language; pinyin: initials and finals of texts"
            " in hanzi or pinyin.",
            choices=SPELLINGS,
            later=True,
        ),
    },
}


def run(cfg, work) -> dict:
    """Writes W/ctc/params.safetensors: the head and its units. Errors: BadValue where no training text
    fits its sound, and where the encoder's states cannot be kept.
    """
    if not cfg.ctc.steps:
        return {}
    context = Context(cfg, work)
    texts = context.corpus.manifest.column("text")
    rows = context.corpus.rows("train")
    inventory = Inventory.of((str(texts[row]) for row in rows), spelling_of(cfg.ctc.units, cfg.data.language))
    states = hearing.shown(context)
    if states is None:
        raise BadValue("ctc learns from kept encoder states: raise runtime.encoder_cache_bytes")
    graphdef, params = asr.init(task.build(context.base.config.d_model, cfg.ctc.hidden, len(inventory), cfg.seed))
    material = Material(context, states, inventory)
    rows = material.fitting(rows)
    plan = BatchPlan(
        lengths=context.corpus.samples[rows],
        buckets=material.buckets,
        batch_size=cfg.ctc.batch_size,
        seed=cfg.seed,
        multiple=context.multiple,
        names=context.corpus.manifest.strings("id", rows),
    )
    params = fitting.train(
        context,
        fitting.Training(
            "ctc",
            task.make_loss(graphdef),
            ("head",),
            cfg.ctc,
            plan=plan,
            fetch=Fetch(material, rows),
            eval_fn=_judge(context, material, graphdef),
        ),
        params,
    )
    meta = {"units": list(inventory.units), "hidden": cfg.ctc.hidden, "spelling": inventory.spelling}
    save_params(work.path("ctc", "params.safetensors"), {"head": params["head"]}, meta)
    return {"units": len(inventory) - 1, "utterances": len(rows), "trainable": functional.count(params["head"])}


@dataclasses.dataclass(frozen=True)
class Material:
    """Rows of the manifest as states and labels."""

    context: Context
    states: States
    inventory: Inventory

    @property
    def buckets(self) -> tuple[int, ...]:
        """Lengths in samples, at most the window."""
        hop, longest = self.context.base.config.hop, self.context.buckets[-1]
        return tuple(one for one in bucket_samples(BUCKETS, hop) if one < longest) + (longest,)

    def labels(self, row: int) -> list[int]:
        return self.inventory.encode(str(self.context.corpus.manifest.column("text")[row]).split())[0]

    def frames(self, row: int) -> int:
        return -(-int(self.context.corpus.samples[row]) // (2 * self.context.base.config.hop))

    def fitting(self, rows) -> np.ndarray:
        """Those of the rows whose text has a path through their sound."""
        kept = [row for row in rows.tolist() if 0 < needed(self.labels(row)) <= self.frames(row)]
        if len(kept) < len(rows):
            self.context.work.log(f"  {len(rows) - len(kept)} utterances have more letters than frames: left out")
        if not kept:
            raise BadValue(f"ctc: none of {len(rows)} training texts fits its sound")
        return np.array(kept)

    def batch(self, bucket: int, rows) -> task.Labelled:
        """`rows` of the manifest, `FILLER` for none."""
        labels = [[] if row < 0 else self.labels(int(row)) for row in rows]
        T, L = bucket // (2 * self.context.base.config.hop), -(-max(map(len, labels)) // 32) * 32
        states_BTD = np.zeros((len(rows), T, self.context.base.config.d_model), np.float32)
        labels_BL = np.zeros((len(rows), max(L, 32)), np.int32)
        frames_B = np.ones(len(rows), np.int32)
        for b, row in enumerate(rows):
            if row >= 0:
                # What is shown ends with its last whole frame, so that it may fit a shorter window by one state
                heard_TD = self.states(int(row))[: min(self.frames(int(row)), T)]
                frames_B[b], states_BTD[b, : len(heard_TD)] = len(heard_TD), heard_TD
                labels_BL[b, : len(labels[b])] = labels[b]
        return task.Labelled(states_BTD, frames_B, labels_BL, np.array([len(one) for one in labels], np.int32))


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Batches of numbers of `rows`, as the loader asks for them."""

    material: Material
    rows: np.ndarray

    def __call__(self, bucket: int, numbers) -> task.Labelled:
        numbers = np.asarray(numbers)
        return self.material.batch(bucket, np.where(numbers < 0, FILLER, self.rows[np.maximum(numbers, 0)]))


def _judge(context: Context, material: Material, graphdef) -> dev.Judge | None:
    rows = context.corpus.manifest.indices(split="dev")
    if not context.cfg.ctc.evals or not len(rows) or not hearing.hears_all(context):
        return None  # a base that hears pieces keeps the states of the training part alone
    count = min(context.cfg.ctc.dev_utterances, len(rows))
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
    rows = material.fitting(rows)
    rows = rows[np.argsort(context.corpus.samples[rows], kind="stable")]
    size = -(-context.cfg.ctc.batch_size // context.multiple) * context.multiple
    likelihood, (part, parts) = task.make_likelihood(graphdef), process_shard(context.mesh)

    def batches():
        for at in range(0, len(rows), size):
            numbers = np.arange(at, min(at + size, len(rows)))
            filled = np.concatenate([rows[numbers], np.full(size - len(numbers), FILLER)])
            bucket = material.buckets[
                bucket_of(context.corpus.samples[rows[numbers]].max(keepdims=True), material.buckets)[0]
            ]
            yield numbers, shard_batch(material.batch(bucket, np.split(filled, parts)[part]), context.mesh)

    def score(params, batch, numbers):
        found_B, count_B = whole_array(likelihood(params, batch)), whole_array(batch.count_B)
        return -found_B[: len(numbers)], count_B[: len(numbers)]

    speakers = [str(name) for name in context.corpus.manifest.column("speaker")[rows]]
    return dev.Judge(speakers, batches, {"ctc": score})


STAGE = Stage(
    "ctc", run, needs=("base",), together=True, reseeded=True, switch="ctc.steps", reads=("ctc",), sections=SECTIONS
)
