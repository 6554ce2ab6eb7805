"""Cross-validation: nothing that is tested was learnt from, and each guard is seen to be needed."""

import contextlib
import csv
import dataclasses
import math

import jax
import numpy as np
import pytest
import soundfile
import tiny_job
import tiny_whisper
from ml_collections import ConfigDict

import moejax
from moejax.convert import hf_whisper
from moejax.data import folds
from moejax.job import graph
from moejax.runtime import faults
from moejax.runtime.files import read_json
from moejax.score import classes
from moejax.text.tokenizer import Tokenizer
from moejax.train.params_file import load_params
from moejax.training import clips as clips_of
from moejax.training import crossval
from moejax.work.context import Context
from moejax.work.folder import Work

RATE, SPEAKERS = 16000, 12
PITCH = {"hum": 300, "ring": 900, "whistle": 2000, "hiss": 0}


def write_corpus(root):
    """Twelve sources make four sounds each: tones of their own height, and noise."""
    rng, rows, time = np.random.default_rng(0), [], np.arange(RATE // 2) / RATE
    (root / "audio").mkdir(parents=True)
    for speaker in range(SPEAKERS):
        for label, hertz in PITCH.items():
            wave = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.9, 1.1) * time) + 0.05 * rng.normal(size=len(time))
            soundfile.write(root / "audio" / f"{speaker}-{label}.wav", wave, RATE, subtype="PCM_16")
            rows.append((f"audio/{speaker}-{label}.wav", label, f"source{speaker}"))
    with open(root / "metadata.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "speaker"), *rows])


def config(**changes):
    train = dict(epochs=12, batch_size=16, learning_rate=5e-3, warmup=2, checkpoint_every=1000, log_every=50)
    # short enough that a fold is one compilation and a second
    values = {
        "name": "sounds",
        "data": dict(source="folder", root="corpus", columns=dict(audio="file")),
        "model": dict(pretrained="whisper"),
        "clips": dict(rate=8000, seconds=0.5, n_fft=256, hop=250, mels=16, segment=4),
        "folds": {**train, "models": ("probe", "cnn"), "count": 4, "probe": dict(hidden=16), **changes},
        "cv": dict(draws=50),
    }
    return ConfigDict(values)


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A folder with corpus/, whisper/ and the finished workdir W."""
    folder = tmp_path_factory.mktemp("crossval")
    write_corpus(folder / "corpus")
    sizes = dataclasses.replace(tiny_whisper.CONFIG, vocab_size=280, max_source_positions=1500, mask_padding=False)
    sizes = dataclasses.replace(sizes, hop=160)
    _, params = tiny_whisper.model(None, config=sizes)
    tokenizer = Tokenizer.train(list(PITCH), 280)
    hf_whisper.save(folder / "whisper", sizes, params, tokenizer=tokenizer)
    with contextlib.chdir(folder), tiny_job.quick():
        moejax.run(config(), "W", quiet=True)
    return folder


@contextlib.contextmanager
def opened(job, **changes):
    """(context, clips, folds) of the finished workdir."""
    with contextlib.chdir(job), tiny_job.quick():
        context = Context(graph.configs.resolve(config(**changes)), Work("W", quiet=True))
        clips = clips_of.opened(context)
        yield context, clips, folds.made(clips.folds, clips.groups, context.cfg.folds.count)


def fold_of(context, clips, plan, name="cnn", number=0, label_U=None):
    label_U = clips.label_U if label_U is None else label_U
    return crossval.Fold(context, clips, plan, label_U, name, crossval.section_of(context.cfg.folds, name), number)


def results(work, name):
    return [read_json(work / "folds" / name / f"fold{fold + 1}" / "result.json") for fold in range(4)]


def test_both_networks_learn_what_can_be_heard_and_every_clip_is_tested_once(job):
    rows = read_json(job / "W" / "cv" / "summary.json")["models"]
    assert [row["model"] for row in rows] == ["probe", "cnn"] and all(row["ua"] > 0.85 for row in rows)
    for name in ("probe", "cnn"):
        found = results(job / "W", name)
        tested = [identity for one in found for identity in one["id"]]
        assert len(tested) == len(set(tested)) == SPEAKERS * len(PITCH)
        groups = [set(one["group"]) for one in found]
        assert sum(map(len, groups)) == len(set.union(*groups)) == SPEAKERS
        assert all(one["loss"]["start"] > crossval.FRESH * math.log(4) for one in found)
    for file in (
        "table.md",
        "table.csv",
        "report.html",
        "saliency.html",
        "saliency_probe.html",
        "figures/decides_probe.png",
        "figures/decides_cnn.png",
        "figures/mels.png",
        "figures/confusion_cnn.png",
    ):
        assert (job / "W" / "cv" / file).stat().st_size > 200
    text = (job / "W" / "cv" / "table.md").read_text()
    assert "probe against cnn" in text and "overfitting" in text


def test_a_broken_run_goes_on_and_gives_the_same_bits(job, tmp_path):
    for folder in ("corpus", "whisper"):
        (tmp_path / folder).symlink_to(job / folder)
    often = config(models=("cnn",), checkpoint_every=5)
    try:
        with contextlib.chdir(tmp_path), tiny_job.quick():
            for fault in ("clips.block:2=raise", "train.step:33=raise"):  # the second in the second fold, between saves
                faults.arm(fault)
                with pytest.raises(OSError, match="No space left"):
                    moejax.run(often, "W", quiet=True)
            first = tmp_path / "W" / "folds" / "cnn" / "fold1" / "result.json"
            stood = first.stat().st_mtime_ns
            faults.arm("")
            moejax.run(often, "W", quiet=True)
    finally:
        faults.arm("")
    assert first.stat().st_mtime_ns == stood
    assert results(tmp_path / "W", "cnn") == results(job / "W", "cnn")
    with contextlib.chdir(tmp_path), tiny_job.quick():
        moejax.run(config(models=("cnn",), epochs=1), "W", quiet=True)
    assert results(tmp_path / "W", "cnn") != results(job / "W", "cnn")


def test_what_is_tested_teaches_nothing(job):
    """Other labels and other sounds of the tested fold leave what was learnt as it was, bit for bit."""
    with opened(job, epochs=1, keep="best", evals=1) as (context, clips, plan):
        train, choose, test = plan.parts(1)
        assert not set(train) & set(choose) and not set(test) & {*train, *choose}
        label_U = clips.label_U.copy()
        label_U[test] = (label_U[test] + 1) % 4
        learnt = []
        for number, labels in enumerate((clips.label_U, label_U)):
            context.work = Work(job / f"W{number}", quiet=True)
            learnt.append(fold_of(context, clips, plan, number=1, label_U=labels).run(None))
        assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), *learnt)))
        task = fold_of(context, clips, plan, number=1)
        images = np.asarray(task.mel(task.heard(0, train)["wave_BS"]), np.float64)
        np.testing.assert_allclose(learnt[0]["buffer"]["centre"], images.mean((0, 2)), rtol=1e-5)
        np.testing.assert_allclose(learnt[0]["buffer"]["spread"], images.std((0, 2)), rtol=1e-4)
        saved, _ = load_params(job / "W0" / "folds" / "cnn" / "fold2" / "params.safetensors")
        np.testing.assert_array_equal(saved["buffer"]["centre"], learnt[0]["buffer"]["centre"])


def test_every_fold_starts_from_parameters_of_its_own(job):
    with opened(job) as (context, clips, plan):
        fresh = [
            fold_of(context, clips, plan, "probe", number).fresh()[1]["head"]["fc1"]["kernel"] for number in range(2)
        ]
        assert (fresh[0] != fresh[1]).mean() > 0.99
        with pytest.raises(ValueError, match="starts at a loss of 0.30 on its test clips; untrained it is 1.39"):
            crossval.check_fresh(0.3, 4, "cnn, fold 2")


def test_shuffled_labels_give_chance_and_the_leak_of_the_notes_does_not(job):
    """Parameters that go on from fold to fold have learnt their test clips: 0.8 and more of nothing."""
    changes = dict(models=("cnn",), count=0, epochs=60, sanity="random-labels")  # it learns any labels by heart
    with opened(job, **changes) as (context, clips, plan):
        label_U = np.random.default_rng([0, 1]).permutation(clips.label_U)
        context.work = Work(job / "leak", quiet=True)
        leaking = crossval.cross_validated(context, clips, plan, label_U, "cnn", carry=True)
        starts = [read_json(file)["loss"]["start"] for file in sorted((job / "leak").rglob("result.json"))]
        assert np.mean(leaking) > 0.8 and np.mean(leaking[2:]) > 0.9 and min(starts) < 0.3
        with pytest.raises(ValueError, match="starts at a loss"):
            crossval.check_fresh(min(starts), 4, "cnn")


@pytest.mark.parametrize("name", ["probe", "cnn"])
def test_the_sanity_run_of_the_command_is_at_chance(job, capsys, name):
    from moejax.__main__ import guarded

    file = job / "config.py"
    file.write_text(f"def get_config():\n    return {config(models=(name,), epochs=6).to_dict()!r}\n")
    with contextlib.chdir(job), tiny_job.quick():
        assert guarded(["cv", "--config", str(file), "--workdir", "W", "--sanity", "random-labels"]) == 0
    said = read_json(job / "W" / "sanity" / "random-labels" / "cv" / "sanity.json")[name]
    assert said["accuracy"] - said["chance"] <= 3 * said["sigma"] and 0.15 < said["chance"] < 0.35
    assert "with shuffled labels" in capsys.readouterr().out
    assert (job / "W" / "cv" / "table.md").exists()  # the honest run stays as it is


def test_a_figure_above_chance_is_a_leak():
    label_N = np.arange(400) % 4
    half_N = np.where(np.arange(400) < 200, label_N, np.random.default_rng(0).permutation(label_N))
    assert not classes.at_chance(label_N, half_N, 4).holds
    assert classes.at_chance(label_N, np.random.default_rng(0).permutation(label_N), 4).holds
