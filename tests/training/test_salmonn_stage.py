"""configs/salmonn_7b.py on a folder of the published layout, tiny, and the embedded corpus: stage, systems, tables."""

import contextlib
import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import salmonn_folder
import tiny_job
import tiny_whisper
from ml_collections import ConfigDict

import moejax
from moejax.convert import hf_whisper
from moejax.errors import BadValue
from moejax.export import systems as export_systems
from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.ops import routing
from moejax.runtime import faults
from moejax.runtime.files import read_json
from moejax.systems import registry
from moejax.tasks import asr
from moejax.text.tokenizer import Tokenizer
from moejax.train.params_file import load_params
from moejax.training import salmonn

pytestmark = pytest.mark.job
CONFIG = Path(__file__).parents[2] / "configs" / "salmonn_7b.py"
WHISPER = dict(max_source_positions=150, hop=1600, max_target_positions=48)  # 30 s, as published
STEPS = {"alignment": 4, "instruction": 4, "activation": 2}
ALL = ("salmonn", "salmonn_lora", "salmonn_moe")


def job_of(folder, **changes):
    """The published config, with fewer of everything."""
    spec = importlib.util.spec_from_file_location("salmonn_7b", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    corpus = dict(speakers_per_cohort=1, utterances_per_speaker=6, typical_speakers=2, typical_utterances=6, prompts=12)
    settings = {
        "data.source": "builtin",
        "data.options": {**corpus, "cohorts": ("typical", "tremor")},
        "model.pretrained": str(folder / "whisper"),
        "model.dtype": "float32",
        "model.weights": "float32",
        "embed.pooling": "mean_std",
        "cluster.refits": 0,
        "cluster.method": "kmeans",
        "cluster.layers": (),
        "gate.num_experts": 2,
        "gate.steps": 2,
        "experts.steps": 0,
        "joint.steps": 0,
        "adapters.kinds": (),
        "salmonn.folder": str(folder),
        **{f"salmonn.{lesson}": steps for lesson, steps in STEPS.items()},
        "salmonn.batch_size": 4,
        "salmonn.warmup": 1,
        "salmonn.learning_rate": 1e-2,
        "salmonn.checkpoint_every": 2,
        "salmonn.log_every": 1,
        "salmonn.beams": 2,
        "salmonn.most": 6,
        "evaluate.systems": ALL,
        "evaluate.batch_size": 4,
        "translate.backends": ("none",),
        "report.draws": 5,
        "report.figures": False,
        "mesh.fsdp": 1,
        "runtime.workers": 0,
    }
    cfg = module.get_config()
    for path, value in {**settings, **{key.replace("__", "."): value for key, value in changes.items()}}.items():
        section, key = path.split(".")
        if section not in cfg:
            cfg[section] = ConfigDict()
        cfg[section][key] = ConfigDict(value) if isinstance(value, dict) else value
    return cfg


def write_folder(place):
    """whisper/ with a vocabulary, llama/, BEATs and checkpoint."""
    salmonn_folder.write(place)
    vocabulary = Tokenizer.train(tiny_job.sentences(60, 0), 2000, languages=("en", "de"), timestamps_seconds=30)
    config = dataclasses.replace(salmonn_folder.tiny.WHISPER, vocab_size=vocabulary.vocab_size, **WHISPER)
    _, params = asr.init(asr.build(config, seed=1))
    hf_whisper.save(place / "whisper", config, {group: params[group] for group in ("backbone", "buffer")}, vocabulary)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """model/ and the finished workdirs W/, and K/, whose stage salmonn was broken off twice."""
    place = tmp_path_factory.mktemp("salmonn_job")
    with contextlib.chdir(place), tiny_job.quick():
        (place / "model").mkdir()
        cfg = job_of(write_folder(place / "model"))
        moejax.run(cfg, "W", "gate", quiet=True)
        tiny_job.shutil.copytree("W", "K")
        moejax.run(cfg, "W", quiet=True)
        for fault in ("train.step:3=raise", "train.step:11=raise"):  # in the first lesson, in the second system
            faults.arm(fault)
            with pytest.raises(OSError, match="No space left"):
                moejax.run(cfg, "K", "salmonn", quiet=True)
        faults.arm("")
        moejax.run(cfg, "K", "salmonn", quiet=True)
    return place


@pytest.fixture(scope="module")
def context(folder):
    return open_context(folder / "W")


def test_a_training_that_was_killed_ends_in_the_same_bits(folder):
    for name in ALL[1:]:
        whole, broken = (load_params(folder / work / "salmonn" / name / salmonn.FILE)[0] for work in "WK")
        assert not any(tiny_whisper.changed(whole, broken).values())
        for lesson, steps in STEPS.items():
            lines = tiny_job.records(folder / "K" / "salmonn" / name / lesson / "metrics.jsonl")
            assert [line["step"] for line in lines] == list(range(1, steps + 1))


def test_what_is_frozen_is_the_folders_and_what_learns_moves(context):
    parts = salmonn.parts_of(context)
    published = registry.open_system(context, "salmonn").network.params
    for name, learns in (("salmonn_lora", ("head", "expert")), ("salmonn_moe", ("head", "expert", "gate"))):
        opened = registry.open_system(context, name)
        moved = tiny_whisper.changed(
            {"backbone": parts.params["backbone"]}, {"backbone": opened.network.params["backbone"]}
        )
        assert moved and not any(moved.values())
        begins = salmonn.built(context, parts, name)[1]
        for group in learns:
            assert any(tiny_whisper.changed({group: begins[group]}, {group: opened.network.params[group]}).values())
        assert opened.trainable == sum(opened.network.count(group) for group in learns)
        assert opened.network.experts.alpha == 16.0  # the last lesson's half
    assert not any(tiny_whisper.changed({"head": parts.params["head"]}, {"head": published["head"]}).values())


def test_the_mixture_begins_as_the_checkpoint_whatever_the_gate_says(context):
    parts = salmonn.parts_of(context)
    _, one, lora, _ = salmonn.built(context, parts, "salmonn")
    _, many, mixture, _ = salmonn.built(context, parts, "salmonn_moe")
    assert (mixture.num_experts, lora.num_experts, mixture.rank, mixture.alpha) == (2, 1, lora.rank, lora.alpha)
    weight_E = routing.dense_weights(mixture.route(np.array([[0.7, -0.4]], np.float32)), 2)[0]
    theirs, ours = functional.paths(one["expert"]), functional.paths(many["expert"])
    layers = [path[:-1] for path in theirs if path.endswith("/A")]
    assert len(layers) == 4
    for layer in layers:
        update = np.einsum("e,edr,ero->do", weight_E, ours[layer + "A"], ours[layer + "B"])
        np.testing.assert_allclose(update, theirs[layer + "A"][0] @ theirs[layer + "B"][0], atol=1e-5)
    assert np.abs(update).max() > 0.1


def test_rows_of_both_tables(folder, context):
    rows = context.corpus.rows("test")
    systems = read_json(folder / "W" / "evaluate" / "systems.json")
    assert list(systems) == list(ALL) and systems["salmonn_moe"]["role"] == "mixture"
    table = (folder / "W" / "translate" / "table.md").read_text()
    for name in ALL:
        heard = tiny_job.records(folder / "W" / "evaluate" / f"{name}.jsonl")
        translated = tiny_job.records(folder / "W" / "translate" / f"{name}.end_to_end.jsonl")
        assert len(heard) == len(translated) == len(rows) and any(line["hypothesis"] for line in heard)
        assert f"| {name} " in table or f"{name}.end_to_end" in table
        assert f"| {name} |" in (folder / "W" / "report" / "table.md").read_text()
    lines = tiny_job.records(folder / "W" / "evaluate" / "salmonn_moe.jsonl")
    assert all(len(line["route"]) == 2 and abs(sum(line["route"]) - 2) < 1e-3 for line in lines)


def test_what_runs_recognisers_leaves_them_alone(folder, context):
    assert registry.best(context.work, "translate").name not in ALL
    with pytest.raises(BadValue, match="salmonn_moe is a language model that hears"):
        moejax.load(folder / "W", system="salmonn_moe")
    with pytest.raises(BadValue, match="salmonn_lora is a language model that hears: what it learnt is in"):
        export_systems.check_system(context, "salmonn_lora")
