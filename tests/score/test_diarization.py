"""Error rates of diarization: against figures of other programs, a count of frames, and what must not change them."""

import itertools

import numpy as np
import pytest

from moejax.score import attributed, diarization

# An example of the field's tools: two speakers, one taken for the other at the end (dscore's FILE1)
REFERENCE = [
    (0.0, 0.558, "1"),
    (0.678, 2.211, "2"),
    (1.1, 4.328, "1"),
    (4.698, 7.123, "2"),
    (12.239, 14.48, "1"),
    (15.384, 16.993, "1"),
    (17.555, 18.519, "2"),
    (22.93, 25.12, "2"),
    (25.734, 28.945, "2"),
    (29.927, 34.57, "2"),
    (34.235, 34.622, "1"),
    (34.932, 37.246, "1"),
    (35.303, 41.046, "2"),
]
SYSTEM = [
    (0.101, 0.601, "2"),
    (0.68, 2.213, "2"),
    (1.3, 4.32, "1"),
    (4.698, 7.123, "2"),
    (12.239, 17.055, "1"),
    (17.555, 18.519, "2"),
    (22.93, 25.12, "2"),
    (25.734, 28.945, "2"),
    (29.927, 32.037, "2"),
    (32.242, 34.522, "2"),
    (34.9, 40.214, "1"),
]


def by_frames(reference, hypothesis, seconds, collar=0.0, skip_overlap=False, step=0.001):
    """The same from a grid of milliseconds, over all mappings: slow and plain."""
    at = (np.arange(round(seconds / step)) + 0.5) * step
    sides = []
    for turns in (reference, hypothesis):
        names = sorted({turn[2] for turn in turns})
        rows = [np.any([(at >= a) & (at < b) for a, b, who in turns if who == name], axis=0) for name in names]
        sides.append(np.array(rows))
    ref, hyp = sides
    scored = np.ones(len(at), bool)
    for row in ref if collar else ():
        for border in np.flatnonzero(np.diff(np.pad(row, 1).astype(int))) * step:
            scored &= abs(at - border) > collar
    if skip_overlap:
        scored &= ref.sum(0) <= 1
    size = max(len(ref), len(hyp))
    ref, hyp = (np.pad(side, ((0, size - len(side)), (0, 0)))[:, scored] for side in (ref, hyp))
    right = max(
        sum((ref[i] & hyp[j]).sum() for i, j in enumerate(order)) for order in itertools.permutations(range(size))
    )
    wrong = np.maximum(ref.sum(0), hyp.sum(0)).sum() - right
    return wrong / ref.sum()


def drawn(rng, speakers, seconds=60):
    """Turns of a talk, on whole hundredths."""
    turns = []
    for speaker in range(speakers):
        at = rng.uniform(0, 4)
        while at < seconds - 4:
            length = rng.uniform(0.3, 4)
            turns.append((round(at, 2), round(at + length, 2), f"s{speaker}"))
            at += length + rng.exponential(3)
    return turns


@pytest.mark.parametrize("collar", [0.0, 0.25])
@pytest.mark.parametrize("skip_overlap", [False, True])
def test_the_sweep_is_what_a_count_of_frames_says(collar, skip_overlap):
    rng = np.random.default_rng(7)
    for speakers, claimed in ((1, 2), (2, 2), (3, 2), (3, 4)):
        reference, hypothesis = drawn(rng, speakers), drawn(rng, claimed)
        found = diarization.compare(reference, hypothesis, [(0, 60)], collar=collar, skip_overlap=skip_overlap)
        assert found.der == pytest.approx(by_frames(reference, hypothesis, 60, collar, skip_overlap), abs=2e-3)
        assert found.speakers == (speakers, claimed)


def test_what_must_not_change_it_does_not_and_what_must_does():
    rng = np.random.default_rng(3)
    reference, hypothesis = drawn(rng, 3), drawn(rng, 3)
    plain = diarization.compare(reference, hypothesis, [(0, 60)])
    renamed = [(a, b, {"s0": "x", "s1": "s0", "s2": "y"}[who]) for a, b, who in hypothesis[::-1]]
    assert diarization.compare(reference, renamed, [(0, 60)]).der == pytest.approx(plain.der)
    # a turn cut in two pieces that overlap says the same
    cut = [piece for a, b, who in hypothesis for piece in ((a, (a + b) / 2 + 0.1, who), ((a + b) / 2, b, who))]
    assert diarization.compare(reference, cut, [(0, 60)]).der == pytest.approx(plain.der)
    assert diarization.compare(reference, reference, [(0, 60)]).wrong == pytest.approx(0, abs=1e-9)
    assert diarization.compare(reference, reference).jer == pytest.approx(0, abs=1e-9)
    nothing = {"der": 100, "missed": 100, "false_alarm": 0, "confusion": 0, "jer": 100}
    assert diarization.compare(reference, [], [(0, 60)]).row() == pytest.approx(nothing)
    # only what lies in the spans counts, and two halves are the whole under one mapping
    first = diarization.compare(reference, reference + [(50, 60, "other")], [(0, 30)])
    assert first.der == pytest.approx(0, abs=1e-9)
    assert diarization.compare(reference, reference + [(50, 60, "other")], [(0, 60)]).false_alarm == pytest.approx(10)
    assert diarization.compare([], [(0, 1, "a")], [(0, 2)]).der == float("inf")
    assert diarization.compare([], [], [(0, 2)]).der == diarization.compare([], []).der == 0


def test_a_known_example_by_hand():
    found = diarization.compare([(0, 10, "a"), (10, 20, "b")], [(0, 8, "x"), (8, 20, "y")])
    assert (found.missed, found.false_alarm, found.confusion) == pytest.approx((0, 0, 2))
    assert found.jaccard == pytest.approx((0.2, 1 - 10 / 12)) and found.mapping == {"x": "a", "y": "b"}
    inside = diarization.compare([(0, 10, "a"), (10, 20, "b")], [(0, 8, "x"), (8, 20, "y")], collar=0.5)
    assert (inside.total, inside.confusion) == pytest.approx((18, 1.5))


def test_the_field_s_example():
    found = diarization.compare(REFERENCE, SYSTEM)
    assert found.total == pytest.approx(sum(b - a for a, b, _ in REFERENCE)) and found.der == pytest.approx(
        by_frames(REFERENCE, SYSTEM, 42), abs=1e-3
    )


def test_recordings_are_pooled_by_time_and_speaker():
    long = diarization.compare([(0, 90, "a")], [(0, 90, "a")])
    short = diarization.compare([(0, 10, "a")], [])
    both = diarization.pooled([long, short])
    assert (both.der, both.jer, both.speakers) == (pytest.approx(0.1), pytest.approx(0.5), (2, 1))


def test_controls():
    assert diarization.constant([(0, 2), (3, 4)]) == [(0, 2, "one"), (3, 4, "one")]
    assert diarization.rounded([(0.04, 1.26, "a"), (2.01, 2.04, "b")]) == [(0.0, pytest.approx(1.3), "a")]


def said(text):
    """Words of "a:b c/d" as pairs: speaker a says "b c" ..., parts apart by /."""
    return [(word, part.split(":")[0]) for part in text.split("/") for word in part.split(":")[1].split()]


def test_who_said_what():
    true = said("a:one two three/b:four five/a:six")
    found = attributed.compare(true, said("x:one two/y:three four five/x:six"))
    assert (found.paired, found.misattributed, found.errors, found.words) == (6, 1, 2, 6)
    # a substituted word has a speaker, a missing one and one too many have none
    found = attributed.compare(true, said("x:one too three/y:for five"))
    assert (found.paired, found.misattributed, found.errors) == (5, 0, 3)
    assert attributed.compare(true, said("x:one two three four five six")).wder == pytest.approx(2 / 6)
    assert attributed.compare(true, []).cpwer == 1 and attributed.compare([], said("x:one")).errors == 1
    assert attributed.compare([], []) == attributed.Attributed(0, 0, 0, 0)
    both = attributed.pooled([found, found])
    assert (both.words, both.paired) == (12, 10)


def test_rows_are_matched_for_the_fewest_errors_as_all_matchings_say():
    rng = np.random.default_rng(5)
    for _ in range(20):
        sides = [
            [(f"w{rng.integers(4)}", f"{side}{rng.integers(3)}") for _ in range(rng.integers(1, 9))] for side in "rh"
        ]
        rows = [
            [[w for w, who in one if who == f"{side}{n}"] for n in range(3)]
            for one, side in zip(sides, "rh", strict=True)
        ]
        best = min(
            sum(edits(rows[0][i], rows[1][j]) for i, j in enumerate(order))
            for order in itertools.permutations(range(3))
        )
        assert attributed.compare(*sides).errors == best


def edits(a, b):
    """Levenshtein."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row, last = [i], row
        for j, y in enumerate(b, 1):
            row.append(min(last[j] + 1, row[-1] + 1, last[j - 1] + (x != y)))
    return row[-1]
