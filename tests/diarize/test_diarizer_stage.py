"""The stages that simulate talks and learn from them, and `moejax diarize` with what they leave: on voices that are
tones, without published weights."""

import contextlib
import csv
import dataclasses
import json
import runpy
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tiny_job
import tiny_model
from ml_collections import ConfigDict

import moejax
from moejax.__main__ import guarded
from moejax.diarize import ego, listening, naming, resegmentation, talks, train, turns
from moejax.enrolment import profiles
from moejax.errors import BadValue, NotThere
from moejax.job import config as configs
from moejax.runtime.files import read_json
from moejax.score import diarization
from moejax.train.params_file import load_params
from moejax.work.context import Context
from moejax.work.folder import Work

pytestmark = pytest.mark.job
RATE, SPEAKERS = 16000, 16


def voice(speaker: int, number: int) -> np.ndarray:
    """Syllables of a speaker's own two tones."""
    rng = np.random.default_rng([speaker, number])
    time = np.arange(round(rng.uniform(0.8, 1.6) * RATE)) / RATE
    low, high = 250 * 1.12**speaker, 1400 + 130 * ((7 * speaker) % SPEAKERS)
    beat = np.clip(np.sin(2 * np.pi * 4 * time) + 0.8, 0, 1)
    return 0.2 * beat * (np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time))


def write_corpus(root):
    rows = []
    (root / "audio").mkdir(parents=True)
    for speaker in range(SPEAKERS):
        part = ("train", "train", "dev", "test")[speaker % 4]
        for number in range(4):
            file = f"audio/{speaker}-{number}.wav"
            soundfile.write(root / file, voice(speaker, number), RATE, subtype="PCM_16")
            rows.append((file, "ba", f"voice {speaker}", part))
    with open(root / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "text", "speaker", "split"), *rows])


def config(**changes):
    values = {
        "name": "talks",
        "data": dict(source="folder", root="corpus", columns=dict(audio="file"), split="official"),
        "talks": dict(
            **dict(train=33, dev=4, test=6, seconds=5.0, speakers=(1, 2), hears="logmel", level=1.0, noises=(30.0,)),
            **dict(colour=0.0, telephone=0.0),
        ),
        "diarizer": dict(
            **dict(steps=80, batch_size=16, learning_rate=5e-3, warmup=10, log_every=20, evals=2, dropout=0.0),
            **dict(most=2, width=32, heads=2, layers=1, ffn=64),
        ),
    }
    for section, own in changes.items():
        values.setdefault(section, {}).update(own)
    return ConfigDict(values)


EGO = dict(
    ego=dict(steps=4, batch_size=16, learning_rate=1e-3, warmup=1, width=16, heads=2, layers=1, ffn=32, log_every=1)
)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder with corpus/ and the finished workdir W."""
    folder = tmp_path_factory.mktemp("diarizer")
    write_corpus(folder / "corpus")
    with contextlib.chdir(folder), tiny_job.quick():
        moejax.run(config(), "W", quiet=True)
        moejax.run(config(**EGO), "W", quiet=True)
    return folder


def test_it_learns_to_tell_voices_apart_that_it_never_heard(job):
    scores = read_json(job / "W" / "diarizer" / "scores.json")
    test = scores["test"]
    assert test["all"]["der"] < 0.8 * test["one_speaker"]["der"] and test["rounded"]["der"] < 5
    assert test["all"]["low"] <= test["all"]["der"] <= test["all"]["high"] and test["all"]["talks"] == 6
    lines = [json.loads(line) for line in (job / "W" / "diarizer" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["eval/activity"] < lines[0]["loss"] and "dev activity" in (job / "W" / "log.txt").read_text()
    # what it said of the test talks is in the file, and the figure is that of the file
    said = turns.read_rttm(job / "W" / "diarizer" / "test.rttm")
    true = turns.read_rttm(job / "W" / "talks" / "test.rttm")
    every = [
        diarization.compare(true.get(n, []), said.get(n, []), [(0, 5)])
        for n in turns.read_uem(job / "W" / "talks" / "test.uem")
    ]
    assert 100 * diarization.pooled(every).der == pytest.approx(test["all"]["der"], abs=0.1)


def test_one_enrolled_speaker_is_asked_for_and_a_wrong_enrolment_is_another_question(job):
    scores = read_json(job / "W" / "ego" / "scores.json")["test"]
    assert scores["examples"] > scores["with_target"] > 2 and set(scores["right"]) == set(scores["wrong"])
    with contextlib.chdir(job), tiny_job.quick():
        part = talks.opened(Context(configs.resolve(config()), Work("W", quiet=True)), "train")
    one = ego.examples(part, 30)
    for number, (row, speaker) in enumerate(one.asked):
        right, wrong = one.enrolment(number), one.enrolment(number, "wrong")
        assert (right is None) == (not speaker) and one.enrolment(number, "nobody") is None
        if speaker:
            assert right[0] != row and right in one.alone[speaker] and wrong not in one.alone[speaker]
    batch = ego.Fetch(one)(0, [0, -1])
    assert batch["ego_BT"].shape == (2, 50) and batch["enrol"].shape == (2, 30, 345)
    assert batch["real_B"].tolist() == [True, False] and (batch["ego_BT"][1] == 4).all()
    # scores of who knows everything, and of who says always the same
    true = [ego.Fetch(one)(0, [number])["ego_BT"][0] for number in range(len(one))]
    found = ego.scored(one, {"right": true, "nobody": [0 * classes + 4 for classes in true]})
    assert found["right"] == {name: 1.0 for name in ("accuracy", "macro_f1", "target_f1", "target_found")}
    assert found["nobody"]["target_f1"] == 0 and found["nobody"]["accuracy"] <= found["most_frequent"] < 1
    assert found["der"]["der"] < 30  # 0.1 s frames, and who is nowhere else alone is not asked for


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """Mini LibriSpeech's layout with voices that are tones, its table, and EEND's protocol in small."""
    root = tmp_path_factory.mktemp("mini")
    for speaker in range(8):
        top = root / "LibriSpeech" / ("train-clean-5", "dev-clean-2")[speaker > 3] / str(speaker) / "1"
        top.mkdir(parents=True)
        names = [f"{speaker}-1-{number:04d}" for number in range(3)]
        (top / f"{speaker}-1.trans.txt").write_text("".join(f"{name} BA BA\n" for name in names))
        for number, name in enumerate(names):
            soundfile.write(top / f"{name}.flac", voice(speaker, number), RATE, subtype="PCM_16")
    assert guarded(["recipe", "mini_librispeech", str(root)]) == 0
    own = runpy.run_path(str(Path(__file__).parents[2] / "configs" / "diarize.py"))["get_config"]("mini_librispeech")
    own.data.root = str(root)
    own.talks.train, own.talks.dev, own.talks.test, own.talks.seconds = 4, 2, 2, 5.0
    own.diarizer.update(head="aed", steps=2, batch_size=4, warmup=1, width=16, heads=2, layers=1, ffn=16, evals=1)
    return root, own


def test_the_protocol_of_mini_librispeech_and_a_head_that_enrolls(mini):
    root, own = mini
    with tiny_job.quick():
        moejax.run(own, str(root / "W"), quiet=True)
        diarizer = listening.opened(root / "W")
        assert (diarizer.sizes.head, diarizer.sizes.most) == ("aed", 2)
        prob = diarizer.probabilities(talk(7.0)[0])
    assert prob.shape[1] <= 2 and np.isfinite(prob).all()
    scores = read_json(root / "W" / "diarizer" / "scores.json")["test"]
    assert scores["all"]["talks"] == 2 and np.isfinite(scores["all"]["der"])
    assert set(scores["speakers"]) <= {"0", "1", "2"}


def test_parts_have_no_speaker_in_common_and_talks_are_described(job):
    names = [
        {turn.speaker for some in turns.read_rttm(job / "W" / "talks" / f"{part}.rttm").values() for turn in some}
        for part in talks.PARTS
    ]
    assert sum(map(len, names)) == len(set.union(*names)) and all(name.startswith("voice_") for name in names[0])
    card = read_json(job / "W" / "talks" / "cards.json")["train"]
    assert card["talks"] == 33 and 0 < card["silent"] < 0.6 and card["overlapped"] < 0.3 and len(card["groups"]) == 33


def test_what_was_heard_is_kept_however_many_talks_come(job):
    with contextlib.chdir(job), tiny_job.quick():
        context = Context(configs.resolve(config()), Work("W", quiet=True))
        part = talks.opened(context, "dev")
        again = talks.maker(context, "dev")(3)
        np.testing.assert_allclose(part.heard[3], talks.logmel(again.wave_S)[:50], atol=1e-6)
        assert [turn[:2] for turn in part.turns[3]] == [pytest.approx(turn[:2], abs=1e-3) for turn in again.turns]
        reseeded = Context(configs.changed(context.cfg, {"seed": context.cfg.seed + 1}), context.work)
        np.testing.assert_array_equal(talks.opened(reseeded, "dev").heard[3], part.heard[3])  # as a training sees it
        train_part = talks.opened(context, "train").heard
        full, rest = sorted(train_part.folder.glob("*.npy"))
        kept = full.stat().st_mtime_ns
        for count, rows in ((33, 1), (34, 2), (33, 1)):
            talks.run(configs.resolve(config(talks=dict(train=count))), Work("W", quiet=True))
            assert full.stat().st_mtime_ns == kept and len(np.load(rest)) == rows
        batch = train.Fetch(part, 3)(0, [3, -1])
        assert batch["count_B"].tolist()[1] == 0 and batch["active_BTS"].shape == (2, 50, 3)
        assert batch["active_BTS"][0].any(0).sum() == batch["count_B"][0]


def talk(seconds=14.0):
    """Two voices that nobody trained on take turns, and who speaks when."""
    held, waves, at, number = [], [], 0.0, 0
    while at < seconds:
        wave = np.concatenate([voice((3, 7)[number % 2], n) for n in range(3)])
        held.append(turns.Turn(at, at + len(wave) / RATE, "ab"[number % 2]))
        waves.append(np.concatenate([wave, np.zeros(RATE // 2)]))
        at, number = at + len(waves[-1]) / RATE, number + 1
    return np.concatenate(waves).astype(np.float32), held


def spoken(held):
    return sum(turn.end - turn.start for turn in held)


def test_a_recording_longer_than_the_talks_is_one_recording(job):
    audio_S, held = talk()
    with contextlib.chdir(job), tiny_job.quick():
        diarizer = listening.opened("W")
        found = diarizer(audio_S)
        assert found[0].speaker == "speaker1" and max(turn.end for turn in found) <= len(audio_S) / RATE + 0.05
        spans = [(0.0, len(audio_S) / RATE)]
        ours, always = (
            diarization.compare(held, found, spans),
            diarization.compare(held, diarization.constant(spans), spans),
        )
        assert ours.der < always.der
        # a recording of one window is what the network says of that window, and of nothing nothing is said
        short = audio_S[: 4 * RATE]
        assert diarizer.probabilities(short, 2).shape == (40, 2)
        assert diarizer(np.zeros(0, np.float32)) == []
        assert spoken(diarizer(audio_S, threshold=0.999)) < spoken(found) < spoken(diarizer(audio_S, threshold=0.001))
        with pytest.raises(BadValue, match="3 speakers; this diarizer tells 2 apart"):
            diarizer(audio_S, speakers=3)


class Nobody(resegmentation.Resegmentation):
    """Leaves nobody anything."""

    def __call__(self, active_ST, prob_TS, vectors_TW):
        assert active_ST.shape[1] == len(prob_TS) == len(vectors_TW)
        return np.zeros_like(active_ST)


def test_speech_is_divided_once_more_as_in_training(job):
    audio_S, _ = talk()
    file = job / "W" / "diarizer" / resegmentation.FILE
    kept = file.read_bytes() if file.exists() else None
    with contextlib.chdir(job), tiny_job.quick():
        context = Context(configs.resolve(config()), Work("W", quiet=True))
        parts = {part: talks.opened(context, part) for part in talks.PARTS}
        network = read_json(job / "W" / "diarizer" / "scores.json")["network"]
        assert set(network) == {"dev", "test"} and (kept is not None) == (
            network["dev"]["der"] > read_json(job / "W" / "diarizer" / "scores.json")["dev"]["all"]["der"]
        )
        one = resegmentation.Resegmentation(resegmentation.fitted(parts["train"], parts["dev"]), 2, 1.0, 2.0)
        try:
            one.save(file)
            diarizer = listening.opened("W")
            for row in range(3):
                wave_S = talks.maker(context, "test")(row).wave_S
                prob_TS, own_TW = diarizer.probabilities(wave_S), one.space.vectors(parts["test"].heard[row])
                again = diarizer.deciding.turns(
                    prob_TS, 10.0, again=lambda active, p=prob_TS, v=own_TW: one(active, p, v)
                )
                assert diarizer(wave_S) == again
            vectors_TW = diarizer._asked(audio_S, 0)[1]
            assert len(vectors_TW) == talks.frames_of(len(audio_S)) and (vectors_TW != 0).any(1).all()
            diarizer.resegmentation = Nobody(one.space)  # its answer is what is said
            assert diarizer(audio_S) == [] and diarizer.probabilities(audio_S).max() > 0.5
            diarizer.resegmentation = one
            # so many were asked for: who would be left with nothing stays
            asked = {turn.speaker for turn in diarizer.deciding.turns(diarizer.probabilities(audio_S, 2), 10.0)}
            assert {turn.speaker for turn in diarizer(audio_S, speakers=2)} == asked
            file.unlink()
            alone = listening.opened("W")
            assert alone.resegmentation is None
            assert alone(audio_S) == alone.deciding.turns(alone.probabilities(audio_S), 10.0)
        finally:
            file.unlink(missing_ok=True)
            if kept is not None:
                file.write_bytes(kept)


def test_known_voices_name_turns_and_a_wrong_one_names_nobody(job, tmp_path, monkeypatch, capsys):
    audio_S, held = talk()
    phrases = {
        name: [voice(speaker, n).astype(np.float32) for n in (0, 1, 3)] for name, speaker in (("anna", 3), ("carl", 11))
    }
    file = job / "W" / "diarizer" / naming.FILE
    with contextlib.chdir(job), tiny_job.quick():
        file.unlink(missing_ok=True)
        with pytest.raises(NotThere, match=r"voices\.npz: this diarizer was not taught to compare voices"):
            listening.opened("W").named(audio_S, held, {})
        seen = naming.measured(talks.opened(Context(configs.resolve(config()), Work("W", quiet=True)), "train"))
        # of eight voices in 345 numbers little is learnt of a ninth: the threshold is put where it can be passed
        dataclasses.replace(naming.fitted(seen, seen), alike=0.1).save(file)
        diarizer = listening.opened("W")
        known = {name: diarizer.voice(waves) for name, waves in phrases.items()}
        named = diarizer.named(audio_S, held, known)
        assert [turn[:2] for turn in named] == [turn[:2] for turn in held]
        assert {(one.speaker, other.speaker) for one, other in zip(held, named, strict=True)} == {
            ("a", "anna"),
            ("b", "b"),
        }
        assert diarizer.named(audio_S, held, {"carl": known["carl"]}) == held
        with pytest.raises(BadValue, match="nothing can be heard in these phrases"):
            diarizer.voice([np.zeros(RATE, np.float32)])
        monkeypatch.setenv("MOEJAX_SPEAKERS", str(tmp_path / "speakers"))
        soundfile.write(tmp_path / "talk.wav", audio_S, RATE)
        wav = [str(tmp_path / "talk.wav"), "--model", "W", "--profiles"]
        assert guarded(["diarize", *wav, "all"]) == 1 and "nobody is enrolled" in capsys.readouterr().err
        for name, waves in (*phrases.items(), ("speaker2", phrases["carl"])):
            profiles.save(name, waves, ["ba"] * len(waves))
        assert guarded(["diarize", *wav, "speaker2"]) == 1 and "enroll it under another name" in capsys.readouterr().err
        assert guarded(["diarize", *wav, "anna,zoe"]) == 1 and "no speaker 'zoe' is enrolled" in capsys.readouterr().err
        assert guarded(["diarize", *wav, "anna,carl"]) == 0
        printed = capsys.readouterr().out
        assert " carl " not in printed and printed.startswith("SPEAKER talk 1 ")


def test_the_command(job, capsys, tmp_path):
    audio_S, held = talk()
    soundfile.write(tmp_path / "my talk.wav", audio_S, RATE)
    (tmp_path / "bad.wav").write_bytes(b"RIFF nothing")
    turns.write_rttm(tmp_path / "ref" / "my talk.rttm", {"x": held})
    with contextlib.chdir(job), tiny_job.quick():
        assert guarded(["diarize", str(tmp_path / "my talk.wav"), "--model", "W"]) == 0
        printed = capsys.readouterr().out
        assert printed.startswith("SPEAKER my_talk 1 ") and "speaker1" in printed
        both = [str(tmp_path / "bad.wav"), str(tmp_path / "my talk.wav")]
        assert guarded(["diarize", *both, "--model", "W", "--output", str(tmp_path / "out")]) == 1
        out = capsys.readouterr().out
        assert "bad.wav: " in out and (tmp_path / "out" / "my talk.rttm").read_text() == printed
        wav = str(tmp_path / "my talk.wav")
        assert guarded(["diarize", wav, "--model", "W", "--against", str(tmp_path / "ref"), "--collar", "0.25"]) == 0
        head, row = capsys.readouterr().out.splitlines()
        assert "one speaker" in head and "of 2" in row
        for argv, words in (
            ([], "--model is missing"),
            (["--model", "corpus"], "corpus has no diarizer: moejax diarizer --config"),
            (["--model", "W", "--against", "corpus"], r"has no my talk.rttm for"),
            (["--model", "W", "--threshold", "2"], "wants a probability between 0 and 1, got '2'"),
        ):
            assert guarded(["diarize", wav, *argv]) == 1
            assert words in capsys.readouterr().err


def test_the_encoder_of_a_whisper_is_heard_as_in_use(job, tmp_path):
    tiny_model.write(tmp_path / "weights", timed=True)
    hear, window = talks.encoder(str(tmp_path / "weights"), "float32")
    assert window == 30 * RATE
    audio_S = talk(8.0)[0][: 8 * RATE]
    states = hear(np.stack([audio_S, 0 * audio_S]))
    assert states.shape == (2, 80, 2, 32) and states.dtype == np.float16
    np.testing.assert_allclose(hear(audio_S[None])[0], states[0], atol=2e-2)
    with contextlib.chdir(job):
        whisper = dict(talks=dict(hears="whisper", seconds=31.0), model=dict(pretrained=str(tmp_path / "weights")))
        with pytest.raises(BadValue, match="'talks.seconds' is 31; the encoder of model.pretrained hears 30 s at most"):
            talks.listener(configs.resolve(config(**whisper)), Work("X", quiet=True))
        with pytest.raises(BadValue, match="model.pretrained names no Whisper"):
            talks.STAGE.outside(configs.resolve(config(talks=dict(hears="whisper"))))
        # a diarizer of other weights than it learnt from is refused
        _, meta = load_params("W/diarizer/params.safetensors")
        meta |= {"hears": "whisper", "pretrained": str(tmp_path / "weights"), "encoder": "0"}
        with pytest.raises(BadValue, match="learnt from another"):
            listening._listener(meta, "W")
        with pytest.raises(NotThere, match="the diarizer of W hears nowhere"):
            listening._listener(meta | {"pretrained": "nowhere"}, "W")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(talks=dict(speakers=(2, 3))), "'talks.speakers' goes to 3; diarizer.most is 2"),
        (dict(diarizer=dict(enhance=True)), "'diarizer.enhance' is of diarizer.head = aed; that is attractors"),
        (dict(diarizer=dict(heads=3)), "'diarizer.width' is 32, which does not divide by diarizer.heads = 3"),
        (dict(folds=dict(models=("cnn",))), "are two tasks"),
        (dict(talks=dict(kind="opera")), "known: conversation, mixture"),
    ],
)
def test_keys_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(BadValue, match=words):
        configs.resolve(config(**changes))
