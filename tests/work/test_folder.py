"""The workdir: what is begun anew, what is refused, what is swept away."""

import pytest

from moejax.runtime.files import read_json, sweep, write_json
from moejax.work import folder
from moejax.work.folder import Work


@pytest.fixture
def half_trained(tmp_path):
    work = Work(tmp_path / "W", quiet=True)
    work.begin("joint", {"joint.steps": 300, "seed": 0})
    work.path("joint", "checkpoints", "120").mkdir(parents=True)
    return work


def test_training_that_is_not_finished_is_not_thrown_away_for_another_config(half_trained):
    with pytest.raises(ValueError, match=r"step 120 is saved.*joint.steps 300 -> 200.*--force"):
        half_trained.begin("joint", {"joint.steps": 200, "seed": 0})
    assert half_trained.path("joint", "checkpoints", "120").is_dir()
    half_trained.begin("joint", {"joint.steps": 300, "seed": 0})  # as it was: goes on
    assert half_trained.path("joint", "checkpoints", "120").is_dir()


def test_force_begins_it_anew(half_trained):
    half_trained.begin("joint", {"joint.steps": 200, "seed": 0}, force=True)
    assert [path.name for path in half_trained.path("joint").iterdir()] == ["started.json"]


def test_finished_stage_with_another_config_runs_again_unasked(half_trained):
    half_trained.finish("joint", {"joint.steps": 300, "seed": 0}, 1.0, {})
    half_trained.begin("joint", {"joint.steps": 200, "seed": 0})
    assert not half_trained.path("joint", "checkpoints").exists()


def test_what_a_killed_run_left_half_written_is_swept_away(tmp_path):
    write_json(tmp_path / "a" / "kept.json", {})
    for name in (".kept.json.17.tmp", "a/.x.json.3.tmp", "a/b/.params.safetensors.9.partial"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{")
    sweep(tmp_path, within=False)
    assert not list(tmp_path.glob(".*")) and list(tmp_path.rglob(".x*"))
    sweep(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["kept.json"]


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "done.json").write_text('{"digest": ')
    with pytest.raises(ValueError, match=r"done\.json is damaged"):
        read_json(tmp_path / "done.json")


def test_a_loop_that_nobody_watches_says_how_far_it_is(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(folder, "LOG_EVERY", 0.0)
    work = Work(tmp_path)
    assert list(work.progress("abc", total=3, desc="embed")) == ["a", "b", "c"]
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert [line.split("  ")[1].split(",")[0].strip() for line in lines] == ["embed: 1 of 3", "embed: 2 of 3"]
    assert "to go" in lines[0] and "embed: 2 of 3" in capsys.readouterr().out
