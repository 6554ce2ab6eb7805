"""Folders of a LLaMA in the layouts that are published: what is read, and what is refused."""

import json

import numpy as np
import pytest
import tiny_llama as tiny
from llama_folder import JSON, SPEEDS, tensors, write, write_shards

from moejax.convert import hf_llama
from moejax.errors import BadValue, NotThere
from moejax.nn import functional


def same(found, want):
    found, want = functional.paths(found), functional.paths(want)
    assert found.keys() == want.keys()
    for path in found:
        np.testing.assert_array_equal(found[path], np.asarray(want[path]), err_msg=path)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_in_both_formats_are_the_model(tmp_path, kind):
    arrays = tensors() | {SPEEDS: np.ones(2, np.float32)}
    config, params = hf_llama.load(write_shards(tmp_path / "model", arrays, kind))
    assert config == tiny.LLAMA
    same(params, tiny.llama()[1])


def test_one_file_in_half_precision_and_tied_matrices(tmp_path):
    half = {key: array.astype(np.float16) for key, array in tensors(tiny.TIED).items()}
    changes = {"num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 6}
    changes |= {"tie_word_embeddings": True}
    changes |= {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}}
    config, params = hf_llama.load(write(tmp_path / "model", half, **changes), dtype="bfloat16")
    assert config == tiny.TIED
    assert {str(leaf.dtype) for leaf in functional.paths(params).values()} == {"bfloat16"}
    tied = half | {"lm_head.weight": half["model.embed_tokens.weight"]}
    same(hf_llama.load(write(tmp_path / "model", tied, **changes), dtype="bfloat16")[1], params)
    tied["lm_head.weight"] = tied["lm_head.weight"] + 1
    with pytest.raises(BadValue, match=r"lm_head\.weight differs from model\.embed_tokens\.weight"):
        hf_llama.load(write(tmp_path / "model", tied, **changes))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda t: t | {"model.layers.2.mlp.up_proj.weight": t["lm_head.weight"]}, r"unknown keys model\.layers\.2"),
        (lambda t: {k: v for k, v in t.items() if "norm.weight" not in k}, r"weights lack .*layernorm.* and 1 more"),
        (lambda t: t | {"model.norm.weight": np.ones(3, np.float32)}, r"wrong shape: model\.norm\.weight \(3,\)"),
        (
            lambda t: t | {"model.norm.weight": np.full(16, np.nan, np.float32)},
            r"norm\.weight has numbers that are not",
        ),
        (lambda t: t | {"model.norm.weight": np.ones(16, np.int32)}, r"norm\.weight holds int32"),
    ],
    ids=["unknown", "missing", "shape", "finite", "type"],
)
def test_arrays_that_do_not_fit_are_named(tmp_path, change, match):
    with pytest.raises(BadValue, match=match):
        hf_llama.load(write(tmp_path / "model", change(tensors())))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"model_type": "qwen2"}, "model_type is 'qwen2'; only 'llama'"),
        ({"attention_bias": True}, "attention_bias is True"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "positions of the kind 'llama3'"),
        ({"num_key_value_heads": 3}, "heads = 4 does not divide by key_heads = 3"),
        ({"hidden_size": "many"}, "d_model is 'many'"),
    ],
    ids=["kind", "bias", "positions", "heads", "size"],
)
def test_models_that_are_not_a_llama_of_ours(tmp_path, changes, match):
    with pytest.raises(BadValue, match=match):
        hf_llama.load_config(write(tmp_path / "model", {}, **changes))


def test_files_that_are_missing(tmp_path):
    with pytest.raises(NotThere, match=r"config\.json: there is no such file"):
        hf_llama.load(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(JSON))
    with pytest.raises(NotThere, match="no weights; a LLaMA of Hugging Face has one of model.safetensors"):
        hf_llama.load(tmp_path)
    (tmp_path / hf_llama.BIN_INDEX).write_text(json.dumps({"weight_map": {"a": "../x.bin"}}))
    with pytest.raises(BadValue, match="'../x.bin' is no name of a file"):
        hf_llama.load(tmp_path)
    (tmp_path / hf_llama.BIN_INDEX).write_text(json.dumps({"weight_map": {"a": "x.bin"}}))
    with pytest.raises(NotThere, match="x.bin: named in"):
        hf_llama.load(tmp_path)
