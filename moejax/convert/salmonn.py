"""SALMONN's checkpoints (`salmonn_v1.pth`: what was trained, no frozen part), read without torch, and the whole system.

    ln_speech.*  ln_audio.*  speech_query_tokens  speech_Qformer.bert.*  speech_llama_proj.*
    llama_model.base_model.model.model.layers.N.self_attn.{q,v}_proj.lora_{A,B}.default.weight

The map of names is exhaustive both ways; what older libraries leave in such a file besides, constants that follow from
the sizes, is known by name.
"""

import pathlib
import re

import numpy as np

from moejax.convert import beats, hf_llama, torch_file, whisper_folder
from moejax.convert.hf_whisper import check_keys, numbers, turn
from moejax.errors import BadValue, NotThere
from moejax.nn.audio_llm import AudioLLMConfig
from moejax.nn.connectors import ConnectorConfig
from moejax.nn.functional import nest
from moejax.types import Params

CONSTANTS = re.compile(r".*\.(rotary_emb\.inv_freq|position_ids)")
ADAPTED = ("q", "v")
_LAYER = "speech_Qformer.bert.encoder.layer.{}"
_LORA = "llama_model.base_model.model.model.layers.{}.self_attn.{}_proj.lora_{}.default.weight"


def load_trained(path: str | pathlib.Path, config: AudioLLMConfig) -> tuple[int, Params]:
    """`(rank, params)` of a file, params = {"head": connector, "expert": one LoRA on q and v} of float32 arrays.

    Its alpha is not in the file (32 as published). Errors: NotThere, `torch_file.NotATorchFile`, or a one-line BadValue
    naming file and key.
    """
    path, tensors = pathlib.Path(path), _arrays(path)
    rank = _rank(path, tensors)
    places = key_map(config, rank)
    check_keys(path, {key: tuple(array.shape) for key, array in tensors.items()}, places)
    flat = {
        place: _laid_out(place, numbers(path, key, tensors[key]).astype(np.float32))
        for key, (place, _) in places.items()
    }
    return rank, nest(flat)


def rank_of(path: str | pathlib.Path) -> int:
    """The LoRA's rank in a file."""
    return _rank(path, _arrays(pathlib.Path(path)))


def _rank(path, tensors) -> int:
    first = tensors.get(_LORA.format(0, "q", "A"))
    if first is None:
        raise BadValue(f"{path}: no {_LORA.format(0, 'q', 'A')}, by which the LoRA's rank is known")
    return len(first)


def connector_of(path: str | pathlib.Path) -> ConnectorConfig:
    """The connector's sizes by the shapes in a file; its heads are 64 wide, as BERT's, and its windows as published."""
    tensors = _arrays(pathlib.Path(path))
    layers = {key.split(".")[4] for key in tensors if key.startswith("speech_Qformer.bert.encoder.layer.")}
    queries, inner = (
        tensors.get("speech_query_tokens"),
        tensors.get(f"{_LAYER.format(0)}.intermediate_query.dense.bias"),
    )
    if queries is None or queries.ndim != 3 or inner is None:
        raise BadValue(f"{path}: no speech_query_tokens, or no {_LAYER.format(0)}: not a checkpoint of SALMONN")
    width = queries.shape[2]
    return ConnectorConfig(
        width=width, layers=len(layers), heads=max(1, width // 64), ffn=len(inner), queries=queries.shape[1]
    )


def _arrays(path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise NotThere(f"{path}: there is no such file; SALMONN's checkpoints are salmonn_v1.pth and the like")
    found = torch_file.read(path, skip=True)
    if not isinstance(found, dict) or "model" not in found:
        raise BadValue(f"{path}: not a checkpoint of SALMONN, which holds 'model'")
    arrays = torch_file.arrays(path, found["model"])
    return {key: array for key, array in arrays.items() if not CONSTANTS.fullmatch(key)}


def key_map(config: AudioLLMConfig, rank: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{key: (path in params, shape in the file)} of everything that SALMONN trains."""
    c, llama = config.connector, config.llama
    if c.kind != "qformer":
        raise BadValue(f"SALMONN has a connector of the kind 'qformer', not {c.kind!r}")
    heard = config.whisper.d_model + (config.sounds.width if config.sounds else 0)
    places: dict[str, tuple[str, tuple[int, ...]]] = _norm("ln_speech", "states_norm", config.whisper.d_model)
    if config.sounds:
        places |= _norm("ln_audio", "sounds_norm", config.sounds.width)
    places["speech_query_tokens"] = ("head/connector/qformer/queries", (1, c.queries, c.width))
    places |= _layer("speech_llama_proj", "project", c.width, llama.d_model)
    places |= _norm("speech_Qformer.bert.embeddings.LayerNorm", "qformer/norm", c.width)
    for n in range(c.layers):
        at, ours = _LAYER.format(n), f"qformer/layers/{n}"
        for theirs, mine, other in (("attention", "self_attn", c.width), ("crossattention", "cross_attn", heard)):
            for part, d_in in (("query", c.width), ("key", other), ("value", other)):
                places |= _layer(f"{at}.{theirs}.self.{part}", f"{ours}/{mine}/{part[0]}", d_in, c.width)
            places |= _layer(f"{at}.{theirs}.output.dense", f"{ours}/{mine}/out", c.width, c.width)
            places |= _norm(f"{at}.{theirs}.output.LayerNorm", f"{ours}/{mine}/norm", c.width)
        places |= _layer(f"{at}.intermediate_query.dense", f"{ours}/fc1", c.width, c.ffn)
        places |= _layer(f"{at}.output_query.dense", f"{ours}/fc2", c.ffn, c.width)
        places |= _norm(f"{at}.output_query.LayerNorm", f"{ours}/norm", c.width)
    for n in range(llama.layers):
        for part in ADAPTED:
            out = (llama.heads if part == "q" else llama.key_heads) * llama.width
            at = f"expert/decoder/layers/{n}/self_attn/{part}/experts"
            places[_LORA.format(n, part, "A")] = (f"{at}/A", (rank, llama.d_model))
            places[_LORA.format(n, part, "B")] = (f"{at}/B", (out, rank))
    return places


def load(
    whisper: str | pathlib.Path,
    llama: str | pathlib.Path,
    sounds: str | pathlib.Path | None,
    trained: str | pathlib.Path | None,
    *,
    connector: ConnectorConfig | None = None,
    dtype: str = "float32",
) -> tuple[int, AudioLLMConfig, Params]:
    """`(rank of the LoRA, AudioLLMConfig, params)` of the parts' folders and files: a Whisper and a LLaMA in Hugging
    Face's layout, BEATs where there is one, SALMONN's checkpoint. The language model is read as `dtype`.

    `trained` None: there is no checkpoint, so rank is 0, params have neither connector nor LoRA, and `connector` says
    how the first of them is to be made (None: as published).
    """
    if trained is not None:
        connector = connector_of(trained)  # what is quick to refuse comes first
    whisper_config, heard = whisper_folder.load(whisper)
    sounds_config, hearing = (None, None) if sounds is None else beats.load(sounds)
    llama_config, said = hf_llama.load(llama, dtype=dtype)
    backbone = {"encoder": heard["backbone"]["encoder"], "decoder": said["backbone"]}
    if hearing is not None:
        backbone["sounds"] = hearing["backbone"]
    config = AudioLLMConfig(whisper_config, llama_config, sounds_config, connector or ConnectorConfig())
    rank, own = (0, {}) if trained is None else load_trained(trained, config)
    return rank, config, {"backbone": backbone, "buffer": {"encoder": heard["buffer"]["encoder"]}, **own}


def _layer(theirs, ours, d_in, d_out) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {
        f"{theirs}.weight": (f"head/connector/{ours}/kernel", (d_out, d_in)),
        f"{theirs}.bias": (f"head/connector/{ours}/bias", (d_out,)),
    }


def _norm(theirs, ours, width) -> dict[str, tuple[str, tuple[int, ...]]]:
    pairs = (("weight", "scale"), ("bias", "bias"))
    return {f"{theirs}.{their}": (f"head/connector/{ours}/{mine}", (width,)) for their, mine in pairs}


def _laid_out(place, array):
    if place.endswith("queries"):
        return array[0]
    if place.startswith("expert/"):
        return np.ascontiguousarray(array.T)[None]
    return np.ascontiguousarray(turn(place, array))
