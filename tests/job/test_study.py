"""Seeds, ablations, held-out cohorts and tuning: what they share, what they repeat, and what the report says."""

import contextlib
import csv
import json

import numpy as np
import pytest
import tiny_job
from ml_collections import ConfigDict

import moejax
from moejax.job import config as configs
from moejax.job import graph, study
from moejax.job.opening import open_context
from moejax.report import study as report_study
from moejax.runtime.files import read_json
from moejax.score import wer
from moejax.systems import registry
from moejax.train.params_file import load_params
from moejax.work.folder import Work

pytestmark = pytest.mark.job

SHARED = ("describe", "base", "embed", "cluster")
VARIANTS = {
    "no_balance": {"joint": {"balance": 0.0}},
    "hidden0": {"gate": {"hidden": 0}},
}


def config(**changes):
    kinds = {"adapters__kinds": ("lora", "lora_total", "cohort", "full")}
    fewer = {"study__heldout_systems": ("base", "moe")}  # four runs less of baselines that no test reads
    found = tiny_job.config(**kinds | fewer | changes)
    found.variants = ConfigDict(VARIANTS)
    return found


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The tiny job with two seeds, all variants, and each cohort held out; run from within its folder."""
    done = tiny_job.shared(tmp_path_factory)
    copy = tiny_job.copy(done, tmp_path_factory.mktemp("study"))
    with contextlib.chdir(copy), tiny_job.quick():
        moejax.study(config(), "W", seeds=2, variants="all", heldout=True, quiet=True)
    return copy


@pytest.fixture(scope="module")
def work(job):
    return Work(job / "W", quiet=True)


@pytest.fixture(autouse=True)
def quick(job, monkeypatch):
    monkeypatch.chdir(job)
    with tiny_job.quick():
        yield


def said(folder) -> dict[str, str]:
    """{stage: what the log said of it first}."""
    found = {}
    for line in (folder / "log.txt").read_text().splitlines():
        if "[" in line and (name := line.split("[")[1].split("]")[0]) in tiny_job.STAGES:
            found.setdefault(name, line.split("] ", 1)[1])
    return found


def test_seeds_share_what_no_training_seed_changes_and_train_the_rest(work):
    other = Work(work.path("variants", "main", "seed1"))
    words = said(other.root)
    assert all(words[name].startswith("taken over from") for name in SHARED)
    assert all("taken over" not in words[name] for name in ("gate", "experts", "joint", "adapters", "evaluate"))
    for name in SHARED:
        assert read_json(other.path(name, "done.json"))["digest"] == read_json(work.path(name, "done.json"))["digest"]
    for name in ("joint", "adapters/lora_total"):
        ours, theirs = (load_params(w.path(*name.split("/"), "params.safetensors"))[0]["expert"] for w in (work, other))
        flat = [np.concatenate([np.ravel(x) for x in _leaves(tree)]) for tree in (ours, theirs)]
        assert flat[0].shape == flat[1].shape and np.abs(flat[0] - flat[1]).max() > 1e-3


def _leaves(tree):
    return [leaf for value in tree.values() for leaf in (_leaves(value) if isinstance(value, dict) else [value])]


def test_a_seed_is_what_the_seed_key_of_the_config_would_train(work):
    cfg = configs.resolve(config(train_seed=1))
    assert {name: graph.seeded(name, cfg).seed for name in ("base", "embed", "joint", "adapters")} == {
        **{"base": 0, "embed": 0, "joint": 1, "adapters": 1}
    }
    assert "train_seed" not in graph.stage_inputs("joint", configs.resolve(config()), {"experts": "x"})


def test_an_ablation_shares_all_that_its_key_does_not_reach_and_trains_no_adapter(work):
    folder = work.path("variants", "no_balance", "seed1")
    words = said(folder)
    taken = {name for name, text in words.items() if text.startswith("taken over")}
    assert taken == {*SHARED, "gate", "experts", "hyper", "targets", "st", "emotion", "salmonn"}
    assert "main/seed1" in words["experts"] and not list((folder / "adapters").glob("*/params.safetensors"))
    assert list(read_json(folder / "evaluate" / "systems.json")) == ["moe"]
    words = said(work.path("variants", "hidden0", "seed0"))
    assert {name for name, text in words.items() if text.startswith("taken over")} == {
        *SHARED,
        "hyper",
        "targets",
        "st",
        "emotion",
        "salmonn",
    }


def test_again_nothing_is_trained(job, work):
    before = {p: p.stat().st_mtime_ns for p in work.root.rglob("params.safetensors")}
    moejax.study(config(), "W", seeds=2, variants="all", heldout=True, quiet=True)
    assert {p: p.stat().st_mtime_ns for p in work.root.rglob("params.safetensors")} == before


def test_what_was_taken_over_stays_when_the_donor_goes(job, tmp_path):
    copy = tiny_job.copy(job, tmp_path)
    for name in SHARED:
        for file in (copy / "W" / name).rglob("*"):
            if file.is_file():
                file.unlink()
    run = open_context(copy / "W" / "variants" / "main" / "seed1")
    assert len(run.corpus.manifest) and run.base.config.d_model == 32


def test_every_run_is_a_workdir_of_its_own(work):
    folder = work.path("variants", "main", "seed1")
    context = open_context(folder)
    row = int(context.corpus.rows("test")[0])
    text = moejax.load(folder).transcribe(context.corpus.audio[row]).text
    assert text == tiny_job.records(folder / "evaluate" / "moe.jsonl")[0]["hypothesis"]


def test_full_fine_tuning_trains_all_of_the_network_and_replaces_it(work):
    index = read_json(work.path("adapters", "index.json"))
    assert index["full"]["kind"] == "full"
    context = open_context(work.root)
    full, base = registry.open_system(context, "full"), registry.open_system(context, "base")
    moved = [
        np.abs(np.asarray(a) - np.asarray(b)).max()
        for a, b in zip(_leaves(full.network.params["backbone"]), _leaves(base.network.params["backbone"]), strict=True)
    ]
    assert np.mean(np.array(moved) > 0) > 0.9
    sizes = read_json(work.path("evaluate", "systems.json"))
    assert sizes["full"]["total"] == sizes["full"]["trainable"] == sizes["base"]["total"]


def test_the_merged_lora_is_the_mean_of_the_products(work):
    stack = load_params(work.path("adapters", "cohort", "params.safetensors"))[0]["expert"]
    merged = load_params(work.path("adapters", "merged", "params.safetensors"))[0]["expert"]
    pairs = list(zip(_leaves(stack), _leaves(merged), strict=True))
    assert pairs
    for (a, one_a), (b, one_b) in zip(pairs[::2], pairs[1::2], strict=True):
        mean = np.mean([x @ y for x, y in zip(a, b, strict=True)], axis=0)
        np.testing.assert_allclose(one_a[0] @ one_b[0], mean, atol=1e-6)
    assert read_json(work.path("adapters", "index.json"))["lora_merged"]["rank"] == 4


def test_controls_give_the_routes_that_they_promise(work):
    context = open_context(work.root)
    found = {
        n: tiny_job.records(work.path("evaluate", f"{n}.jsonl"))
        for n in ("moe", "moe_oracle", "moe_shuffled_gate", "moe_random_gate", "moe_uniform_gate", "moe_mean_gate")
    }
    routes = {name: np.array([r["route"] for r in records]) for name, records in found.items()}
    cohort = context.corpus.manifest.column("cohort")[context.corpus.rows("test")]
    for name in sorted(set(cohort)):
        assert np.ptp(routes["moe_oracle"][cohort == name], axis=0).max() < 1e-5
    assert np.ptp(routes["moe_mean_gate"], axis=0).max() < 1e-5 and np.ptp(routes["moe_uniform_gate"]) <= 1
    # The same routes as the mixture's, to other utterances: as a set equal, one by one not.
    mine, theirs = routes["moe"], routes["moe_shuffled_gate"]
    np.testing.assert_allclose(np.sort(mine.round(3), axis=0), np.sort(theirs.round(3), axis=0), atol=2e-3)
    assert np.abs(mine - theirs).max() > 1e-3
    # Each utterance's own weights, to other experts.
    np.testing.assert_allclose(np.sort(mine), np.sort(routes["moe_random_gate"]), atol=2e-3)
    assert np.abs(mine - routes["moe_random_gate"]).max() > 1e-3


def test_a_held_out_cohort_is_tested_by_runs_that_never_heard_it(work):
    for cohort in tiny_job.SPEAKERS:
        context = open_context(work.path("variants", f"without_{cohort}", "seed0"))
        assert set(context.corpus.manifest.column("cohort")[context.corpus.rows("test")]) == {cohort}
        assert cohort not in set(context.corpus.manifest.column("cohort")[context.corpus.rows("train")])
    rows = read_json(work.path("report", "summary.json"))["study"]["rates"]
    pooled = [r for r in rows if r["name"] == report_study.HELDOUT and r["system"] == "moe"]
    folds = [r for r in rows if r["name"].startswith("without_") and r["system"] == "moe"]
    assert pooled[0]["utterances"] == sum(r["utterances"] for r in folds) == 6 * 24


def test_the_report_shows_seeds_differences_and_ablations(work):
    page, table = (work.path("report", name).read_text() for name in ("report.html", "table.md"))
    shown = ("Over 2 training seeds", "Against lora_total", "Holm p", "Ablations", "no_balance", "joint.balance=0.0")
    for words in (*shown, "One cohort held out", "worse than base by more than noise"):
        assert words in page and words in table, words
    with open(work.path("report", "seeds.csv"), newline="") as file:
        rows = {(r["part"], r["system"], r["name"]): r for r in csv.DictReader(file)}
    assert rows["main", "moe", "all"]["seeds"] == rows["ablation", "moe", "hidden0"]["seeds"] == "2"
    assert rows["main", "lora_merged", "all"]["seeds"] == "1", "cohort adapters were trained with the first seed alone"
    each = [_wer(folder) for folder in (work.root, work.path("variants", "main", "seed1"))]
    assert float(rows["main", "moe", "all"]["wer"]) == pytest.approx(np.mean(each), abs=1e-5)
    assert float(rows["main", "moe", "all"]["sd"]) == pytest.approx(np.std(each, ddof=1), abs=1e-5)
    assert work.path("report", "figures", "differences.png").stat().st_size > 10_000
    assert "over 2 seeds: moe against lora_total" in moejax.report.stage.console_summary(work)


def _wer(folder) -> float:
    lines = tiny_job.records(folder / "evaluate" / "moe.jsonl")
    counts = wer.count([r["reference"] for r in lines], [r["hypothesis"] for r in lines])
    return sum(c.errors for c in counts) / sum(c.words for c in counts)


def test_another_config_leaves_the_seeds_out_and_says_so(job, tmp_path, monkeypatch):
    copy = tiny_job.copy(job, tmp_path)
    monkeypatch.chdir(copy)
    moejax.run(config(report__draws=40), "W", quiet=True)
    assert "without seeds and ablations" in (copy / "W" / "log.txt").read_text()
    assert "study" not in read_json(copy / "W" / "report" / "summary.json")


def test_tuning_chooses_on_dev_and_the_choice_is_trained_once(job, tmp_path, monkeypatch):
    copy = tiny_job.copy(job, tmp_path)
    monkeypatch.chdir(copy)
    cfg = config(adapters__kinds=("lora_total",))
    grid = {"lora_total": {"adapters": {"total_learning_rate": (1e-3, 2e-2)}}}
    cfg.tune = ConfigDict(grid | {"moe": {"joint": {"learning_rate": (1e-4, 2e-2)}}})
    moejax.study(cfg, "T", quiet=True)
    tune = json.loads((copy / "T" / "study.json").read_text())["tune"]
    for found in tune.values():
        assert len(found["tried"]) == 2
        best = min(found["tried"], key=lambda r: r["dev_wer"])
        assert found["chosen"] == best["values"]
    used = read_json(copy / "T" / "config.json")["config"]
    assert used["joint"]["learning_rate"] == tune["moe"]["chosen"]["joint.learning_rate"]
    assert used["adapters"]["total_learning_rate"] == tune["lora_total"]["chosen"]["adapters.total_learning_rate"]
    words = said(copy / "T")
    assert words["joint"].startswith("taken over") and words["adapters"].startswith("taken over")
    assert "dev chose" in (copy / "T" / "log.txt").read_text()
    assert "## Tuning" in (copy / "T" / "report" / "table.md").read_text()
    for file in (copy / "T" / "variants" / "tune").rglob("evaluate/*.jsonl"):
        ids = {r["id"] for r in tiny_job.records(file)}
        dev = open_context(copy / "T").corpus
        assert ids == set(dev.manifest.column("id")[dev.rows("dev")])


@pytest.mark.parametrize(
    ("variants", "asked", "words"),
    [
        (VARIANTS, "no_ballance", "no variant 'no_ballance' in the config; it has .*no_balance"),
        ({"x": {"joint": {"ballance": 0.0}}}, "x", "no key 'joint.ballance'; did you mean joint.balance"),
        ({"x": {"mixture": {"routing": "sparse"}}}, "all", "'mixture.routing' is 'sparse'; known"),
        ({"main": {"joint": {"balance": 0.0}}}, "main", "none of main, tune"),
        ({"a/b": {"joint": {"balance": 0.0}}}, "a/b", "letters, digits"),
        ({}, "all", "no section variants"),
    ],
)
def test_a_wrong_variant_is_refused_before_anything_runs(tmp_path, variants, asked, words):
    cfg = tiny_job.config()
    cfg.variants = ConfigDict(variants)
    with pytest.raises((KeyError, ValueError), match=words):
        study.study(cfg, tmp_path / "new", variants=asked, quiet=True)
    assert not (tmp_path / "new").exists()
