"""Short forms of the suites about hostile input; the long forms are `python -m tests.faults --only audio` and so on."""

import audio
import broken_audio
import manifests
import pytest
import weights

import configs


def all_survived(rows):
    for row in rows:
        assert row.tries and row.survived == row.tries, row.note


@pytest.mark.parametrize("seed", [11])
def test_broken_recordings_are_used_or_refused_under_a_reason(tmp_path, seed):
    all_survived(audio.run(80, tmp_path, seed))


def test_a_track_whose_codec_is_unknown_is_unreadable(tmp_path):
    """A flipped bit in a container's header: PyAV then has a track without a rate."""
    (case,) = [case for case in broken_audio.cases(5000, 0) if case.number == 1971]
    assert case.kind == "flipped" and audio.gated(case, tmp_path)["said"] == "unreadable"


@pytest.mark.parametrize("seed", [3])
def test_broken_configs_end_in_one_line_that_names_the_key(tmp_path, seed):
    drawn = configs.cases(400, seed)
    assert len({next(iter(values)) for kind, values, _ in drawn if kind == "wrong"}) > 200, "every key, once at least"
    for case in drawn:
        configs.refused(case, tmp_path, seed)


@pytest.mark.parametrize("number", range(2 * len(manifests.KINDS)))
def test_broken_tables_end_in_one_line_before_any_work(tmp_path_factory, number):
    kind = list(manifests.KINDS)[number % len(manifests.KINDS)]
    folder = tmp_path_factory.getbasetemp() / "tables"
    folder.mkdir(exist_ok=True)
    manifests.read((kind, number), folder, 5)


@pytest.mark.parametrize("kind", weights.KINDS)
def test_damaged_weights_are_refused_in_one_line_and_run_nothing(tmp_path_factory, kind):
    folder = tmp_path_factory.getbasetemp() / "weights"
    folder.mkdir(exist_ok=True)
    for number in range(8):
        weights.loaded((kind, number), folder, 5)
