"""Whisper in CTranslate2's folder layout, as faster-whisper's models come, read without ctranslate2 or torch.

    model.bin                      see ctranslate2_file; float32, float16, bfloat16, int8 and int16
    config.json                    alignment heads, suppressed tokens
    preprocessor_config.json       the mel front end, of some models
    tokenizer.json, or vocabulary.json, or vocabulary.txt (see text.tokenizer)

Queries, keys and values are stacked in one matrix, and no file says how large the network is: that follows from names
and shapes. The map of names is exhaustive both ways, as for Hugging Face's layout.
"""

import pathlib
import re

import numpy as np

from moejax.convert import ctranslate2_file, hf_whisper
from moejax.convert.ctranslate2_file import ModelFile
from moejax.errors import BadValue
from moejax.nn.functional import nest
from moejax.nn.whisper import WhisperConfig
from moejax.types import Params

WEIGHTS = "model.bin"
_KIND = "WhisperSpec"
_EMBED, _PROJECTION = "decoder/embeddings/weight", "decoder/projection/weight"
_HEADS = ("encoder/num_heads", "decoder/num_heads")
_FLAGS = {  # attributes that say how the network computes, and what they must be; None for what has no effect then
    "decoder/activation": 3,  # GELU, not its approximation
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
    "decoder/alibi": 0,
    "decoder/alibi_use_positive_positions": None,
    "decoder/scale_alibi": None,
    "decoder/alignment_heads": None,
    "decoder/alignment_layer": None,
}
_WORDS = {  # theirs: ours, from the layer on
    "attention/layer_norm": "cross_attn_norm",
    "attention/linear_0": "cross_attn/q",
    "attention/linear_2": "cross_attn/out",
    "self_attention/layer_norm": "self_attn_norm",
    "self_attention/linear_1": "self_attn/out",
    "ffn/layer_norm": "mlp_norm",
    "ffn/linear_0": "fc1",
    "ffn/linear_1": "fc2",
}
_STACKED = {  # matrices on top of each other
    "attention/linear_1": ("cross_attn/k", "cross_attn/v"),
    "self_attention/linear_0": ("self_attn/q", "self_attn/k", "self_attn/v"),
}


def load(folder: str | pathlib.Path, *, dtype: str = "float32") -> tuple[WhisperConfig, Params]:
    """`(WhisperConfig, params)` of a folder, params = {"backbone": ..., "buffer": ...} of numpy arrays of `dtype`.

    Errors: FileNotFoundError, or a one-line ValueError that names the file and the variable.
    """
    file = ctranslate2_file.read(pathlib.Path(folder) / WEIGHTS)
    config = _config(folder, file)
    places, shapes = key_map(config), dict(hf_whisper.key_map(config).values())
    _check(file, places, shapes)
    flat = {}
    for name, paths in places.items():
        whole = hf_whisper.numbers(file.path, name, file.array(name))
        for path, part in zip(paths, np.split(whole, len(paths)), strict=True):
            if path in shapes:
                flat[path] = np.ascontiguousarray(hf_whisper.turn(path, part), dtype=dtype)
            elif part.any():
                raise BadValue(f"{file.path}: {name} has a bias of keys, which no Whisper has")
    if _PROJECTION in file.names() and not np.array_equal(file.array(_PROJECTION), file.array(_EMBED)):
        raise BadValue(f"{file.path}: {_PROJECTION} differs from {_EMBED}; only tied output matrices are supported")
    return config, nest(flat)


def load_config(folder: str | pathlib.Path) -> WhisperConfig:
    """WhisperConfig of a folder, by the names and shapes of its weights."""
    return _config(folder, ctranslate2_file.read(pathlib.Path(folder) / WEIGHTS))


def settings(folder: str | pathlib.Path) -> dict:
    """The "moejax" entries of a folder: this format has none."""
    return {}


def alignment_heads(folder: str | pathlib.Path) -> list | None:
    """(layer, head) pairs whose attention follows the audio, where config.json names them."""
    return generation(folder).get("alignment_heads")


def generation(folder: str | pathlib.Path) -> dict:
    """What config.json says about generation, by the names of Hugging Face's generation_config.json."""
    known = hf_whisper.read_json(pathlib.Path(folder) / "config.json")
    theirs = {
        "alignment_heads": "alignment_heads",
        "suppress_ids": "suppress_tokens",
        "suppress_ids_begin": "begin_suppress_tokens",
    }
    return {ours: known[name] for name, ours in theirs.items() if known.get(name)}


def key_map(config: WhisperConfig) -> dict[str, tuple[str, ...]]:
    """{variable: paths in params of what is stacked in it} of every array of the network.

    A path that no parameter has is the bias of keys: zeros there, nothing here.
    """
    places = {
        _EMBED: ("backbone/decoder/embed",),
        "decoder/position_encodings/encodings": ("backbone/decoder/positions",),
        "encoder/position_encodings/encodings": ("buffer/encoder/positions",),
    }
    for name in ("encoder/conv1", "encoder/conv2"):
        places |= _linear(name, (f"backbone/{name}",))
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        for i in range(layers):
            theirs, ours = f"{side}/layer_{i}", f"backbone/{side}/layers/{i}"
            for name, mine in (*_WORDS.items(), *_STACKED.items()):
                if side == "encoder" and name.startswith("attention"):
                    continue
                paths = tuple(f"{ours}/{word}" for word in ((mine,) if isinstance(mine, str) else mine))
                places |= (_norm if name.endswith("norm") else _linear)(f"{theirs}/{name}", paths)
        places |= _norm(f"{side}/layer_norm", (f"backbone/{side}/norm",))
    return places


def _linear(theirs, paths):
    pairs = (("weight", "kernel"), ("bias", "bias"))
    return {f"{theirs}/{their}": tuple(f"{path}/{mine}" for path in paths) for their, mine in pairs}


def _norm(theirs, paths):
    return {f"{theirs}/{their}": (f"{paths[0]}/{mine}",) for their, mine in (("gamma", "scale"), ("beta", "bias"))}


def _check(file: ModelFile, places, shapes) -> None:
    """Refuses a file whose variables are not exactly those of the network, or whose network computes otherwise."""
    attributes = {*_FLAGS, *_HEADS, _PROJECTION}
    wanted = {}
    for name, paths in places.items():
        one = shapes.get(paths[-1], ())  # of what is stacked the last is always a parameter
        wanted[name] = ("", (one[0] * len(paths), *one[1:]))
    found = {name: file.shape(name) for name in file.names() - attributes}
    hf_whisper.check_keys(file.path, found, wanted)
    for name, value in _FLAGS.items():
        if value is not None and name in file.names() and _scalar(file, name) != value:
            raise BadValue(f"{file.path}: {name} is {_scalar(file, name)}; only {value} is supported")


def _config(folder: str | pathlib.Path, file: ModelFile) -> WhisperConfig:
    if file.kind not in (_KIND, ""):
        raise BadValue(f"{file.path}: is a {file.kind}, not a {_KIND}")
    vocabulary, width = _shape(file, _EMBED, 2)
    mels = _shape(file, "encoder/conv1/weight", 3)[1]
    hop = hf_whisper.load_hop(pathlib.Path(folder), mels, None)
    encoder_heads, decoder_heads = (_scalar(file, name) for name in _HEADS)
    try:
        return WhisperConfig(
            d_model=width,
            encoder_layers=_layers(file, "encoder"),
            decoder_layers=_layers(file, "decoder"),
            encoder_heads=encoder_heads,
            decoder_heads=decoder_heads,
            encoder_ffn=_shape(file, "encoder/layer_0/ffn/linear_0/weight", 2)[0],
            decoder_ffn=_shape(file, "decoder/layer_0/ffn/linear_0/weight", 2)[0],
            vocab_size=vocabulary,
            num_mel_bins=mels,
            max_source_positions=_shape(file, "encoder/position_encodings/encodings", 2)[0],
            max_target_positions=_shape(file, "decoder/position_encodings/encodings", 2)[0],
            hop=hop,
        )
    except ValueError as error:
        raise BadValue(f"{file.path}: {error}") from None


def _layers(file: ModelFile, side: str) -> int:
    """Layers of a side: one more than the highest number in a name; what lacks in between is found by `_check`."""
    numbers = [match[1] for name in file.names() if (match := re.match(rf"{side}/layer_(\d{{1,4}})/", name))]
    return max(map(int, numbers), default=-1) + 1


def _shape(file: ModelFile, name: str, rank: int) -> tuple[int, ...]:
    if name not in file.names():
        raise BadValue(f"{file.path}: lacks {name}")
    shape = file.shape(name)
    if len(shape) != rank:
        raise BadValue(f"{file.path}: {name} has the shape {shape}, want {rank} axes")
    return shape


def _scalar(file: ModelFile, name: str) -> int:
    _shape(file, name, 0)
    return int(file.array(name))
