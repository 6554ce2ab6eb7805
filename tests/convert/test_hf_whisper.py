import dataclasses
import json

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from moejax.convert import hf_whisper
from moejax.nn import functional
from moejax.nn.variables import Init
from moejax.nn.whisper import Whisper, WhisperConfig
from moejax.text.tokenizer import Tokenizer

CONFIG = WhisperConfig(
    8,
    2,
    1,
    2,
    2,
    16,
    24,
    300,
    num_mel_bins=20,
    max_source_positions=30,
    max_target_positions=12,
    hop=320,
    mask_padding=True,
)


@pytest.fixture(scope="module")
def params():
    _, abstract = functional.abstract(lambda: Whisper(CONFIG, init=Init(0)))
    rng = np.random.default_rng(0)
    tree = functional.paths({name: abstract[name] for name in ("backbone", "buffer")})
    return functional.nest({path: rng.normal(size=leaf.shape).astype(np.float32) for path, leaf in tree.items()})


@pytest.fixture
def folder(tmp_path, params):
    hf_whisper.save(tmp_path / "model", CONFIG, params)
    return tmp_path / "model"


def tensors(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def rewrite(folder, arrays):
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")


def edit_json(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def same(a, b):
    a, b = functional.paths(a), functional.paths(b)
    assert a.keys() == b.keys()
    for path in a:
        np.testing.assert_array_equal(a[path], b[path], err_msg=path)


def test_round_trip_is_exact(folder, params):
    config, again = hf_whisper.load(folder)
    assert config == CONFIG
    same(again, params)
    assert {leaf.dtype for leaf in functional.paths(again).values()} == {np.dtype("float32")}


def test_the_map_covers_the_network():
    _, abstract = functional.abstract(lambda: Whisper(CONFIG, init=Init(0)))
    places = dict(hf_whisper.key_map(CONFIG).values())
    leaves = functional.paths(abstract)
    assert places.keys() == leaves.keys()
    for path, leaf in leaves.items():
        shape = places[path][::-1] if path.endswith("/kernel") else places[path]
        assert shape == leaf.shape, path


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_files_are_read(folder, params, dtype):
    rewrite(folder, {key: array.astype(dtype) for key, array in tensors(folder).items()})
    _, found = hf_whisper.load(folder)
    kernel = found["backbone"]["encoder"]["layers"]["1"]["fc1"]["kernel"]
    assert kernel.dtype == np.float32
    want = params["backbone"]["encoder"]["layers"]["1"]["fc1"]["kernel"].astype(dtype).astype(np.float32)
    np.testing.assert_array_equal(kernel, want)
    _, kept = hf_whisper.load(folder, dtype="bfloat16")
    assert kept["backbone"]["decoder"]["embed"].dtype == ml_dtypes.bfloat16


def test_shards_and_missing_prefix(folder, params):
    arrays = {key.removeprefix("model."): array for key, array in tensors(folder).items()}
    (folder / "model.safetensors").unlink()
    index = {}
    for i, part in enumerate(np.array_split(sorted(arrays), 3)):
        name = f"model-0000{i + 1}-of-00003.safetensors"
        safetensors.numpy.save_file({key: arrays[key] for key in part.tolist()}, folder / name)
        index |= dict.fromkeys(part.tolist(), name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    same(hf_whisper.load(folder)[1], params)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00003"):
        hf_whisper.load(folder)


EMBED = "model.decoder.embed_tokens.weight"


@pytest.mark.parametrize(
    "key,change,message",
    [
        ("model.encoder.extra", lambda a: np.zeros(1, np.float32), "unknown keys model.encoder.extra"),
        ("model.decoder.layers.0.encoder_attn.q_proj.bias", lambda a: None, "lack .*encoder_attn.q_proj.bias"),
        ("model.encoder.layer_norm.bias", lambda a: a[EMBED][0, :3], r"layer_norm.bias \(3,\), want \(8,\)"),
        ("proj_out.weight", lambda a: a[EMBED] + 1, "proj_out.weight differs"),
        ("model.decoder.layers.0.self_attn.k_proj.bias", lambda a: a[EMBED][0], "unknown keys .*k_proj.bias"),
    ],
)
def test_every_key_is_accounted_for(folder, key, change, message):
    arrays = tensors(folder)
    arrays[key] = change(arrays)
    rewrite(folder, {name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(ValueError, match=message) as error:
        hf_whisper.load(folder)
    assert "\n" not in str(error.value)


def test_a_tied_output_matrix_is_allowed(folder, params):
    arrays = tensors(folder)
    rewrite(folder, {**arrays, "proj_out.weight": arrays["model.decoder.embed_tokens.weight"]})
    same(hf_whisper.load(folder)[1], params)


@pytest.mark.parametrize(
    "file,change,message",
    [
        ("config.json", {"model_type": "bert"}, "model_type is 'bert'"),
        ("config.json", {"scale_embedding": True}, "scale_embedding"),
        ("config.json", {"activation_function": "relu"}, "activation_function is 'relu'"),
        ("preprocessor_config.json", {"n_fft": 512}, "n_fft is 512"),
        ("preprocessor_config.json", {"feature_size": 80}, "feature_size is 80; this model needs 20"),
        ("preprocessor_config.json", {"hop_length": 160}, "320 in config.json but 160"),
    ],
)
def test_other_networks_and_features_are_refused(folder, file, change, message):
    edit_json(folder / file, **change)
    with pytest.raises(ValueError, match=message):
        hf_whisper.load_config(folder)


def test_hop_comes_from_the_feature_extractor(folder):
    raw = json.loads((folder / "config.json").read_text())
    del raw["moejax"]
    (folder / "config.json").write_text(json.dumps(raw))
    assert hf_whisper.load_config(folder) == dataclasses.replace(CONFIG, mask_padding=False)
    (folder / "preprocessor_config.json").unlink()
    assert hf_whisper.load_config(folder).hop == 160


def test_damaged_and_absent_files_are_named(folder, tmp_path):
    (folder / "model.safetensors").write_bytes(b"\x10" * 40)
    with pytest.raises(ValueError, match="model.safetensors: not a readable"):
        hf_whisper.load(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="neither model.safetensors"):
        hf_whisper.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: not valid JSON"):
        hf_whisper.load(folder)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        hf_whisper.load(tmp_path / "nowhere")


def test_save_refuses_what_the_format_cannot_hold(tmp_path, params):
    with pytest.raises(ValueError, match="expert/encoder/x"):
        hf_whisper.save(tmp_path / "m", CONFIG, {**params, "expert": {"encoder": {"x": np.zeros(1)}}})
    with pytest.raises(ValueError, match="lack buffer/encoder/positions"):
        hf_whisper.save(tmp_path / "m", CONFIG, {"backbone": params["backbone"]})
    with pytest.raises(ValueError, match=r"fc1.bias \(24,\), want \(25,\)"):
        hf_whisper.save(tmp_path / "m", dataclasses.replace(CONFIG, decoder_ffn=25), params)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_leaves_the_old_one(folder, params):
    with pytest.raises(TypeError):
        hf_whisper.save(folder, CONFIG, params, extra={"not json": object()})
    same(hf_whisper.load(folder)[1], params)
    assert [entry.name for entry in folder.parent.iterdir()] == ["model"]


def test_save_replaces_a_model_but_nobody_elses_files(folder, params):
    hf_whisper.save(folder, CONFIG, params, extra={"stage": "base"})
    assert hf_whisper.settings(folder) == {"hop": 320, "mask_padding": True, "stage": "base"}
    (folder / "thesis.txt").write_text("x")
    with pytest.raises(FileExistsError, match="thesis.txt"):
        hf_whisper.save(folder, CONFIG, params)
    assert (folder / "thesis.txt").exists()


def test_the_tokenizer_travels_along(tmp_path, params):
    tokenizer = Tokenizer.train(["the cat sat"] * 3, 300)
    hf_whisper.save(tmp_path / "m", CONFIG, params, tokenizer=tokenizer)
    assert Tokenizer.from_hf_folder(tmp_path / "m").encode("the cat") == tokenizer.encode("the cat")
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert (config["eos_token_id"], config["decoder_start_token_id"]) == (tokenizer.eot, tokenizer.sot)
    generation = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    assert generation["lang_to_id"] == {"<|en|>": tokenizer.eot + 2, "<|de|>": tokenizer.eot + 3}
    assert generation["task_to_id"]["translate"] == tokenizer.eot + 4
