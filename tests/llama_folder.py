"""Folders of the tiny LLaMA in the layouts that Hugging Face publishes."""

import json

import numpy as np
import safetensors.numpy
import tiny_llama as tiny

from moejax.convert import hf_llama, torch_file
from moejax.nn import functional

JSON = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_act": "silu",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "vocab_size": tiny.VOCAB,
    "rope_theta": 100.0,
    "rms_norm_eps": 1e-6,
}
SPEEDS = "model.layers.0.self_attn.rotary_emb.inv_freq"


def tensors(config=tiny.LLAMA):
    """{key: array} of our tiny model's arrays, as Hugging Face lays them."""
    flat, found = functional.paths(tiny.llama(config)[1]), {}
    for key, (path, shape) in hf_llama.key_map(config).items():
        array = np.asarray(flat[path])
        found[key] = np.ascontiguousarray(array.T if path.endswith("/kernel") else array)
        assert found[key].shape == shape
    return found


def write(folder, arrays, **changes):
    """One safetensors file."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(JSON | changes))
    safetensors.numpy.save_file(arrays, folder / "model.safetensors")
    return folder


def halves(arrays):
    names = sorted(arrays)
    return [{key: arrays[key] for key in part} for part in (names[::2], names[1::2])]


def write_shards(folder, arrays, kind, **changes):
    """Two files and their index, as transformers writes a large model."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(JSON | changes))
    stem, where = ("model", {}) if kind == "safetensors" else ("pytorch_model", {})
    for n, half in enumerate(halves(arrays), 1):
        name = f"{stem}-0000{n}-of-00002.{kind}"
        if kind == "safetensors":
            safetensors.numpy.save_file(half, folder / name)
        else:
            torch_file.write(folder / name, half)
        where |= dict.fromkeys(half, name)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    return folder
