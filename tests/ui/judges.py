"""What judges pronunciation and tells speakers apart in tests of the page: the real things, with random weights."""

import dataclasses

import jax
import numpy as np
from tiny_model import sound

from moejax.align.placing import Placer
from moejax.audio.constants import SAMPLE_RATE, STRIDE
from moejax.diarize import listening, talks
from moejax.diarize.deciding import Deciding
from moejax.nn import functional
from moejax.nn.diarizers import Sizes
from moejax.pronounce.judging import Judge, Rater
from moejax.tasks import ctc, diarization
from moejax.tasks.calibration import Calibration
from moejax.tasks.forced import Forced
from moejax.tasks.tones import WIDTH, ToneClassifier
from moejax.text import pinyin
from moejax.text.units import Inventory
from moejax.training import goodness

CURVE = Calibration((-20.0, 0.0), (0.0, 100.0))


def judge(recognizer, *, mandarin: bool = False, rated: bool = True, head: bool = True) -> Judge:
    """As `pronounce.judging.opened` makes it of a workdir."""
    rater = _rater(recognizer) if rated else None
    if not head:
        return Judge(Placer(recognizer), rater, {}, None)
    config = recognizer.config
    spelling = "pinyin" if mandarin else "letters"
    known = Inventory.of(["ni3 hao3 ma1 ma2 ma3 ma4" if mandarin else "ba do ki mu"], spelling)
    meta = {"units": known.units, "spelling": spelling, "hidden": 8}
    _, fresh = functional.split(ctc.build(config.d_model, 8, len(known), seed=1)())
    params = jax.tree.map(np.asarray, functional.materialise(fresh))
    forced = Forced(params, meta, config.d_model, STRIDE * config.hop / SAMPLE_RATE)
    tone = _tones() if mandarin else None
    return Judge(Placer(recognizer, forced), rater, dict.fromkeys(goodness.KINDS, CURVE), tone)


def diarizer() -> listening.Diarizer:
    """As `diarize.listening.opened` makes it; fresh, with a threshold at which somebody speaks half of the time."""
    sizes = Sizes(hears=(345,), most=2, head="fixed", width=16, heads=2, layers=1, ffn=16)
    _, params = diarization.init(sizes, 0)
    fresh = listening.Diarizer(params, sizes, Deciding(median=1), 5.0, talks.logmel)
    half = float(np.median(fresh.probabilities(sound(3.0), 2)))
    return dataclasses.replace(fresh, deciding=Deciding(threshold=half, median=1))


def _rater(recognizer) -> Rater:
    meta = {"scores": ["clear", "fluent"], "embedding": {"layers": (-1,), "how": "mean", "trim_silence": True}}
    width = recognizer.config.d_model
    weight = np.random.default_rng(0).normal(0, 0.1, (width, 2))
    params = {"mean": np.zeros(width), "scale": np.ones(width), "weight": weight, "bias": np.array([6.0, 7.0])}
    return Rater(recognizer, params | {"lowest": np.zeros(2), "highest": np.full(2, 10.0), "error": np.ones(2)}, meta)


def _tones() -> ToneClassifier:
    rng = np.random.default_rng(0)
    layers = {"inner": rng.normal(0, 1, (WIDTH, 4)), "outer": rng.normal(0, 1, (4, len(pinyin.TONES)))}
    biases = {"inner_bias": np.zeros(4), "outer_bias": np.zeros(len(pinyin.TONES))}
    return ToneClassifier({"mean": np.zeros(WIDTH), "scale": np.ones(WIDTH), **layers, **biases})
