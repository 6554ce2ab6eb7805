"""Each training stage moves its own groups and nothing else, through the product's own loop, optimizer and files."""

import types

import numpy as np
import pytest
import tiny_whisper as tiny
from ml_collections import ConfigDict

from moejax.nn import functional
from moejax.train import metrics
from moejax.train.params_file import load_params
from moejax.training import fitting
from moejax.training import mixture as training
from moejax.training.load_monitor import load_table
from moejax.work import fields
from moejax.work import sections as shared
from moejax.work.folder import Work

SECTION = {**fields.defaults(fitting.TRAIN | fitting.DEV), "steps": 2, "batch_size": 8, "warmup": 0, "log_every": 1}


@pytest.fixture
def context(tmp_path):
    """What `fitting.train` asks of a corpus, with sixteen utterances in memory."""
    made = tiny.collator(16)
    runtime = {**fields.defaults(shared.RUNTIME), "encoder_cache_bytes": 0}
    sections = {name: {**fields.defaults(training.SECTIONS[name]), **SECTION} for name in ("experts", "joint")}
    cfg = ConfigDict({"seed": 0, "runtime": runtime, "mixture": fields.defaults(shared.MIXTURE), **sections})
    manifest = types.SimpleNamespace(column=lambda name: np.array([f"u{row}" for row in range(16)]))
    manifest.indices = lambda split: np.arange(16)  # dev is the same sixteen
    manifest.strings = lambda name, rows=None: manifest.column(name)
    corpus = types.SimpleNamespace(
        samples=made.of.samples, cohorts=["A", "B", "C"], manifest=manifest, rows=lambda *_: np.arange(16)
    )
    return types.SimpleNamespace(
        cfg=cfg,
        work=Work(tmp_path, quiet=True),
        corpus=corpus,
        base=types.SimpleNamespace(times=0.0),
        mesh=tiny.single(),
        multiple=1,
        buckets=(tiny.BUCKET,),
        collator=lambda *_, **__: made,
    )


@pytest.mark.parametrize(
    ("stage", "groups", "kinds"),
    [
        ("experts", ("expert",), {}),
        ("joint", ("expert", "gate"), {}),
        ("joint", ("expert", "gate"), {"gate": "token"}),
    ],
)
def test_a_stage_moves_its_groups_every_leaf_of_them_and_nothing_else(context, monkeypatch, stage, groups, kinds):
    mixture = tiny.asr.Mixture(("decoder/layers/*/fc?",), num_experts=4, rank=2, alpha=4.0, routing="dense", **kinds)
    graphdef, params = tiny.model(mixture)
    context.cfg.unlock()
    context.cfg.experts.update({"route": "gate", "part": "sample"})
    context.cfg.joint.update({"balance": 0.0, "z": 0.0, "temperature": 4.0, "temperature_steps": 1})
    monkeypatch.setattr(training, "Context", lambda cfg, work, **_: context)
    opened = (graphdef, params, mixture, {"prior": [0.25] * 4})
    monkeypatch.setattr(training.network, "with_gate", lambda *_: opened)
    monkeypatch.setattr(training.gate_inputs, "embeddings_of", lambda context, rows: None)
    monkeypatch.setattr(training.encoder_states, "opened", lambda context: None)
    before = {group: {p: np.array(x) for p, x in functional.paths(params[group]).items()} for group in params}
    summary = getattr(training, stage)(context.cfg, context.work)
    saved, _ = load_params(context.work.path(stage, "params.safetensors"))
    assert set(saved) == {"expert", "gate"}
    for group in saved:
        for path, leaf in functional.paths(saved[group]).items():
            moved = np.asarray(leaf != before[group][path])
            each = moved.reshape(4, -1).any(1) if group == "expert" else moved.any()  # of a stack, every expert
            assert np.all(each) if group in groups else not np.any(each), (group, path)
    log = context.work.path("log.txt").read_text()
    assert all((f"trains {group}:" in log) == (group in groups) for group in params)
    records = metrics.read(context.work.path(stage, metrics.FILE))
    assert [np.isfinite(record["eval/ce"]) for record in records] == [True, True]
    assert records[-1]["eval/ce"] < records[0]["eval/ce"] + 1 and sum(records[-1]["top1_E"]) == 8
    assert summary["utterances"] == 16 and sum(summary["load"]) == pytest.approx(1, rel=1e-5)


def test_load_table_shows_each_cohort_in_percent():
    text = load_table(np.array([[3.0, 0.0], [1.0, 4.0]]), ["A", "B"], [0.5, 0.5], [0.9, 0.1])
    rows = [line.split() for line in text.splitlines()]
    assert rows[1][2:] == ["75.0", "0.0", "37.5", "50.0", "90.0"]
    assert rows[2][2:] == ["25.0", "100.0", "62.5", "50.0", "10.0"]
    assert "maximal load 0.625" in text and "largest top-1 share 0.900" in text


def test_the_gates_input_is_what_the_config_says():
    rng = np.random.default_rng(0)
    x_NU = rng.normal(size=(60, 4)) @ rng.normal(size=(4, 6)) + 3.0
    clusters = {"proj_mean": np.zeros(6), "proj_matrix": np.ones((6, 2))}
    section = types.SimpleNamespace(input="auto", input_dims=3)
    # of clusters; that of speakers is fitted anew (tests/job/test_published.py)
    cluster = types.SimpleNamespace(discriminant="cluster")
    context = types.SimpleNamespace(
        cfg=types.SimpleNamespace(gate=section, cluster=cluster),
        corpus=types.SimpleNamespace(manifest=None, rows=lambda part: np.arange(60)),
    )
    assert training._projection(context, clusters, x_NU)[1] is clusters["proj_matrix"]
    for name, width in (("raw", 6), ("pca", 3)):
        section.input = name
        mean_U, matrix_UK = training._projection(context, clusters, x_NU)
        seen_NK = (x_NU - mean_U) @ matrix_UK
        assert seen_NK.shape == (60, width)
        np.testing.assert_allclose([seen_NK.mean(0), seen_NK.std(0)], [[0] * width, [1] * width], atol=1e-4)
    section.input = "discriminant"
    assert training._projection(context, clusters, x_NU)[1] is clusters["proj_matrix"]
    with pytest.raises(ValueError, match="gate.input is discriminant, but cluster.discriminant is none"):
        training._projection(context, {}, x_NU)


def test_class_weights_give_every_cluster_the_same_say():
    target_NE = np.eye(3)[[0] * 6 + [1] * 2 + [2]]
    weight_N = training._class_weights(target_NE)
    np.testing.assert_allclose(weight_N @ target_NE, 3.0)
    assert weight_N.mean() == pytest.approx(1)


def test_prior_is_the_share_of_each_cluster_and_never_zero():
    prior_E = training._prior(np.eye(3)[[0, 0, 0, 1]])
    np.testing.assert_allclose(prior_E, [0.75, 0.25, 0.001], atol=2e-3)
    assert prior_E.min() > 0 and prior_E.sum() == pytest.approx(1)
