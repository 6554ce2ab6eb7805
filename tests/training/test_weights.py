"""Formats of the backbone in a job: which stages they touch, and that every system still decodes."""

import contextlib
import json

import jax
import numpy as np
import pytest
import tiny_job

import moejax
from moejax.job import graph, opening
from moejax.job.config import resolve
from moejax.ops.int8 import Int8Matrix

pytestmark = pytest.mark.job


def inputs(stage, **changes):
    needs = graph.STAGES[stage].needs
    return graph.stage_inputs(stage, resolve(tiny_job.config(**changes)), dict.fromkeys(needs, "same"))


@pytest.mark.parametrize("stage", graph.STAGES)
def test_only_stages_that_read_the_frozen_base_depend_on_its_format(stage):
    plain = inputs(stage)
    changed = inputs(stage, model__weights="int8") != plain
    assert changed == (stage in ("embed", "adapters"))  # the others depend on these
    assert (inputs(stage, evaluate__weights="int8") != plain) == (stage == "evaluate")


def test_a_finished_run_is_decoded_again_with_int8_weights_and_nothing_else_runs(tmp_path_factory, tmp_path):
    job = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path)
    before = tiny_job.records(job / "W" / "evaluate" / "moe.jsonl")
    finished = {file.parent.name: file.stat().st_mtime_ns for file in (job / "W").glob("*/done.json")}
    with contextlib.chdir(job), tiny_job.quick():
        moejax.run(tiny_job.config(evaluate__weights="int8"), "W", stages="evaluate", quiet=True)
        context = opening.open_context(job / "W", "int8")
    after = tiny_job.records(job / "W" / "evaluate" / "moe.jsonl")
    again = {
        file.parent.name
        for file in (job / "W").glob("*/done.json")
        if file.stat().st_mtime_ns != finished[file.parent.name]
    }
    assert again == {"evaluate"}
    assert [record["id"] for record in after] == [record["id"] for record in before]
    routes = [np.array([record["route"] for record in records]) for records in (before, after)]
    assert (routes[0] != routes[1]).any() and np.abs(routes[0] - routes[1]).mean() < 0.1
    assert json.loads((job / "W" / "evaluate" / "done.json").read_text())["inputs"]["evaluate.weights"] == "int8"
    leaves = jax.tree.leaves(context.base.params, is_leaf=lambda leaf: isinstance(leaf, Int8Matrix))
    assert sum(isinstance(leaf, Int8Matrix) for leaf in leaves) == 6 + 10


def test_a_recognizer_opens_with_either_format(tmp_path_factory):
    job = tiny_job.shared(tmp_path_factory)
    mel_BMN = np.random.default_rng(0).normal(size=(1, 40, 64)).astype(np.float32)
    with contextlib.chdir(job):
        states = {
            kind: moejax.load(job / "W" / "base" / "model", weights=kind).encode(mel_BMN)
            for kind in ("", "float32", "bfloat16", "int8")
        }
    np.testing.assert_array_equal(states[""], states["float32"])
    off = {kind: np.abs(states[kind] - states[""]).max() for kind in ("bfloat16", "int8")}
    assert 0 < off["bfloat16"] and 0 < off["int8"] < 0.2 * states[""].std()
