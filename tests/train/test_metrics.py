import json

import numpy as np
import pytest

from moejax.train import metrics


def test_float32_reads_back_the_same_bits():
    bits = np.random.default_rng(0).integers(0, 2**32, size=500, dtype=np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    back = np.array(json.loads(json.dumps(metrics.exact(values))), np.float32)
    assert np.array_equal(back, values)


def test_non_finite_values_are_valid_json(tmp_path):
    log = metrics.MetricLog(tmp_path)
    log.write(1, {"loss": np.float32(np.nan), "load": np.array([np.inf, 1.0], np.float32)}, seconds=0.5)
    log.close()
    line = (tmp_path / "metrics.jsonl").read_text()
    record = json.loads(line, parse_constant=lambda name: pytest.fail(f"bare {name}"))
    assert record == {"step": 1, "loss": "nan", "load": ["inf", 1.0], "seconds": 0.5}


def test_records_after_the_restored_step_and_a_cut_off_line_are_removed(tmp_path):
    log = metrics.MetricLog(tmp_path)
    for step in (1, 2, 3, 4):
        log.write(step, {"loss": np.float32(step)}, seconds=step)
    log.close()
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 5, "lo')
    log = metrics.MetricLog(tmp_path, start=2)
    log.write(3, {"loss": np.float32(33)}, seconds=1)
    log.close()
    assert [(r["step"], r["loss"]) for r in metrics.read(path)] == [(1, 1.0), (2, 2.0), (3, 33.0)]
    assert list(tmp_path.glob("events.out.tfevents.*"))
    assert not list(tmp_path.glob("*.partial"))


def test_a_bad_line_in_the_middle_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nnonsense\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl line 2"):
        metrics.MetricLog(tmp_path)


def test_reserved_name(tmp_path):
    log = metrics.MetricLog(tmp_path)
    with pytest.raises(ValueError, match="'seconds'"):
        log.write(1, {"seconds": 1.0}, seconds=0.0)
    log.close()
