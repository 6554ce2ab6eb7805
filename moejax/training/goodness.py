"""Stage `goodness`: what a goodness of pronunciation is worth, learnt from speech that counts as right.

The head of the stage `ctc` says how well each unit of a text fits its sound (`tasks.goodness`). Here a curve is fitted
that makes a score of 0 to 100 of it: dev speech, asked for its own units and for others in their places. The same on
test says how well a swapped sound is found. Of Mandarin a classifier of tones is learnt from training speech, by the
head's own alignment.

    W/goodness/calibration.json    knots of the curve of each kind: letter or phone, word; or initial, final, tone
    W/goodness/tones.safetensors   the classifier of tones, of pinyin
    W/goodness/table.md            how well swapped sounds and tones are told from right ones, with intervals
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

from moejax.audio.constants import SAMPLE_RATE, STRIDE
from moejax.cohorts import hearing
from moejax.errors import BadValue
from moejax.ops.ctc import needed
from moejax.runtime.files import write_json, write_text
from moejax.score import graded
from moejax.tasks import tones
from moejax.tasks.calibration import Calibration
from moejax.tasks.forced import Forced
from moejax.tasks.goodness import goodness
from moejax.tasks.tones import ToneClassifier
from moejax.text import pinyin, units
from moejax.train.params_file import load_params, save_params
from moejax.work.context import Context
from moejax.work.fields import COUNT, SIZE, Field
from moejax.work.stage import Stage

SECTIONS = {
    "goodness": {
        "utterances": Field(400, "Utterances of train, dev and test each that are listened to, at most.", limits=COUNT),
        "hidden": Field(32, "Width of the hidden layer of the classifier of tones.", limits=SIZE),
    }
}
KINDS = LETTER, PHONE, WORD, INITIAL, FINAL, TONE = "letter", "phone", "word", "initial", "final", "tone"


@dataclasses.dataclass
class Heard:
    """Goodness of what was said and of what was not, by kind; and whose."""

    right: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    wrong: dict[str, list[float]] = dataclasses.field(default_factory=dict)
    right_by: dict[str, list[str]] = dataclasses.field(default_factory=dict)
    wrong_by: dict[str, list[str]] = dataclasses.field(default_factory=dict)

    def add(self, kind: str, speaker: str, right: Sequence[float], wrong: Sequence[float]) -> None:
        """Some of one utterance."""
        for values, owners, new in ((self.right, self.right_by, right), (self.wrong, self.wrong_by, wrong)):
            values.setdefault(kind, []).extend(map(float, new))
            owners.setdefault(kind, []).extend([speaker] * len(new))


def run(cfg, work) -> dict:
    """Writes W/goodness. Errors: BadValue where nothing in dev or test can be aligned."""
    context = Context(cfg, work)
    ear = _Ear(context)
    parts = {part: _rows(context, part, cfg.goodness.utterances) for part in ("train", "dev", "test")}
    classifier = _learnt_tones(context, ear, parts["train"]) if ear.pinyin else None
    fitted, judged = (_listened(context, ear, parts[part], classifier, part) for part in ("dev", "test"))
    if not fitted.right or not judged.right:
        raise BadValue(
            "goodness is calibrated on dev and judged on test, and one of them has no utterance that can be used"
        )
    kinds = [kind for kind in KINDS if fitted.right.get(kind) and fitted.wrong.get(kind)]
    curves = {kind: calibrated(fitted.right[kind], fitted.wrong[kind]) for kind in kinds}
    if classifier is not None:
        save_params(work.path("goodness", "tones.safetensors"), {"tones": classifier.params}, {})
    write_json(work.path("goodness", "calibration.json"), {kind: curve.knots() for kind, curve in curves.items()})
    names = context.corpus.manifest.column("speaker")
    known = set(names[context.corpus.rows("train")])
    new = not known & set(names[parts["test"]])
    rows = _figures(judged)
    text = markdown(cfg.name, rows, len(parts["test"]), new)
    write_text(work.path("goodness", "table.md"), text)
    for line in text.splitlines():
        work.log(line)
    return {"auc": {row["kind"]: row["auc"] for row in rows}}


def calibrated(right: Sequence[float], wrong: Sequence[float]) -> Calibration:
    """The rising curve (isotonic regression) that says of a goodness how often it is of a right sound, 0 to 100; both
    kinds weigh alike.
    """
    x = np.concatenate([right, wrong])
    y = np.concatenate([np.full(len(right), 100.0), np.zeros(len(wrong))])
    weight = np.concatenate([np.full(len(right), 1 / len(right)), np.full(len(wrong), 1 / len(wrong))])
    fit = IsotonicRegression(y_min=0, y_max=100, out_of_bounds="clip").fit(x, y, weight)
    return Calibration(tuple(map(float, fit.X_thresholds_)), tuple(map(float, fit.y_thresholds_)))


class _Ear:
    """Utterances of the manifest as the head hears them."""

    def __init__(self, context: Context):
        params, meta = load_params(context.work.path("ctc", "params.safetensors"))
        config = context.base.config
        self.forced = Forced(params, meta, config.d_model, STRIDE * config.hop / SAMPLE_RATE)
        self.pinyin = self.forced.inventory.kind == "pinyin"
        self._context, self._step = context, STRIDE * config.hop
        if not hearing.hears_all(context):
            raise BadValue("goodness listens to dev and test, whose encoder states a base from scratch does not keep")
        states = hearing.shown(context)
        if states is None:
            raise BadValue("goodness listens to kept encoder states: raise runtime.encoder_cache_bytes")
        self._states = states

    def emitted(self, row: int) -> np.ndarray:
        """[T, C] of its real frames, padded to few lengths for the compiler and cut again."""
        frames = -(-int(self._context.corpus.samples[row]) // self._step)
        states_TD = np.asarray(self._states(row), np.float32)[:frames]
        padded = np.pad(states_TD, ((0, -len(states_TD) % 256), (0, 0)))
        return self.forced.emitted(padded[None])[0][: len(states_TD)]

    def text(self, row: int) -> str:
        return str(self._context.corpus.manifest.column("text")[row])


def _rows(context: Context, part: str, most: int) -> np.ndarray:
    """Some of a part, spread over it; of test those of speakers in no other part, where there are any."""
    manifest = context.corpus.manifest
    rows = manifest.indices(split=part)
    names = manifest.column("speaker")
    if part == "test" and len(rows):
        known = set(names[manifest.indices(split=["train", "dev"])])
        new = np.array([row for row in rows if names[row] not in known], int)
        rows = new if len(new) else rows
    return (
        rows[np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))] if len(rows) else rows
    )


def _listened(context: Context, ear: _Ear, rows, classifier: ToneClassifier | None, part: str) -> Heard:
    """What is right and what is swapped in these utterances; another unit, word or tone is drawn for each."""
    found, rng = Heard(), np.random.default_rng([context.cfg.seed, len(part)])
    vocabulary = sorted({word for row in rows for word in ear.text(row).split() if units.letters(word)})
    names = context.corpus.manifest.column("speaker")
    for row in context.work.progress(rows, total=len(rows), desc=f"goodness of {part}"):
        logp_TC, speaker = ear.emitted(int(row)), str(names[row])
        words = ear.forced.inventory.words(ear.text(row))
        labels, word_of = ear.forced.inventory.encode(words)
        if not labels or needed(labels) > len(logp_TC):
            continue
        others = _others(ear, labels, rng)
        right_L, wrong_L = goodness(logp_TC, labels, others)
        kinds = np.array([kind_of(ear.forced.inventory, label) for label in labels])
        for kind in np.unique(kinds):
            found.add(str(kind), speaker, right_L[kinds == kind].tolist(), wrong_L[kinds == kind].tolist())
        if classifier is not None:
            _tones_of(context, ear, row, logp_TC, classifier, found, speaker, rng)
        elif len(words) > 1:
            _word_of(ear, logp_TC, words, np.array(word_of), right_L, vocabulary, found, speaker, rng)
    return found


def kind_of(inventory: units.Inventory, label: int) -> str:
    """Of what kind a unit is."""
    if inventory.kind != "pinyin":
        return PHONE if inventory.kind == "phones" else LETTER
    return INITIAL if inventory.units[label] in pinyin.TABLE else FINAL


def _others(ear: _Ear, labels, rng) -> list[int]:
    """A unit of the same kind in the place of each, never itself."""
    inventory = ear.forced.inventory
    pools: dict[str, list[int]] = {}
    for unit in range(1, len(inventory)):
        pools.setdefault(kind_of(inventory, unit), []).append(unit)
    found = []
    for label in labels:
        pool = [unit for unit in pools[kind_of(inventory, label)] if unit != label]
        found.append(int(rng.choice(pool)) if pool else label)
    return found


def _word_of(ear, logp_TC, words, word_of, right_L, vocabulary, found, speaker, rng) -> None:
    """Words are as good as their letters on average; one of each utterance is another word of about its length."""
    inside = np.unique(word_of)
    found.add(WORD, speaker, [right_L[word_of == place].mean() for place in inside], [])
    place = int(rng.choice(inside))
    bare = "".join(units.letters(words[place]))
    near = [w for w in vocabulary if abs(len(w) - len(bare)) <= 1 and "".join(units.letters(w)) != bare]
    encode = ear.forced.inventory.encode
    near = [w for w in near if encode([w])[0] != encode([words[place]])[0]]  # two and too
    if near:
        labels, owner = encode([*words[:place], str(rng.choice(near)), *words[place + 1 :]])
        wrong_L, _ = goodness(logp_TC, labels)
        if (mine := np.array(owner) == place).any():
            found.add(WORD, speaker, [], [float(wrong_L[mine].mean())])


def final_spans(forced: Forced, logp_TC: np.ndarray, words: Sequence[str]) -> list[tuple[float, float]]:
    """When each syllable's voice sounds: from the end of its initial to its own; seconds."""
    found = []
    for one in forced(logp_TC, words):
        voiced = [part for part in one.letters if part.text not in pinyin.TABLE] or list(one.letters)
        found.append((voiced[0].start, voiced[-1].end) if voiced else (one.start, one.end))
    return found


def _contours(context, ear: _Ear, row: int, logp_TC) -> tuple[np.ndarray, list[int]]:
    """(features of every syllable, its tone)."""
    read = pinyin.read(ear.text(row))
    spans = final_spans(ear.forced, logp_TC, [one.pinyin for one in read])
    contour_LP = tones.contours(np.asarray(context.corpus.audio[int(row)]), spans)
    return tones.features(contour_LP, spans), [one.tone for one in read]


def _learnt_tones(context: Context, ear: _Ear, rows) -> ToneClassifier:
    parts = [found for row in rows for found in _syllables(context, ear, int(row))]
    if not parts:
        raise BadValue("no training utterance has a voiced syllable: tones cannot be learnt")
    feature_NF, tone_N = np.stack([one for one, _ in parts]), np.array([tone for _, tone in parts])
    found = learn_tones(feature_NF, tone_N, context.cfg.goodness.hidden, context.cfg.seed)
    context.work.log(f"  tones learnt from {len(tone_N)} syllables of {len(rows)} utterances")
    return found


def _syllables(context, ear: _Ear, row: int) -> Iterator[tuple[np.ndarray, int]]:
    logp_TC = ear.emitted(row)
    if needed(ear.forced.inventory.encode(ear.forced.inventory.words(ear.text(row)))[0]) > len(logp_TC):
        return
    feature_LF, tone_L = _contours(context, ear, row, logp_TC)
    yield from ((one, tone) for one, tone in zip(feature_LF, tone_L, strict=True) if np.isfinite(one).all())


def learn_tones(feature_NF: np.ndarray, tone_N: np.ndarray, hidden: int, seed: int = 0) -> ToneClassifier:
    """The classifier that scikit-learn trains on these syllables. Errors: BadValue for a single tone."""
    if len(np.unique(tone_N)) < 2:
        raise BadValue("all syllables have one tone: there is nothing to tell apart")
    scaler = StandardScaler().fit(feature_NF)
    net = MLPClassifier((hidden,), solver="lbfgs", alpha=1.0, max_iter=300, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # it may well be stopped
        net.fit(scaler.transform(feature_NF), tone_N)
    known = list(net.classes_)
    outer, bias = net.coefs_[1], net.intercepts_[1]
    if len(known) == 2:  # scikit-learn keeps one logit of two
        outer, bias = np.concatenate([-outer, outer], 1) / 2, np.concatenate([-bias, bias]) / 2
    whole, lifted = np.zeros((hidden, len(pinyin.TONES))), np.full(len(pinyin.TONES), -20.0)  # a tone that none had
    for at, tone in enumerate(known):
        whole[:, pinyin.TONES.index(tone)], lifted[pinyin.TONES.index(tone)] = outer[:, at], bias[at]
    params = {"mean": scaler.mean_, "scale": scaler.scale_, "inner": net.coefs_[0], "inner_bias": net.intercepts_[0]}
    params |= {"outer": whole, "outer_bias": lifted}
    return ToneClassifier({name: np.asarray(value, np.float32) for name, value in params.items()})


def _tones_of(context, ear, row, logp_TC, classifier, found, speaker, rng) -> None:
    feature_LF, tone_L = _contours(context, ear, int(row), logp_TC)
    flat_LF = feature_LF.copy()
    flat_LF[:, : tones.POINTS + 2] = 0.0  # a voice that does not move
    for kind, heard_LF in ((TONE, feature_LF), (f"{TONE}, flattened", flat_LF)):
        logp_LC = classifier(heard_LF)
        for tone, one in zip(tone_L, logp_LC, strict=True):
            other = int(rng.choice([t for t in pinyin.TONES[:4] if t != tone]))
            at, swapped = pinyin.TONES.index(tone), pinyin.TONES.index(other)
            found.add(kind, speaker, [one[at]], [one[swapped]])
        if kind == TONE:
            hit = [float(pinyin.TONES[int(one.argmax())] == tone) for tone, one in zip(tone_L, logp_LC, strict=True)]
            found.add("tones that are right", speaker, hit, [])


def _figures(judged: Heard) -> list[dict]:
    rows = []
    for kind, right in judged.right.items():
        wrong = judged.wrong[kind]
        row = {"kind": kind, "right": len(right), "swapped": len(wrong), "auc": None, "share": None}
        if wrong:
            found = graded.auc_interval(
                (np.array(right), judged.right_by[kind]), (np.array(wrong), judged.wrong_by[kind])
            )
            row |= {"auc": found.value, "low": found.low, "high": found.high}
        else:
            row["share"] = float(np.mean(right))
        rows.append(row)
    return rows


def markdown(name: str, rows: list[dict], utterances: int, new: bool) -> str:
    """The table of what is found."""
    who = "speakers whom nothing was learnt of" if new else "speakers who are in training, too"
    lines = [f"# {name}: swapped sounds", "", ""]
    lines += [f"{utterances} test utterances of {who}; AUC with 95 % intervals over speakers.", ""]
    lines += ["| kind | said | swapped | AUC |", "|---|---:|---:|---:|"]
    for row in rows:
        found = "-" if row["auc"] is None else f"{row['auc']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
        found = f"{100 * row['share']:.1f} %" if row["share"] is not None else found
        lines.append(f"| {row['kind']} | {row['right']:,} | {row['swapped']:,} | {found} |")
    return "\n".join([*lines, ""])


STAGE = Stage(
    "goodness",
    run,
    needs=("ctc",),
    reads=("goodness",),
    apart=True,
    switch="ctc.steps",
    sections=SECTIONS,
)
