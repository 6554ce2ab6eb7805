"""CTranslate2 folders of Whispers, written for tests: by the description of the format, not by the reader's map."""

import json
import struct

import ml_dtypes
import numpy as np

from moejax.convert import hf_whisper

TYPES = [np.dtype(kind) for kind in (np.float32, np.int8, np.int16, np.int32, np.float16, ml_dtypes.bfloat16)]
FLAGS = {"activation": 3, "alibi": 0, "pre_norm": 1, "scale_embeddings": 0, "start_from_zero_embedding": 0}


def variables(config, params):
    """{CTranslate2 name: array} of a network, by way of Hugging Face's names."""
    theirs = hf_whisper.to_hf(config, params)
    found = {f"decoder/{name}": np.int8(value) for name, value in FLAGS.items()}
    found |= {"encoder/num_heads": np.int16(config.encoder_heads), "decoder/num_heads": np.int16(config.decoder_heads)}
    found["decoder/embeddings/weight"] = theirs["model.decoder.embed_tokens.weight"]
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        found[f"{side}/position_encodings/encodings"] = theirs[f"model.{side}.embed_positions.weight"]
        _norm(found, theirs, f"{side}/layer_norm", f"model.{side}.layer_norm")
        for i in range(layers):
            _layer(found, theirs, f"{side}/layer_{i}", f"model.{side}.layers.{i}", side == "decoder")
    for name in ("conv1", "conv2"):
        for part in ("weight", "bias"):
            found[f"encoder/{name}/{part}"] = theirs[f"model.encoder.{name}.{part}"]
    return found


def _norm(found, theirs, name, key):
    found[f"{name}/gamma"], found[f"{name}/beta"] = theirs[f"{key}.weight"], theirs[f"{key}.bias"]


def _layer(found, theirs, name, key, decoder):
    def stack(target, *sources):
        weights = [theirs[f"{source}.weight"] for source in sources]
        none = np.zeros(len(weights[0]), weights[0].dtype)
        biases = [theirs.get(f"{source}.bias", none) for source in sources]
        found[f"{target}/weight"], found[f"{target}/bias"] = np.concatenate(weights), np.concatenate(biases)

    own, other = f"{key}.self_attn", f"{key}.encoder_attn"
    stack(f"{name}/self_attention/linear_0", *(f"{own}.{part}_proj" for part in "qkv"))
    stack(f"{name}/self_attention/linear_1", f"{own}.out_proj")
    _norm(found, theirs, f"{name}/self_attention/layer_norm", f"{own}_layer_norm")
    if decoder:
        stack(f"{name}/attention/linear_0", f"{other}.q_proj")
        stack(f"{name}/attention/linear_1", f"{other}.k_proj", f"{other}.v_proj")
        stack(f"{name}/attention/linear_2", f"{other}.out_proj")
        _norm(found, theirs, f"{name}/attention/layer_norm", f"{other}_layer_norm")
    stack(f"{name}/ffn/linear_0", f"{key}.fc1")
    stack(f"{name}/ffn/linear_1", f"{key}.fc2")
    _norm(found, theirs, f"{name}/ffn/layer_norm", f"{key}.final_layer_norm")


def cast(arrays, kind):
    """The variables as the converter's `--quantization` leaves them."""
    if kind in ("float32", "float16", "bfloat16"):
        return {name: array.astype(kind) if array.ndim else array for name, array in arrays.items()}
    found = {}
    for name, array in arrays.items():
        if not name.endswith("weight"):
            found[name] = array
            continue
        rows = array.reshape(len(array), -1)
        largest = np.abs(rows).max(axis=1) if kind == "int8" else np.abs(rows).max()
        scale = (127 / largest if kind == "int8" else 2**10 / largest).astype(np.float32)
        scaled = rows * (scale[:, None] if scale.ndim else scale)
        found[name], found[f"{name}_scale"] = np.rint(scaled).astype(kind).reshape(array.shape), scale
    return found


def model_bin(arrays, aliases=(), version=6, kind="WhisperSpec") -> bytes:
    """The bytes of a model.bin."""

    def text(name):
        return struct.pack("<H", len(name) + 1) + name.encode() + b"\0"

    out = [struct.pack("<I", version), *([text(kind), struct.pack("<I", 3)] if version >= 2 else [])]
    out.append(struct.pack("<I", len(arrays)))
    for name, array in sorted(arrays.items()):
        array = np.asarray(array)
        out += [text(name), struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)]
        if version >= 4:
            out.append(struct.pack("<BI", TYPES.index(array.dtype), array.nbytes))
        else:
            out.append(struct.pack("<BI", array.dtype.itemsize, array.size))
        out.append(array.tobytes())
    if version >= 3:
        out += [struct.pack("<I", len(aliases)), *(text(name) for pair in aliases for name in pair)]
    return b"".join(out)


TIED = (("decoder/projection/weight", "decoder/embeddings/weight"),)


def write(folder, config, params, tokenizer=None, *, kind="float16", vocabulary="tokenizer.json", **settings):
    """A folder as faster-whisper's models come; `settings` are entries of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.bin").write_bytes(model_bin(cast(variables(config, params), kind), TIED))
    (folder / "config.json").write_text(json.dumps({"alignment_heads": [[0, 1]], "suppress_ids": [1, 2], **settings}))
    if tokenizer is not None:
        tokenizer.save(folder)
        tokens = _tokens(json.loads((folder / "tokenizer.json").read_text()))
        for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if name != vocabulary:
                (folder / name).unlink()
        for name in ("vocab.json", "merges.txt", "added_tokens.json"):
            (folder / name).unlink()
        if vocabulary == "vocabulary.json":
            (folder / vocabulary).write_text(json.dumps(tokens))
        if vocabulary == "vocabulary.txt":
            (folder / vocabulary).write_text("".join(f"{token}\n" for token in tokens), encoding="utf-8")
    return folder


def _tokens(whole):
    """All tokens of a tokenizer.json in the order of their ids."""
    ids = {**whole["model"]["vocab"], **{token["content"]: token["id"] for token in whole["added_tokens"]}}
    return sorted(ids, key=ids.__getitem__)
