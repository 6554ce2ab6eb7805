"""A recording judged: scores as experts give them, and how well each word and sound of its text fits.

The scores are those of the stage `rater`, words and sounds those of the stages `ctc` and `goodness`: a workdir may have
either or both.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from moejax.align import placing
from moejax.align.placing import Placer
from moejax.audio import read as audio_io
from moejax.audio.constants import SAMPLE_RATE
from moejax.enrolment import voice
from moejax.errors import BadValue, NotThere
from moejax.nn import functional
from moejax.recognizer import Recognizer
from moejax.runtime.files import read_json
from moejax.tasks import asr, tones
from moejax.tasks.calibration import Calibration
from moejax.tasks.forced import Forced, Placed
from moejax.tasks.goodness import goodness
from moejax.tasks.tones import ToneClassifier
from moejax.text import pinyin
from moejax.train.params_file import load_params
from moejax.training import goodness as stage

NEITHER = (
    "has neither rater nor head: moejax rater --config ... (rater.scores) or moejax goodness --config ... (ctc.steps)"
)


@dataclasses.dataclass(frozen=True)
class Part:
    """A sound of a word, or its tone: 0 to 100, and when it sounds (seconds)."""

    kind: str
    text: str
    score: float
    start: float
    end: float
    heard: str = ""  # of a tone: the one that is likeliest
    curve: tuple[float, ...] = ()  # of a tone: `tones.contours` of its final, semitones over the recording's median


@dataclasses.dataclass(frozen=True)
class Word:
    """A word, or a syllable of Mandarin, whose score is that of its weakest part."""

    text: str
    score: float | None  # None: the head knows none of its letters
    start: float
    end: float
    parts: tuple[Part, ...] = ()


@dataclasses.dataclass(frozen=True)
class Judged:
    """Of one recording. `scores`: {name: (score, its usual error)}; `given`: the text was told, not heard."""

    seconds: float
    text: str
    given: bool
    scores: dict[str, tuple[float, float]]
    words: tuple[Word, ...]

    @property
    def sounds(self) -> float | None:
        """Mean score of the words."""
        known = [word.score for word in self.words if word.score is not None]
        return float(np.mean(known)) if known else None


class Rater:
    """`rater(audio_S) -> {score: (value, usual error)}`."""

    def __init__(self, recognizer: Recognizer, params: dict, meta: dict):
        self.names, self._params = list(meta["scores"]), params
        self._recognizer = recognizer
        heard = {**meta["embedding"], "layers": tuple(meta["embedding"]["layers"])}
        graphdef, _ = functional.abstract(asr.build(recognizer.config))
        self._embed = asr.make_embed(graphdef, asr.Embedding(**heard))
        self._backbone = {group: recognizer.params[group] for group in ("backbone", "buffer")}

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """{score: (lowest, highest) that the experts gave}, beyond which it says nothing."""
        pairs = zip(self._params["lowest"].tolist(), self._params["highest"].tolist(), strict=True)
        return dict(zip(self.names, pairs, strict=True))

    def __call__(self, audio_S: np.ndarray) -> dict[str, tuple[float, float]]:
        """Of samples at 16 kHz; of more than a window the mean over its pieces, by their length."""
        p, r = self._params, self._recognizer
        whole = len(audio_S) <= r.samples[-1]  # as the stage heard its utterances
        pieces = [(0, len(audio_S))] if whole else audio_io.chunks(audio_S, r.seconds[-1])
        found, weight = [], []
        for start, stop in pieces:
            audio_BS, samples_B, mel_BNM = voice.shown(audio_S[start:stop], r.config, r.samples)
            # What hears pieces was shown the floor of its silence behind them (`cohorts.embed`), not zeros
            mel_BNM = mel_BNM if r.timestamps else None
            heard_U = np.asarray(self._embed(self._backbone, audio_BS, samples_B, mel_BNM), np.float64)[0]
            said_K = ((heard_U - p["mean"]) / p["scale"]) @ p["weight"] + p["bias"]
            found.append(np.clip(said_K, p["lowest"], p["highest"]))
            weight.append(stop - start)
        mean_K = np.average(found, axis=0, weights=weight)
        return {name: (float(mean_K[k]), float(p["error"][k])) for k, name in enumerate(self.names)}


class Judge:
    """`judge(audio_S, text) -> Judged`."""

    def __init__(
        self, placer: Placer, rater: Rater | None, curves: dict[str, Calibration], tone: ToneClassifier | None
    ):
        self.placer, self.rater, self.curves, self.tone = placer, rater, curves, tone
        self.recognizer = placer.recognizer

    def __call__(self, audio_S: np.ndarray, text: str | None = None) -> Judged:
        """Of samples at 16 kHz. Without a text that of the recognizer counts, which hears mended what was said wrongly.

        Errors: BadValue for a recording in which nothing can be heard, and for a text that does not fit it.
        """
        if not len(audio_S):
            raise BadValue("nothing can be heard")
        scores = self.rater(audio_S) if self.rater else {}
        given = text is not None
        if self.placer.forced is None:
            return Judged(len(audio_S) / SAMPLE_RATE, text or "", given, scores, ())
        if text is None:
            language = "zh" if self.mandarin else self.placer.language
            text = self.recognizer.transcribe(audio_S, language=language).text.strip()
        words = self._words(audio_S, text) if text else ()
        return Judged(len(audio_S) / SAMPLE_RATE, text, given, scores, tuple(words))

    @property
    def mandarin(self) -> bool:
        """Whether its head knows initials and finals, and texts are hanzi or pinyin."""
        return self.placer.forced is not None and self.placer.forced.inventory.kind == "pinyin"

    def _words(self, audio_S, text) -> list[Word]:
        forced = self.placer.forced
        assert forced is not None  # asked where there is a head
        logp_TC = self.placer.emitted(audio_S)
        read = pinyin.read(text) if self.mandarin else []
        words = [one.pinyin for one in read] or forced.inventory.words(text)
        labels, word_of = forced.inventory.encode(words)
        placed = forced(logp_TC, words)
        right_L, _ = goodness(logp_TC, labels)
        own = [np.flatnonzero(np.array(word_of) == place) for place in range(len(words))]
        if not self.mandarin:
            kind = stage.PHONE if forced.inventory.kind == "phones" else stage.LETTER
            return [self._parts(kind, one, right_L[own[k]]) for k, one in enumerate(placed)]
        kinds = [stage.kind_of(forced.inventory, label) for label in labels]
        toned = self._tones(audio_S, forced, logp_TC, words, read)
        return [
            self._syllable(read[k], one, right_L[own[k]], [kinds[i] for i in own[k]], toned[k])
            for k, one in enumerate(placed)
        ]

    def _parts(self, kind: str, one: Placed, good_L) -> Word:
        if not len(good_L):
            return Word(one.text, None, one.start, one.end)
        score_L = self._score(kind, good_L)
        parts = [
            Part(kind, letter.text, score, letter.start, letter.end)
            for letter, score in zip(one.letters, score_L, strict=True)
        ]
        (word,) = self._score(stage.WORD, [float(np.mean(good_L))])
        return Word(one.text, word, one.start, one.end, tuple(parts))

    def _syllable(self, read: pinyin.Syllable, one: Placed, good_L, kinds, toned: Part | None) -> Word:
        parts = [
            Part(kind, sound.text, self._score(kind, [good])[0], sound.start, sound.end)
            for sound, kind, good in zip(one.letters, kinds, good_L, strict=True)
        ]
        parts += [toned] if toned else []
        score = min((part.score for part in parts), default=None)
        text = read.text if read.text == read.pinyin else f"{read.text} {read.pinyin}"
        return Word(text, score, one.start, one.end, tuple(parts))

    def _tones(self, audio_S, forced: Forced, logp_TC, words, read: Sequence[pinyin.Syllable]) -> list[Part | None]:
        if self.tone is None:
            return [None] * len(read)
        spans = stage.final_spans(forced, logp_TC, words)
        curve_LP = tones.contours(audio_S, spans)
        logp_LC = self.tone(tones.features(curve_LP, spans))
        found: list[Part | None] = []
        for one, row, curve_P, (start, end) in zip(read, logp_LC, curve_LP, spans, strict=True):
            at = pinyin.TONES.index(one.tone)
            if np.ptp(row) == 0:  # nothing voiced
                found.append(None)
                continue
            likeliest = str(pinyin.TONES[int(row.argmax())])
            score = self._score(stage.TONE, [row[at]])[0]
            found.append(Part(stage.TONE, str(one.tone), score, start, end, likeliest, tuple(map(float, curve_P))))
        return found

    def _score(self, kind: str, values) -> list[float]:
        return [float(one) for one in self.curves[kind](values)]


def opened(workdir: str | Path, language: str = "en") -> Judge:
    """Errors: NotThere for a workdir without rater and without head, and for one whose head was not calibrated."""
    place = Path(workdir)
    head, rated = (place / "ctc" / "params.safetensors").is_file(), (place / "rater" / "rater.safetensors").is_file()
    calibrated = (place / "goodness" / "calibration.json").is_file()
    if not (rated or head):
        raise NotThere(f"{workdir} {NEITHER}")
    if head and not calibrated and not rated:
        raise NotThere(f"{workdir} has a head that nobody calibrated: moejax goodness --config ... --workdir {workdir}")
    placer = placing.opened(str(place), None if head and calibrated else "attention", language)
    rater = None
    if rated:
        params, meta = load_params(place / "rater" / "rater.safetensors")
        rater = Rater(placer.recognizer, jax.tree.map(np.asarray, params["rater"]), meta)
    if not (head and calibrated):
        return Judge(placer, rater, {}, None)
    curves = {kind: Calibration.of(knots) for kind, knots in read_json(place / "goodness" / "calibration.json").items()}
    file = place / "goodness" / "tones.safetensors"
    tone = ToneClassifier(load_params(file)[0]["tones"]) if file.is_file() else None
    return Judge(placer, rater, curves, tone)
