"""Whisper in Hugging Face's folder layout, read and written without torch.

    config.json  generation_config.json  preprocessor_config.json
    model.safetensors, or model.safetensors.index.json and its shards
    tokenizer files (see text.tokenizer)

The map of names is exhaustive both ways: a key of the file without a place, a place without a key, or a wrong shape is
an error. What Hugging Face has no field for (hop, padding mask, a caller's own entries) stands in config.json under
"moejax".
"""

import contextlib
import json
import pathlib
from typing import Any

import ml_dtypes  # noqa: F401  (gives numpy the name "bfloat16")
import numpy as np
import safetensors
import safetensors.numpy

from moejax.audio.constants import HOP, N_FFT, SAMPLE_RATE
from moejax.convert import hf_settings
from moejax.errors import AlreadyThere, BadValue, NotThere
from moejax.nn.functional import nest, paths
from moejax.nn.whisper import WhisperConfig
from moejax.runtime.files import replacing_folder
from moejax.types import Array, Params

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
DTYPES = ("float32", "float16", "bfloat16")
_TIED, _EMBED = "proj_out.weight", "model.decoder.embed_tokens.weight"


def load(folder: str | pathlib.Path, *, dtype: str = "float32") -> tuple[WhisperConfig, Params]:
    """`(WhisperConfig, params)` of a folder, params = {"backbone": ..., "buffer": ...} of numpy arrays.

    Reads float32, float16 and bfloat16 files and casts to `dtype`. Raises FileNotFoundError or a one-line ValueError
    that names the file or key.
    """
    folder = pathlib.Path(folder)
    config = load_config(folder)
    places = key_map(config)
    with contextlib.ExitStack() as stack:
        # Files saved from the bare WhisperModel lack the prefix.
        readers = {
            name if name.startswith("model.") or name == _TIED else f"model.{name}": (reader, name)
            for name, reader in open_weights(folder, stack).items()
        }
        check_keys(folder, {key: tuple(r.get_slice(name).get_shape()) for key, (r, name) in readers.items()}, places)
        flat = {}
        for key, (path, _) in places.items():
            array = numbers(folder, key, tensor(folder, *readers[key]))
            flat[path] = np.ascontiguousarray(turn(path, array), dtype=dtype)
        if _TIED in readers:
            if not np.array_equal(tensor(folder, *readers[_TIED]).astype(dtype), flat["backbone/decoder/embed"]):
                raise BadValue(f"{folder}: {_TIED} differs from {_EMBED}; only tied output matrices are supported")
    return config, nest(flat)


def load_config(folder: str | pathlib.Path) -> WhisperConfig:
    """WhisperConfig of a folder: config.json, and the hop of preprocessor_config.json."""
    folder = pathlib.Path(folder)
    raw = read_json(folder / "config.json")
    for name, value in hf_settings.FIXED.items():
        if raw.get(name, value) != value:
            raise BadValue(f"{folder / 'config.json'}: {name} is {raw[name]!r}; only {value!r} is supported")
    missing = [name for name in hf_settings.FIELDS.values() if name not in raw]
    if missing:
        raise BadValue(f"{folder / 'config.json'}: no {', '.join(missing)}")
    ours = settings(folder)
    sizes = {name: raw[theirs] for name, theirs in hf_settings.FIELDS.items()}
    hop = load_hop(folder, sizes["num_mel_bins"], ours.get("hop"))
    try:
        return WhisperConfig(**sizes, hop=hop, mask_padding=bool(ours.get("mask_padding", False)))
    except ValueError as error:
        raise BadValue(f"{folder / 'config.json'}: {error}") from None


def settings(folder: str | pathlib.Path) -> dict:
    """The "moejax" entries of a folder's config.json, empty for published checkpoints."""
    file = pathlib.Path(folder) / "config.json"
    return _entry(file, read_json(file), "moejax")


def alignment_heads(folder: str | pathlib.Path) -> list | None:
    """(layer, head) pairs whose attention follows the audio, where generation_config.json names them."""
    return generation(folder).get("alignment_heads")


def generation(folder: str | pathlib.Path) -> dict:
    """What a folder's generation_config.json says and a model made from it should say too; {} without that file."""
    file = pathlib.Path(folder) / "generation_config.json"
    known = read_json(file) if file.is_file() else {}
    # forced_decoder_ids is what older versions wrote for language and task, and would contradict newer entries.
    left = ("forced_decoder_ids", "transformers_version")
    return {name: value for name, value in known.items() if name not in left and not name.startswith("_")}


def save(
    folder: str | pathlib.Path,
    config: WhisperConfig,
    params: Params,
    tokenizer: Any = None,
    extra: dict | None = None,
    *,
    dtype: str | None = None,
    generation: dict | None = None,
) -> None:
    """Writes a folder that transformers and `load` read, whole or not at all.

    Args:
      folder: an earlier save is replaced; a folder with other files in it is refused.
      config: WhisperConfig.
      params: {"backbone": ..., "buffer": ...}; experts, gates and heads have no place in this format and are an error.
      tokenizer: text.tokenizer.Tokenizer; gives the control-token ids and is saved along.
      extra: JSON-able entries for "moejax" in config.json.
      dtype: of the stored weights (float32, float16, bfloat16); None keeps that of `params`.
      generation: entries of generation_config.json that win over those derived here (alignment heads, a language).
    """
    folder = pathlib.Path(folder).absolute()
    tensors = to_hf(config, params)
    if dtype is not None:
        tensors = {key: narrowed(key, tensor, dtype) for key, tensor in tensors.items()}
    replaceable(folder)
    with replacing_folder(folder) as new:
        safetensors.numpy.save_file(tensors, new / WEIGHTS, metadata={"format": "pt"})
        _write_json(
            new / "config.json", hf_settings.config_json(config, tokenizer, str(tensors[_EMBED].dtype), extra or {})
        )
        _write_json(new / "generation_config.json", hf_settings.generation_json(config, tokenizer) | (generation or {}))
        _write_json(new / "preprocessor_config.json", hf_settings.preprocessor_json(config))
        if tokenizer is not None:
            tokenizer.save(new)


def to_hf(config: WhisperConfig, params: Params) -> dict[str, np.ndarray]:
    """{Hugging Face key: numpy array} of `params`; exhaustive like `load`."""
    flat, places = paths(params), key_map(config)
    known = {path for path, _ in places.values()}
    unknown, missing = sorted(flat.keys() - known), sorted(known - flat.keys())
    if unknown:
        raise ValueError(f"no place in a Hugging Face Whisper for {_some(unknown)}")
    if missing:
        raise ValueError(f"params lack {_some(missing)}")
    tensors = {key: np.ascontiguousarray(turn(path, np.asarray(flat[path]))) for key, (path, _) in places.items()}
    wrong = [
        f"{key} {tensors[key].shape}, want {shape}" for key, (_, shape) in places.items() if tensors[key].shape != shape
    ]
    if wrong:
        raise ValueError(f"wrong shapes for this config: {_some(wrong)}")
    return tensors


def narrowed(name: str, array: Array, dtype: str) -> np.ndarray:
    """The array in float32, float16 or bfloat16. Errors: a ValueError naming it, where a number becomes infinite."""
    if str(dtype) not in DTYPES:
        raise BadValue(f"unknown weight type {dtype!r}; known: {', '.join(DTYPES)}")
    with np.errstate(over="ignore"):
        narrow = np.asarray(array).astype(dtype, copy=False)
    if str(dtype) == "float16" and (np.isinf(narrow) & np.isfinite(array)).any():
        raise BadValue(f"{name} has numbers beyond float16's 65504; choose bfloat16 or float32")
    return narrow


def key_map(config: WhisperConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{Hugging Face key: (path in params, shape in the file)} of every array of the network."""
    c = config
    places = {
        "model.encoder.embed_positions.weight": ("buffer/encoder/positions", (c.max_source_positions, c.d_model)),
        _EMBED: ("backbone/decoder/embed", (c.vocab_size, c.d_model)),
        "model.decoder.embed_positions.weight": ("backbone/decoder/positions", (c.max_target_positions, c.d_model)),
    }
    for name, width in (("conv1", c.num_mel_bins), ("conv2", c.d_model)):
        places |= _layer(f"encoder.{name}", f"encoder/{name}", (c.d_model, width, 3))
    for side, layers, ffn in (
        ("encoder", c.encoder_layers, c.encoder_ffn),
        ("decoder", c.decoder_layers, c.decoder_ffn),
    ):
        for i in range(layers):
            places |= _block(f"{side}.layers.{i}", f"{side}/layers/{i}", c.d_model, ffn, cross=side == "decoder")
        places |= _norm(f"{side}.layer_norm", f"{side}/norm", c.d_model)
    return places


def _block(theirs, ours, width, ffn, *, cross):
    places = {}
    for name, mine in (("self_attn", "self_attn"), ("encoder_attn", "cross_attn"))[: 1 + cross]:
        for part in "qkv":
            places |= _layer(f"{theirs}.{name}.{part}_proj", f"{ours}/{mine}/{part}", (width, width), bias=part != "k")
        places |= _layer(f"{theirs}.{name}.out_proj", f"{ours}/{mine}/out", (width, width))
        places |= _norm(f"{theirs}.{name}_layer_norm", f"{ours}/{mine}_norm", width)
    places |= _layer(f"{theirs}.fc1", f"{ours}/fc1", (ffn, width))
    places |= _layer(f"{theirs}.fc2", f"{ours}/fc2", (width, ffn))
    return places | _norm(f"{theirs}.final_layer_norm", f"{ours}/mlp_norm", width)


def _layer(theirs, ours, shape, *, bias=True):
    places = {f"model.{theirs}.weight": (f"backbone/{ours}/kernel", shape)}
    return places | ({f"model.{theirs}.bias": (f"backbone/{ours}/bias", shape[:1])} if bias else {})


def _norm(theirs, ours, width):
    pairs = (("weight", "scale"), ("bias", "bias"))
    return {f"model.{theirs}.{their}": (f"backbone/{ours}/{mine}", (width,)) for their, mine in pairs}


def turn(path: str, array: Array) -> Array:
    """An array in the other layout: kernels are [..., in, out] here and [out, in, ...] there, so reversing the axes
    goes both ways.
    """
    return array.T if path.endswith("/kernel") else array


def open_weights(folder: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, Any]:
    """{key: open file} over all safetensors files of a folder; `stack` closes them."""
    if (folder / INDEX).is_file():
        names = set(_entry(folder / INDEX, read_json(folder / INDEX), "weight_map").values())
        if wrong := [name for name in names if not isinstance(name, str) or pathlib.PurePath(name).name != name]:
            raise BadValue(f"{folder / INDEX}: {wrong[0]!r} is no name of a file in this folder")
        names = sorted(names)
    elif (folder / WEIGHTS).is_file():
        names = [WEIGHTS]
    else:
        raise NotThere(f"{folder}: neither {WEIGHTS} nor {INDEX} (convert .bin checkpoints to safetensors)")
    found = {}
    for name in names:
        if not (folder / name).is_file():
            raise NotThere(f"{folder / name}: named in {INDEX} but not there")
        try:
            reader = stack.enter_context(safetensors.safe_open(folder / name, framework="np"))
        except (safetensors.SafetensorError, OSError, ValueError) as error:
            raise BadValue(f"{folder / name}: not a readable safetensors file ({_first_line(error)})") from error
        found |= dict.fromkeys(reader.keys(), reader)
    return found


def tensor(folder: str | pathlib.Path, reader: Any, name: str) -> np.ndarray:
    """One array of an open file. Errors: a ValueError naming one of a type that numpy has not."""
    try:
        return reader.get_tensor(name)
    except (safetensors.SafetensorError, TypeError, ValueError, AttributeError) as error:  # a type numpy has not
        raise BadValue(f"{folder}: {name} cannot be read ({_first_line(error)})") from error


def numbers(where: str | pathlib.Path, key: str, array: Array) -> np.ndarray:
    """The array, if it holds floating-point numbers that are all finite. Errors: ValueError naming it."""
    if str(array.dtype) not in (*DTYPES, "float64"):
        raise BadValue(f"{where}: {key} holds {array.dtype}; weights are {', '.join(DTYPES)}")
    if not np.isfinite(array).all():
        raise BadValue(f"{where}: {key} has numbers that are not finite")
    return array


def check_keys(folder: str | pathlib.Path, shapes: dict[str, tuple], places: dict[str, tuple]) -> None:
    """Raises a one-line ValueError unless the {key: shape} of a file are exactly those of `places` (see `key_map`)."""
    unknown = sorted(shapes.keys() - places.keys() - {_TIED})
    missing = sorted(places.keys() - shapes.keys())
    if unknown:
        raise BadValue(f"{folder}: weights have unknown keys {_some(unknown)}")
    if missing:
        raise BadValue(f"{folder}: weights lack {_some(missing)}")
    wrong = [f"{key} {shapes[key]}, want {shape}" for key, (_, shape) in places.items() if shapes[key] != shape]
    if wrong:
        raise BadValue(f"{folder}: weights have the wrong shape: {_some(wrong)}")


def load_hop(folder: pathlib.Path, mels: int, ours: int | None) -> int:
    """Mel hop in samples; refuses features that `ops.audio.log_mel` does not compute."""
    features = {}
    if (folder / "preprocessor_config.json").is_file():
        features = read_json(folder / "preprocessor_config.json")
    elif (folder / "processor_config.json").is_file():  # where transformers 5 puts the same entries
        features = read_json(folder / "processor_config.json")
        features = _entry(folder / "processor_config.json", features, "feature_extractor")
    for name, value in {"n_fft": N_FFT, "sampling_rate": SAMPLE_RATE, "feature_size": mels}.items():
        if features.get(name, value) != value:
            raise BadValue(f"{folder}: the feature extractor's {name} is {features[name]}; this model needs {value}")
    theirs = features.get("hop_length", ours or HOP)
    if ours not in (None, theirs):
        raise BadValue(f"{folder}: hop is {ours} in config.json but {theirs} for the feature extractor")
    return theirs


def replaceable(folder: pathlib.Path) -> None:
    """Only an earlier save may be replaced: someone's other files would go with the folder."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise AlreadyThere(f"{folder}: is a file, not a folder")
    known = ("config.json", "model", "generation_config.json", "preprocessor_config.json", "tokenizer", "vocab.json")
    known += ("merges.txt", "added_tokens.json", "special_tokens_map.json", "normalizer.json", "processor_config.json")
    foreign = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith(known))
    if foreign:
        raise AlreadyThere(f"{folder}: holds {_some(foreign)}, not only a model; choose another folder")


def read_json(path: str | pathlib.Path) -> dict:
    """The object in a JSON file. Errors: ValueError naming a file that holds none."""
    try:
        found = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8
        raise BadValue(f"{path}: not valid JSON ({_first_line(error)})") from error
    if not isinstance(found, dict):
        raise BadValue(f"{path}: holds a {type(found).__name__}, not an object")
    return found


def _entry(path, found, name) -> dict:
    """An object within the object of a file; {} where there is none."""
    value = found.get(name, {})
    if not isinstance(value, dict):
        raise BadValue(f"{path}: {name} is a {type(value).__name__}, not an object")
    return value


def _first_line(error) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


def _write_json(path, value):
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _some(names, most=4):
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
