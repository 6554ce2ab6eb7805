"""LLaMA in Hugging Face's folder layout, read and written without torch.

    config.json
    model.safetensors, or model.safetensors.index.json and its shards
    or pytorch_model.bin, or pytorch_model.bin.index.json and its shards (as Vicuna was published)

The map of names is exhaustive both ways: a key of the file without a place, a place without a key, or a wrong shape is
an error. Older files carry the turning speeds of their positions, which config.json says too.
"""

import contextlib
import json
import pathlib
import re
from typing import Any

import numpy as np
import safetensors.numpy

from moejax.convert import hf_whisper, torch_file
from moejax.errors import BadValue, NotThere
from moejax.nn.functional import nest, paths
from moejax.nn.llama import LlamaConfig
from moejax.runtime.files import replacing_folder
from moejax.text.llama_tokenizer import LlamaTokenizer
from moejax.types import Params

BIN, BIN_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
SPEEDS = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")
FIXED = {"model_type": "llama", "hidden_act": "silu", "attention_bias": False, "mlp_bias": False}
FIELDS = {
    "d_model": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "ffn": "intermediate_size",
    "vocab_size": "vocab_size",
}
_TIED, _EMBED = "lm_head.weight", "model.embed_tokens.weight"


def load(folder: str | pathlib.Path, *, dtype: str = "float32") -> tuple[LlamaConfig, Params]:
    """`(LlamaConfig, params)` of a folder, params = {"backbone": ...} of numpy arrays in `dtype`.

    Errors: NotThere for a missing file, a one-line BadValue naming the file or key.
    """
    folder = pathlib.Path(folder)
    config = load_config(folder)
    places = key_map(config)
    with contextlib.ExitStack() as stack:
        there = _arrays(folder, stack)
        shapes = {key: shape for key, (shape, _) in there.items() if not SPEEDS.fullmatch(key)}
        tied = shapes.pop(_TIED, None) if config.tied else None
        hf_whisper.check_keys(folder, shapes, places)
        flat = {}
        for key, (path, _) in places.items():
            array = hf_whisper.numbers(folder, key, there[key][1]())
            flat[path] = np.ascontiguousarray(hf_whisper.turn(path, hf_whisper.narrowed(key, array, dtype)))
        if tied is not None and not np.array_equal(there[_TIED][1]().astype(dtype), flat["backbone/embed"]):
            raise BadValue(f"{folder}: {_TIED} differs from {_EMBED}, but config.json says that they are tied")
    return config, nest(flat)


def save(folder: str | pathlib.Path, config: LlamaConfig, params: Params, tokenizer: LlamaTokenizer) -> None:
    """The folder as `load`, `LlamaTokenizer.from_folder` and transformers read it, whole or not at all; float32.

    An earlier save is replaced. Errors: AlreadyThere for a folder with other files in it (`hf_whisper.replaceable`).
    """
    folder = pathlib.Path(folder)
    hf_whisper.replaceable(folder)
    flat = paths(params)
    arrays = {
        key: np.ascontiguousarray(hf_whisper.turn(path, np.asarray(flat[path], np.float32)))
        for key, (path, _) in key_map(config).items()
    }
    with replacing_folder(folder) as new:
        (new / "config.json").write_text(json.dumps(settings(config, tokenizer), indent=2) + "\n", encoding="utf-8")
        tokenizer.save(new)
        safetensors.numpy.save_file(arrays, new / hf_whisper.WEIGHTS, metadata={"format": "pt"})


def settings(config: LlamaConfig, tokenizer: LlamaTokenizer) -> dict[str, Any]:
    """What config.json says of a network, the positions under the names of newer and of older files."""
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": config.theta}
    if config.stretch != 1:
        rope |= {"rope_type": "linear", "factor": config.stretch}
    own = {"head_dim": config.head_width} if config.head_width else {}
    return {
        **FIXED,
        **own,
        **{theirs: getattr(config, ours) for ours, theirs in FIELDS.items()},
        "architectures": ["LlamaForCausalLM"],
        "num_key_value_heads": config.key_heads,
        "rope_parameters": rope,
        "rope_theta": config.theta,
        "rms_norm_eps": config.epsilon,
        "tie_word_embeddings": config.tied,
        "max_position_embeddings": config.max_positions,
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eot,
        "dtype": "float32",
    }


def load_config(folder: str | pathlib.Path) -> LlamaConfig:
    """LlamaConfig of a folder's config.json."""
    file = pathlib.Path(folder) / "config.json"
    if not file.is_file():
        raise NotThere(f"{file}: there is no such file; a LLaMA of Hugging Face has one")
    raw = hf_whisper.read_json(file)
    for name, value in FIXED.items():
        if raw.get(name, value) != value:
            raise BadValue(f"{file}: {name} is {raw[name]!r}; only {value!r} is supported")
    if missing := [name for name in FIELDS.values() if name not in raw]:
        raise BadValue(f"{file}: no {', '.join(missing)}")
    theta, stretch = _positions(file, raw)
    try:
        return LlamaConfig(
            **{ours: raw[theirs] for ours, theirs in FIELDS.items()},
            key_heads=raw.get("num_key_value_heads") or raw["num_attention_heads"],
            head_width=raw.get("head_dim") or 0,
            theta=theta,
            stretch=stretch,
            epsilon=float(raw.get("rms_norm_eps", 1e-6)),
            tied=bool(raw.get("tie_word_embeddings", False)),
            max_positions=raw.get("max_position_embeddings", 2048),
        )
    except (TypeError, ValueError) as error:
        raise BadValue(f"{file}: {error}") from None


def key_map(config: LlamaConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{Hugging Face key: (path in params, shape in the file)} of every array of the network."""
    c = config
    queries, keys = c.heads * c.width, c.key_heads * c.width
    layers = {
        "self_attn.q_proj": ("self_attn/q/kernel", (queries, c.d_model)),
        "self_attn.k_proj": ("self_attn/k/kernel", (keys, c.d_model)),
        "self_attn.v_proj": ("self_attn/v/kernel", (keys, c.d_model)),
        "self_attn.o_proj": ("self_attn/out/kernel", (c.d_model, queries)),
        "mlp.gate_proj": ("mlp/gate/kernel", (c.ffn, c.d_model)),
        "mlp.up_proj": ("mlp/up/kernel", (c.ffn, c.d_model)),
        "mlp.down_proj": ("mlp/down/kernel", (c.d_model, c.ffn)),
        "input_layernorm": ("self_attn_norm/scale", (c.d_model,)),
        "post_attention_layernorm": ("mlp_norm/scale", (c.d_model,)),
    }
    places = {
        _EMBED: ("backbone/embed", (c.vocab_size, c.d_model)),
        "model.norm.weight": ("backbone/norm/scale", (c.d_model,)),
    }
    if not c.tied:
        places[_TIED] = ("backbone/head/kernel", (c.vocab_size, c.d_model))
    for n in range(c.layers):
        for theirs, (ours, shape) in layers.items():
            places[f"model.layers.{n}.{theirs}.weight"] = (f"backbone/layers/{n}/{ours}", shape)
    return places


def _positions(file, raw) -> tuple[float, float]:
    """(theta, stretch), by `rope_theta` and `rope_scaling` of older files or `rope_parameters` of newer ones."""
    said = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = said.get("rope_type", said.get("type", "default"))
    if kind not in ("default", "linear"):
        raise BadValue(f"{file}: positions of the kind {kind!r}; only 'default' and 'linear' are supported")
    theta = said.get("rope_theta", raw.get("rope_theta", 10000.0))
    return float(theta), float(said.get("factor", 1.0)) if kind == "linear" else 1.0


def _arrays(folder, stack) -> dict[str, tuple[tuple[int, ...], Any]]:
    """{key: (shape, function that reads it)} over all weight files of a folder."""
    if (folder / hf_whisper.INDEX).is_file() or (folder / hf_whisper.WEIGHTS).is_file():
        readers = hf_whisper.open_weights(folder, stack)
        return {
            key: (tuple(reader.get_slice(key).get_shape()), lambda key=key, reader=reader: _read(folder, reader, key))
            for key, reader in readers.items()
        }
    if (folder / BIN_INDEX).is_file():
        names = hf_whisper.read_json(folder / BIN_INDEX).get("weight_map", {})
        files = sorted({str(name) for name in names.values()} if isinstance(names, dict) else ())
        if wrong := [name for name in files if pathlib.PurePath(name).name != name]:
            raise BadValue(f"{folder / BIN_INDEX}: {wrong[0]!r} is no name of a file in this folder")
    elif (folder / BIN).is_file():
        files = [BIN]
    else:
        wanted = (hf_whisper.WEIGHTS, hf_whisper.INDEX, BIN, BIN_INDEX)
        raise NotThere(f"{folder}: no weights; a LLaMA of Hugging Face has one of {', '.join(wanted)}")
    found = {}
    for name in files:
        if not (folder / name).is_file():
            raise NotThere(f"{folder / name}: named in {BIN_INDEX} but not there")
        tensors = torch_file.arrays(folder / name, torch_file.read(folder / name))
        found |= {key: (array.shape, lambda array=array: array) for key, array in tensors.items()}
    return found


def _read(folder, reader, key):
    return hf_whisper.tensor(folder, reader, key)
