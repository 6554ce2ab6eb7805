"""A hypothesis is its utterance's own, whatever it is decoded beside; and dev WER as training sees it."""

import contextlib
import json

import numpy as np
import pytest
import tiny_job

import moejax
from moejax.job.opening import open_context
from moejax.score import wer
from moejax.systems import evaluate, registry
from moejax.tasks import recognition
from moejax.train import metrics

pytestmark = pytest.mark.job

SYSTEMS = ("base", "lora", "moe", "moe_enrolled", "moe_random_gate", "moe_shuffled_gate")


@pytest.fixture(scope="module", autouse=True)
def job(tmp_path_factory):
    done = tiny_job.shared(tmp_path_factory)
    with contextlib.chdir(done), tiny_job.quick():
        yield done / "W"


@pytest.fixture(scope="module")
def context(job):
    return open_context(job)


def decoded(context, name, rows, batch_size, workers=0):
    """{id: (hypothesis, route)}"""
    context.cfg.evaluate.batch_size, context.cfg.runtime.workers = batch_size, workers
    records = evaluate.decode(context, registry.open_system(context, name), rows)
    assert len(records) == len(rows)
    return {record["id"]: (record["hypothesis"], record["route"]) for record in records}


@pytest.mark.parametrize("name", SYSTEMS)
def test_neither_batches_nor_order_nor_workers_change_a_hypothesis(context, name):
    rows = context.corpus.rows("test")
    whole = decoded(context, name, rows, 16)
    assert len({text for text, _ in whole.values()}) > 4
    for other in (decoded(context, name, rows[::-1], 16), decoded(context, name, rows, 16, workers=2)):
        assert other == whole  # the last bit of the route too
    for size in (1, 3, 32):
        other = decoded(context, name, rows, size)
        assert {key: text for key, (text, _) in other.items()} == {key: text for key, (text, _) in whole.items()}
        for key, (_, route) in whole.items():
            assert other[key][1] == pytest.approx(route, abs=2e-6)  # other shapes round otherwise
    part = decoded(context, name, rows[::3], 16)
    assert part == {key: whole[key] for key in part}


def test_rows_that_say_more_than_is_usual_are_decoded_again_among_their_like(context, monkeypatch):
    rows = context.corpus.rows("test")
    whole = decoded(context, "moe", rows, 16)
    lengths = [len(context.base.tokenizer.encode(text)) for text, _ in whole.values()]
    middle = int(np.median(lengths))
    assert min(lengths) < middle < max(lengths)
    made, given = recognition.make_predict, []

    def watched(*args, **kwargs):
        predict = made(*args, **kwargs)

        def run(*operands, limit_B, **more):
            given.append(limit_B)
            return predict(*operands, limit_B=limit_B, **more)

        return run

    monkeypatch.setattr(recognition, "make_predict", watched)
    monkeypatch.setattr(evaluate, "usual", lambda seconds: np.full(np.shape(seconds), middle))
    evaluate._predictor.cache_clear()
    assert decoded(context, "moe", rows, 16) == whole
    room = context.max_tokens()
    again = sum(int((limit_B == room).sum()) for limit_B in given)
    assert again == sum(length >= middle for length in lengths)  # nobody else
    assert sum(int((limit_B == middle).sum()) for limit_B in given) == len(rows)
    evaluate._predictor.cache_clear()


def test_the_best_step_is_the_one_that_reads_dev_best(job, tmp_path):
    copy = tiny_job.copy(job.parent, tmp_path)
    with contextlib.chdir(copy):
        moejax.run(tiny_job.config(joint__best="wer", joint__steps=12, joint__evals=4), "W", ["joint"], quiet=True)
    work = copy / "W" / "joint"
    scores = {r["step"]: r["eval/wer"] for r in metrics.read(work / metrics.FILE) if "eval/wer" in r}
    assert sorted(scores) == [3, 6, 9, 12]
    best = json.loads((work / "checkpoints" / "best.json").read_text())
    assert best["score"] == pytest.approx(scores[best["step"]]) == pytest.approx(min(scores.values()))
    # The last score, by the way that the table is made: dev is no more than one batch here.
    with contextlib.chdir(copy):
        context = open_context(copy / "W")
        records = evaluate.decode(context, registry.open_system(context, "moe"), context.corpus.rows("dev"))
    assert len(records) <= 16
    counts = wer.count([r["reference"] for r in records], [r["hypothesis"] for r in records])
    assert scores[12] == pytest.approx(wer.rate(counts))


def _decoded(monkeypatch) -> dict[str, list[str]]:
    """{system: ids of what is decoded from now on}."""
    stream, seen = evaluate.stream, {}

    def seeing(context, system, rows, fronts=None):
        seen[system.name] = [str(one) for one in context.corpus.manifest.column("id")[rows]]
        return stream(context, system, rows, fronts)

    monkeypatch.setattr(evaluate, "stream", seeing)
    return seen


def _texts(folder) -> dict:
    return {
        path.stem: [(r["id"], r["hypothesis"], r["route"]) for r in tiny_job.records(path)]
        for path in folder.glob("*.jsonl")
    }


def test_a_stage_that_was_stopped_goes_on_with_the_next_utterance(job, tmp_path, monkeypatch):
    copy = tiny_job.copy(job.parent, tmp_path)
    folder = copy / "W" / "evaluate"
    whole, seen = _texts(folder), _decoded(monkeypatch)
    for name in ("done.json", "systems.json", "moe_enrolled.jsonl"):
        (folder / name).unlink()
    file = folder / "moe.jsonl"
    file.write_bytes(file.read_bytes()[:-9])  # the last line was not whole yet
    with contextlib.chdir(copy):
        moejax.run(tiny_job.config(), "W", ["evaluate"], quiet=True)
    ids = [one for one, *_ in whole["moe"]]
    assert seen == {"moe": ids[-1:], "moe_enrolled": ids}
    assert _texts(folder) == whole
    systems = json.loads((folder / "systems.json").read_text())
    assert set(systems) == set(whole) and all(s["seconds"] > 0 for s in systems.values())


def test_another_table_keeps_the_lines_that_are_the_same_in_it(job, tmp_path, monkeypatch):
    copy = tiny_job.copy(job.parent, tmp_path)
    whole, seen = _texts(copy / "W" / "evaluate"), _decoded(monkeypatch)
    config = tiny_job.config()
    config.evaluate.systems = ("base", "moe")
    config.evaluate.strength = 0.5
    with contextlib.chdir(copy):
        moejax.run(config, "W", ["evaluate"], quiet=True)
    assert set(seen) == {"moe"}  # with half of what it learnt; the base has learnt nothing
    now = _texts(copy / "W" / "evaluate")
    assert set(now) == {"base", "moe"} and now["base"] == whole["base"]


def test_a_speakers_adapter_decodes_its_own_speaker_and_all_if_asked(job, context):
    rows, speaker = context.corpus.rows("test"), context.corpus.manifest.column("speaker")
    adapter, cohort = (registry.find(context.work, name) for name in ("lora_ann", "lora_breathy"))
    own = evaluate.own_rows(context, rows, adapter)
    assert 0 < len(own) < len(rows) and set(speaker[own]) == {"ann"}
    assert list(evaluate.own_rows(context, rows, cohort)) == list(rows)
    assert len(tiny_job.records(job / "evaluate" / "lora_ann.jsonl")) == len(own)
    scope, context.cfg.evaluate.speaker_scope = context.cfg.evaluate.speaker_scope, "all"
    try:
        assert list(evaluate.own_rows(context, rows, adapter)) == list(rows)
    finally:
        context.cfg.evaluate.speaker_scope = scope
