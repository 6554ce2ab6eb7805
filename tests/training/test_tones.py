"""Tones of synthesised Mandarin, from spans that are known; a voice that does not move is the control."""

import numpy as np
import pytest
import soxr

from moejax.audio.constants import SAMPLE_RATE
from moejax.data.sources import mandarin
from moejax.errors import BadValue
from moejax.score import graded
from moejax.speech import espeak
from moejax.speech.timed import MANDARIN, TimedVoicebox
from moejax.tasks import tones
from moejax.text import pinyin
from moejax.training.goodness import learn_tones

pytest.importorskip("espeakng_loader")
VOWELS = "aeiouyɑɛəæ"


def spoken(voicebox, speakers, count, moves=60):
    """(features, tones) of the syllables of `count` sentences of each of these voices, (variant, pitch)."""
    found, said = [], []
    for variant, height in speakers:
        texts = [mandarin.sentence(f"{variant}{height}{k}", 3, 7, neutral=0.0) for k in range(count)]
        asked = [{"text": text, "pitch": height, "range": moves} for text in texts]
        for text, one in zip(texts, voicebox.timed(asked, f"{MANDARIN}+{variant}"), strict=True):
            audio_S = soxr.resample(one.samples_S, espeak.RATE, SAMPLE_RATE)
            spans = []
            for _, start, end in one.words:
                inside = [phone for phone in one.phones if start <= phone[1] < end and set(phone[0]) & set(VOWELS)]
                spans.append((inside[0][1], end))
            assert len(spans) == len(text.split())
            found.append(tones.features(tones.contours(audio_S, spans), spans))
            said += [syllable.tone for syllable in pinyin.read(text)]
    return np.concatenate(found), np.array(said)


def test_tones_are_told_apart_in_other_voices_and_not_in_a_flat_one():
    with TimedVoicebox() as voicebox:
        feature_NF, tone_N = spoken(voicebox, [("m1", 40), ("f1", 60), ("m3", 55), ("f2", 30)], 25)
        new_NF, new_N = spoken(voicebox, [("m4", 50), ("f3", 45)], 15)
        flat_NF, flat_N = spoken(voicebox, [("m4", 50), ("f3", 45)], 15, moves=0)
    heard = np.isfinite(feature_NF).all(1)
    assert heard.mean() > 0.95
    classifier = learn_tones(feature_NF[heard], tone_N[heard], 32)

    def judged(feature_NF, tone_N):
        logp_NC = classifier(feature_NF)
        right = logp_NC[np.arange(len(tone_N)), tone_N - 1]
        wrong = logp_NC[np.arange(len(tone_N)), tone_N % 4]
        return (logp_NC.argmax(1) == tone_N - 1).mean(), graded.auc(right, wrong)

    accuracy, auc = judged(new_NF, new_N)
    assert accuracy >= 0.95 and auc >= 0.97
    accuracy, auc = judged(flat_NF, flat_N)
    assert accuracy < 0.5 and auc < 0.75  # its length still says a little


def test_what_cannot_be_heard_has_no_tone():
    spans = [(0.0, 0.2), (0.2, 0.4)]
    feature_LF = tones.features(tones.contours(np.zeros(8000, np.float32), spans), spans)
    assert feature_LF.shape == (2, tones.WIDTH) and np.isnan(feature_LF[:, : tones.POINTS]).all()
    rng = np.random.default_rng(0)
    classifier = learn_tones(rng.standard_normal((20, tones.WIDTH)), np.repeat([1, 4], 10), 4)
    np.testing.assert_allclose(classifier(feature_LF), -np.log(5))
    np.testing.assert_allclose(np.exp(classifier(np.zeros((1, tones.WIDTH)))).sum(), 1.0)
    with pytest.raises(BadValue, match="all syllables have one tone"):
        learn_tones(rng.standard_normal((4, tones.WIDTH)), np.ones(4, int), 4)


def test_sentences_are_balanced_and_keep_third_tones_apart():
    texts = [mandarin.sentence(str(k), 3, 7) for k in range(300)]
    read = [pinyin.read(text) for text in texts]
    assert len(set(texts)) == 300 and all(3 <= len(one) <= 7 for one in read)
    assert not any(a.tone == b.tone == 3 for one in read for a, b in zip(one, one[1:], strict=False))
    count = {}
    for syllable in (one for sentence in read for one in sentence):
        count[syllable.final] = count.get(syllable.final, 0) + 1
    assert len(count) == len({f for finals in pinyin.TABLE.values() for f in finals} - {"iong"})
    assert min(count.values()) > 0.3 * max(count.values())
    with pytest.raises(BadValue, match="speakers=11; there are 1 to 10 voices"):
        mandarin.load(speakers=11)
