"""Folds keep groups whole and never choose by what they test; corpora of sounds and emotions by their layouts."""

import collections

import numpy as np
import pytest

from moejax.data import folds
from moejax.data.sources import emotions, folder, sounds


def test_folds_of_the_corpus_stay_and_the_next_one_chooses():
    found = folds.made(["2", "10", "1", "2", "10", "1"], ["a", "b", "c", "a", "b", ""], 5)
    assert found.names == ("1", "2", "10") and found.fold_U.tolist() == [1, 2, 0, 1, 2, 0]
    train, choose, test = found.parts(2)
    assert (train.tolist(), choose.tolist(), test.tolist()) == ([0, 3], [2, 5], [1, 4])


def test_folds_are_made_of_whole_groups_of_like_size():
    groups = [f"actor{n % 7}" for n in range(70)] + ["actor0"] * 10
    found = folds.made([""] * 80, groups, 3)
    for group in set(groups):
        assert len({fold for fold, name in zip(found.fold_U, groups, strict=True) if name == group}) == 1
    sizes = collections.Counter(found.fold_U.tolist())
    assert len(sizes) == 3 and max(sizes.values()) - min(sizes.values()) <= 10
    assert len(folds.made([""] * 80, groups, 0)) == 7
    tested = np.concatenate([found.parts(k)[2] for k in range(3)])
    assert sorted(tested) == list(range(80))


@pytest.mark.parametrize(
    ("official", "groups", "count", "words"),
    [
        (["1", "2", "3"], ["a", "b", "a"], 5, "'a' is in two folds"),
        (["1", "", "3"], ["a", "b", "c"], 5, "1 of 3 clips have no fold"),
        (["1", "2", "1"], ["a", "b", "c"], 5, "2 folds: one is tested"),
        (["", "", ""], ["a", "", "b"], 3, "data.columns.fold or data.columns.speaker"),
        (["", "", ""], ["a", "a", "b"], 3, "folds.count is 3, and there are 2 speakers"),
    ],
)
def test_what_would_leak_is_refused(official, groups, count, words):
    with pytest.raises(ValueError, match=words) as error:
        folds.made(official, groups, count)
    assert "\n" not in str(error.value)


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_esc50_and_its_ten(tmp_path):
    (tmp_path / "meta").mkdir()
    rows = "1-100032-A-0.wav,1,0,dog,True,100032,A\n2-9-B-14.wav,2,14,chirping_birds,False,9,B\n"
    (tmp_path / "meta/esc50.csv").write_text(f"filename,fold,target,category,esc10,src_file,take\n{rows}")
    one, other = sounds.esc50(root=str(tmp_path))
    assert (one.label, one.fold, one.speaker, one.text) == ("dog", "1", "100032", "dog")
    assert one.audio == str(tmp_path / "audio" / "1-100032-A-0.wav") and other.label == "chirping_birds"
    assert [u.label for u in sounds.esc50(root=str(tmp_path), esc10=True)] == ["dog"]
    with pytest.raises(FileNotFoundError, match="no table .*UrbanSound8K.csv"):
        sounds.urbansound8k(root=str(tmp_path))


def test_urbansound8k_keeps_recordings_together(tmp_path):
    (tmp_path / "metadata").mkdir()
    text = (
        "slice_file_name,fsID,start,end,salience,fold,classID,class\n100032-3-0-0.wav,100032,0.0,0.3,1,5,3,dog_bark\n"
    )
    (tmp_path / "metadata/UrbanSound8K.csv").write_text(text)
    (one,) = sounds.urbansound8k(root=str(tmp_path))
    assert one.audio == str(tmp_path / "audio/fold5/100032-3-0-0.wav")
    assert (one.label, one.fold, one.speaker) == ("dog_bark", "5", "100032")


def test_a_folder_for_each_class_and_a_table_with_labels(tmp_path):
    touch(tmp_path, "rain/a.wav", "rain/more/b.flac", "dog/c.ogg", "dog/notes.txt")
    assert {u.id: u.label for u in sounds.classes(root=str(tmp_path))} == {
        "rain/a": "rain",
        "rain/more/b": "rain",
        "dog/c": "dog",
    }
    (tmp_path / "metadata.csv").write_text("file,kind,fold,origin\nrain/a.wav,rain,3,x\n")
    (one,) = folder.load(root=str(tmp_path), columns={"label": "kind", "speaker": "origin"})
    assert (one.label, one.fold, one.speaker, one.text) == ("rain", "3", "x", "rain")
    touch(tmp_path, "loose.wav")
    with pytest.raises(ValueError, match="loose.wav lies in no folder of a class"):
        sounds.classes(root=str(tmp_path))


def test_emotions_and_actors_are_read_from_names(tmp_path):
    touch(tmp_path / "r", "Actor_12/03-01-06-01-02-01-12.wav", "Actor_12/03-02-06-01-02-01-12.wav")
    (one,) = emotions.ravdess(root=str(tmp_path / "r"))
    assert (one.label, one.speaker, one.gender) == ("fearful", "actor_12", "f")
    assert one.text == "Dogs are sitting by the door."
    touch(tmp_path / "c", "1001_DFA_ANG_XX.wav", "1091_WSI_SAD_HI.wav")
    assert [(u.label, u.speaker) for u in emotions.cremad(root=str(tmp_path / "c"))] == [
        ("anger", "1001"),
        ("sad", "1091"),
    ]
    touch(tmp_path / "e", "wav/03a01Fa.wav", "wav/16b10Wb.wav")
    found = emotions.emodb(root=str(tmp_path / "e"))
    assert [(u.label, u.speaker, u.gender) for u in found] == [
        ("happiness", "emodb_03", "m"),
        ("anger", "emodb_16", "f"),
    ]
    touch(tmp_path / "e", "wav/talk.wav")
    for load in (emotions.emodb, emotions.ravdess, emotions.cremad):
        with pytest.raises(ValueError, match="called as its files are, such as"):
            load(root=str(tmp_path / "e"))
