"""Stage `diarizer`: a network that says who speaks when, learnt from simulated talks; dev chooses, test is asked once.

W/diarizer/params.safetensors   the network, and all that it takes to use it
W/diarizer/scores.json          DER on the dev and test talks with intervals, by number of speakers and by group,
                                beside one speaker who always speaks and the references on the network's own grid
W/diarizer/test.rttm            what it said of the test talks
W/diarizer/resegmentation.npz   how its speech is divided among speakers once more (`resegmentation`), where dev gains
W/diarizer/voices.npz           how voices are compared (`naming`), where there are enough speakers for it
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.data.pipeline import FILLER, BatchPlan
from moejax.diarize import labels, naming, resegmentation, talks
from moejax.diarize.deciding import Deciding
from moejax.diarize.talks import RATE, Part
from moejax.diarize.turns import Turn, write_rttm
from moejax.nn import functional
from moejax.nn.diarizers import ATTENTIONS, HEADS, Sizes
from moejax.runtime.files import write_json
from moejax.runtime.sharding import process_shard, shard_batch
from moejax.score import bootstrap, diarization
from moejax.tasks import diarization as task
from moejax.train.params_file import save_params, whole_array
from moejax.training import dev, fitting
from moejax.types import Params
from moejax.work import fields
from moejax.work.context import Context
from moejax.work.fields import SIZE, Field, below
from moejax.work.stage import Stage

THRESHOLDS = (0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7)
MEDIANS = (1, 5, 11)
EXISTS = 0.5  # from which on an attractor is somebody (Horiguchi et al.)

SECTIONS = {
    "diarizer": {
        **fields.but(fitting.PLAIN, learning_rate=1e-3, batch_size=16, b2=0.98),
        "evals": fields.but(fitting.DEV, evals=4)["evals"],
        "keep": fitting.DEV["keep"],
        "head": Field(
            "attractors",
            "How speakers are told apart.\n"
            "attractors: as many as there are (EEND-EDA); fixed: one output for each of diarizer.most (SA-EEND);"
            " aed: one after the other, by enrolments that attend to the frames (AED-EEND); tsvad: attractors first,"
            " then each by the profile of his frames (EDA + TS-VAD).",
            choices=HEADS,
        ),
        "enhance": Field(
            False, "Of the head aed: frames attend to its attractors, and are decoded again (AED-EEND-EE)."
        ),
        "most": Field(4, "Speakers of one talk that it can tell apart.", limits=(1, 16)),
        "attention": Field(
            "softmax", "Attention over frames; linear: by random features (FAVOR+).", choices=ATTENTIONS
        ),
        "features": Field(0, "Random features of linear attention; 0: width ln(width) of a head.", limits=(0, 65536)),
        "width": Field(256, "Width of the network.", limits=SIZE),
        "heads": Field(4, "Heads of its attention.", limits=SIZE),
        "layers": Field(4, "Its layers.", limits=SIZE),
        "ffn": Field(1024, "Hidden units of a layer.", limits=(1, 65536)),
        "dropout": Field(0.1, "Share of activations that are dropped in training.", limits=(0.0, below(1))),
        "existence": Field(1.0, "Weight of the loss that says which attractors are somebody.", limits=(0.0, 1000.0)),
    }
}


def run(cfg, work) -> dict:
    """Writes W/diarizer; idle where diarizer.steps is 0. Errors: BadValue for talks of more speakers than `most`."""
    s = cfg.diarizer
    if not s.steps:
        return {}
    context = Context(cfg, work)
    parts = {name: talks.opened(context, name) for name in talks.PARTS}
    sizes = sizes_of(s, parts["train"].heard[0].shape[1:])
    graphdef, params = task.init(sizes, cfg.seed)
    params = task.standardised(graphdef, params, *moments(parts["train"]))
    fetch = Fetch(parts["train"], sizes.most)
    plan = BatchPlan(
        lengths=np.ones(len(parts["train"]), np.int64),
        buckets=(1,),
        batch_size=s.batch_size,
        seed=cfg.seed,
        multiple=context.multiple,
        names=[f"talk{row}" for row in range(len(parts["train"]))],
    )
    asked = Asked(context, graphdef, sizes.most)
    training = fitting.Training(
        "diarizer",
        task.make_loss(graphdef, s.dropout, s.existence),
        task.TRAINED,
        s,
        plan=plan,
        fetch=fetch,
        eval_fn=asked.judge(parts["dev"]) if s.evals else None,
    )
    params = fitting.train(context, training, params)
    probs = {name: asked.probabilities(params, parts[name]) for name in ("dev", "test")}
    deciding = chosen(parts["dev"], probs["dev"])
    alone = {name: [deciding.turns(prob_TS, RATE) for prob_TS in probs[name]] for name in probs}
    again = divided(work, parts, probs, deciding, pooled(parts["dev"], alone["dev"]).der)
    said = {name: again(parts[name], probs[name]) for name in probs} if again else alone
    found = {name: scored(parts[name], said[name]) for name in probs}
    network = {name: scored(parts[name], alone[name])["all"] for name in probs}
    meta = {"sizes": dataclasses.asdict(sizes), "deciding": dataclasses.asdict(deciding), "exists": EXISTS}
    meta |= {"hears": cfg.talks.hears, "pretrained": cfg.model.pretrained, "dtype": cfg.model.dtype}
    meta |= {"encoder": talks.encoder_content(cfg), "seconds": cfg.talks.seconds, "dev": found["dev"]["all"]}
    save_params(work.path("diarizer", "params.safetensors"), params, meta)
    voices = naming.fitted(naming.measured(parts["train"]), naming.measured(parts["dev"]))
    if voices is None:
        work.log("  voices: too few speakers in several talks to tell whose one is")
        work.path("diarizer", naming.FILE).unlink(missing_ok=True)
    else:
        voices.save(work.path("diarizer", naming.FILE))
        work.log(
            f"  voices: {voices.found:.0%} of dev's are known again in another talk, none of {voices.others} others"
        )
    write_rttm(work.path("diarizer", "test.rttm"), {f"talk{n:05d}": turns for n, turns in enumerate(said["test"])})
    write_json(work.path("diarizer", "scores.json"), {"deciding": meta["deciding"], "network": network, **found})
    for name, one in found.items():
        work.log(f"  {name}: {line(one['all'])}" + (f"; the network alone {network[name]['der']:.1f}" if again else ""))
    return {"der": found["test"]["all"]["der"], "trainable": functional.count(params["backbone"])}


def divided(work, parts: dict[str, Part], probs: dict, deciding: Deciding, der: float):
    """`again(part, probabilities) -> turns` by the resegmentation that dev likes best, which is written; None where
    none has a lower error there than `der`.
    """
    work.path("diarizer", resegmentation.FILE).unlink(missing_ok=True)
    space = resegmentation.fitted(parts["train"], parts["dev"])
    if space is None:
        work.log("  resegmentation: too few speakers to learn what voices differ in")
        return None
    dev_vectors = _vectors(space, parts["dev"])
    best, least = None, der
    for one in resegmentation.tried(space):
        found = pooled(parts["dev"], _again(one, deciding, probs["dev"], dev_vectors)).der
        if found < least:
            best, least = one, found
    if best is None:
        work.log(f"  resegmentation: no gain on dev, so the network alone decides ({100 * der:.1f} %)")
        return None
    best.save(work.path("diarizer", resegmentation.FILE))
    layers = ", ".join(map(str, space.layers))
    work.log(f"  resegmentation by layers {layers}: dev {100 * der:.1f} -> {100 * least:.1f} %")
    return lambda part, own: _again(best, deciding, own, _vectors(space, part))


def _vectors(space: resegmentation.Space, part: Part) -> list[np.ndarray]:
    return [space.vectors(part.heard[row]) for row in range(len(part))]


def _again(one, deciding: Deciding, probs, vectors) -> list[list[Turn]]:
    return [
        deciding.turns(prob_TS, RATE, again=lambda active_ST, p=prob_TS, v=own_TW: one(active_ST, p, v))
        for prob_TS, own_TW in zip(probs, vectors, strict=True)
    ]


def sizes_of(section, hears: Sequence[int]) -> Sizes:
    """The network's sizes by the config's section, for frames of this shape."""
    names = ("most", "head", "attention", "features", "width", "heads", "layers", "ffn", "enhance")
    return Sizes(hears=tuple(hears), **{name: section[name] for name in names})


def moments(part: Part, most: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of what is heard, over frames of at most so many talks."""
    total, square, count = np.float64(0.0), np.float64(0.0), 0
    for row in np.unique(np.linspace(0, len(part) - 1, min(most, len(part))).astype(int)).tolist():
        heard = np.asarray(part.heard[row], np.float64)
        total, square, count = total + heard.sum(0), square + np.square(heard).sum(0), count + len(heard)
    mean = np.asarray(total / count)
    return mean, np.sqrt(np.maximum(square / count - np.square(mean), 1e-6))


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Batches of talks by their numbers; -1 fills up. Pickles for loader processes."""

    part: Part
    most: int

    def __call__(self, bucket: int, rows) -> dict[str, np.ndarray]:
        del bucket
        rows = np.asarray(rows)
        heard = np.stack([self.part.heard[max(int(row), 0)] for row in rows])
        B, T = heard.shape[:2]
        active_BTS, count_B = np.zeros((B, T, self.most), bool), np.zeros(B, np.int32)
        for b, row in enumerate(rows.tolist()):
            if row != FILLER:
                active_ST, names = labels.activity(self.part.turns[row], T, RATE)
                active_ST = active_ST[active_ST.any(1)]  # who speaks for less than half a frame is nobody
                count_B[b] = len(active_ST)
                active_BTS[b, :, : len(active_ST)] = active_ST.T
        batch = {"active_BTS": active_BTS, "count_B": count_B, "real_B": rows != FILLER}
        batch["frames_B"] = np.full(B, T, np.int32)
        return batch | {"states_BTLD" if heard.ndim == 4 else "features_BTF": heard}


class Asked:
    """Asks a network about talks, without noise."""

    def __init__(self, context: Context, graphdef: functional.GraphDef, most: int):
        self._mesh, self._most = context.mesh, most
        self._size = -(-context.cfg.diarizer.batch_size // context.multiple) * context.multiple
        self._hear, self._each = task.make_hear(graphdef), task.make_each(graphdef)

    def batches(self, part: Part):
        """(numbers of talks, batch on the devices), filled up to one size."""
        fetch, (own, parts) = Fetch(part, self._most), process_shard(self._mesh)
        for at in range(0, len(part), self._size):
            numbers = np.arange(at, min(at + self._size, len(part)))
            filled = np.concatenate([numbers, np.full(self._size - len(numbers), FILLER)])
            yield numbers, shard_batch(fetch(0, np.split(filled, parts)[own]), self._mesh)

    def probabilities(self, params: Params, part: Part) -> list[np.ndarray]:
        """[T, speakers that it finds] of each talk."""
        found = []
        for numbers, batch in self.batches(part):
            prob_BTS, exists_BS, _ = map(whole_array, self._hear(params, batch))
            found += [there(prob_BTS[b], exists_BS[b]) for b in range(len(numbers))]
        return found

    def judge(self, part: Part) -> dev.Judge:
        """What dev says of a state: the activity's cross-entropy per frame."""

        def score(params, batch, numbers):
            loss_B, frames_B = map(whole_array, self._each(params, batch))
            return loss_B[: len(numbers)], frames_B[: len(numbers)]

        speakers = ["+".join(sorted({turn.speaker for turn in turns})) for turns in part.turns]
        return dev.Judge(speakers, lambda: self.batches(part), {"activity": score})


def there(prob_TS: np.ndarray, exists_S: np.ndarray, least: float = EXISTS) -> np.ndarray:
    """Probabilities of the speakers up to the first who is nobody."""
    gone = np.flatnonzero(exists_S < least)
    return prob_TS[:, : gone[0] if len(gone) else len(exists_S)]


def chosen(part: Part, probs: list[np.ndarray]) -> Deciding:
    """The threshold and the filter with the lowest DER on these talks."""
    tried = [Deciding(threshold, median) for threshold in THRESHOLDS for median in MEDIANS]
    return min(tried, key=lambda one: pooled(part, [one.turns(prob, RATE) for prob in probs]).der)


def errors(part: Part, said: Sequence[Sequence[diarization.Turn]], **options) -> list[diarization.Errors]:
    """Of every talk."""
    spans = [(0.0, part.seconds)]
    return [diarization.compare(true, found, spans, **options) for true, found in zip(part.turns, said, strict=True)]


def pooled(part: Part, said: list[list[Turn]], **options) -> diarization.Errors:
    return diarization.pooled(errors(part, said, **options))


def scored(part: Part, said: list[list[Turn]]) -> dict:
    """Percent: of all talks, by the number of speakers, by group, and of the controls. Intervals draw talks."""
    each = errors(part, said)
    rows: dict = {"all": _row(each), "all_collar": _row(errors(part, said, collar=0.25))}
    counts = [one.speakers[0] for one in each]
    for name, values in (("speakers", counts), ("group", part.groups)):
        rows[name] = {
            str(value): _row([one for one, own in zip(each, values, strict=True) if own == value])
            for value in sorted(set(values))
        }
    spans = [(0.0, part.seconds)]
    rows["one_speaker"] = _row(errors(part, [diarization.constant(spans) for _ in said]))
    rows["rounded"] = _row(errors(part, [diarization.rounded(turns, 1 / RATE) for turns in part.turns]))
    rows["all"]["counted"] = float(np.mean([one.speakers[0] == one.speakers[1] for one in each]))
    return rows


def _row(each: list[diarization.Errors]) -> dict:
    """Percent, with the interval of the DER over talks where there are enough to draw from."""
    wrong, total = ([100 * getattr(one, name) for one in each] for name in ("wrong", "total"))
    found = diarization.pooled(each).row() | {"talks": len(each)}
    if len(each) >= bootstrap.MIN_SPEAKERS and sum(total):
        interval = bootstrap.interval(np.array(wrong), total, [str(n) for n in range(len(each))])
        found |= {"low": 100 * interval.low, "high": 100 * interval.high}
    return found


def line(row: dict) -> str:
    """For the log."""
    parts = ", ".join(f"{name} {row[name]:.1f}" for name in ("missed", "false_alarm", "confusion"))
    interval = f" [{row['low']:.1f}, {row['high']:.1f}]" if "low" in row else ""
    return f"DER {row['der']:.1f} %{interval} ({parts}), JER {row['jer']:.1f} %, {row['talks']} talks"


STAGE = Stage(
    "diarizer",
    run,
    needs=("talks",),
    reads=("diarizer", "talks", "model.pretrained", "model.dtype"),
    together=True,
    reseeded=True,
    switch="diarizer.steps",
    apart=True,
    sections=SECTIONS,
)
