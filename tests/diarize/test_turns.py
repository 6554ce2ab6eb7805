"""Turns in files and as labels: nothing is lost, and what is wrong is named with its line."""

import gzip
import json

import numpy as np
import pytest

from moejax.diarize import labels, lhotse, turns
from moejax.diarize.turns import Turn
from moejax.errors import BadValue, NotThere

# As lhotse writes cuts (icefall's recipe for YesNo, with its features)
WRITTEN = (
    '{"id": "0_0_0_1_0_1_1_0-1", "start": 0, "duration": 6.11, "channel": 0, "supervisions": '
    '[{"id": "0_0_0_1_0_1_1_0", "recording_id": "0_0_0_1_0_1_1_0", "start": 0.0, "duration": 6.11, "channel": 0, '
    '"text": "NO NO NO YES NO YES YES NO", "language": "Hebrew"}], "features": {"type": "kaldi-fbank", '
    '"num_frames": 611, "num_features": 23, "frame_shift": 0.01, "sampling_rate": 8000, "start": 0, "duration": 6.11, '
    '"storage_type": "lilcom_chunky", "storage_path": "data/fbank/yesno_feats_train.lca", '
    '"storage_key": "16570,12964,2929", "channels": 0}, "recording": {"id": "0_0_0_1_0_1_1_0", "sources": '
    '[{"type": "file", "channels": [0], "source": "/x/0_0_0_1_0_1_1_0.wav"}], "sampling_rate": 8000, '
    '"num_samples": 48880, "duration": 6.11, "channel_ids": [0]}, "type": "MonoCut"}\n'
)


def activity(rng, most=5, frames=40):
    """Of a talk that was never held: up to `most` speakers, and none."""
    speakers = int(rng.integers(most + 1))
    change_ST = rng.random((speakers, int(rng.integers(1, frames)))) < rng.uniform(0.02, 0.9)
    return (np.cumsum(change_ST, 1) + rng.integers(2, size=(speakers, 1))) % 2 == 1


def test_labels_are_converted_without_loss():
    """Two thousand cases: activity -> turns -> RTTM -> activity, and activity -> ego classes -> activity."""
    rng = np.random.default_rng(0)
    for _ in range(2000):
        active_ST = activity(rng)
        names = tuple(f"s{row}" for row in range(len(active_ST)))
        frames = active_ST.shape[1]
        held = labels.turns_of(active_ST, names)
        again, _ = labels.activity(held, frames, speakers=names)
        assert (again == active_ST).all()
        assert held == turns.merged(held)
        ego_XT = labels.ego_labels(active_ST)
        S, (target_ST, none_T) = len(names), (ego_XT[:-1], ego_XT[-1])
        assert ego_XT.shape == (S + 1, frames)
        assert (labels.activity_of(ego_XT) == active_ST).all()
        assert (active_ST == (target_ST <= 1)).all() and (none_T >= 2).all()
        assert ((none_T == 4) == (ego_XT == 4).all(0)).all()
        assert (none_T[(target_ST == 1).any(0)] == 3).all()
        if not S:
            assert (ego_XT == 4).all()
        order = rng.permutation(S)
        assert (labels.ego_labels(active_ST[order]) == ego_XT[[*order, S]]).all()
        assert (labels.one_hot(none_T).sum(0) == 1).all()
        kept = labels.ego_supervisions("cut", "talk", ego_XT, names)
        read_XT, read_names = labels.ego_of(json.loads(json.dumps(kept)))
        assert read_names == names and (read_XT == ego_XT).all()


def test_rttm_and_manifests_keep_every_turn(tmp_path):
    rng = np.random.default_rng(1)
    for case in range(100):
        held = {}
        for talk in range(int(rng.integers(1, 4))):
            starts = rng.integers(0, 10**6, 5) / 1000
            made = [Turn(s, round(s + int(rng.integers(1, 9999)) / 1000, 9), f"É{n % 3}") for n, s in enumerate(starts)]
            held[f"talk{talk}"] = sorted(made)
        turns.write_rttm(tmp_path / "a.rttm", held)
        assert turns.read_rttm(tmp_path / "a.rttm") == held
        path = tmp_path / ("a.jsonl.gz" if case % 2 else "a.jsonl")
        lhotse.write(path, lhotse.supervisions(held), "supervision")
        assert lhotse.turns_of(lhotse.read(path, "supervision")) == held
    spans = {"talk": [(0.0, 1.5), (2.0, 3.0)]}
    turns.write_uem(tmp_path / "a.uem", spans)
    assert turns.read_uem(tmp_path / "a.uem") == spans


def test_borders_fall_into_frames_as_eend_puts_them():
    one = [Turn(1.0, 2.0, "a")]
    for fine in (1, 10):
        row_T = labels.activity(one, 40, fine=fine)[0][0]
        assert np.flatnonzero(row_T).tolist() == list(range(10, 20))
    # 1.04 s rounds down to frame 10 of 0.1 s; of frames of 0.01 s every tenth is taken, and 1.04 is behind the tenth
    late = [Turn(1.04, 2.04, "a")]
    assert np.flatnonzero(labels.activity(late, 40)[0][0]).tolist() == list(range(10, 20))
    assert np.flatnonzero(labels.activity(late, 40, fine=10)[0][0]).tolist() == list(range(11, 21))


def test_overlaps_of_one_speaker_are_merged():
    held = [Turn(0, 2, "a"), Turn(1, 3, "a"), Turn(2.5, 4, "b"), Turn(3.2, 5, "a")]
    assert turns.merged(held) == [Turn(0, 3, "a"), Turn(2.5, 4, "b"), Turn(3.2, 5, "a")]
    assert turns.merged(held, gap=0.2) == [Turn(0, 5, "a"), Turn(2.5, 4, "b")]


def test_files_of_others_are_read(tmp_path):
    (tmp_path / "a.rttm").write_bytes(
        "\ufeff;; a comment\nSPKR-INFO m 1 <NA> <NA> <NA> unknown x <NA>\n\n"
        "SPEAKER m 1 3 0.50 <NA> <NA> x <NA>\r\nSPEAKER m 1 1.0 0 <NA> <NA> x <NA> <NA>\n"
        "SPEAKER m 1 1.25 1.0 <NA> <NA> y <NA> <NA>".encode()
    )
    assert turns.read_rttm(tmp_path / "a.rttm") == {"m": [Turn(1.25, 2.25, "y"), Turn(3.0, 3.5, "x")]}
    (tmp_path / "a.stm").write_text("m 1 x 2 3.5 <o,f0> Oh, hello.\nm 1 y 0 1 I'm here\n")
    assert turns.read_stm(tmp_path / "a.stm") == {"m": [(0, 1, "y", "I'm here"), (2, 3.5, "x", "Oh, hello.")]}
    (tmp_path / "a.uem").write_text("m NA 0 10\nm NA 5.5 12\nm 1 20 21\n")
    assert turns.read_uem(tmp_path / "a.uem") == {"m": [(0, 12), (20, 21)]}


def test_manifests_of_lhotse_pass_through_untouched(tmp_path):
    (tmp_path / "cuts.jsonl.gz").write_bytes(gzip.compress(WRITTEN.encode()))
    records = lhotse.read(tmp_path / "cuts.jsonl.gz", "cut")
    lhotse.write(tmp_path / "again.jsonl", records, "cut")
    assert (tmp_path / "again.jsonl").read_text() == WRITTEN
    held = lhotse.recording("m", "m.wav", 8000, 48880)
    assert held | {"id": "0_0_0_1_0_1_1_0"} == records[0]["recording"] | {"sources": held["sources"]}
    made = lhotse.cut("m-0", held, 2.0, 3.0, [Turn(1, 2.5, "a"), Turn(4, 9, "b"), Turn(5, 6, "c")])
    assert set(made) <= set(records[0]) and made["type"] == records[0]["type"]
    shown = [(one["recording_id"], one["start"], one["duration"], one["speaker"]) for one in made["supervisions"]]
    assert shown == [("m", 0.0, 0.5, "a"), ("m", 2.0, 1.0, "b")]
    for name in ("x.jsonl.gz", "y.jsonl.gz"):
        lhotse.write(tmp_path / name, [made], "cut")
    assert (tmp_path / "x.jsonl.gz").read_bytes() == (tmp_path / "y.jsonl.gz").read_bytes()


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        (
            "a.rttm",
            "SPEAKER m 1 0 1 <NA> <NA> x <NA>\nSPEKER m 1 0 1",
            r"a\.rttm line 2: unknown type 'SPEKER'; known: S",
        ),
        ("a.rttm", "SPEAKER m 1 0 1 x", r"line 1: 6 fields; it takes 9 or 10"),
        ("a.rttm", "SPEAKER m 1 0 -1 <NA> <NA> x <NA>", r"line 1: duration is -1; it takes seconds, 0 or more"),
        ("a.rttm", "SPEAKER m 1 nan 1 <NA> <NA> x <NA>", r"line 1: start is nan"),
        ("a.rttm", "\nSPEAKER m 1 one 1 <NA> <NA> x <NA>", r"line 2: start is 'one', not a number of seconds"),
        ("a.rttm", b"SPEAKER m 1 0 1 <NA> <NA> \xff <NA>", r"line 1 is not UTF-8"),
        ("a.uem", "m 1 0", r"line 1: 3 fields; it takes 4: recording channel start end"),
        ("a.uem", "m 1 4 2", r"line 1: the end 2 is not after the start 4"),
        ("a.stm", "m 1 x 2", r"line 1: 4 fields; it takes recording channel speaker start end and words"),
        ("a.jsonl", '{"id": 1}', r"line 1: 'id' is 1; a supervision has id, recording_id, start, duration"),
        ("a.jsonl", '{"id": "s"}\n', r"line 1: 'recording_id' is missing"),
        ("a.jsonl", '{"id": "s", "recording_id": "r", "start": -1, "duration": 1}', r"'start' is -1; it takes 0"),
        ("a.jsonl", "\n[1]", r"line 2 is no object"),
        ("a.jsonl", "{", r"line 1 is not JSON"),
        ("a.jsonl.gz", gzip.compress(b"{}", mtime=0)[:-6], r"a\.jsonl\.gz is damaged"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path, name, text, words):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    kinds = {"a.rttm": turns.read_rttm, "a.uem": turns.read_uem, "a.stm": turns.read_stm}
    read = kinds.get(name, lambda path: lhotse.read(path, "supervision"))
    with pytest.raises(BadValue, match=words):
        read(path)


def test_what_cannot_be_written_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.rttm"
    path.write_text("before")
    for held in ({"two words": [Turn(0, 1, "a")]}, {"m": [Turn(0, 1, "Ann Lee")]}, {"m": [Turn(0, 1, "")]}):
        with pytest.raises(BadValue, match="RTTM has no place for the name"):
            turns.write_rttm(path, held)
    with pytest.raises(BadValue, match="record 2: 'id' is missing"):
        lhotse.write(path, [*lhotse.supervisions({"m": [Turn(0, 1, "a")]}), {}], "supervision")
    assert path.read_text() == "before"
    for absent in (turns.read_rttm, turns.read_uem, lambda path: lhotse.read(path, "cut")):
        with pytest.raises(NotThere, match="absent"):
            absent(tmp_path / "absent")


def test_classes_that_no_talk_has_are_refused():
    good = labels.ego_labels(np.array([[True, False]]))
    for bad, words in ((good[:, ::-1][:1], "contradict"), (good + 5, "ego classes are"), (good[0], "ego classes are")):
        with pytest.raises(BadValue, match=words):
            labels.activity_of(bad)
    kept = labels.ego_supervisions("c", "m", good, ("a",))
    with pytest.raises(BadValue, match="target 'none'"):
        labels.ego_of(kept[:1])
    with pytest.raises(BadValue, match="holds no ego classes"):
        labels.ego_of([{"id": "c-0"}])
    with pytest.raises(BadValue, match="'b' is none of a"):
        labels.activity([Turn(0, 1, "b")], 10, speakers=("a",))
    with pytest.raises(BadValue, match="names no speaker"):
        lhotse.turns_of([{"id": "s", "recording_id": "m", "start": 0, "duration": 1}])
