"""A workdir is opened by what its stages were run with, whatever stands in its newest config."""

import contextlib
import json
import shutil

import pytest
import tiny_job

import moejax
from moejax.errors import BadValue
from moejax.job.opening import open_answerer, open_context
from moejax.runtime.files import read_json
from moejax.work.folder import Work

pytestmark = pytest.mark.job


@pytest.fixture(autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    return tiny_job.shared(tmp_path_factory)


@pytest.fixture(scope="module")
def work(job):
    return Work(job / "W", quiet=True)


@pytest.fixture(scope="module")
def tested(work):
    """Audio and records of `moe` for every test utterance."""
    context = open_context(work.root)
    rows = context.corpus.rows("test")
    records = tiny_job.records(work.path("evaluate", "moe.jsonl"))
    assert [r["id"] for r in records] == list(context.corpus.manifest.column("id")[rows])
    return [context.corpus.audio[int(row)] for row in rows], records


def test_a_workdir_whose_config_has_keys_of_another_version_opens(job, tmp_path):
    copy = tiny_job.copy(job, tmp_path)
    for file in (copy / "W" / "config.json", copy / "W" / "joint" / "done.json"):
        saved = read_json(file)
        saved["config"]["joint"]["a_key_that_went"] = 3
        saved["config"]["a_section_that_went"] = {"key": 1}
        del saved["config"]["joint"]["z"]  # and one that is newer than the workdir
        file.write_text(json.dumps(saved))
    assert moejax.load(copy / "W").system.name == "moe"


def test_a_workdir_can_be_moved(job, work, tested, tmp_path):
    moved = shutil.copytree(work.root, tmp_path / "elsewhere")
    with contextlib.chdir(tmp_path):
        assert moejax.load(moved).transcribe(tested[0][0]).text == tested[1][0]["hypothesis"]


def test_loading_uses_what_was_trained_whatever_was_asked_for_since(job, work, tested, tmp_path, monkeypatch):
    copy = tiny_job.copy(job, tmp_path)
    monkeypatch.chdir(copy)
    moejax.run(tiny_job.config(mixture__alpha=64.0, embed__layers=(0,)), "W", "describe", quiet=True)
    assert read_json(copy / "W" / "config.json")["config"]["mixture"]["alpha"] == 64
    assert moejax.load(copy / "W").transcribe(tested[0][0]).text == tested[1][0]["hypothesis"]
    assert moejax.evaluate(copy / "W", ["moe"]).row("moe") == moejax.evaluate(work.root, ["moe"]).row("moe")


def test_a_system_that_no_longer_fits_what_is_before_it_is_refused(job, tmp_path, monkeypatch):
    copy = tiny_job.copy(job, tmp_path)
    monkeypatch.chdir(copy)
    moejax.run(tiny_job.config(embed__layers=(1,)), "W", "embed", quiet=True)
    with pytest.raises(ValueError, match="moe needs stage cluster, which was made from another embed"):
        moejax.load("W")
    assert moejax.load("W", system="base").network.route == "none"
    (copy / "W" / "base" / "done.json").unlink()
    with pytest.raises(ValueError, match="base needs stage base, which is not finished"):
        moejax.load("W", system="base")


def test_no_workdir_answers_without_a_language_model(work):
    with pytest.raises(BadValue, match=r"no language model that hears was trained there \(config key"):
        open_answerer(work.root)
