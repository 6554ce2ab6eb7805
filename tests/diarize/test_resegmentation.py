"""Speech divided among speakers once more by the voices of the recording."""

import dataclasses
import itertools

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from moejax.diarize import resegmentation
from moejax.diarize.resegmentation import Resegmentation, Space
from moejax.diarize.talks import Part
from moejax.diarize.turns import Turn

T, W = 300, 6
PLAIN = Space((0,), np.zeros(W), np.eye(W), np.full(W, 9.0))


def conversation(seed=0, spread=9.0, speakers=2):
    """(who speaks bool [S, T], vectors [T, W]) of turns of 25 frames with a pause after each second one."""
    rng = np.random.default_rng(seed)
    active_ST = np.zeros((speakers, T), bool)
    for turn in range(T // 25):
        active_ST[turn % speakers, 25 * turn : 25 * turn + (18 if turn % 2 else 25)] = True
    voice_SW = np.sqrt(spread) * rng.standard_normal((speakers, W))
    return active_ST, active_ST.T @ voice_SW + rng.standard_normal((T, W))


def confused(active_ST, share, seed=0):
    """Probabilities [T, S] of a network that takes a share of the turns' halves for the next speaker's."""
    rng = np.random.default_rng(seed)
    prob_TS = np.where(active_ST.T, 0.8, 0.1)
    for start in range(0, T, 12):
        if rng.random() < share:
            prob_TS[start : start + 12] = np.roll(prob_TS[start : start + 12], 1, axis=1)
    return prob_TS


def wrong(found_ST, true_ST):
    """Share of frames, speakers being who they please."""
    orders = itertools.permutations(range(len(true_ST)))
    return min((found_ST[list(order)] != true_ST).any(0).mean() for order in orders)


@pytest.mark.parametrize("speakers", [2, 3])
def test_voices_mend_what_the_network_confuses(speakers):
    true_ST, vectors_TW = conversation(2, speakers=speakers)
    prob_TS = confused(true_ST, 0.3)
    before_ST = prob_TS.T > 0.5
    after_ST = Resegmentation(PLAIN)(before_ST, prob_TS, vectors_TW)
    assert wrong(before_ST, true_ST) > 0.3 and wrong(after_ST, true_ST) < 0.02
    alone_ST = Resegmentation(PLAIN)(before_ST, np.where(prob_TS > 0.5, 0.6, 0.4), vectors_TW)  # a network that doubts
    assert wrong(alone_ST, true_ST) < 0.02


def test_speech_stays_where_the_network_heard_it_and_a_microphone_is_nobody():
    true_ST, vectors_TW = conversation(2)
    prob_TS = confused(true_ST, 0.3)
    prob_TS[40:48] = prob_TS[140:144] = 0.9  # both at once
    before_ST = prob_TS.T > 0.5
    mend = Resegmentation(PLAIN)
    after_ST = mend(before_ST, prob_TS, vectors_TW)
    np.testing.assert_array_equal(after_ST.sum(0), before_ST.sum(0))
    np.testing.assert_array_equal(mend(before_ST, prob_TS, vectors_TW + 1e4), after_ST)
    loud_TW = np.where(before_ST.any(0)[:, None], vectors_TW, 1e3)  # what is heard in pauses is nobody, either
    np.testing.assert_array_equal(mend(before_ST, prob_TS, loud_TW), after_ST)


def test_nobody_comes_in_and_who_has_one_voice_with_another_goes():
    one_ST = np.zeros((2, T), bool)
    one_ST[1, 20:200] = True
    rng = np.random.default_rng(3)
    vectors_TW, mend = rng.standard_normal((T, W)), Resegmentation(PLAIN, half=2)
    prob_TS = one_ST.T * 0.9
    np.testing.assert_array_equal(mend(one_ST, prob_TS, vectors_TW), one_ST)
    three_ST, own_TW = conversation(2)  # and a third one, of whom the network says that he never speaks
    prob_TS = np.concatenate([confused(three_ST, 0.3), np.full((T, 1), 0.4)], axis=1)
    assert not mend(np.concatenate([prob_TS[:, :2].T > 0.5, np.zeros((1, T), bool)]), prob_TS, own_TW)[2].any()
    prob_TS = one_ST.T * 0.9
    silent_ST = np.zeros((2, T), bool)
    assert not mend(silent_ST, silent_ST.T * 1.0, vectors_TW).any()
    split_ST = one_ST.copy()
    split_ST[0, 60:75], split_ST[1, 60:75] = True, False  # the same voice, for a moment taken for somebody else
    after_ST = mend(split_ST, np.where(split_ST.T, 0.7, 0.3), vectors_TW)
    assert wrong(after_ST, one_ST) == 0


def test_posteriors_are_those_of_all_paths():
    rng = np.random.default_rng(4)
    N, S = 5, 3
    log_NS, pi_S = rng.normal(scale=2.0, size=(N, S)), np.array([0.5, 0.3, 0.2])
    stays = resegmentation.STAYS
    moves_SS = stays * np.eye(S) + (1 - stays) * pi_S
    total, by_NS, came_S = 0.0, np.zeros((N, S)), np.zeros(S)
    for path in itertools.product(range(S), repeat=N):
        weight = pi_S[path[0]] * np.exp(sum(log_NS[n, s] for n, s in enumerate(path)))
        weight *= np.prod([moves_SS[a, b] for a, b in itertools.pairwise(path)])
        total += weight
        by_NS[np.arange(N), path] += weight
        for a, b in itertools.pairwise(path):  # a move that was drawn from the shares, not one that stayed
            came_S[b] += weight * (1 - stays) * pi_S[b] / moves_SS[a, b]
    gamma_NS, new_S, evidence = resegmentation._forward_backward(log_NS, pi_S)
    np.testing.assert_allclose(gamma_NS, by_NS / total, atol=1e-12)
    assert evidence == pytest.approx(np.log(total), abs=1e-9)
    expected_S = (by_NS[0] + came_S) / total
    np.testing.assert_allclose(new_S, expected_S / expected_S.sum(), atol=1e-12)


def part(seed: int, count: int, telling: tuple[int, ...], speakers: int) -> Part:
    """Talks of two whose voices are in these of four layers of 8 numbers."""
    rng = np.random.default_rng(seed)
    voice_SLD = rng.standard_normal((speakers, 4, 8))
    voice_SLD[:, [layer for layer in range(4) if layer not in telling]] = 0
    heard, turns = [], []
    for _ in range(count):
        two = rng.choice(speakers, 2, replace=False)
        heard_TLD = 0.7 * rng.standard_normal((120, 4, 8))
        own = []
        for turn in range(4):
            heard_TLD[30 * turn : 30 * turn + 30] += voice_SLD[two[turn % 2]]
            own.append(Turn(3.0 * turn, 3.0 * turn + 3.0, f"s{two[turn % 2]}"))
        heard.append(heard_TLD)
        turns.append(own)
    return Part(turns, [""] * count, 12.0, heard)


def test_layers_are_those_that_tell_the_voices_of_dev_apart(tmp_path, monkeypatch):
    monkeypatch.setattr(resegmentation, "LAYERS", 2)
    train, dev = part(1, 40, (1, 3), 12), part(2, 10, (1, 3), 6)
    space = resegmentation.fitted(train, dev)
    assert space.layers == (1, 3) and len(space.spread_W) == 11  # one direction fewer than speakers
    assert (np.diff(space.spread_W) <= 1e-9).all()
    mend = Resegmentation(space, 2, 0.4, 10.0)
    mend.save(tmp_path / "mend.npz")
    kept = resegmentation.load(tmp_path / "mend.npz")
    assert dataclasses.astuple(kept)[1:] == (2, 0.4, 10.0) and kept.space.layers == (1, 3)
    vectors_TW = kept.space.vectors(dev.heard[0])
    np.testing.assert_allclose(vectors_TW, space.vectors(dev.heard[0]), atol=1e-4)
    assert resegmentation.load(tmp_path / "nothing.npz") is None
    assert resegmentation.fitted(part(1, 4, (1,), 12), Part([[]], [""], 12.0, [np.zeros((120, 4, 8))])) is None


def test_the_projection_is_linear_discriminant_analysis(monkeypatch):
    monkeypatch.setattr(resegmentation, "SHRINK", 0.0)
    train = part(5, 30, (0, 1), 5)
    means, whose = [], []
    for _, speaker, means_NLD in resegmentation._segments(train, resegmentation.SEGMENT):
        means.append(means_NLD[:, [0, 1]].reshape(len(means_NLD), -1))
        whose += [speaker] * len(means_NLD)
    x_NF = np.concatenate(means)
    space = resegmentation._spaces(train, [(0, 1)])[0]
    theirs = LinearDiscriminantAnalysis(solver="svd").fit(x_NF, whose)
    ours_NW, theirs_NW = (x_NF - space.centre_F) @ space.matrix_FW, theirs.transform(x_NF)
    np.testing.assert_allclose(np.abs(ours_NW[:, :4]), np.abs(theirs_NW), atol=1e-6)
    assert space.spread_W[4:].max(initial=0.0) < 1e-9  # five speakers differ in four directions
