"""Short forms of the suites about hostile input; the long forms are `python -m tests.faults --only audio` and so on."""

import audio
import pytest

import configs


def all_survived(rows):
    for row in rows:
        assert row.tries and row.survived == row.tries, row.note


@pytest.mark.parametrize("seed", [11])
def test_broken_recordings_are_used_or_refused_under_a_reason(tmp_path, seed):
    all_survived(audio.run(80, tmp_path, seed))


@pytest.mark.parametrize("seed", [3])
def test_broken_configs_end_in_one_line_that_names_the_key(tmp_path, seed):
    drawn = configs.cases(400, seed)
    assert len({next(iter(values)) for kind, values, _ in drawn if kind == "wrong"}) > 200, "every key, once at least"
    for case in drawn:
        configs.refused(case, tmp_path, seed)
