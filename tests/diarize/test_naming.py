"""Voices that are known: what a threshold promises, and that nobody is called by somebody else's name."""

import dataclasses

import numpy as np
import pytest

from moejax.diarize import naming
from moejax.diarize.naming import Heard
from moejax.diarize.turns import Turn
from moejax.errors import NotThere

L, D = 2, 40


def heard(seed, speakers, talks=4, noise=1.0, names="s"):
    """Speakers in talks: a place of their own in some directions, in others a place of the talk, twice as far."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(speakers, L, D)) * np.repeat([1.0, 0.0], D // 2)
    found = []
    for talk in range(talks):
        for speaker in range(speakers):
            room = rng.normal(size=(L, D)) * np.repeat([0.3, 2.0], D // 2) * noise
            found.append(Heard(talk * 100 + speaker, "", f"{names}{speaker}", own[speaker] + room))
    return found


@pytest.fixture(scope="module")
def voices():
    return naming.fitted(heard(0, 40), heard(1, 12))


def test_the_threshold_takes_nobody_of_dev_for_another_and_knows_most_again(voices):
    assert voices.found > 0.5 and voices.others == 12 * 11 * 16 // 2 and 0 < voices.alike < 1
    test = heard(2, 12)
    vectors = [voices.vector(one.mean_LD) for one in test]
    pairs = [(i, j) for i in range(len(test)) for j in range(i)]
    same = [vectors[i] @ vectors[j] > voices.alike for i, j in pairs if test[i].speaker == test[j].speaker]
    others = [vectors[i] @ vectors[j] > voices.alike for i, j in pairs if test[i].speaker != test[j].speaker]
    assert np.mean(same) > 0.5 and np.mean(others) < 0.02
    # a control: without the whitening the talk's own place is louder than the speaker's
    plain = dataclasses.replace(voices, matrix_LDD=np.stack([np.eye(D)] * L))
    flat = [plain.vector(one.mean_LD) for one in test]
    cosines = [
        [flat[i] @ flat[j] for i, j in pairs if (test[i].speaker == test[j].speaker) == equal] for equal in (1, 0)
    ]
    assert np.mean(np.array(cosines[0]) > max(cosines[1])) < 0.1


def test_names_are_given_once_and_a_wrong_enrolment_names_nobody(voices):
    test = heard(3, 6, talks=2, noise=0.1)
    first, second = ({one.speaker: voices.vector(one.mean_LD) for one in test[at : at + 6]} for at in (0, 6))
    assert voices.names(first, second) == {name: name for name in first}
    assert voices.names(first, {"x": second["s0"], "y": second["s0"]}) in ({"s0": "x"}, {"s0": "y"})
    strangers = {one.speaker: voices.vector(one.mean_LD) for one in heard(4, 6, talks=1, names="t")}
    assert voices.names(first, strangers) == {} == voices.names(first, {}) == voices.names({}, second)
    assert voices.names(first, {**strangers, "it is": second["s3"]}) == {"s3": "it is"}


def test_too_few_speakers_teach_nothing(voices, tmp_path):
    assert naming.fitted(heard(0, 40, talks=1), heard(1, 12)) is None
    assert naming.fitted(heard(0, 40), heard(1, 1)) is None
    voices.save(tmp_path / naming.FILE)
    again = naming.load(tmp_path / naming.FILE)
    one = heard(5, 1)[0].mean_LD
    np.testing.assert_allclose(again.vector(one), voices.vector(one), atol=1e-5)
    assert (again.alike, again.found, again.others) == (voices.alike, voices.found, voices.others)
    with pytest.raises(NotThere, match="Training in a new workdir does it"):
        naming.load(tmp_path / "gone.npz")


def test_frames_alone_and_layers():
    found = naming.alone([Turn(0.0, 0.5, "a"), Turn(0.3, 1.0, "b")], 10)
    assert {name: np.flatnonzero(row).tolist() for name, row in found.items()} == {"a": [0, 1, 2], "b": [5, 6, 7, 8, 9]}
    assert naming.layers(np.zeros((3, 5))).shape == (3, 1, 5)
    many = np.arange(33.0)[None, :, None] * np.ones((3, 1, 2))
    assert naming.layers(many)[0, :, 0].tolist() == [0, 6, 12, 19, 25, 32]
