"""Exports run in the libraries they are for. Opt-in: needs openai-whisper, peft, ctranslate2, faster-whisper, torch.

    pytest tests/peers/test_export.py

The base has random weights (wide, so that tokens vary and every term counts), the published vocabulary and 30 s of
context; its adapters and experts come out of the stages and are then drawn wide, too.
"""

import contextlib
import json
from pathlib import Path

import ctranslate2
import faster_whisper
import jax
import jax.numpy as jnp
import numpy as np
import peft
import pytest
import tiny_job
import torch
import transformers
import whisper

import moejax
from moejax.convert import hf_whisper, openai_whisper, peft_lora
from moejax.decode.greedy import greedy
from moejax.export import write
from moejax.job.opening import open_context
from moejax.nn import functional
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper, WhisperConfig, sinusoids
from moejax.systems import registry
from moejax.tasks import asr, recognition
from moejax.text.tokenizer import Tokenizer
from moejax.train.params_file import load_params, save_params
from moejax.types import Route

# Four libraries that warn of each other; moejax itself is held to no warnings by the rest of the suite.
pytestmark = pytest.mark.filterwarnings("default")
CONFIG = WhisperConfig(32, 2, 2, 2, 2, 128, 128, 51865, num_mel_bins=80, max_target_positions=48)
HEADS = [[0, 1], [1, 0]]
STEPS = 20
EXPERTS = 3
ROUTE = (0.2, 0.5, 0.3)


@pytest.fixture(scope="module")
def tokenizer():
    file = Path(whisper.__file__).parent / "assets" / "multilingual.tiktoken"
    return Tokenizer.from_tiktoken(file, multilingual=True)


@pytest.fixture(scope="module")
def work(tmp_path_factory, tokenizer):
    """A workdir on a pretrained base, with every kind of LoRA."""
    folder = tmp_path_factory.mktemp("peers")
    rng = np.random.default_rng(0)
    _, abstract = functional.abstract(lambda: Whisper(CONFIG, init=Init(0)))
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.15, leaf.shape).astype(np.float32), abstract)
    params["buffer"] = {"encoder": {"positions": sinusoids(1500, 32)}}
    params["backbone"]["decoder"]["positions"] *= 10
    generation = {"alignment_heads": HEADS}
    hf_whisper.save(folder / "base", CONFIG, params, tokenizer=tokenizer, generation=generation)
    tiny_job.write_corpus(folder / "corpus", per_speaker=8)
    changes = {
        "model.pretrained": str(folder / "base"),
        "model.sizes": {},
        "base.steps": 0,
        "mixture.stabilised": True,
        "mixture.targets": ("encoder/layers/*/fc?", "decoder/layers/*/*attn/[qv]", "decoder/layers/1/fc1"),
    }
    changes |= {f"{stage}.{key}": 1 for stage in ("experts", "joint", "adapters") for key in ("steps", "warmup")}
    with contextlib.chdir(folder), tiny_job.quick():
        config = tiny_job.config(folder / "corpus", **changes)
        moejax.run(config, "W", stages=["joint", "adapters"], quiet=True)
    for file in sorted((folder / "W").glob("*/**/params.safetensors")):
        params, meta = load_params(file)
        drawn = jax.tree.map(lambda leaf: rng.normal(0, 0.2, leaf.shape).astype(np.float32), params["expert"])
        save_params(file, {**params, "expert": drawn}, meta)
    return folder / "W"


@pytest.fixture(scope="module")
def mel_BNM():
    return np.random.default_rng(1).normal(0, 1, (2, 3000, 80)).astype(np.float32)


@pytest.fixture(scope="module")
def tokens_BL(tokenizer):
    prefix = tokenizer.prefix("en")
    text = np.random.default_rng(2).integers(0, tokenizer.eot, (2, 6))
    return np.concatenate([np.tile(prefix, (2, 1)), text], axis=1).astype(np.int32)


def parts(work, system, weights=None):
    """`(graphdef, params, route of two utterances)` of a system, as the product opens it."""
    opened = registry.open_system(open_context(work), system)
    if weights is None and system != "base":
        weights = np.eye(opened.network.mixture.num_experts)[opened.network.label]
    return (
        opened.network.graphdef,
        opened.network.params,
        None if weights is None else Route(jnp.tile(jnp.float32(weights), (2, 1))),
    )


def our_logits(work, mel_BNM, tokens_BL, system, weights=None):
    graphdef, params, route = parts(work, system, weights)

    @jax.jit
    def run(params, mel_BNM):
        model = functional.merge(graphdef, params)
        return model.decode(tokens_BL, model.encode(mel_BNM, route=route), route=route)

    return np.asarray(run(params, mel_BNM))


def our_tokens(work, mel_BNM, tokenizer, system, weights=None):
    """Greedy tokens of each utterance, with the suppressions of the reference, up to the end token."""
    graphdef, params, route = parts(work, system, weights)

    @jax.jit
    def run(params, mel_BNM):
        model = functional.merge(graphdef, params)
        return greedy(
            model,
            model.encode(mel_BNM, route=route),
            tokenizer.prefix("en"),
            max_tokens=STEPS,
            eot=tokenizer.eot,
            route=route,
            suppress=tokenizer.suppress,
            begin_suppress=tokenizer.begin_suppress,
        )

    found = run(params, mel_BNM)
    rows = zip(np.asarray(found.tokens_BL), np.asarray(found.lengths_B), strict=True)
    tokens = [row[:length].tolist() for row, length in rows]
    assert len({token for row in tokens for token in row}) > 3, "tokens that do not vary prove nothing"
    return tokens


def features(mel_BNM):
    return torch.from_numpy(np.ascontiguousarray(mel_BNM.transpose(0, 2, 1)))


def their_logits(model, mel_BNM, tokens_BL):
    with torch.no_grad():
        return model(features(mel_BNM), decoder_input_ids=torch.from_numpy(tokens_BL).long()).logits.numpy()


def close(found, want, base=None):
    np.testing.assert_allclose(found, want, atol=1e-4)
    assert np.ptp(want) > 1 and (base is None or np.abs(want - base).max() > 0.01)


def hugging_face(folder):
    model, report = transformers.WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.fixture(scope="module")
def peft_folders(work, tmp_path_factory):
    folder = tmp_path_factory.mktemp("peft") / "all"
    write.run(work, "peft", folder)
    return folder


@pytest.mark.parametrize("system", ["lora", "lora_total", "lora_breathy", "lora_ann"])
def test_an_adapter_in_peft(work, peft_folders, mel_BNM, tokens_BL, system):
    base = hugging_face(work.parent / "base")
    before = their_logits(base, mel_BNM, tokens_BL)
    model = peft.PeftModel.from_pretrained(base, peft_folders / system)
    close(their_logits(model, mel_BNM, tokens_BL), our_logits(work, mel_BNM, tokens_BL, system), before)


@pytest.mark.parametrize("expert", range(EXPERTS))
def test_an_expert_and_the_shared_expert_in_peft(work, peft_folders, mel_BNM, tokens_BL, expert):
    model = peft.PeftModel.from_pretrained(
        hugging_face(work.parent / "base"), peft_folders / "moe" / f"expert_{expert}", adapter_name="expert"
    )
    model.load_adapter(peft_folders / "moe" / "shared", adapter_name="shared")
    model.base_model.set_adapter(["expert", "shared"])
    want = our_logits(work, mel_BNM, tokens_BL, "moe", np.eye(EXPERTS)[expert])
    close(their_logits(model, mel_BNM, tokens_BL), want)


def test_a_route_in_peft_and_merged_there(work, tmp_path, mel_BNM, tokens_BL):
    write.run(work, "peft", tmp_path / "route", route=",".join(map(str, ROUTE)))
    model = peft.AutoPeftModel.from_pretrained(tmp_path / "route")
    want = our_logits(work, mel_BNM, tokens_BL, "moe", ROUTE)
    close(their_logits(model, mel_BNM, tokens_BL), want)
    close(their_logits(model.merge_and_unload(), mel_BNM, tokens_BL), want)


def test_adapters_of_peft_become_experts(work, tmp_path, mel_BNM, tokens_BL):
    kinds = {
        "attention": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        "patterns": {
            "r": 2,
            "lora_alpha": 3,
            "target_modules": r".*decoder.*\.(fc1|fc2|out_proj)",
            "use_rslora": True,
            "rank_pattern": {r"layers\.1\.fc1": 6, "fc2": 1},
            "alpha_pattern": {"fc2": 5},
        },
    }
    want, torch_seed = {}, torch.manual_seed(3)
    for name, options in kinds.items():
        model = peft.get_peft_model(hugging_face(work.parent / "base"), peft.LoraConfig(**options)).eval()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "lora_" in key:
                    parameter.copy_(0.2 * torch.randn(parameter.shape, generator=torch_seed))
        model.save_pretrained(tmp_path / name)
        want[name] = their_logits(model, mel_BNM, tokens_BL)
    config, base = hf_whisper.load(work.parent / "base")
    options, experts = peft_lora.load_experts([tmp_path / name for name in kinds], config)
    assert (options["num_experts"], options["rank"]) == (2, 6)
    mixture = asr.Mixture(**options)
    graphdef, params = asr.init(asr.build(config, mixture=mixture), {**base, **experts})
    np.testing.assert_array_equal(  # nothing was drawn afresh
        params["expert"]["decoder"]["layers"]["0"]["self_attn"]["q"]["experts"]["A"],
        experts["expert"]["decoder"]["layers"]["0"]["self_attn"]["q"]["experts"]["A"],
    )
    for label, name in enumerate(kinds):
        run = recognition.make_logits(graphdef, route="label", mixture=mixture, label=label)
        close(np.asarray(run(params, mel_BNM, tokens_BL)), want[name])
    _check_loaded_with(work.parent / "base", [tmp_path / name for name in kinds], want, mel_BNM, tokens_BL)


def _check_loaded_with(base, folders, want, mel_BNM, tokens_BL):
    """`moejax.load` with one of the adapters, and with both at weights of their own."""
    mel_BMN = mel_BNM.transpose(0, 2, 1)
    for folder in folders:
        close(moejax.load(base, adapters=[folder]).logits(mel_BMN, tokens_BL), want[folder.name])
    weights = dict(zip(folders, (0.3, 0.7), strict=True))
    model = peft.PeftModel.from_pretrained(hugging_face(base), folders[0], adapter_name=folders[0].name)
    model.load_adapter(folders[1], adapter_name=folders[1].name)
    model.base_model.set_adapter([folder.name for folder in folders])
    for folder, weight in weights.items():
        for layer in model.modules():
            if isinstance(layer, peft.tuners.lora.LoraLayer) and folder.name in layer.scaling:
                layer.scaling[folder.name] *= weight
    both = moejax.load(base, adapters=folders, route=tuple(weights.values()))
    close(both.logits(mel_BMN, tokens_BL), their_logits(model.eval(), mel_BNM, tokens_BL), want[folders[0].name])


@pytest.mark.parametrize(("system", "weights"), [("lora_dan", None), ("moe", ROUTE), ("base", None)])
def test_transformers_gives_the_same_tokens(work, tmp_path, mel_BNM, tokens_BL, tokenizer, system, weights):
    route = ",".join(map(str, weights)) if weights else None
    write.run(work, "hf", tmp_path / "m", system=system, route=route)
    model = hugging_face(tmp_path / "m")
    close(their_logits(model, mel_BNM, tokens_BL), our_logits(work, mel_BNM, tokens_BL, system, weights))
    # No options: prefix, language, task and suppressed tokens come out of the folder.
    found = model.generate(features(mel_BNM), max_new_tokens=STEPS, do_sample=False).tolist()
    want = our_tokens(work, mel_BNM, tokenizer, system, weights)
    prefix = tokenizer.prefix("en")
    found = [row[len(prefix) :] if row[: len(prefix)] == prefix else row for row in found]
    assert [[token for token in row if token != tokenizer.eot] for row in found] == want
    assert model.generation_config.alignment_heads == HEADS
    processor = transformers.WhisperProcessor.from_pretrained(tmp_path / "m")
    assert processor.tokenizer.decode(want[0]) == tokenizer.decode(want[0], strip=False)
    assert processor(np.zeros(16000), sampling_rate=16000).input_features.shape == (1, 80, 3000)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_openai_whisper_gives_the_same_tokens(work, tmp_path, mel_BNM, tokens_BL, tokenizer, dtype):
    write.run(work, "openai", tmp_path / "m", route=",".join(map(str, ROUTE)), dtype=dtype)
    model = whisper.load_model(str(tmp_path / "m" / "model.pt"), device="cpu").eval()
    with torch.no_grad():
        logits = model(features(mel_BNM), torch.from_numpy(tokens_BL).long()).numpy()
    want = our_logits(work, mel_BNM, tokens_BL, "moe", ROUTE)
    np.testing.assert_allclose(logits, want, atol=1e-4 if dtype == "float32" else 0.1)
    if dtype == "float32":
        options = whisper.DecodingOptions(language="en", without_timestamps=True, fp16=False, sample_len=STEPS)
        found = whisper.decode(model, features(mel_BNM), options)
        assert [result.tokens for result in found] == our_tokens(work, mel_BNM, tokenizer, "moe", ROUTE)
    config, _ = openai_whisper.load(tmp_path / "m" / "model.pt")
    beside = openai_whisper.vocabulary(tmp_path / "m" / "model.pt", config).open()
    assert config == CONFIG and beside.encode("Käse!") == tokenizer.encode("Käse!")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_openai_checkpoints_are_read(tmp_path, mel_BNM, tokens_BL, dtype):
    dims = whisper.model.ModelDimensions(80, 1500, 32, 2, 2, 51865, 48, 32, 2, 1)
    torch.manual_seed(4)
    model = whisper.model.Whisper(dims).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.15 * torch.randn(parameter.shape))
    state = {key: tensor.to(dtype) for key, tensor in model.state_dict().items()}
    torch.save({"dims": dims.__dict__, "model_state_dict": state}, tmp_path / "x.pt")
    model = whisper.load_model(str(tmp_path / "x.pt"), device="cpu").eval()
    config, params = openai_whisper.load(tmp_path / "x.pt")
    graphdef, params = asr.init(asr.build(config), params)
    found = np.asarray(recognition.make_logits(graphdef)(params, mel_BNM, tokens_BL))
    with torch.no_grad():
        close(found, model(features(mel_BNM), torch.from_numpy(tokens_BL).long()).numpy())


def test_ctranslate2_gives_the_same_tokens(work, tmp_path, mel_BNM, tokenizer):
    write.run(work, "ctranslate2", tmp_path / "m", route=",".join(map(str, ROUTE)))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]
    want = our_tokens(work, mel_BNM, tokenizer, "moe", ROUTE)
    model = ctranslate2.models.Whisper(str(tmp_path / "m"), device="cpu", compute_type="float32", intra_threads=1)
    view = ctranslate2.StorageView.from_array(np.ascontiguousarray(mel_BNM.transpose(0, 2, 1)))
    prefix = tokenizer.prefix("en")
    found = model.generate(view, [prefix] * 2, beam_size=1, max_length=2 * (STEPS + len(prefix)))
    assert [result.sequences_ids[0][:STEPS] for result in found] == want
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["alignment_heads"] == HEADS and config["suppress_ids"] == list(tokenizer.suppress)


def test_faster_whisper_opens_the_folder(work, tmp_path, tokenizer):
    write.run(work, "ctranslate2", tmp_path / "m", system="lora", quantization="int8")
    model = faster_whisper.WhisperModel(str(tmp_path / "m"), device="cpu", compute_type="int8", cpu_threads=1)
    assert model.hf_tokenizer.encode(" Käse!", add_special_tokens=False).ids == tokenizer.encode("Käse!")
    audio = np.random.default_rng(5).normal(0, 0.1, 32000).astype(np.float32)
    segments, info = model.transcribe(audio, language="en", beam_size=1, temperature=0.0, max_new_tokens=8)
    list(segments)  # decodes
    assert info.duration == 2.0
    assert "quantized to int8" in (tmp_path / "m" / "README.md").read_text()
