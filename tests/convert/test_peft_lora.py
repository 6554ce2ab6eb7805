"""PEFT folders: exact round trips, PEFT's own rules of names and ranks, and refusal of what is not plain LoRA."""

import json

import numpy as np
import pytest
import safetensors.numpy

from moejax.convert import low_rank, peft_lora, torch_file
from moejax.convert.low_rank import LowRank
from moejax.nn.whisper import WhisperConfig

CONFIG = WhisperConfig(8, 1, 2, 2, 2, 24, 16, 300, num_mel_bins=20, max_source_positions=30, max_target_positions=12)
Q, FC1 = "decoder/layers/1/cross_attn/q", "encoder/layers/0/fc1"
NAMES = {Q: "model.decoder.layers.1.encoder_attn.q_proj", FC1: "model.encoder.layers.0.fc1"}
rng = np.random.default_rng(0)


def update(d_in, d_out, rank, scale):
    A, B = rng.normal(size=(d_in, rank)), rng.normal(size=(rank, d_out))
    return LowRank(A.astype(np.float32), B.astype(np.float32), scale)


@pytest.fixture
def adapter():
    return {Q: update(8, 8, 2, 2.0), FC1: update(8, 24, 2, 2.0)}


@pytest.fixture
def folder(tmp_path, adapter):
    peft_lora.save(tmp_path, CONFIG, adapter, base="some/base")
    return tmp_path


def settings(folder, **changes):
    path = folder / "adapter_config.json"
    entries = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(entries))
    return entries


def same(found, want):
    assert found.keys() == want.keys()
    for layer, one in want.items():
        np.testing.assert_array_equal(found[layer].A_DR, one.A_DR)
        np.testing.assert_array_equal(found[layer].B_RO, one.B_RO)
        assert found[layer].scale == pytest.approx(one.scale, rel=1e-12)


def test_round_trip_is_exact(folder, adapter):
    same(peft_lora.load(folder, CONFIG), adapter)


def test_the_files_are_pefts(folder):
    entries = settings(folder)
    assert (entries["peft_type"], entries["r"], entries["lora_alpha"], entries["use_rslora"]) == ("LORA", 2, 4, False)
    assert entries["target_modules"] == [NAMES[Q], NAMES[FC1]]
    assert entries["rank_pattern"] == entries["alpha_pattern"] == {}
    assert entries["base_model_name_or_path"] == "some/base"
    shapes = {k: v.shape for k, v in safetensors.numpy.load_file(folder / "adapter_model.safetensors").items()}
    assert shapes == {
        f"base_model.model.{NAMES[Q]}.lora_A.weight": (2, 8),
        f"base_model.model.{NAMES[Q]}.lora_B.weight": (8, 2),
        f"base_model.model.{NAMES[FC1]}.lora_A.weight": (2, 8),
        f"base_model.model.{NAMES[FC1]}.lora_B.weight": (24, 2),
    }


@pytest.mark.parametrize("stabilised", [False, True])
def test_layers_may_differ_in_rank_and_scale(tmp_path, adapter, stabilised):
    mixed = {**adapter, "decoder/layers/0/fc2": update(16, 8, 4, 0.3), "decoder/layers/0/fc1": update(8, 16, 2, 2.0)}
    peft_lora.save(tmp_path, CONFIG, mixed, stabilised=stabilised)
    entries = settings(tmp_path)
    assert entries["rank_pattern"] == {"model.decoder.layers.0.fc2": 4} and entries["use_rslora"] is stabilised
    assert entries["alpha_pattern"].keys() == {"model.decoder.layers.0.fc2"}
    same(peft_lora.load(tmp_path, CONFIG), mixed)


def test_patterns_are_pefts_regular_expressions(folder, adapter):
    settings(folder, alpha_pattern={r"layers\.\d+\.fc1": 10, "q_pro": 99})
    found = peft_lora.load(folder, CONFIG)
    assert (found[Q].scale, found[FC1].scale) == (2.0, 5.0)


def test_adapters_of_the_bare_model_and_of_older_files(folder, adapter):
    file = folder / "adapter_model.safetensors"
    tensors = {
        key.replace("base_model.model.model.", "base_model.model."): value
        for key, value in safetensors.numpy.load_file(file).items()
    }
    file.unlink()
    torch_file.write(folder / "adapter_model.bin", tensors)
    same(peft_lora.load(folder, CONFIG), adapter)


def test_folders_become_experts_of_one_mixture(tmp_path, adapter):
    other = {Q: update(8, 8, 5, 0.7)}
    for name, one in (("a", adapter), ("b", other)):
        (tmp_path / name).mkdir()
        peft_lora.save(tmp_path / name, CONFIG, one)
    options, params = peft_lora.load_experts([tmp_path / "a", tmp_path / "b"], CONFIG)
    assert options == {"targets": (Q, FC1), "num_experts": 2, "rank": 5, "alpha": 5.0}
    for e, one in enumerate((adapter, other)):
        for layer, found in low_rank.one_expert(params["expert"], e, options["alpha"] / options["rank"]).items():
            want = one[layer].delta() if layer in one else np.zeros_like(found.delta())
            np.testing.assert_allclose(found.delta(), want, atol=1e-6)
    with pytest.raises(ValueError, match="at least one"):
        peft_lora.load_experts([], CONFIG)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "type 'IA3'; only LORA"),
        ({"use_dora": True}, "use_dora is True"),
        ({"bias": "lora_only"}, "bias is 'lora_only'"),
        ({"lora_bias": True}, "lora_bias is True"),
        ({"modules_to_save": ["proj_out"]}, "modules_to_save is"),
        ({"init_lora_weights": "pissa"}, "'pissa', which changes the base"),
        ({"layer_replication": [[0, 1]]}, "layer_replication is"),
        ({"target_parameters": ["x"]}, "target_parameters is"),
        ({"arrow_config": {"top_k": 2}}, "arrow_config is"),
        ({"r": 3}, "rank 3 of this Whisper wants"),
    ],
)
def test_what_is_not_plain_lora_is_refused(folder, changes, message):
    settings(folder, **changes)
    with pytest.raises(ValueError, match=message) as error:
        peft_lora.load(folder, CONFIG)
    assert "\n" not in str(error.value) and str(folder) in str(error.value)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("base_model.model.proj_out.lora_A.weight", "proj_out is no linear layer"),
        ("base_model.model.model.decoder.layers.7.fc1.lora_A.weight", "layers.7.fc1 is no linear layer"),
        ("base_model.model.model.decoder.embed_tokens.lora_embedding_A", "no low-rank factor"),
        ("base_model.model.model.decoder.layers.0.fc1.lora_A.weight", "has lora_A alone"),
    ],
)
def test_every_key_is_accounted_for(folder, key, message):
    file = folder / "adapter_model.safetensors"
    tensors = {**safetensors.numpy.load_file(file), key: np.zeros((2, 8), np.float32)}
    safetensors.numpy.save_file(tensors, file)
    with pytest.raises(ValueError, match=message):
        peft_lora.load(folder, CONFIG)


def test_missing_and_damaged_files(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="no adapter_config.json"):
        peft_lora.load(tmp_path / "nowhere", CONFIG)
    (folder / "adapter_model.safetensors").write_bytes(b"\x10" * 20)
    with pytest.raises(ValueError, match="not a readable safetensors"):
        peft_lora.load(folder, CONFIG)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="neither adapter_model.safetensors"):
        peft_lora.load(folder, CONFIG)


def test_an_adapter_needs_layers_that_exist(tmp_path):
    with pytest.raises(ValueError, match="no module in Whisper for encoder/conv1"):
        peft_lora.save(tmp_path, CONFIG, {"encoder/conv1": update(8, 8, 2, 1.0)})
    with pytest.raises(ValueError, match="without layers"):
        peft_lora.save(tmp_path, CONFIG, {})
