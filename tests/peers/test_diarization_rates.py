"""Error rates of diarization and of who said what against the field's own tools, each skipped where it is missing.

    pip install -e '.[rates]' (and diarizationlm, which brings TensorFlow along)
    MOEJAX_TEST_DATA=DATA pytest tests/peers/test_diarization_rates.py -s

DATA/diarization_rttm holds turns of real recordings: VoxConverse, AMI, and what a system said of one AMI meeting.
Answers are these turns with borders moved, speakers confused, turns left out and made up.
"""

import functools
import os
from pathlib import Path

import numpy as np
import pytest

from moejax.diarize.turns import Turn, merged, read_rttm, read_uem
from moejax.score import attributed, diarization

pytestmark = pytest.mark.filterwarnings("default")
CONDITIONS = [(0.0, False), (0.25, False), (0.0, True), (0.25, True)]  # collar, skip_overlap


def folder() -> Path:
    root = Path(os.environ.get("MOEJAX_TEST_DATA") or pytest.skip("MOEJAX_TEST_DATA")) / "diarization_rttm"
    return root if root.is_dir() else pytest.skip("MOEJAX_TEST_DATA has no diarization_rttm")


def worsened(rng, turns):
    """What a system might have said."""
    names = sorted({turn.speaker for turn in turns})
    found = []
    for turn in turns:
        if rng.random() < 0.08:
            continue
        start, end = (max(time + rng.normal(0, 0.2), 0) for time in turn[:2])
        who = names[int(rng.integers(len(names)))] if rng.random() < 0.1 else turn.speaker
        found.append(Turn(round(start, 3), round(max(end, start + 0.05), 3), f"<{who}>"))
        if rng.random() < 0.05:
            found.append(Turn(round(end, 3), round(end + rng.exponential(1.0), 3), "<nobody>"))
    return merged(turn for turn in found if turn.end > turn.start)


@functools.cache
def cases(step: int = 1):
    """(name, reference, answer, spans that are scored); turns of one speaker are merged, as all tools take them."""
    root, found = folder(), []
    pair = root / "system_output_pair"
    for name in ("ES2014c", "dscore_example"):
        sides = [read_rttm(pair / f"{name}.{side}.rttm") for side in ("ref", "sys")]
        for recording in sides[0]:
            found.append((recording, *(merged(side.get(recording, [])) for side in sides), None))
    for path in sorted([*root.glob("voxconverse/*/*.rttm"), *root.glob("ami_only_words/*/*.rttm")])[::step]:
        rng = np.random.default_rng([len(found), 7])
        uem = path.with_suffix(".uem")
        spans = next(iter(read_uem(uem).values())) if uem.exists() else None
        for recording, turns in read_rttm(path).items():
            found.append((recording, merged(turns), worsened(rng, turns), spans))
    rng = np.random.default_rng(3)
    for number in range(20):
        sides = []
        for speakers in rng.integers(1, 6, 2):
            starts = rng.uniform(0, 58, (int(speakers), 8))
            turns = [Turn(a, a + rng.exponential(2.0), f"s{s}") for s, own in enumerate(starts) for a in own.tolist()]
            sides.append(merged(turns))
        found.append((f"random {number}", *sides, None))
    return [(name, true, said, spans or extent(true, said)) for name, true, said, spans in found]


def extent(*sides):
    times = [time for side in sides for turn in side for time in turn[:2]]
    return [(min(times), max(times))]


def widest(what, pairs):
    """The greatest difference, printed with how many there are."""
    worst = max(abs(ours - theirs) for ours, theirs in pairs)
    print(f"\n{what}: {len(pairs)} recordings, greatest difference {worst:.2g}")
    return worst


@pytest.mark.parametrize(("collar", "skip"), CONDITIONS)
def test_pyannote(collar, skip):
    pytest.importorskip("pyannote.metrics")
    from pyannote.core import Annotation, Segment, Timeline
    from pyannote.metrics.diarization import DiarizationErrorRate, JaccardErrorRate

    def annotation(turns):
        made = Annotation()
        for track, (start, end, who) in enumerate(turns):
            made[Segment(start, end), track] = who
        return made

    ders, jers = [], []
    metrics = [kind(collar=2 * collar, skip_overlap=skip) for kind in (DiarizationErrorRate, JaccardErrorRate)]
    for _, true, said, spans in cases()[:: 3 if skip else 1]:
        uem = Timeline([Segment(*span) for span in spans])
        der, jer = (metric(annotation(true), annotation(said), uem=uem) for metric in metrics)
        ours = diarization.compare(true, said, spans, collar=collar, skip_overlap=skip)
        if ours.total:
            ders.append((100 * ours.der, 100 * der))
            jers.append((100 * ours.jer, 100 * jer))
    assert len(ders) > (100 if skip else 400)
    assert widest(f"DER, pyannote, collar {collar}, skip_overlap {skip}", ders) < 1e-6
    # it maps speakers by the time that they share; here, as DIHARD's scorer, so that the error is least
    assert min(theirs - ours for ours, theirs in jers) > -1e-6
    other = sum(abs(ours - theirs) > 1e-6 for ours, theirs in jers)
    print(f"{other} are mapped otherwise")
    assert widest(f"JER, pyannote, collar {collar}, skip_overlap {skip}", jers) < 20 and other < 0.1 * len(jers)


@pytest.mark.parametrize("collar", [0.0, 0.25])
def test_spyder(collar):
    spyder = pytest.importorskip("spyder")
    whole, parts = [], []
    for _, true, said, spans in cases():
        if not said:  # it wants a turn of each side
            continue
        ours = diarization.compare(true, said, spans, collar=collar)
        sides = [[(who, start, end) for start, end, who in side] for side in (true, said)]
        theirs = spyder.DER(*sides, uem=spans, collar=collar)
        if ours.total:
            share = 100 / ours.total
            parts += [
                (share * (ours.missed + ours.false_alarm), 100 * (theirs.miss + theirs.falarm)),
                (ours.total, theirs.duration),
            ]
            whole.append((100 * ours.der, 100 * theirs.der))
    assert len(whole) > 400
    assert widest(f"missed, false alarm and time, spyder, collar {collar}", parts) < 1e-6
    worst = widest(f"DER, spyder, collar {collar}", whole)
    # it maps speakers by the time within collars too: of some recordings more is confused than must be
    other = sum(abs(ours - theirs) > 1e-6 for ours, theirs in whole)
    print(f"{other} are mapped otherwise")
    assert worst < 1e-6 if not collar else other < 0.05 * len(whole)
    assert min(theirs - ours for ours, theirs in whole) > -1e-6


def sentences(rng):
    """Words with speakers of both sides: some misheard, lost, made up, under another name."""
    true, said = [], []
    speakers = int(rng.integers(1, 5))
    for _ in range(int(rng.integers(5, 60))):
        word, who = f"w{rng.integers(12)}", int(rng.integers(speakers))
        true.append((word, f"r{who}"))
        fate = rng.random()
        if fate < 0.1:
            continue
        heard = f"w{rng.integers(12)}" if fate < 0.2 else word
        said.append((heard, f"h{int(rng.integers(5)) if rng.random() < 0.15 else who}"))
        if rng.random() < 0.08:
            said.append((f"w{rng.integers(12)}", f"h{rng.integers(speakers)}"))
    return true, said


def rows(said):
    return {who: " ".join(word for word, own in said if own == who) for who in sorted({who for _, who in said})}


def test_meeteval():
    wer = pytest.importorskip("meeteval.wer")
    rng, pairs = np.random.default_rng(11), []
    for _ in range(200):
        true, said = sentences(rng)
        ours = attributed.compare(true, said)
        theirs = wer.cp_word_error_rate(rows(true), rows(said))
        assert (ours.errors, ours.words) == (theirs.errors, theirs.length)
        pairs.append((ours.cpwer, theirs.error_rate))
    assert widest("cpWER, meeteval", pairs) < 1e-12


def test_diarizationlm():
    """Its word error pairs words by an alignment of its own, so both take texts in which there is one alignment."""
    metrics = pytest.importorskip("diarizationlm.metrics")
    rng, pairs, moved = np.random.default_rng(12), [], 0
    for _ in range(200):
        true, said = sentences(rng)
        true = [(f"{word}x{place}", who) for place, (word, who) in enumerate(true)]
        said = [
            (f"{word}x{place}", who) for place, (word, _) in enumerate(true) for who in [said[place % len(said)][1]]
        ]
        said = [pair for pair in said if rng.random() > 0.1] or said
        ours = attributed.compare(true, said)
        texts = [" ".join(word for word, _ in side) for side in (said, true)]
        names = [" ".join(str(number_of(side)[who]) for _, who in side) for side in (said, true)]
        theirs = metrics.compute_utterance_metrics(texts[0], texts[1], names[0], names[1])
        assert ours.paired == theirs.wder_total
        pairs.append((ours.misattributed, theirs.wder_sub))
        moved += ours.misattributed
    assert moved > 100 and widest("misattributed words, diarizationlm", pairs) == 0


def number_of(said):
    """Speakers as that tool wants them: from 1."""
    return {who: place for place, who in enumerate(sorted({who for _, who in said}), 1)}
