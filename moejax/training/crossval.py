"""Stage `folds`: classifiers, trained and tested fold by fold, without anything carried from one fold to the next.

What holds a figure honest, each with a test that breaks it: parameters, optimizer and noise are drawn anew in every
fold and one that starts with a loss far under ln(classes) is refused; recordings and speakers lie in one fold;
statistics come from training clips; the fold after the tested one chooses, never the tested one; labels that were
shuffled (`folds.sanity`) must give chance (`score.classes.at_chance`).
"""

import dataclasses
import functools
import hashlib
import math
import shutil
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from moejax.data import folds
from moejax.data.pipeline import FILLER, BatchPlan
from moejax.nn import functional
from moejax.ops.sound_mel import Mel
from moejax.ops.waveform import Strengths
from moejax.runtime import processes
from moejax.runtime.files import read_json, write_json
from moejax.runtime.sharding import process_shard, shard_batch
from moejax.tasks import classification
from moejax.train.optim import Plateau
from moejax.train.params_file import load_params, save_params, whole_array
from moejax.training import clips as clips_of
from moejax.training import dev, fitting, sound_pictures
from moejax.training.clips import Clips
from moejax.training.crossval_keys import SECTIONS, learnt_by, section_of
from moejax.types import Params
from moejax.work.context import Context, key_of
from moejax.work.folder import digest
from moejax.work.stage import Stage

RESULT, PARAMS, MADE = "result.json", "params.safetensors", "made.json"
CALIBRATED_BY = 8  # batches of training clips
FRESH = 0.75  # of ln(classes): a network that starts lower has seen its clips before


def run(cfg, work) -> dict:
    """Writes W/folds. A fold whose result stands is not trained again; one that was killed goes on."""
    context = Context(cfg, work)
    clips = clips_of.opened(context)
    plan = folds.made(clips.folds, clips.groups, cfg.folds.count)
    label_U = clips.label_U
    if cfg.folds.sanity:
        label_U = np.random.default_rng([cfg.seed, 1]).permutation(label_U)
        work.log("  labels are shuffled: whatever is above chance now is a leak")
    found = {name: cross_validated(context, clips, plan, label_U, name) for name in cfg.folds.models}
    if processes.first():
        draw_pictures(context, clips, plan)
    return {"folds": len(plan), "accuracy": {name: float(np.mean(accuracies)) for name, accuracies in found.items()}}


def cross_validated(
    context: Context, clips: Clips, plan: folds.Folds, label_U: np.ndarray, name: str, carry: bool = False
) -> list[float]:
    """Accuracy in every fold. `carry` is the leak that a test shows: each fold goes on from the one before."""
    work = context.work
    home = work.path("folds", name)
    section = section_of(context.cfg.folds, name)
    made = {"section": learnt_by(section), "seed": context.cfg.seed, "labels": label_U.tolist(), "carry": carry}
    made |= {"clips": [clips.waves.folder.name, clips.states.folder.name], "folds": plan.fold_U.tolist()}
    made |= {"front": dataclasses.asdict(clips_of.mel(context.cfg))}
    if processes.first() and (not (home / MADE).exists() or read_json(home / MADE) != {"digest": digest(made)}):
        shutil.rmtree(home, ignore_errors=True)
        write_json(home / MADE, {"digest": digest(made)})
    accuracies, before = [], None
    for fold in range(len(plan)):
        result = home / f"fold{fold + 1}" / RESULT
        if not processes.agree(result.exists()):
            task = Fold(context, clips, plan, label_U, name, section, fold)
            before = task.run(before if carry else None)
            processes.meet()  # the first has written what all read
        accuracies.append(read_json(result)["accuracy"]["test"])
    return accuracies


@dataclasses.dataclass
class Fold:
    """One network in one round: what it hears, learns and is asked."""

    context: Context
    clips: Clips
    plan: folds.Folds
    label_U: np.ndarray
    name: str
    section: Any
    fold: int

    @property
    def mel(self) -> Mel | None:
        return None if self.name == "probe" else clips_of.mel(self.context.cfg)

    @property
    def classes(self) -> int:
        return len(self.clips.classes)

    @functools.cached_property
    def number(self) -> int:
        """Of this network in this fold: what its parameters, batches and noise are drawn by."""
        said = f"{self.context.cfg.seed} {self.name} {self.fold}".encode()
        return int.from_bytes(hashlib.blake2b(said, digest_size=4).digest(), "big") % 2**31

    @functools.cached_property
    def heard(self) -> "Heard":
        return Heard(self.clips, self.label_U, self.mel is not None)

    def run(self, before: Params | None) -> Params:
        """Trains, tests and writes the result; params. `before`: in place of fresh parameters, for the test's leak."""
        train, choose, test = self.plan.parts(self.fold)
        folds.check(self.plan.fold_U, self.clips.groups)
        graphdef, params = self.fresh()
        params = self.standardised(graphdef, params, train)
        if before is not None:
            params = {**before, "buffer": params["buffer"]}
        asked = Asked(self, graphdef, train)
        start = asked.losses(asked.calibrated(params), test)[0].mean()
        if before is None:
            check_fresh(float(start), self.classes, f"{self.name}, fold {self.fold + 1}")
        params = self.trained(graphdef, params, train, choose, asked)
        params = asked.calibrated(params)
        parts = {"train": train, "validation": choose, "test": test}
        found = {part: asked.losses(params, rows) for part, rows in parts.items()}
        result = {
            "fold": self.plan.names[self.fold],
            "classes": self.clips.classes,
            "parameters": functional.count({group: params[group] for group in classification.trainable(params)}),
            "loss": {"start": float(start), **{part: float(loss_N.mean()) for part, (loss_N, _) in found.items()}},
            "accuracy": {
                part: float((log_NC.argmax(1) == self.label_U[parts[part]]).mean())
                for part, (_, log_NC) in found.items()
            },
            "id": [self.clips.ids[row] for row in test],
            "group": [self.clips.groups[row] for row in test],
            "label": self.label_U[test].tolist(),
            "log_probability": found["test"][1].astype(float).round(6).tolist(),
        }
        home = self.context.work.path("folds", self.name, f"fold{self.fold + 1}")
        save_params(home / PARAMS, params)
        write_json(home / RESULT, result)  # last: it says that the fold is done
        said = ", ".join(f"{part} {100 * value:.1f} %" for part, value in result["accuracy"].items())
        self.context.work.log(f"  {self.name}, fold {self.plan.names[self.fold]}: {said}")
        return params

    def fresh(self) -> tuple[functional.GraphDef, Params]:
        """The network as nobody has trained it."""
        front, s = self.mel, self.section
        if front is not None:
            return classification.init(self.name, (front.mels, front.frames), self.classes, self.number)
        own = s.probe
        options = {name: own[name] for name in ("pooling", "hidden", "experts", "rank", "alpha")}
        shape = self.clips.states[0].shape[1:]
        return classification.init("probe", shape, self.classes, self.number, route=(own.routing, own.top_k), **options)

    def standardised(self, graphdef, params, train) -> Params:
        """Params with the mean and deviation of training clips: of mel bands, or of layers' states."""
        total, count = np.zeros(()), 0.0
        measure = image_moments(self.mel) if self.mel is not None else state_moments
        for at in range(0, len(train), 32):
            own, number = measure(self.heard(0, train[at : at + 32]))
            total, count = total + np.asarray(own, np.float64), count + number
        mean, square = np.asarray(total / count)
        return classification.standardised(graphdef, params, mean, np.sqrt(np.maximum(square - mean**2, 1e-6)))

    def trained(self, graphdef, params, train, choose, asked: "Asked") -> Params:
        context, s = self.context, self.section
        row = classification.Row(
            strengths=Strengths(s.shift, s.gain, tuple(s.noise), s.pitch, s.stretch, s.chance),
            spec={name: s[name] for name in ("time_masks", "time_width", "freq_masks", "freq_width")} if s.spec else {},
            mixup=s.mixup,
            dropout=s.dropout,
            smoothing=s.smoothing,
        )
        plan = BatchPlan(
            lengths=np.ones(len(train), np.int64),
            buckets=(1,),
            batch_size=s.batch_size,
            seed=self.number,
            multiple=context.multiple,
            names=[self.clips.ids[row] for row in train],
        )
        with s.unlocked():
            s.steps = s.epochs * plan.batches_per_epoch
        training = fitting.Training(
            "folds",
            classification.make_loss(graphdef, self.classes, row, self.mel),
            classification.trainable(params),
            s,
            plan=plan,
            fetch=Chosen(self.heard, train),
            sub=(self.name, f"fold{self.fold + 1}"),
            eval_fn=asked.judge(choose) if s.evals else None,
            key=jax.random.fold_in(key_of(context.cfg, "folds"), self.number),
            plateau=Plateau(plan.batches_per_epoch, s.patience, s.factor),
        )
        return fitting.train(context, training, params)


def check_fresh(loss: float, classes: int, what: str) -> None:
    """ValueError where a network that should know nothing starts knowing something: it was trained before."""
    if loss < FRESH * math.log(classes):
        raise ValueError(
            f"{what} starts at a loss of {loss:.2f} on its test clips; untrained it is {math.log(classes):.2f}"
        )


@dataclasses.dataclass(frozen=True)
class Heard:
    """Batches of clips by their numbers; -1 fills up. Pickles for loader processes."""

    clips: Clips
    label_U: np.ndarray
    waves: bool

    def __call__(self, bucket: int, rows: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
        del bucket
        rows = np.asarray(rows)
        real_B = rows != FILLER
        at = np.where(real_B, rows, 0)
        batch = {"label_B": self.label_U[at].astype(np.int32), "row_B": at.astype(np.int32), "real_B": real_B}
        if self.waves:
            heard = np.stack([self.clips.waves[int(row)] for row in at])
            return {**batch, "wave_BS": heard.astype(np.float32) / np.float32(32768)}
        states = np.stack([self.clips.states[int(row)] for row in at])
        return {**batch, "states_BTLD": states, "frames_BT": np.stack([self.clips.frames[int(row)] for row in at])}


@dataclasses.dataclass(frozen=True)
class Chosen:
    """Batches of some clips, by their place among these."""

    heard: Heard
    rows: np.ndarray

    def __call__(self, bucket: int, index) -> dict[str, np.ndarray]:
        index = np.asarray(index)
        return self.heard(bucket, np.where(index == FILLER, FILLER, self.rows[np.maximum(index, 0)]))


class Asked:
    """Asks a network of one fold, without noise."""

    def __init__(self, fold: Fold, graphdef: functional.GraphDef, train: np.ndarray):
        self._fold, self._mesh = fold, fold.context.mesh
        size = fold.section.batch_size
        self._size = -(-size // fold.context.multiple) * fold.context.multiple
        self._logits = classification.make_logits(graphdef, fold.mel)
        self._calibrate = classification.make_calibrated(graphdef, fold.mel)
        mixed = np.random.default_rng(fold.number).permutation(train)
        self._train = np.sort(mixed[: CALIBRATED_BY * self._size])
        self._last: tuple[Any, Params] | None = None

    def batches(self, rows: np.ndarray):
        """(places among `rows`, batch on the devices), filled up to one size."""
        part, parts = process_shard(self._mesh)
        for at in range(0, len(rows), self._size):
            places = np.arange(at, min(at + self._size, len(rows)))
            index_B = np.concatenate([rows[places], np.full(self._size - len(places), FILLER)])
            own_B = np.split(index_B, parts)[part]
            yield places, shard_batch(self._fold.heard(0, own_B), self._mesh)

    def calibrated(self, params: Params) -> Params:
        """Params whose batch norms go by training clips."""
        return self._calibrate(params, [batch for _, batch in self.batches(self._train)])

    def losses(self, params: Params, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(-log p of the right class [N], log p of all classes [N, C]) of clips."""
        log_NC = np.zeros((len(rows), self._fold.classes), np.float32)
        for places, batch in self.batches(rows):
            log_NC[places] = self.log_probabilities(params, batch)[: len(places)]
        return -log_NC[np.arange(len(rows)), self._fold.label_U[rows]], log_NC

    def log_probabilities(self, params, batch) -> np.ndarray:
        return whole_array(jax.nn.log_softmax(self._logits(params, batch), axis=-1))

    def judge(self, rows: np.ndarray) -> dev.Judge:
        """What the validation fold says of a state: cross-entropy first, then the share of errors."""
        label_N, groups = self._fold.label_U[rows], [self._fold.clips.groups[row] for row in rows]

        def score(figure: Callable):
            def found(params, batch, places):
                if self._last is None or self._last[0] is not params:
                    self._last = params, self.calibrated(params)
                log_NC = self.log_probabilities(self._last[1], batch)[: len(places)]
                return figure(log_NC, label_N[places]), np.ones(len(places))

            return found

        scores = {
            "ce": score(lambda log_NC, label_N: -log_NC[np.arange(len(label_N)), label_N]),
            "errors": score(lambda log_NC, label_N: (log_NC.argmax(1) != label_N).astype(float)),
        }
        return dev.Judge(groups, lambda: self.batches(rows), scores)


def image_moments(mel: Mel) -> Callable[[dict], tuple[np.ndarray, int]]:
    """(sums of values and squares [2, M], number of frames) of the images of a batch."""
    image = jax.jit(mel)

    def moments(batch):
        image_BMN = np.asarray(image(batch["wave_BS"]), np.float64)
        return np.stack([image_BMN.sum((0, 2)), np.square(image_BMN).sum((0, 2))]), image_BMN.shape[0] * mel.frames

    return moments


def state_moments(batch: dict) -> tuple[np.ndarray, float]:
    """(sums of values and squares [2, layers, D], number of frames) of kept states."""
    states, frames = batch["states_BTLD"].astype(np.float64), batch["frames_BT"].astype(np.float64)
    sums = [np.einsum("BTLD,BT->LD", power, frames) for power in (states, np.square(states))]
    return np.stack(sums), float(frames.sum())


def draw_pictures(context: Context, clips: Clips, plan: folds.Folds) -> None:
    """The pictures of one test clip of each class, and of the first fold's networks what decides (`sound_pictures`)."""
    cfg, test = context.cfg, plan.parts(0)[2]
    firsts = [next((row for row in test if clips.label_U[row] == label), None) for label in range(len(clips.classes))]
    rows = np.array([row for row in firsts if row is not None])
    waves = Heard(clips, clips.label_U, True)(0, rows)["wave_BS"]

    def trained(name):
        task = Fold(context, clips, plan, clips.label_U, name, section_of(cfg.folds, name), 0)
        params, _ = load_params(context.work.path("folds", name, "fold1", PARAMS))
        return sound_pictures.Trained(name, task.fresh()[0], params)

    scratch = [name for name in cfg.folds.models if name != "probe"][:1] * (not cfg.folds.sanity)
    sound_pictures.draw(context, clips, rows, waves, *map(trained, scratch))
    if "probe" in cfg.folds.models and not cfg.folds.sanity:
        sound_pictures.draw_probe(context, clips, rows, trained("probe"))


STAGE = Stage(
    "folds",
    run,
    needs=("clips",),
    reads=("folds", "clips"),
    together=True,
    reseeded=True,
    keeps=True,
    apart=True,
    sections=SECTIONS,
)
