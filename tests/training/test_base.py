"""The base as an input: pretrained weights by path and content, and what is said of recordings that fit no bucket."""

import json
import os
import re
import shutil

import ctranslate2_writer
import numpy as np
import pytest
import safetensors.numpy
import soundfile
import tiny_job
import tiny_model
from huggingface_hub import constants

import moejax
from moejax.decode.alignment_heads import PUBLISHED
from moejax.export import systems
from moejax.job import config as configs
from moejax.job import opening, plan
from moejax.nn.whisper import SIZES
from moejax.runtime.files import read_json
from moejax.training import base
from moejax.work.folder import Work

pytestmark = pytest.mark.job


@pytest.fixture(autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture
def place(tmp_path_factory, tmp_path, monkeypatch):
    """A folder with corpus/ and weights/, in which the test stands."""
    job = tiny_job.shared(tmp_path_factory)
    shutil.copytree(job / "corpus", tmp_path / "corpus")
    shutil.copytree(job / "W" / "base" / "model", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def used(**changes):
    """A job that uses weights/ as it is."""
    return tiny_job.config(**{"model__pretrained": "weights", "base__steps": 0, **changes})


def said(work) -> list[str]:
    """Lines of the log that tell what became of a stage, newest last, without their time."""
    return [line[20:] for line in work.path("log.txt").read_text().splitlines() if line[20:].startswith("[")]


def test_a_relative_folder_is_relative_to_where_the_command_runs(place, monkeypatch):
    moejax.run(used(), "W", "base", quiet=True)
    monkeypatch.chdir("/")
    assert opening.open_context(place / "W").base.config.d_model == 32
    assert read_json(place / "W" / "base" / "model.json")["path"] == str(place / "weights")
    monkeypatch.setenv("HOME", str(place))
    assert base.pretrained(configs.resolve(used(model__pretrained="~/weights"))) == str(place / "weights")


def test_other_weights_at_the_same_path_are_another_base(place):
    work = moejax.run(used(), "W", "embed", quiet=True)
    before = np.load(work.path("embed", "embeddings.npz"))["embedding"]
    file = place / "weights" / "model.safetensors"
    arrays = safetensors.numpy.load_file(file)
    arrays["model.encoder.conv1.weight"] = arrays["model.encoder.conv1.weight"] * 2
    times = file.stat()
    safetensors.numpy.save_file(arrays, file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns + 1))
    moejax.run(used(), "W", "embed", quiet=True)
    assert "(changed: input " in said(work)[-4] and "(changed: stage base " in said(work)[-2]
    assert not np.array_equal(np.load(work.path("embed", "embeddings.npz"))["embedding"], before)


def test_the_same_weights_elsewhere_make_nothing_after_the_base_run(place):
    work = moejax.run(used(), "W", "embed", quiet=True)
    (place / "weights").rename(place / "elsewhere")
    moejax.run(used(model__pretrained="elsewhere"), "W", "embed", quiet=True)
    assert "model.pretrained weights -> elsewhere" in said(work)[-3]
    assert said(work)[-1] == "[embed] finished before, skipped"
    assert read_json(work.path("base", "model.json"))["path"] == str(place / "elsewhere")


def test_a_fine_tuned_base_says_of_generation_what_its_origin_said(place):
    file = place / "weights" / "generation_config.json"
    said = {**read_json(file), "alignment_heads": [[0, 1]], "suppress_tokens": [7], "forced_decoder_ids": [[1, None]]}
    file.write_text(json.dumps(said))
    work = moejax.run(used(base__steps=1, base__warmup=1), "W", "base", quiet=True)
    found = read_json(work.path("base", "model", "generation_config.json"))
    assert (found["alignment_heads"], found["suppress_tokens"]) == ([[0, 1]], [7])
    assert "forced_decoder_ids" not in found


def test_heads_of_a_published_size_are_given_to_published_folders_only(place):
    whisper = SIZES["tiny"]
    assert base.generation(place / "weights", whisper).get("alignment_heads") is None  # moejax made it
    config = read_json(place / "weights" / "config.json")
    del config["moejax"]
    (place / "weights" / "config.json").write_text(json.dumps(config))
    assert base.generation(place / "weights", whisper)["alignment_heads"] == PUBLISHED["tiny"]
    assert "alignment_heads" not in base.generation(place / "weights", SIZES["micro"])


def test_a_faster_whisper_folder_is_a_base(place):
    tokenizer = tiny_model.tokenizer(True)
    made, params = tiny_model.make(vocab_size=tokenizer.vocab_size)
    ctranslate2_writer.write(place / "ct2", made, params, tokenizer, kind="float32", vocabulary="vocabulary.txt")
    config = configs.resolve(used(model__pretrained="ct2", model__buckets=(30.0,)))
    work = moejax.run(config, "W", "base", quiet=True)
    context = opening.open_context(place / "W")
    assert plan.network(config)[0] == context.base.config == made
    assert context.base.tokenizer.encode("the cat") == tokenizer.encode("the cat")
    np.testing.assert_array_equal(
        context.base.params["backbone"]["decoder"]["embed"], params["backbone"]["decoder"]["embed"]
    )
    wanted = {"alignment_heads": [[0, 1]], "suppress_tokens": [1, 2]}
    assert base.generation(place / "ct2", made) == wanted
    (place / "ct2" / "model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="model.bin: is empty"):
        moejax.run(config, "W", "base", quiet=True)
    assert "(changed: input " in said(work)[-1]


def test_a_base_has_a_name(place, monkeypatch):
    """The id of a snapshot in the Hugging Face cache; exports name it for other libraries. A plan needs no weights."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(place / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for seen in (True, False):
        config = configs.resolve(used(model__pretrained="large-v3" if seen else "some/whisper"))
        assert (plan.network(config)[0] == SIZES["large-v3"]) == seen
        with pytest.raises(FileNotFoundError, match="model.pretrained: .* the Hugging Face cache"):
            moejax.run(config, "W", "base", quiet=True)
    assert not (place / "W").exists()
    snapshot = place / "hub" / "models--some--whisper" / "snapshots" / "abc"
    shutil.copytree(place / "weights", snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    work = moejax.run(config, "W", "base", quiet=True)
    assert read_json(work.path("base", "model.json"))["path"] == str(snapshot)
    assert plan.network(config)[0].d_model == 32
    assert systems.name_of_base(opening.open_context(place / "W")) == "some/whisper"


def test_a_recording_longer_than_the_last_bucket_is_named(place):
    words = r"utterance 'wav/(\w+-\d+)' lasts (\d\.\d+) s, but model.buckets end at 0.6 s; \d+ of"
    with pytest.raises(ValueError, match=words) as error:
        moejax.run(tiny_job.config(model__buckets=(0.6,)), "W", "base", quiet=True)
    name, seconds = re.search(words, str(error.value)).groups()
    info = soundfile.info(place / "corpus" / "wav" / f"{name}.wav")
    assert info.frames / info.samplerate > 0.6 and abs(info.frames / info.samplerate - float(seconds)) < 0.01


def test_a_stage_that_fails_before_it_wrote_anything_was_never_started(place, monkeypatch):
    with pytest.raises(ValueError, match="model.buckets"):
        moejax.run(tiny_job.config(model__buckets=(0.6,)), "W", "base", quiet=True)
    assert not Work("W").path("base").exists() and Work("W").finished("describe")
