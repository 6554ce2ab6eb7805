"""Words and letters placed by log probabilities whose path is known."""

import jax
import numpy as np
import optax
import pytest

from moejax.errors import BadValue
from moejax.nn import functional
from moejax.tasks import asr
from moejax.tasks import ctc as task
from moejax.tasks.forced import Forced
from moejax.text.units import Inventory

UNITS = ("", "'", "a", "b", "c")
WIDTH, HIDDEN, SECONDS = 6, 8, 0.02


@pytest.fixture(scope="module")
def forced():
    _, params = asr.init(task.build(WIDTH, HIDDEN, len(UNITS)))
    meta = {"units": list(UNITS), "hidden": HIDDEN}
    return Forced(params, meta, WIDTH, SECONDS)


def sounding(path: str):
    """Log probabilities [T, C] of one unit a frame; a dot is the blank."""
    found_TC = np.full((len(path), len(UNITS)), np.log(0.02), np.float32)
    for t, unit in enumerate(path):
        found_TC[t, 0 if unit == "." else UNITS.index(unit)] = np.log(0.92)
    return found_TC


def test_words_and_letters_where_they_sound(forced):
    words = forced(sounding("..aa.bb" + 20 * "." + "c.a..."), ["Ab,", "ca"])
    assert [(one.text, [letter.text for letter in one.letters]) for one in words] == [
        ("Ab,", ["a", "b"]),
        ("ca", ["c", "a"]),
    ]
    # Half a frame earlier than counted from the frames' beginnings; a blank between two letters belongs to both
    np.testing.assert_allclose([words[0].start, words[0].end], [1.5 * SECONDS, 6.5 * SECONDS])
    np.testing.assert_allclose([letter.end for letter in words[0].letters], [4.0 * SECONDS, 6.5 * SECONDS])
    np.testing.assert_allclose([words[1].start, words[1].end], [26.5 * SECONDS, 29.5 * SECONDS])  # behind a pause
    assert words[0].probability == pytest.approx(0.92, abs=1e-3)


def test_words_beside_each_other_share_their_border(forced):
    first, second = forced(sounding("aa....bb"), ["a", "b"])
    assert first.end == second.start == pytest.approx(3.5 * SECONDS)


def test_a_word_that_the_head_cannot_spell_lies_between_its_neighbours(forced):
    words = forced(sounding("a...b"), ["a", "7", "b"])
    assert words[1].start == words[1].end == words[0].end and words[1].probability == 0
    assert [one.text for one in forced(sounding("..."), ["—"])] == ["—"]


def test_a_text_that_its_sound_has_no_room_for_is_refused(forced):
    with pytest.raises(BadValue, match="4 letters does not fit 0.1 s"):
        forced(sounding("a.b"), ["aabb"])


def test_the_head_hears_a_frame_and_its_two_neighbours():
    graphdef, params = asr.init(task.build(WIDTH, HIDDEN, len(UNITS)))
    states_TD = np.random.default_rng(0).standard_normal((9, WIDTH)).astype(np.float32)
    emit = task.make_emit(graphdef)
    before = np.asarray(emit(params, states_TD[None]))[0]
    states_TD[4] += 1.0
    moved_T = np.abs(np.asarray(emit(params, states_TD[None]))[0] - before).max(axis=1) > 1e-6
    assert moved_T.tolist() == [t in (3, 4, 5) for t in range(9)]
    np.testing.assert_allclose(np.exp(before).sum(-1), 1.0, rtol=1e-5)
    assert functional.count(params) == WIDTH * HIDDEN + HIDDEN + 3 * HIDDEN**2 + HIDDEN + HIDDEN * 5 + 5


def test_filler_rows_and_padding_teach_nothing():
    graphdef, params = asr.init(task.build(WIDTH, HIDDEN, len(UNITS)))
    loss_fn, rng = task.make_loss(graphdef), np.random.default_rng(1)
    states_BTD = rng.standard_normal((3, 12, WIDTH)).astype(np.float32)
    labels_BL = np.array([[2, 3, 0, 0], [4, 4, 2, 0], [0, 0, 0, 0]], np.int32)
    batch = task.Labelled(states_BTD, np.array([8, 10, 1]), labels_BL, np.array([2, 3, 0]))
    loss = loss_fn(params, batch, jax.random.key(0))[0]
    other_BTD = states_BTD.copy()
    other_BTD[0, 9:], other_BTD[1, 11:], other_BTD[2] = (
        7.0,
        7.0,
        7.0,
    )  # one frame behind the end is heard as a neighbour
    np.testing.assert_allclose(
        loss_fn(params, batch._replace(states_BTD=other_BTD), jax.random.key(0))[0], loss, rtol=1e-5
    )


def test_letters_of_words():
    assert Inventory.of(["Don't stop — 3 Äpfel!"]).units == ("", *sorted(set("don'tstop3äpfel")))
    labels, words = Inventory(UNITS).encode(["Ab", "x", "C’"])
    assert (labels, words) == ([2, 3, 4, 1], [0, 0, 2, 2])


def simulated(rng, voice_CD, rows=16, T=80, L=12):
    """Utterances of units that last 2 to 6 frames, some with a pause behind; and the frames of each."""
    states_BTD = 0.7 * rng.standard_normal((rows, T, voice_CD.shape[1]))
    labels_BL, count_B, frames_B, spans = np.zeros((rows, L), np.int32), [], [], []
    for b in range(rows):
        at, found = int(rng.integers(1, 6)), []
        for place in range(int(rng.integers(5, L + 1))):
            others = [unit for unit in range(1, len(voice_CD)) if not place or unit != labels_BL[b, place - 1]]
            length = int(rng.integers(2, 7))
            labels_BL[b, place] = rng.choice(others)
            states_BTD[b, at : at + length] += voice_CD[labels_BL[b, place]]
            found.append((at, at + length - 1))
            at += length + (int(rng.integers(2, 5)) if rng.random() < 0.3 else 0)
            if at > T - 12:
                break
        count_B.append(len(found))
        frames_B.append(min(at + 3, T))
        spans.append(found)
    return task.Labelled(states_BTD.astype(np.float32), np.array(frames_B), labels_BL, np.array(count_B)), spans


def test_borders_are_learnt_from_texts_alone():
    rng = np.random.default_rng(0)
    voice_CD = rng.standard_normal((8, 16))
    graphdef, params = asr.init(task.build(16, 32, 8))
    loss_fn, optimizer = task.make_loss(graphdef), optax.adam(1e-2)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch):
        loss, gradient = jax.value_and_grad(lambda tree: loss_fn(tree, batch, None)[0])(params)
        update, state = optimizer.update(gradient, state)
        return optax.apply_updates(params, update), state, loss

    for _ in range(120):
        params, state, loss = step(params, state, simulated(rng, voice_CD)[0])
    batch, spans = simulated(rng, voice_CD)
    found = task.make_align()(task.make_emit(graphdef)(params, batch.states_BTD), *batch[1:])
    first_BL, last_BL = np.asarray(found.first_BL), np.asarray(found.last_BL)
    off = [
        abs(int(got) - want)
        for b, row in enumerate(spans)
        for place, (first, last) in enumerate(row)
        for got, want in ((first_BL[b, place], first), (last_BL[b, place], last))
    ]
    assert loss < 0.3 and np.mean(off) < 0.5  # frames
