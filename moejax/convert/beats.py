"""BEATs checkpoints as published, `{"cfg": ..., "model": ...}` of torch.save, read without torch.

The map of names is exhaustive both ways. The weight norm of the convolution of positions is multiplied out; the
classifier of a fine-tuned checkpoint is known and left out.
"""

import pathlib

import numpy as np

from moejax.convert import torch_file
from moejax.convert.hf_whisper import check_keys, numbers, turn
from moejax.errors import BadValue, NotThere
from moejax.nn.beats import BeatsConfig
from moejax.nn.functional import nest
from moejax.types import Params

FIELDS = {  # ours: theirs, with what theirs is where nothing is said
    "patch": ("input_patch_size", -1),
    "patch_width": ("embed_dim", 512),
    "patch_bias": ("conv_bias", False),
    "width": ("encoder_embed_dim", 768),
    "layers": ("encoder_layers", 12),
    "heads": ("encoder_attention_heads", 12),
    "ffn": ("encoder_ffn_embed_dim", 3072),
    "conv": ("conv_pos", 128),
    "conv_groups": ("conv_pos_groups", 16),
    "buckets": ("num_buckets", 320),
    "max_distance": ("max_distance", 1280),
}
FIXED = {  # theirs: (what it must be, what it is where nothing is said)
    "activation_fn": ("gelu", "gelu"),
    "layer_norm_first": (False, False),
    "deep_norm": (True, False),
    "relative_position_embedding": (True, False),
    "gru_rel_pos": (True, False),
}
_CONV = "encoder.pos_conv.0"
_DISTANCES = "encoder.layers.{}.self_attn.relative_attention_bias.weight"


def load(path: str | pathlib.Path) -> tuple[BeatsConfig, Params]:
    """`(BeatsConfig, params)` of a file, params = {"backbone": ...} of float32 numpy arrays.

    Errors: NotThere, `torch_file.NotATorchFile`, or a one-line BadValue naming file and key.
    """
    path, found = pathlib.Path(path), _read(path)
    config, model = _config(path, found["cfg"]), torch_file.arrays(path, found["model"])
    tensors = {key: array for key, array in model.items() if not key.startswith("predictor.")}
    places = key_map(config)
    check_keys(path, {key: tuple(array.shape) for key, array in tensors.items()}, places)
    arrays = {key: numbers(path, key, tensors[key]).astype(np.float32) for key in places}
    flat = {}
    for key, (place, _) in places.items():
        if place:
            flat[place] = _laid_out(place, arrays[key])
    flat["backbone/conv_kernel"] = _unnormed(arrays[f"{_CONV}.weight_g"], arrays[f"{_CONV}.weight_v"])
    for n in range(1, config.layers):
        if not np.array_equal(arrays[_DISTANCES.format(n)], arrays[_DISTANCES.format(0)]):
            raise BadValue(f"{path}: {_DISTANCES.format(n)} differs from the first layer's; layers share it")
    return config, nest(flat)


def load_config(path: str | pathlib.Path) -> BeatsConfig:
    """Sizes of the network in a file, whose weights are mapped and not read. Errors: as `load`."""
    return _config(path, _read(path)["cfg"])


def _read(path) -> dict:
    if not pathlib.Path(path).is_file():
        raise NotThere(f"{path}: there is no such file; BEATs checkpoints are BEATs_iter3_plus_AS2M.pt and the like")
    found = torch_file.read(path)
    if not isinstance(found, dict) or not all(isinstance(found.get(name), dict) for name in ("cfg", "model")):
        raise BadValue(f"{path}: not a BEATs checkpoint, which holds 'cfg' and 'model'")
    return found


def key_map(config: BeatsConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{key: (path in params, shape in the file)}; the path is empty where several keys make one array."""
    c = config
    places = {
        "patch_embedding.weight": ("backbone/patches/kernel", (c.patch_width, 1, c.patch, c.patch)),
        f"{_CONV}.weight_g": ("", (1, 1, c.conv)),
        f"{_CONV}.weight_v": ("", (c.width, c.width // c.conv_groups, c.conv)),
        f"{_CONV}.bias": ("backbone/conv_bias", (c.width,)),
    }
    if c.patch_bias:
        places["patch_embedding.bias"] = ("backbone/patches/bias", (c.patch_width,))
    places |= _norm("layer_norm", "patch_norm", c.patch_width) | _norm("encoder.layer_norm", "norm", c.width)
    if c.patch_width != c.width:
        places |= _layer("post_extract_proj", "project", c.patch_width, c.width)
    for n in range(c.layers):
        at, ours = f"encoder.layers.{n}", f"layers/{n}"
        places[_DISTANCES.format(n)] = ("" if n else "backbone/distances", (c.buckets, c.heads))
        for theirs, mine in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("out_proj", "out")):
            places |= _layer(f"{at}.self_attn.{theirs}", f"{ours}/self_attn/{mine}", c.width, c.width)
        places |= _layer(f"{at}.self_attn.grep_linear", f"{ours}/self_attn/gate", c.width // c.heads, 8)
        places[f"{at}.self_attn.grep_a"] = (f"backbone/{ours}/self_attn/gate_scale", (1, c.heads, 1, 1))
        places |= _norm(f"{at}.self_attn_layer_norm", f"{ours}/self_attn_norm", c.width)
        places |= _norm(f"{at}.final_layer_norm", f"{ours}/norm", c.width)
        places |= _layer(f"{at}.fc1", f"{ours}/fc1", c.width, c.ffn)
        places |= _layer(f"{at}.fc2", f"{ours}/fc2", c.ffn, c.width)
    return places


def _layer(theirs, ours, d_in, d_out) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        f"{theirs}.weight": (f"backbone/{ours}/kernel", (d_out, d_in)),
        f"{theirs}.bias": (f"backbone/{ours}/bias", (d_out,)),
    }


def _norm(theirs, ours, width) -> dict[str, tuple[str, tuple[int, ...]]]:
    pairs = (("weight", "scale"), ("bias", "bias"))
    return {f"{theirs}.{their}": (f"backbone/{ours}/{mine}", (width,)) for their, mine in pairs}


def _config(path, cfg) -> BeatsConfig:
    for name, (value, silent) in FIXED.items():
        if cfg.get(name, silent) != value:
            raise BadValue(f"{path}: {name} is {cfg.get(name, silent)!r}; only {value!r} is supported")
    try:
        return BeatsConfig(**{ours: cfg.get(theirs, silent) for ours, (theirs, silent) in FIELDS.items()})
    except ValueError as error:
        raise BadValue(f"{path}: {error}") from None


def _laid_out(place, array):
    if place.endswith("patches/kernel"):
        return np.ascontiguousarray(array.reshape(len(array), -1).T)
    if place.endswith("gate_scale"):
        return array.reshape(-1)
    return np.ascontiguousarray(turn(place, array))


def _unnormed(gain_11K, direction_OIK):
    """Kernel [K, I, O] of a convolution whose weights are gain * direction / |direction|, a norm for every tap."""
    norm_11K = np.sqrt(np.square(direction_OIK.astype(np.float64)).sum((0, 1), keepdims=True))
    return np.ascontiguousarray((gain_11K * direction_OIK / norm_11K).transpose(2, 1, 0), dtype=np.float32)
