"""Short forms of the suites about hostile input; the long forms are `python -m tests.faults --only audio` and so on."""

import audio
import pytest


def all_survived(rows):
    for row in rows:
        assert row.tries and row.survived == row.tries, row.note


@pytest.mark.parametrize("seed", [11])
def test_broken_recordings_are_used_or_refused_under_a_reason(tmp_path, seed):
    all_survived(audio.run(80, tmp_path, seed))
