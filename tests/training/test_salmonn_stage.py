"""configs/salmonn_7b.py on a folder of the published layout, tiny, and a corpus of tones: stage, systems, tables."""

import contextlib
import dataclasses
import importlib.util
import re
from pathlib import Path

import jax
import numpy as np
import pytest
import salmonn_folder
import tiny_job
import tiny_whisper
from ml_collections import ConfigDict

import moejax
from moejax.__main__ import guarded
from moejax.cohorts import embed
from moejax.convert import hf_whisper
from moejax.errors import BadValue, NotThere
from moejax.export import systems as export_systems
from moejax.job import config as configs
from moejax.job import opening
from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.ops import routing
from moejax.runtime import faults
from moejax.runtime.files import read_json
from moejax.systems import registry
from moejax.tasks import asr, audio_llm
from moejax.text.tokenizer import Tokenizer
from moejax.train.params_file import load_params
from moejax.training import audio_states, gate_inputs, salmonn, st
from moejax.work.context import Context
from moejax.work.folder import Work

pytestmark = pytest.mark.job
CONFIG = Path(__file__).parents[2] / "configs" / "salmonn_7b.py"
STEPS = {"alignment": 0, "instruction": 0, "activation": 3}
ALL = ("salmonn", "salmonn_moe")  # salmonn_lora learns in a folder of its own


def job_of(folder, **changes):
    """The published config, with fewer of everything."""
    spec = importlib.util.spec_from_file_location("salmonn_7b", CONFIG)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = {
        "data.root": str(folder.parent / "corpus"),
        "data.columns": {"audio": "file"},
        "data.sample_share": 0.5,
        "model.pretrained": str(folder / "whisper"),
        "model.buckets": (1.0,),
        "model.dtype": "float32",
        "model.weights": "float32",
        "embed.pooling": "mean_std",
        "cluster.refits": 0,
        "cluster.method": "kmeans",
        "cluster.layers": (),
        "gate.num_experts": 2,
        "gate.steps": 0,
        "experts.steps": 0,
        "joint.steps": 0,
        "adapters.kinds": (),
        "salmonn.folder": str(folder),
        "salmonn.systems": ALL,
        **{f"salmonn.{lesson}": steps for lesson, steps in STEPS.items()},
        "salmonn.batch_size": 4,
        "salmonn.warmup": 1,
        "salmonn.learning_rate": 1e-2,
        "salmonn.checkpoint_every": 1,
        "salmonn.log_every": 1,
        "salmonn.beams": 1,
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
    salmonn_folder.write(place, salmonn_folder.tiny.SMALL)
    vocabulary = Tokenizer.train(tiny_job.sentences(60, 0), 2000)
    config = dataclasses.replace(salmonn_folder.tiny.WHISPER, vocab_size=vocabulary.vocab_size)
    _, params = asr.init(asr.build(config, seed=1))
    hf_whisper.save(place / "whisper", config, {group: params[group] for group in ("backbone", "buffer")}, vocabulary)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """model/ and the finished workdirs W/, and K/, whose mixture was broken off."""
    place = tmp_path_factory.mktemp("salmonn_job")
    with contextlib.chdir(place), tiny_job.quick():
        (place / "model").mkdir()
        tiny_job.write_corpus(place / "corpus", per_speaker=4)
        cfg = job_of(write_folder(place / "model"))
        moejax.run(cfg, "W", "gate", quiet=True)
        tiny_job.shutil.copytree("W", "K")
        moejax.run(cfg, "W", quiet=True)
        alone = job_of(place / "model", salmonn__systems=("salmonn_moe",), evaluate__systems=("salmonn_moe",))
        faults.arm("train.step:2=raise")
        try:
            with pytest.raises(OSError, match="No space left"):
                moejax.run(alone, "K", "salmonn", quiet=True)
        finally:
            faults.arm("")
        moejax.run(alone, "K", "salmonn", quiet=True)
    return place


@pytest.fixture(scope="module")
def context(folder):
    return open_context(folder / "W")


def test_a_training_that_was_killed_ends_in_the_same_bits(folder):
    whole, broken = (load_params(folder / work / "salmonn" / ALL[1] / salmonn.FILE)[0] for work in "WK")
    assert not any(tiny_whisper.changed(whole, broken).values())
    for lesson, steps in STEPS.items():
        if not steps:
            continue
        found = [tiny_job.records(folder / work / "salmonn" / ALL[1] / lesson / "metrics.jsonl") for work in "WK"]
        assert all([line["step"] for line in lines] == list(range(1, steps + 1)) for lines in found)
        assert [line["loss"] for line in found[0]] == [line["loss"] for line in found[1]]


def test_what_is_frozen_is_the_folders_and_what_learns_moves(context):
    parts = salmonn.parts_of(context)
    published = registry.open_system(context, "salmonn").network.params
    opened = registry.open_system(context, "salmonn_moe")
    moved = tiny_whisper.changed(
        {"backbone": parts.params["backbone"]}, {"backbone": opened.network.params["backbone"]}
    )
    assert moved and not any(moved.values())
    begins, learns = salmonn.built(context, parts, "salmonn_moe")[1], ("head", "expert", "gate")
    for group in learns:
        assert any(tiny_whisper.changed({group: begins[group]}, {group: opened.network.params[group]}).values())
    assert opened.trainable == opened.network.count(*learns)
    assert opened.network.experts.alpha == 16.0  # activation's half, which answers keep
    assert not any(tiny_whisper.changed({"head": parts.params["head"]}, {"head": published["head"]}).values())


def test_the_mixture_begins_as_the_checkpoint_whatever_the_gate_says(context):
    parts = salmonn.parts_of(context)
    _, one, lora, _ = salmonn.built(context, parts, "salmonn")
    _, many, mixture, _ = salmonn.built(context, parts, "salmonn_moe")
    assert (mixture.num_experts, lora.num_experts, mixture.rank, mixture.alpha) == (2, 1, lora.rank, lora.alpha)
    weight_E = routing.dense_weights(mixture.route(np.array([[0.7, -0.4]], np.float32)), 2)[0]
    theirs, ours = functional.paths(one["expert"]), functional.paths(many["expert"])
    layers = [path[:-1] for path in theirs if path.endswith("/A")]
    assert len(layers) == 2
    for layer in layers:
        update = np.einsum("e,edr,ero->do", weight_E, ours[layer + "A"], ours[layer + "B"])
        np.testing.assert_allclose(update, theirs[layer + "A"][0] @ theirs[layer + "B"][0], atol=1e-5)
    assert np.abs(update).max() > 0.1


def test_activation_halves_the_scale_and_kept_states_are_what_a_step_would_hear(folder):
    """The first step of the training, which had kept states, against one program that hears, on the whole scale."""
    with tiny_job.quick():
        context = open_context(folder / "W")
        parts, rows, texts = salmonn.parts_of(context), context.corpus.rows("train"), st.translations(context)
        graphdef, params, mixture, _ = salmonn.built(context, parts, "salmonn_moe")
        turns = salmonn.turns_of(context, rows, {row: texts[row] for row in rows.tolist()}, longer=True)
        states = audio_states.opened(context, parts, np.unique(rows))
        plan, fetch, most = salmonn.material(context, parts, turns, True, None)
        kept = salmonn.material(context, parts, turns, True, states)[1](*plan[0])
    row, batch = asr.Row(route="gate", scored=most), fetch(*plan[0])
    loss_fn = audio_llm.make_loss(graphdef, row, mixture=mixture)
    run = jax.jit(lambda *given: loss_fn(*given, jax.random.key(0))[1]["ce"])
    flat = functional.paths(params["expert"])
    expert = functional.nest({path: leaf / 2 if path.endswith("/B") else leaf for path, leaf in flat.items()})
    logged = tiny_job.records(folder / "W" / "salmonn" / ALL[1] / "activation" / "metrics.jsonl")[0]["ce"]
    halved = {**params, "expert": expert}
    assert float(run(halved, batch)) == pytest.approx(logged, rel=1e-5)
    assert abs(run(params, batch) - logged) > 1e-3 * logged
    silent = dataclasses.replace(batch, audio_BS=np.zeros_like(batch.audio_BS))
    assert abs(run(halved, silent) - logged) > 1e-4 * logged  # a control: what is heard matters ten times more
    assert kept.audio_BS.shape[1] == 0 and kept.states_BTD.shape[1:] == (parts.config.frames, 24 + 16)
    for b in np.flatnonzero(batch.real_B):
        np.testing.assert_array_equal(kept.states_BTD[b], states(turns[plan[0][1][b]].row))
    assert np.abs(kept.states_BTD - kept.states_BTD[:1]).max() > 1e-3


def test_states_are_heard_once_for_all_systems_and_runs(folder):
    for work in "WK":  # K was broken off and began again
        said = (folder / work / "log.txt").read_text()
        assert len(re.findall(r"states of (\d+) of \1 utterances for salmonn heard", said)) == 1


def test_ask_says_what_the_table_says(folder, context, capsys):
    (line,) = tiny_job.records(folder / "W" / "evaluate" / "salmonn_moe.jsonl")
    rows = np.concatenate([context.corpus.rows("test"), context.corpus.rows("train")[:2]])
    waves, file = [context.corpus.audio[row] for row in rows], context.corpus.manifest.paths()[rows[0]]
    known = gate_inputs.embeddings_of(context, rows)
    np.testing.assert_allclose(embed.of_recordings(context)(waves), known, atol=1e-4)
    assert np.abs(known[1:] - known[0]).max(1).min() > 0.01
    asked = opening.open_answerer(folder / "W")
    np.testing.assert_allclose(routing.dense_weights(asked.routes(waves[:1]), 2)[0], line["route"], atol=1e-4)
    argv = ["ask", str(file), "--model", str(folder / "W"), "--task", "transcribe", "--beams", "1", "--most", "6"]
    assert guarded(argv) == 0 and capsys.readouterr().out == f"{line['hypothesis']}\n"
    assert guarded([*argv, "--system", "base"]) == 1
    assert "base is a recogniser, which answers no questions; salmonn, salmonn_moe do" in capsys.readouterr().err


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
    with pytest.raises(BadValue, match="salmonn_moe is a language model that hears: what it learnt is in"):
        export_systems.check_system(context, "salmonn_moe")


def test_lessons_ask_for_texts_then_for_translations_then_for_long_answers(context):
    rows, translated = context.corpus.rows("train"), st.translations(context)
    first = salmonn.turns_of(context, rows, {})
    assert {turn.question for turn in first} == {audio_llm.QUESTIONS["transcribe"]} and len(first) == len(rows)
    second = salmonn.turns_of(context, rows, translated)
    german = [turn for turn in second if turn.question == audio_llm.QUESTIONS["translate_de"]]
    assert len(second) == 2 * len(rows) and [turn.answer for turn in german] == [translated[row][0] for row in rows]
    third = salmonn.turns_of(context, rows, translated, longer=True)
    left = [turn for turn in second if turn not in third]
    assert len(third) == len(rows) and min(len(one.answer) for one in third) >= max(len(one.answer) for one in left)


def test_a_folder_without_a_checkpoint_begins_fresh_and_one_lora_learns(folder, context, tmp_path):
    for name in ("whisper", "llama", "BEATs_iter3.pt"):
        (tmp_path / name).symlink_to(folder / "model" / name)
    with pytest.raises(BadValue, match=r"has 'salmonn', the checkpoint as published; .* has none"):
        salmonn.run(configs.resolve(job_of(folder / "model", salmonn__folder=str(tmp_path))), context.work)
    (tmp_path / "BEATs_iter3.pt").unlink()  # one that is fresh may do without
    own = {"systems": ("salmonn_lora", "salmonn_moe"), "connector": "pooled", "rank": 3}
    changes = {f"salmonn__{key}": value for key, value in {**own, "folder": str(tmp_path)}.items()}
    tiny_job.shutil.copytree(context.work.root, tmp_path / "F")
    cfg = configs.resolve(job_of(folder / "model", evaluate__systems=ALL[1:], **changes))
    fresh = Context(cfg, Work(tmp_path / "F", quiet=True))
    parts = salmonn.parts_of(fresh)
    _, params, mixture, _ = salmonn.built(fresh, parts, "salmonn_moe")
    assert (parts.rank, mixture.rank, salmonn.heard(parts)) == (0, 3, 25)
    flat = functional.paths(params["expert"])
    assert not any(np.any(leaf) for path, leaf in flat.items() if path.endswith("/B"))
    assert set(functional.paths(params["head"])) == {f"connector/project/{name}" for name in ("kernel", "bias")}
    begins = salmonn.built(fresh, parts, "salmonn_lora")[1]
    with tiny_job.quick(), cfg.unlocked():
        cfg.salmonn.systems, cfg.salmonn.activation = ("salmonn_lora",), 2
        salmonn.run(cfg, fresh.work)
    learnt = load_params(fresh.work.path("salmonn", "salmonn_lora", salmonn.FILE))[0]
    assert set(learnt) == {"head", "expert"} and salmonn.index_of(fresh.work)["salmonn_lora"]["scale"] == 0.5
    moved = tiny_whisper.changed({group: begins[group] for group in learnt}, learnt)
    assert all(change for path, change in moved.items() if not path.endswith("/A"))  # which wait for B


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"salmonn__folder": ""}, "salmonn.systems needs salmonn.folder"),
        ({f"salmonn__{lesson}": 0 for lesson in STEPS}, "are 0: nothing would be learnt"),
        ({"translate__target": "xx"}, "'translate.target' is 'xx'"),
        (
            {"gate__kind": "token", "salmonn__activation": 2},
            "lowers the experts' scale, which gate.kind = token does not let",
        ),
        ({"salmonn__systems": ("salmonn",)}, "'salmonn_moe', which salmonn.systems does not have"),
        ({"gate__num_experts": 0, "evaluate__systems": ()}, "no mixture; 'salmonn.systems' has 'salmonn_moe'"),
    ],
)
def test_keys_that_mean_nothing_together(folder, changes, words):
    with pytest.raises(BadValue, match=words):
        configs.resolve(job_of(folder / "model", **changes))


def test_no_folder_is_refused_before_any_stage(folder):
    cfg = configs.resolve(job_of(folder / "model", salmonn__folder="nowhere"))
    with pytest.raises(NotThere, match=r"salmonn\.folder: no folder 'nowhere'"):
        salmonn.STAGE.outside(cfg)
