"""What leaves a workdir computes what the workdir computes, and its card says only what the workdir knows."""

import csv
import hashlib
import json
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_job

import moejax
from moejax.__main__ import guarded
from moejax.convert import hf_whisper, low_rank, peft_lora
from moejax.export import write
from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.ops import routing
from moejax.systems import registry
from moejax.training import gate_inputs, network
from moejax.types import Route

pytestmark = pytest.mark.job

TOKENS = np.array([[1, 5, 9, 2]], np.int32)
EXPERTS = 3
SPEAKERS = [speaker for names in tiny_job.SPEAKERS.values() for speaker in names]


@pytest.fixture(autouse=True)
def quick():
    with tiny_job.quick():
        yield


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tiny_job.shared(tmp_path_factory) / "W"


@pytest.fixture(scope="module")
def context(work):
    return open_context(work)


def mel(context):
    config = context.base.config
    return np.random.default_rng(0).normal(0, 1, (1, config.num_mel_bins, 40)).astype(np.float32)


def routed(context, system, weights):
    """Logits of a mixture for one route, by the network itself."""
    opened = registry.open_system(context, system)

    @jax.jit
    def run(params, mel_BNM, tokens_BL, weight_BE):
        model, route = functional.merge(opened.network.graphdef, params), Route(weight_BE)
        return model.decode(tokens_BL, model.encode(mel_BNM, route=route), route=route)

    mel_BNM = mel(context).transpose(0, 2, 1)
    return np.asarray(run(opened.network.params, mel_BNM, TOKENS, jnp.asarray([weights], jnp.float32)))


def exported(folder, context):
    return moejax.load(folder).logits(mel(context), TOKENS)


@pytest.mark.parametrize("system", ["base", "lora", "lora_total", "lora_breathy", "lora_dan"])
def test_a_system_as_a_hugging_face_folder_is_that_system(work, context, tmp_path, system):
    assert write.run(work, "hf", tmp_path / "m", system=system) == [tmp_path / "m"]
    want = moejax.load(work, system=system).logits(mel(context), TOKENS)
    np.testing.assert_allclose(exported(tmp_path / "m", context), want, atol=1e-5)
    base = moejax.load(work, system="base").logits(mel(context), TOKENS)
    assert system == "base" or np.abs(want - base).max() > 1e-3


@pytest.mark.parametrize("system", ["moe", "moe_frozen"])
@pytest.mark.parametrize("weights", [(0, 1, 0), (0.5, 0.25, 0.25)])
def test_a_route_as_a_hugging_face_folder_is_that_route(work, context, tmp_path, system, weights):
    write.run(work, "hf", tmp_path / "m", system=system, route=",".join(map(str, weights)))
    want = routed(context, system, weights)
    np.testing.assert_allclose(exported(tmp_path / "m", context), want, atol=1e-5)
    assert np.abs(want - routed(context, system, (1, 0, 0))).max() > 1e-3


def test_an_expert_is_its_one_hot_route(work, context, tmp_path):
    write.run(work, "hf", tmp_path / "m", route="expert:2")
    np.testing.assert_allclose(exported(tmp_path / "m", context), routed(context, "moe", (0, 0, 1)), atol=1e-5)


@pytest.mark.parametrize(
    ("route", "select"),
    [("average", {}), ("cohort:breathy", {"cohort": "breathy"}), ("speaker:ann", {"speaker": "ann"})],
)
def test_routes_of_groups_are_what_the_gate_gave_them(work, context, tmp_path, route, select):
    write.run(work, "hf", tmp_path / "m", route=route)
    rows = context.corpus.manifest.indices(split="train", **select)
    graphdef, params, mixture, _ = network.with_gate(context, "joint")
    given = []
    for vector in gate_inputs.embeddings_of(context, rows):  # one by one, and by the module itself
        logits_BE = functional.merge(graphdef, params).gate(jnp.asarray(vector[None], jnp.float32))
        given.append(np.asarray(routing.dense_weights(mixture.route(logits_BE), EXPERTS))[0])
    said = hf_whisper.settings(tmp_path / "m")
    np.testing.assert_allclose(said["route"], np.mean(given, axis=0), atol=1e-5)
    assert said["system"] == "moe" and next(iter(select.values()), "all training") in said["meaning"]
    np.testing.assert_allclose(exported(tmp_path / "m", context), routed(context, "moe", said["route"]), atol=1e-5)


def test_the_mean_gate_is_one_network_and_exports_as_it_was_scored(work, context, tmp_path):
    write.run(work, "hf", tmp_path / "m", system="moe_mean_gate")
    opened = registry.open_system(context, "moe_mean_gate")
    route = opened.network.mixture.route(jnp.asarray(opened.network.logits_NE[:1]))
    weights = np.asarray(routing.dense_weights(route, EXPERTS))[0]
    np.testing.assert_allclose(exported(tmp_path / "m", context), routed(context, "moe", weights), atol=1e-5)
    card = (tmp_path / "m" / "README.md").read_text()
    assert "for every utterance" in card and "not scored" not in card
    write.run(work, "peft", tmp_path / "m", system="moe_mean_gate")
    assert (tmp_path / "m" / "adapter_config.json").is_file()


def test_every_lora_of_the_workdir_is_a_peft_folder(work, context, tmp_path):
    folders = write.run(work, "peft", tmp_path / "all")
    names = [str(folder.relative_to(tmp_path / "all")) for folder in folders]
    mixed = [f"{s}/{p}" for s in ("moe_frozen", "moe") for p in (*(f"expert_{e}" for e in range(EXPERTS)), "shared")]
    adapters = ["lora", "lora_total", "lora_breathy", "lora_clear", "lora_merged"]
    adapters += [f"lora_{speaker}" for speaker in SPEAKERS]
    assert names == [*adapters, *mixed]
    card = (tmp_path / "all" / "README.md").read_text()
    assert all(f"({name}/README.md)" in card and (tmp_path / "all" / name / "README.md").is_file() for name in names)
    config, params = hf_whisper.load(context.base.folder)
    for name, weights in (("lora_clear", None), ("moe/expert_1", (0, 1, 0)), ("moe_frozen/expert_0", (1, 0, 0))):
        system = name.split("/")[0]
        used = [name, f"{system}/shared"] if weights else [name]
        now = params
        for one in used:
            now = low_rank.merged(now, peft_lora.load(tmp_path / "all" / one, config))
        hf_whisper.save(tmp_path / "m", config, now, tokenizer=context.base.tokenizer)
        alone = moejax.load(work, system=system).logits(mel(context), TOKENS) if weights is None else None
        want = alone if weights is None else routed(context, system, weights)
        np.testing.assert_allclose(exported(tmp_path / "m", context), want, atol=1e-5)


def test_one_mixture_or_one_route_of_it_as_peft(work, context, tmp_path):
    folders = write.run(work, "peft", tmp_path / "moe", system="moe")
    assert [f.name for f in folders] == ["expert_0", "expert_1", "expert_2", "shared"]
    config = hf_whisper.load_config(context.base.folder)
    assert write.run(work, "peft", tmp_path / "route", route="0.5,0,0.5") == [tmp_path / "route"]
    found = peft_lora.load(tmp_path / "route", config)
    network = registry.open_system(context, "moe").network
    expert, mixture = network.params["expert"], network.mixture
    for layer, update in low_rank.one_route(expert, (0.5, 0, 0.5), mixture.scales(low_rank.layers(expert))).items():
        np.testing.assert_array_equal(found[layer].delta(), update.delta())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_narrow_weights(work, context, tmp_path, dtype):
    write.run(work, "hf", tmp_path / "m", system="lora", dtype=dtype)
    assert json.loads((tmp_path / "m" / "config.json").read_text())["dtype"] == dtype
    wide = moejax.load(work, system="lora").logits(mel(context), TOKENS)
    np.testing.assert_allclose(exported(tmp_path / "m", context), wide, atol=0.2 if dtype == "bfloat16" else 0.03)


def test_the_card_says_what_the_workdir_knows(work, context, tmp_path):
    write.run(work, "hf", tmp_path / "m", system="lora")
    card = (tmp_path / "m" / "README.md").read_text()
    with open(work / "report" / "table.csv", encoding="utf-8") as file:
        row = next(r for r in csv.DictReader(file) if (r["system"], r["group"]) == ("lora", "all"))
    assert f"| all | all | {row['utterances']} | {100 * float(row['wer']):.1f} |" in card
    manifest = hashlib.sha256((work / "describe" / "manifest.parquet").read_bytes()).hexdigest()
    assert manifest in card and "trained from scratch by this run, size micro (120 steps)" in card
    assert "library_name: transformers" in card and "not scored" not in card
    assert "license:" not in card and "not stated" in card
    assert "hear as silence" in card and "320 samples" in card  # micro models are no standard Whisper
    write.run(work, "hf", tmp_path / "m", system="moe")
    assert "this export was not scored" in (tmp_path / "m" / "README.md").read_text()


def test_the_licence_is_the_configs(tmp_path_factory, tmp_path):
    job = tiny_job.copy(tiny_job.shared(tmp_path_factory), tmp_path)
    config = json.loads((job / "W" / "config.json").read_text())
    config["config"]["export"] = {"license": "cc-by-4.0"}
    (job / "W" / "config.json").write_text(json.dumps(config))
    shutil.rmtree(job / "W" / "report")
    write.run(job / "W", "peft", tmp_path / "m", system="lora")
    card = (tmp_path / "m" / "README.md").read_text()
    assert 'license: "cc-by-4.0"' in card and "Not measured: the run has no report" in card


def test_the_manifest_lists_every_file_with_its_digest(work, tmp_path):
    write.run(work, "peft", tmp_path / "m", system="moe")
    files = json.loads((tmp_path / "m" / "export.json").read_text())["files"]
    there = {p.relative_to(tmp_path / "m").as_posix() for p in (tmp_path / "m").rglob("*") if p.is_file()}
    assert there == {*files, "export.json"}
    assert all(hashlib.sha256((tmp_path / "m" / n).read_bytes()).hexdigest() == d for n, d in files.items())


def test_an_export_replaces_an_export_and_nobody_elses_files(work, tmp_path):
    write.run(work, "peft", tmp_path / "m", system="moe")
    write.run(work, "hf", tmp_path / "m", system="lora")
    assert not (tmp_path / "m" / "shared").exists() and (tmp_path / "m" / "config.json").is_file()
    (tmp_path / "m" / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="thesis.txt"):
        write.run(work, "hf", tmp_path / "m", system="lora")
    assert (tmp_path / "m" / "config.json").is_file() and [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_failed_export_leaves_the_earlier_one(work, tmp_path, monkeypatch):
    write.run(work, "hf", tmp_path / "m", system="lora")
    before = (tmp_path / "m" / "export.json").read_text()

    def broken(*_):
        raise OSError("disk full")

    monkeypatch.setattr(write, "_manifest", broken)
    with pytest.raises(OSError, match="disk full"):
        write.run(work, "hf", tmp_path / "m", system="base")
    assert (tmp_path / "m" / "export.json").read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "onnx"}, "unknown format 'onnx'; known: hf, openai, ctranslate2, peft"),
        ({"to": "openai"}, "cannot express this model: a mel hop of 320 samples"),
        ({"to": "ctranslate2"}, "cannot express this model: masked padding"),
        ({"to": "hf", "system": "lora_zoe"}, "no system 'lora_zoe' in this workdir; it has base, lora"),
        ({"to": "hf", "system": "moe_random_gate"}, "exchanged; export one of base"),
        ({"to": "hf", "system": "lora", "route": "average"}, "--route average belongs to a mixture; lora has none"),
        ({"to": "hf", "route": "cohort:loud"}, "no such cohort; there are breathy, clear"),
        ({"to": "hf", "route": "expert:3"}, "none of average, .* expert:0 to expert:2, or 3 weights"),
        ({"to": "hf", "route": "0.5,0.5"}, "or 3 weights"),
        ({"to": "hf", "dtype": "int4"}, "unknown weight type 'int4'"),
        ({"to": "hf", "quantization": "int8"}, "belongs to --to ctranslate2"),
        ({"to": "peft", "system": "base"}, "the base has no LoRA"),
        ({"to": "peft", "dtype": "float16"}, "written in float32"),
    ],
)
def test_refusals_are_one_line_and_leave_nothing(work, tmp_path, capsys, options, message):
    flags = [word for name, value in options.items() for word in (f"--{name}", value)]
    assert guarded(["export", "--workdir", str(work), "--output", str(tmp_path / "m"), *flags]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("moejax export: ") and said.err.count("\n") == 1
    assert re.search(message, said.err)
    assert list(tmp_path.iterdir()) == []


def test_the_command(work, tmp_path, capsys):
    options = ["--workdir", str(work), "--to=peft", f"--output={tmp_path / 'm'}", "--system", "lora"]
    assert guarded(["export", *options]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'm'}\n"
    assert guarded(["export", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(word in said for word in (*write.FORMATS, "--route cohort:B", "--quantization", "export.license"))
    assert guarded(["export", "--workdir", str(work), "--to", "hf"]) == 1
    assert "--output is missing" in capsys.readouterr().err
    assert guarded(["export", "--workdir", str(work), "--too", "hf"]) == 1
    assert "no option '--too'" in capsys.readouterr().err
    assert guarded(["export", "--workdir", str(tmp_path), "--to", "hf", "--output", str(tmp_path / "x")]) == 1
    assert "is no moejax workdir" in capsys.readouterr().err
