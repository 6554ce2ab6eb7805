"""What stages hand to the one loop."""

import types

import numpy as np
import pytest
import tiny_whisper as tiny
from ml_collections import ConfigDict

from moejax.data.pipeline import BatchPlan
from moejax.training import fitting
from moejax.work import fields, sections
from moejax.work.folder import Work


@pytest.mark.parametrize("part", [0, 1])
def test_each_of_two_processes_loads_its_own_rows_of_a_batch(tmp_path, monkeypatch, part):
    graphdef, params = tiny.model()
    section = {**fields.defaults(fitting.TRAIN), "steps": 1, "warmup": 0}
    cfg = ConfigDict(
        {"seed": 0, "runtime": fields.defaults(sections.RUNTIME), "s": section, "mixture": {"second_rate": 1.0}}
    )
    corpus = types.SimpleNamespace(cfg=cfg, work=Work(tmp_path, quiet=True), mesh=tiny.single())
    plan = BatchPlan(lengths=np.ones(8, np.int64), buckets=(1,), batch_size=8)
    seen = []

    def fit(state, frozen, step_fn, batches, *_, **__):
        seen.append(next(batches.source))
        return state

    monkeypatch.setattr(fitting, "process_shard", lambda mesh: (part, 2))
    monkeypatch.setattr(fitting.loop, "fit", fit)
    training = fitting.Training("s", lambda *_: None, ("expert",), cfg.s, plan, lambda bucket, rows: rows.tolist())
    fitting.train(corpus, training, params)
    assert seen == [plan[0][1][4 * part : 4 * part + 4].tolist()]
