"""Stage `ego`: a network that follows one enrolled speaker through a talk, frame by frame in five classes.

    W/ego/params.safetensors   the network
    W/ego/scores.json          on dev and test talks: frame accuracy and macro F1 with the right enrolment, with that of
                               somebody who is not there and with none; how much of the target is found with each; DER

Every enrolment comes from *another* talk than the one that is asked about: where it is cut from the talk's own labels,
the figures are those of an oracle. A speaker who is nowhere else alone for a second is asked about in no example.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from moejax.data.pipeline import FILLER, BatchPlan
from moejax.diarize import labels, talks
from moejax.diarize.labels import EGO
from moejax.diarize.talks import RATE, Part
from moejax.diarize.train import line, moments
from moejax.nn import functional
from moejax.nn.ego import EgoSizes
from moejax.nn.performer import ACTIVATIONS, ATTENTIONS, NORMS
from moejax.runtime.files import write_json
from moejax.runtime.sharding import process_shard, shard_batch
from moejax.score import diarization
from moejax.tasks import diarization as diarizers
from moejax.tasks import ego as task
from moejax.train.params_file import save_params, whole_array
from moejax.training import fitting
from moejax.work import fields
from moejax.work.context import Context
from moejax.work.fields import SIZE, Field, below
from moejax.work.stage import Stage

LEAST = 10  # frames that somebody must speak alone to be enrolled
ENROLMENTS = ("right", "wrong", "nobody")

SECTIONS = {
    "ego": {
        **fields.but(fitting.PLAIN, learning_rate=1e-3, batch_size=16, weight_decay=0.1, clip=5.0, b2=0.95),
        "enrol": Field(5.0, "Seconds of an enrolment at most.", limits=(1.0, 60.0)),
        "width": Field(345, "Width of encoder and decoder.", limits=SIZE),
        "heads": Field(5, "Heads of their attention.", limits=SIZE),
        "layers": Field(8, "Layers of each.", limits=SIZE),
        "ffn": Field(1380, "Hidden units of a layer.", limits=(1, 65536)),
        "attention": Field("softmax", "Attention of the encoder; linear: FAVOR+.", choices=ATTENTIONS[:2]),
        "decoder": Field("softmax", "Attention of the decoder over itself.", choices=ATTENTIONS),
        "norm": Field("scale", "Norm of its layers: layer norm, ScaleNorm, ReZero.", choices=NORMS),
        "activation": Field("reglu", "Activation of its feed-forwards.", choices=tuple(ACTIVATIONS)),
        "features": Field(0, "Random features of linear attention; 0: width ln(width) of a head.", limits=(0, 65536)),
        "redraw": Field(1000, "Steps after which random features are drawn anew; 0: never."),
        "dropout": Field(0.1, "Share of activations that are dropped in training.", limits=(0.0, below(1))),
        "smoothing": Field(0.1, "Label smoothing.", limits=(0.0, below(1))),
    }
}


def sizes_of(section, hears) -> EgoSizes:
    """The network's sizes by the config's section, for frames of this shape."""
    names = ("width", "heads", "layers", "ffn", "attention", "decoder", "norm", "activation", "features")
    return EgoSizes(hears=tuple(hears), **{name: section[name] for name in names})


@dataclasses.dataclass(frozen=True)
class Examples:
    """Targets of talks: `asked` (talk, speaker; "" for nobody); `alone[speaker]`: (talk, first frame, frames) where he
    speaks alone, the longest first.
    """

    part: Part
    asked: tuple[tuple[int, str], ...]
    alone: dict[str, list[tuple[int, int, int]]]
    enrol: int

    def __len__(self) -> int:
        return len(self.asked)

    def enrolment(self, number: int, kind: str = "right") -> tuple[int, int, int] | None:
        """Where the example's target is enrolled from: another talk. wrong: somebody who is not in the talk."""
        row, speaker = self.asked[number]
        if kind == "nobody" or not speaker:
            return None
        if kind == "wrong":
            here = {turn.speaker for turn in self.part.turns[row]}
            group = self.part.groups[row]
            others = [
                name
                for name in sorted(self.alone)
                if name not in here and self.part.groups[self.alone[name][0][0]] == group
            ] or [name for name in sorted(self.alone) if name not in here]
            speaker = others[number % len(others)] if others else speaker
        places = [place for place in self.alone[speaker] if place[0] != row]
        return places[number % min(len(places), 4)] if places else None


def examples(part: Part, enrol: int) -> Examples:
    """All that can be asked of these talks, nobody included."""
    frames = round(part.seconds * RATE)
    alone: dict[str, list[tuple[int, int, int]]] = {}
    for row, turns in enumerate(part.turns):
        active_ST, names = labels.activity(turns, frames, RATE)
        single_T = active_ST.sum(0) == 1
        for name, own_T in zip(names, active_ST & single_T, strict=True):
            edges = np.flatnonzero(np.diff(np.concatenate([[0], own_T.astype(np.int8), [0]]))).reshape(-1, 2)
            alone.setdefault(name, []).extend((row, int(a), int(b - a)) for a, b in edges if b - a >= LEAST)
    alone = {name: sorted(places, key=lambda place: -place[2]) for name, places in alone.items() if places}
    asked = []
    for row, turns in enumerate(part.turns):
        names = sorted({turn.speaker for turn in turns})
        asked += [(row, name) for name in names if any(place[0] != row for place in alone.get(name, ()))]
        asked.append((row, ""))
    return Examples(part, tuple(asked), alone, enrol)


@dataclasses.dataclass(frozen=True)
class Fetch:
    """Batches of examples by their numbers; -1 fills up. Pickles for loader processes."""

    examples: Examples
    kind: str = "right"

    def __call__(self, bucket: int, numbers) -> dict[str, np.ndarray]:
        del bucket
        one, numbers = self.examples, np.asarray(numbers)
        rows = [one.asked[max(int(number), 0)][0] for number in numbers]
        heard = np.stack([one.part.heard[row] for row in rows])
        B, T = heard.shape[:2]
        enrol = np.zeros((B, one.enrol, *heard.shape[2:]), heard.dtype)
        ego_BT, enrolled_B = np.full((B, T), EGO.index("ns"), np.int32), np.zeros(B, np.int32)
        for b, number in enumerate(numbers.tolist()):
            if number == FILLER:
                continue
            row, speaker = one.asked[number]
            active_ST, names = labels.activity(one.part.turns[row], T, RATE)
            ego_BT[b] = labels.ego_labels(active_ST)[names.index(speaker) if speaker else -1]
            place = one.enrolment(number, self.kind)
            if place is not None:
                of, start, length = place
                enrolled_B[b] = min(length, one.enrol)
                enrol[b, : enrolled_B[b]] = one.part.heard[of][start : start + enrolled_B[b]]
        batch = {"enrol": enrol, "enrolled_B": enrolled_B, "ego_BT": ego_BT, "real_B": numbers != FILLER}
        batch["frames_B"] = np.full(B, T, np.int32)
        return batch | {"states_BTLD" if heard.ndim == 4 else "features_BTF": heard}


def run(cfg, work) -> dict:
    """Writes W/ego; idle where ego.steps is 0."""
    s = cfg.ego
    if not s.steps:
        return {}
    context = Context(cfg, work)
    most = round(s.enrol * RATE)
    parts = {name: examples(talks.opened(context, name), most) for name in talks.PARTS}
    sizes = sizes_of(s, parts["train"].part.heard[0].shape[1:])
    graphdef, params = task.init(sizes, cfg.seed)
    params = diarizers.standardised(graphdef, params, *moments(parts["train"].part))
    work.log(
        f"  {len(parts['train'])} examples of {len(parts['train'].part)} talks; classes: {_shares(parts['train'])}"
    )
    plan = BatchPlan(
        lengths=np.ones(len(parts["train"]), np.int64),
        buckets=(1,),
        batch_size=s.batch_size,
        seed=cfg.seed,
        multiple=context.multiple,
        names=[f"talk{row}:{name or labels.NOBODY}" for row, name in parts["train"].asked],
    )
    loss = task.make_loss(graphdef, s.dropout, s.smoothing, cfg.seed, s.redraw)
    training = fitting.Training("ego", loss, ("backbone",), s, plan=plan, fetch=Fetch(parts["train"]), stepped=True)
    params = fitting.train(context, training, params)
    params = task.with_features(graphdef, params, cfg.seed, s.steps, s.redraw)
    ask = functools.partial(_classes, context, task.make_classes(graphdef), params)
    found = {
        name: scored(parts[name], {kind: ask(parts[name], kind) for kind in ENROLMENTS}) for name in ("dev", "test")
    }
    meta = {"sizes": dataclasses.asdict(sizes), "hears": cfg.talks.hears, "pretrained": cfg.model.pretrained}
    save_params(work.path("ego", "params.safetensors"), params, meta | {"encoder": talks.encoder_content(cfg)})
    write_json(work.path("ego", "scores.json"), found)
    for name, rows in found.items():
        said = ", ".join(f"{kind} {100 * rows[kind]['target_f1']:.0f}" for kind in ENROLMENTS)
        work.log(f"  {name}: accuracy {100 * rows['right']['accuracy']:.1f} %, F1 of the target by enrolment: {said}")
        work.log(f"  {name}: {line(rows['der'])}")
    return {"accuracy": found["test"]["right"]["accuracy"], "trainable": functional.count(params["backbone"])}


def _shares(one: Examples) -> str:
    """How often each class is asked for."""
    frames = round(one.part.seconds * RATE)
    counts = np.zeros(len(EGO))
    for turns in one.part.turns:
        counts += np.bincount(labels.ego_labels(labels.activity(turns, frames, RATE)[0]).ravel(), minlength=len(EGO))
    return ", ".join(f"{name} {100 * share:.0f} %" for name, share in zip(EGO, counts / counts.sum(), strict=True))


def _classes(context: Context, classes, params, one: Examples, kind: str) -> list[np.ndarray]:
    """The likeliest class of every frame [T] of every example."""
    size = -(-context.cfg.ego.batch_size // context.multiple) * context.multiple
    fetch, (own, count) = Fetch(one, kind), process_shard(context.mesh)
    found = []
    for at in range(0, len(one), size):
        numbers = np.arange(at, min(at + size, len(one)))
        filled = np.concatenate([numbers, np.full(size - len(numbers), FILLER)])
        batch = shard_batch(fetch(0, np.split(filled, count)[own]), context.mesh)
        found += list(whole_array(classes(params, batch)).argmax(-1)[: len(numbers)].astype(np.int8))
    return found


def scored(one: Examples, said: dict[str, list[np.ndarray]]) -> dict:
    """Of each enrolment: accuracy and macro F1 of the five classes over all examples, and of those with a target how
    well its activity is found. The DER is that of the talks, each speaker by his own enrolment.
    """
    frames = round(one.part.seconds * RATE)
    true = []
    for row, speaker in one.asked:
        active_ST, names = labels.activity(one.part.turns[row], frames, RATE)
        true.append(labels.ego_labels(active_ST)[names.index(speaker) if speaker else -1])
    wanted = np.concatenate(true)
    targets = [number for number, (_, speaker) in enumerate(one.asked) if speaker]
    rows: dict = {}
    for kind, classes in said.items():
        given = np.concatenate(classes)
        f1 = [_f1(wanted == label, given == label) for label in range(len(EGO))]
        heard = [np.concatenate([of[number] for number in targets]) <= 1 for of in (true, classes)]
        rows[kind] = {"accuracy": float((wanted == given).mean()), "macro_f1": float(np.mean(f1))}
        rows[kind] |= {"target_f1": _f1(*heard), "target_found": float(heard[1][heard[0]].mean())}
    most = np.bincount(wanted, minlength=len(EGO)).max() / len(wanted)
    errors = []
    for row, turns in enumerate(one.part.turns):
        own = [(number, name) for number, (of, name) in enumerate(one.asked) if of == row and name]
        active_ST = np.array([said["right"][number] <= 1 for number, _ in own]).reshape(len(own), frames)
        found = labels.turns_of(active_ST, [name for _, name in own], RATE)
        errors.append(diarization.compare(turns, found, [(0.0, one.part.seconds)]))
    rows["der"] = diarization.pooled(errors).row() | {"talks": len(errors)}
    return rows | {"most_frequent": float(most), "examples": len(one), "with_target": len(targets)}


def _f1(true, given) -> float:
    both = float((true & given).sum())
    return 2 * both / max(float(true.sum() + given.sum()), 1.0)


STAGE = Stage(
    "ego",
    run,
    needs=("talks",),
    reads=("ego", "talks", "model.pretrained", "model.dtype"),
    together=True,
    reseeded=True,
    switch="ego.steps",
    apart=True,
    sections=SECTIONS,
)
