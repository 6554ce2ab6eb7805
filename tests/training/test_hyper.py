"""Hypernetworks in a job: what they train on, what their views are, and what becomes of them after it."""

import dataclasses

import numpy as np
import pytest
import tiny_job

import moejax
from moejax.job import graph
from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.runtime.files import read_json
from moejax.systems import registry
from moejax.train.params_file import load_params
from moejax.training import gate_inputs, hyper
from moejax.work.folder import Work

pytestmark = pytest.mark.job

CHANGES = {
    "hyper__systems": ("hyper_AB", "moe_hyper_AB", "lora_AB"),
    "hyper__cohorts": ("clear",),
    "hyper__steps": 8,
    "hyper__batch_size": 16,
    "hyper__atoms": 3,
    "hyper__routed": 2,
    "hyper__code": 4,
    "hyper__hidden": 8,
    "hyper__log_every": 1,
    "hyper__warmup": 0,
    "hyper__learning_rate": 0.02,
    "evaluate__systems": (
        "hyper_AB",
        "hyper_AB_enrolled",
        "hyper_AB_mean_condition",
        "moe_hyper_AB",
        "moe_hyper_AB_enrolled",
        "lora_AB",
    ),
}


@pytest.fixture(autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The tiny job with hypernetworks trained on the clear cohort, and {stage: rows of the manifest that it heard}."""
    folder = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path_factory.mktemp("hyper"))
    heard = set()
    collate = hyper.Context.collator

    def listening(context, rows, *arguments, **options):
        made = collate(context, rows, *arguments, **options)
        audio = made.of.audio
        noted = lambda index: (heard.add(int(rows[index])), audio(index))[1]  # noqa: E731 - one line, used once
        made.of = dataclasses.replace(made.of, audio=noted)
        return made

    with pytest.MonkeyPatch.context() as patch, tiny_job.quick():
        patch.chdir(folder)
        patch.setattr(hyper.Context, "collator", listening)
        moejax.run(tiny_job.config(**CHANGES), "W", "hyper", quiet=True)
        trained_on = set(heard)
        moejax.run(tiny_job.config(**CHANGES), "W", "evaluate", quiet=True)
    return folder, trained_on


@pytest.fixture(scope="module")
def work(job):
    return Work(job[0] / "W", quiet=True)


@pytest.fixture(scope="module")
def context(job, work):
    return open_context(work.root)


def test_utterances_of_other_cohorts_are_never_heard_in_training_and_all_are_tested(job, work, context):
    cohort, split = context.corpus.manifest.column("cohort"), context.corpus.manifest.column("split")
    heard = np.array(sorted(job[1]))
    assert set(cohort[heard]) == {"clear"} and set(split[heard]) == {"train"} and len(heard) > 20
    for name in CHANGES["evaluate__systems"]:
        lines = tiny_job.records(work.path("evaluate", f"{name}.jsonl"))
        assert len(lines) == len(context.corpus.rows("test"))
    index = read_json(work.path("hyper", "index.json"))
    assert all(entry["cohorts"] == ["clear"] for entry in index.values())
    # A control of the same size, or a little more.
    sizes = {name: entry["trainable"] for name, entry in index.items()}
    assert max(sizes.values()) == sizes["lora_AB"] < 1.5 * sizes["hyper_AB"]
    assert 0.9 < sizes["moe_hyper_AB"] / sizes["hyper_AB"] < 1.1


def test_conditions_are_seen_through_the_training_cohorts_alone(context):
    mean_U, matrix_UK = hyper._projection(context, hyper.training_rows(context, "hyper_AB"))
    found = load_params(context.work.path("hyper", "hyper_AB", "params.safetensors"))[0]["buffer"]["gate"]
    np.testing.assert_array_equal(found["mean"], mean_U)
    np.testing.assert_array_equal(found["matrix"], matrix_UK)
    assert not np.allclose(mean_U, hyper._projection(context, context.corpus.rows("train"))[0])


def test_only_evaluate_and_what_follows_depend_on_the_stage_and_nothing_where_it_is_idle(job):
    plain, asked = (graph.configs.resolve(tiny_job.config(**changes)) for changes in ({}, CHANGES))
    passed = dict.fromkeys(graph.STAGES, "x")
    for name in graph.STAGES:
        with_it = "stage hyper" in graph.stage_inputs(name, asked, passed)
        assert with_it == (name == "evaluate") and "stage hyper" not in graph.stage_inputs(name, plain, passed)
    changed = graph.configs.resolve(tiny_job.config(mixture__rank=3))
    assert graph.stage_inputs("hyper", changed, passed) == graph.stage_inputs("hyper", plain, passed)


def test_views_are_the_same_network_on_other_conditions(context):
    own, enrolled, mean = (
        registry.open_system(context, f"hyper_AB{view}").network for view in ("", "_enrolled", "_mean_condition")
    )
    for other in (enrolled, mean):
        flat = functional.paths(other.params)
        assert all(np.array_equal(flat[path], leaf) for path, leaf in functional.paths(own.params).items())
    assert own.logits_NE is None and np.ptp(mean.logits_NE, axis=0).max() == 0
    speaker = context.corpus.manifest.column("speaker")
    rows = np.flatnonzero(speaker == "ann")
    within = np.ptp(enrolled.logits_NE[rows], axis=0).max()
    assert 0 < within and np.ptp(enrolled.logits_NE, axis=0).max() > within


def test_who_is_enrolled_is_known_by_other_utterances_than_the_one_that_is_read(context, monkeypatch):
    everything = np.arange(len(context.corpus.manifest))
    marks_NU = np.eye(len(everything), dtype=np.float32)  # an embedding that says which utterance it is
    monkeypatch.setattr(gate_inputs, "embeddings_of", lambda context, rows: marks_NU[rows])
    found_NU = gate_inputs.enrolled_by(context, 3)
    speaker, split = context.corpus.manifest.column("speaker"), context.corpus.manifest.column("split")
    for row in everything:
        used = np.flatnonzero(found_NU[row])
        assert row not in used and len(used) == 3
        assert set(speaker[used]) == {speaker[row]} and set(split[used]) == {"train"}


def test_an_enrolled_recognizer_reads_by_the_voice_and_not_by_the_window(job, work, context):
    recognizer = moejax.load(work.root, "moe_hyper_AB")
    rows = context.corpus.rows("test")
    waves = [context.corpus.audio[int(row)] for row in rows[:6]]
    voice = [
        context.corpus.audio[int(row)] for row in np.flatnonzero(context.corpus.manifest.column("speaker") == "dan")[:3]
    ]
    enrolled = recognizer.enroll(voice)
    texts = enrolled.transcribe(waves)
    assert all(t.route == texts[0].route for t in texts)
    assert len({tuple(np.round(t.route, 4)) for t in recognizer.transcribe(waves)}) > 1  # nor has it changed the first
    # The condition is the mean of what the embed stage would make of each utterance.
    own = [recognizer.enroll(wave).network.logits_NE[0] for wave in voice]
    opened = registry.open_system(context, "moe_hyper_AB")
    means = gate_inputs.embeddings_of(context, np.flatnonzero(context.corpus.manifest.column("speaker") == "dan")[:3])
    gate = hyper.asr.make_gate(opened.network.graphdef)
    np.testing.assert_allclose(own, gate(opened.network.params, means), atol=2e-4)
    np.testing.assert_allclose(
        enrolled.network.logits_NE[0], gate(opened.network.params, means.mean(0)[None])[0], atol=2e-4
    )
    # One who is enrolled by the utterance that is then read hears what the utterance alone says.
    alone = recognizer.enroll(waves[0]).transcribe(waves[0])
    assert alone.text == recognizer.transcribe(waves[0]).text


def test_a_recognizer_enrolls_for_the_mixture_too_and_refuses_where_no_voice_matters(work, context):
    wave = context.corpus.audio[0]
    assert moejax.load(work.root, "moe").enroll([wave]).network.logits_NE.shape == (1, 3)
    with pytest.raises(ValueError, match="treats everybody alike"):
        moejax.load(work.root, "lora_AB").enroll([wave])
    with pytest.raises(ValueError, match="nothing can be heard in the 1 recordings"):
        moejax.load(work.root, "moe").enroll([np.zeros(16000, np.float32)])


def test_refusals_are_one_line_and_name_what_would_do(work, context):
    for changes, words in (
        ({"hyper__systems": ("hyper_XY",)}, "'hyper.systems'.*known: hyper, hyper_AB"),
        ({"hyper__form": "tree"}, "'hyper.form'.*bank, trunk"),
    ):
        with pytest.raises(ValueError, match=words):
            graph.configs.resolve(tiny_job.config(**changes))
    for cohorts, words in (((), "empty; there are breathy, clear"), (("A",), "'A'; the training part has breathy")):
        other = graph.configs.changed(context.cfg, {"hyper": {"cohorts": cohorts}})
        with pytest.raises(ValueError, match=words):
            hyper.training_rows(hyper.Context(other, context.work), "hyper_AB")
    other = graph.configs.changed(context.cfg, {"hyper": {"routed": 3}})
    with pytest.raises(ValueError, match="routed is 3; of 3 atoms .* at most 2"):
        hyper.definition(other, "moe_hyper_AB")
    other = graph.configs.changed(context.cfg, {"mixture": {"targets": (("decoder/layers/*/fc?", 2, 4.0),)}})
    with pytest.raises(ValueError, match="'decoder/layers/\\*/fc\\?' a rank of its own"):
        hyper.definition(other, "hyper_AB")
    other = graph.configs.changed(context.cfg, {"evaluate": {"strength": 0.5}})
    with pytest.raises(ValueError, match="evaluate.strength is 0.5; hyper_AB is a hypernetwork"):
        registry.open_system(hyper.Context(other, context.work), "hyper_AB")
    with pytest.raises(ValueError, match="load hyper_AB instead"):
        moejax.load(work.root, "hyper_AB_mean_condition")
