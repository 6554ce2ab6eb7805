"""OpenAI's own Whisper checkpoints (`tiny.pt`, ...): {"dims": sizes, "model_state_dict": tensors} of torch.save.

Read and written without torch. The map of names is exhaustive both ways, as for Hugging Face's layout. The format has
no field for what moejax's micro family changes (hop, masked padding, feed-forward width, its own vocabulary): such a
model would load and run as something else, so it is refused.
"""

import dataclasses
import importlib.util
import pathlib
from typing import Any

import numpy as np

from moejax.audio.constants import HOP
from moejax.convert import hf_whisper, torch_file
from moejax.errors import BadValue, NotThere
from moejax.nn.functional import nest
from moejax.nn.whisper import WhisperConfig
from moejax.text.tokenizer import Tokenizer
from moejax.types import Params

_DIMS = {  # theirs: ours
    "n_mels": "num_mel_bins",
    "n_audio_ctx": "max_source_positions",
    "n_audio_state": "d_model",
    "n_audio_head": "encoder_heads",
    "n_audio_layer": "encoder_layers",
    "n_vocab": "vocab_size",
    "n_text_ctx": "max_target_positions",
    "n_text_state": "d_model",
    "n_text_head": "decoder_heads",
    "n_text_layer": "decoder_layers",
}
_WORDS = {  # ours: theirs, one component of a path
    "layers": "blocks",
    "self_attn": "attn",
    "self_attn_norm": "attn_ln",
    "cross_attn_norm": "cross_attn_ln",
    "mlp_norm": "mlp_ln",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
    "q": "query",
    "k": "key",
    "v": "value",
    "kernel": "weight",
    "scale": "weight",
    "embed": "token_embedding.weight",
    "positions": "positional_embedding",
}
_VOCABULARIES = {51864: (False, 99), 51865: (True, 99), 51866: (True, 100)}  # size: multilingual, languages
_FILES = {True: "multilingual.tiktoken", False: "gpt2.tiktoken"}


def load(path: str | pathlib.Path, *, dtype: str = "float32") -> tuple[WhisperConfig, Params]:
    """`(WhisperConfig, params)` of a `.pt` file, params = {"backbone": ..., "buffer": ...} of numpy arrays.

    Reads float32, float16 and bfloat16 tensors and casts to `dtype`; each array is copied once, out of the mapped file.
    Raises FileNotFoundError, or a one-line ValueError that names the file and the key.
    """
    path = pathlib.Path(path)
    checkpoint = torch_file.read(path)
    if not isinstance(checkpoint, dict) or not {"dims", "model_state_dict"} <= checkpoint.keys():
        raise BadValue(f"{path}: no OpenAI Whisper checkpoint (it has no dims and model_state_dict)")
    config, tensors = config_of(checkpoint["dims"], path), checkpoint["model_state_dict"]
    if not isinstance(tensors, dict) or not all(isinstance(key, str) for key in tensors):
        raise BadValue(f"{path}: model_state_dict is not a dict of named tensors")
    if other := [key for key, tensor in tensors.items() if not isinstance(tensor, np.ndarray)]:
        raise BadValue(f"{path}: {other[0]} is a {type(tensors[other[0]]).__name__}, not a tensor")
    places = key_map(config)
    hf_whisper.check_keys(path, {key: np.shape(tensor) for key, tensor in tensors.items()}, places)
    flat = {
        place: np.array(hf_whisper.turn(place, hf_whisper.numbers(path, key, tensors[key])), dtype=dtype, order="C")
        for key, (place, _) in places.items()
    }
    return config, nest(flat)


def config_of(dims: Any, path: str | pathlib.Path = "dims") -> WhisperConfig:
    """WhisperConfig of a checkpoint's `dims`."""
    if not isinstance(dims, dict) or dims.keys() != _DIMS.keys():
        raise BadValue(f"{path}: dims must be a dict of {', '.join(_DIMS)}")
    sizes = {ours: dims[theirs] for theirs, ours in _DIMS.items()}
    if not isinstance(sizes["d_model"], int) or dims["n_audio_state"] != dims["n_text_state"]:
        raise BadValue(f"{path}: encoder and decoder differ in width; only equal widths are supported")
    try:
        return WhisperConfig(**sizes, encoder_ffn=4 * sizes["d_model"], decoder_ffn=4 * sizes["d_model"])
    except ValueError as error:
        raise BadValue(f"{path}: {error}") from None


def check(config: WhisperConfig, tokenizer: Any = None) -> None:
    """Raises a one-line ValueError for a model that OpenAI's package would run differently, or not at all."""
    c, wrong = config, []
    wrong += [f"a mel hop of {c.hop} samples (it has {HOP})"] if c.hop != HOP else []
    wrong += ["masked padding (it hears padding as silence)"] if c.mask_padding else []
    wrong += ["a feed-forward width other than 4 d_model"] if {c.encoder_ffn, c.decoder_ffn} != {4 * c.d_model} else []
    if c.vocab_size not in _VOCABULARIES or (tokenizer is not None and not _published(tokenizer, c.vocab_size)):
        wrong.append("a vocabulary other than the published ones")
    if wrong:
        raise BadValue(f"OpenAI's Whisper cannot express this model: {'; '.join(wrong)}. Export it with --to hf")


def save(
    path: str | pathlib.Path, config: WhisperConfig, params: Params, *, tokenizer: Any = None, dtype: str = "float16"
) -> None:
    """Writes a `.pt` file that `whisper.load_model(path)` and `load` read, whole or not at all.

    Args:
      path: file to write; OpenAI's loader takes any existing file's path.
      config: WhisperConfig; models that the format cannot express are refused (see `check`).
      params: {"backbone": ..., "buffer": ...}; merge experts into the backbone first.
      tokenizer: text.tokenizer.Tokenizer, to be sure that its vocabulary is the published one.
      dtype: of the stored tensors; published files hold float16, and their loader makes float32 of it.
    """
    check(config, tokenizer)
    dims = {theirs: getattr(config, ours) for theirs, ours in _DIMS.items()}
    by_place = {place: key for key, (place, _) in key_map(config).items()}
    theirs = hf_whisper.to_hf(config, params)
    state = {
        by_place[place]: hf_whisper.narrowed(key, theirs[key], dtype)
        for key, (place, _) in hf_whisper.key_map(config).items()
    }
    torch_file.write(path, {"dims": dims, "model_state_dict": state})


def key_map(config: WhisperConfig) -> dict[str, tuple[str, tuple[int, ...]]]:
    """{OpenAI key: (path in params, shape in the file)} of every array of the network."""
    return {_key(place): (place, shape) for place, shape in hf_whisper.key_map(config).values()}


def _key(place: str) -> str:
    _, side, *rest = place.split("/")
    if rest[0] == "norm":
        return f"{side}.{'ln_post' if side == 'encoder' else 'ln'}.{_WORDS.get(rest[1], rest[1])}"
    return ".".join([side, *(_WORDS.get(word, word) for word in rest)])


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Where a checkpoint's vocabulary lies: a tiktoken file, or a folder with Hugging Face's tokenizer files."""

    path: pathlib.Path
    multilingual: bool
    num_languages: int

    def open(self) -> Tokenizer:
        """The tokenizer."""
        if self.path.is_dir():
            return Tokenizer.from_hf_folder(self.path)
        return Tokenizer.from_tiktoken(self.path, multilingual=self.multilingual, num_languages=self.num_languages)


def vocabulary(path: str | pathlib.Path, config: WhisperConfig, given: str | pathlib.Path | None = None) -> Vocabulary:
    """The vocabulary that belongs to the checkpoint at `path`; which one follows from its size alone.

    Looked for: `given` (a tiktoken file, or a folder with one or with tokenizer.json); beside the checkpoint; in the
    assets of an installed openai-whisper package (which is not imported). Errors: FileNotFoundError naming the file
    that is wanted and the places.
    """
    if config.vocab_size not in _VOCABULARIES:
        known = ", ".join(map(str, _VOCABULARIES))
        raise BadValue(f"{path}: {config.vocab_size} tokens is no published vocabulary ({known})")
    multilingual, languages = _VOCABULARIES[config.vocab_size]
    name = _FILES[multilingual]
    places = [pathlib.Path(given)] if given is not None else [pathlib.Path(path).parent]
    package = importlib.util.find_spec("whisper") if given is None else None
    if package is not None and package.origin:
        places.append(pathlib.Path(package.origin).parent / "assets")
    for place in places:
        if place.is_file() or (place / name).is_file():
            return Vocabulary(place if place.is_file() else place / name, multilingual, languages)
        if (place / "tokenizer.json").is_file():
            return Vocabulary(place, multilingual, languages)
    where = " nor in ".join(map(str, places))
    raise NotThere(f"{path} needs its vocabulary {name}, which is not in {where}; put it beside the file")


def _published(tokenizer, vocab_size: int) -> bool:
    """Whether text and control tokens stand where the published vocabulary of this size has them. Some folders do not
    list its timestamps, which are its end.
    """
    if tokenizer.vocab_size not in (vocab_size, tokenizer.timestamp_begin):
        return False
    multilingual, languages = _VOCABULARIES[vocab_size]
    eot, the, world = (50257, 264, 1002) if multilingual else (50256, 262, 995)
    found = (tokenizer.eot, tokenizer.encode("the"), tokenizer.encode("world"), tokenizer.timestamp_begin)
    return tokenizer.is_multilingual == multilingual and found == (eot, [the], [world], eot + languages + 8)
