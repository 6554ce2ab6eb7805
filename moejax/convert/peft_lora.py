"""LoRA adapters in the folder layout of PEFT, written and read without it.

    adapter_config.json  adapter_model.safetensors (or adapter_model.bin of torch.save)

PEFT computes y += (alpha / r) B A x, alpha / sqrt(r) when `use_rslora`, with A [r, in] and B [out, r]: the transposed
factors of `low_rank.LowRank`. What changes that formula (DoRA, biases, other initialisations of the base, ...) is
refused by name, so that nothing is computed silently otherwise.
"""

import collections
import json
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from moejax.convert import hf_whisper, low_rank, torch_file
from moejax.convert.low_rank import LowRank, stacked
from moejax.errors import BadValue, NotThere
from moejax.nn.whisper import WhisperConfig
from moejax.types import Params

CONFIG, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."
_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<factor>[AB])(\.default)?\.weight")
# Settings under which PEFT computes something else than the formula above, as soon as they are set.
_OTHER = (
    *("use_dora", "use_qalora", "use_bdlora", "lora_bias", "fan_in_fan_out", "modules_to_save", "layer_replication"),
    *("target_parameters", "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config"),
    *("velora_config", "monteclora_config", "megatron_config"),
)
_PLAIN_STARTS = (None, True, False, "gaussian", "orthogonal")  # the others change the base's weights too


def modules(config: WhisperConfig) -> dict[str, str]:
    """{layer path: module name in WhisperForConditionalGeneration} of every linear layer of encoder and decoder."""
    return {
        path.removeprefix("backbone/").removesuffix("/kernel"): key.removesuffix(".weight")
        for key, (path, shape) in hf_whisper.key_map(config).items()
        if path.endswith("/kernel") and len(shape) == 2
    }


def save(
    folder: str | pathlib.Path,
    config: WhisperConfig,
    adapter: dict[str, LowRank],
    *,
    base: str = "",
    stabilised: bool = False,
) -> None:
    """Writes one adapter into an existing folder.

    Args:
      folder: receives adapter_config.json and adapter_model.safetensors.
      config: WhisperConfig of the base.
      adapter: {layer path: LowRank}; ranks and scales may differ between layers.
      base: `base_model_name_or_path`, where PEFT users find the base.
      stabilised: write alpha for PEFT's `use_rslora`; the numbers computed are the same.
    """
    names, folder = modules(config), pathlib.Path(folder)
    unknown = sorted(adapter.keys() - names.keys())
    if unknown or not adapter:
        raise ValueError(f"no module in Whisper for {unknown[0]}" if unknown else "an adapter without layers")
    adapter = {names[layer]: update for layer, update in sorted(adapter.items())}
    tensors = {}
    for module, update in adapter.items():
        tensors[f"{_PREFIX}{module}.lora_A.weight"] = np.ascontiguousarray(update.A_DR.T, np.float32)
        tensors[f"{_PREFIX}{module}.lora_B.weight"] = np.ascontiguousarray(update.B_RO.T, np.float32)
    ranks = {module: update.rank for module, update in adapter.items()}
    alphas = {module: _number(u.scale * _divisor(u.rank, stabilised)) for module, u in adapter.items()}
    rank, alpha = (collections.Counter(found.values()).most_common(1)[0][0] for found in (ranks, alphas))
    entries = {
        "auto_mapping": {
            "base_model_class": "WhisperForConditionalGeneration",
            "parent_library": "transformers.models.whisper.modeling_whisper",
        },
        "base_model_name_or_path": str(base),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": rank,
        "target_modules": list(adapter),
        "task_type": None,  # PEFT's wrapper for sequence-to-sequence tasks passes input_ids, which Whisper lacks
        "use_rslora": stabilised,
        "rank_pattern": {module: r for module, r in ranks.items() if r != rank},
        "alpha_pattern": {module: a for module, a in alphas.items() if a != alpha},
    }
    safetensors.numpy.save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / CONFIG).write_text(json.dumps(entries, indent=2) + "\n", encoding="utf-8")


def load(folder: str | pathlib.Path, config: WhisperConfig) -> dict[str, LowRank]:
    """{layer path: LowRank} of a PEFT LoRA of this Whisper, of the whole model or of the bare WhisperModel.

    Raises FileNotFoundError, or a one-line ValueError naming the setting, key or shape that does not fit.
    """
    folder = pathlib.Path(folder)
    if not (folder / CONFIG).is_file():
        raise NotThere(f"{folder}: no {CONFIG}, so no PEFT adapter")
    settings = hf_whisper.read_json(folder / CONFIG)
    _check_settings(folder, settings)
    factors = _factors(folder)
    by_name = {name: layer for layer, name in modules(config).items()}
    by_name |= {name.removeprefix("model."): layer for name, layer in by_name.items()}
    widths = {path: shape for path, shape in hf_whisper.key_map(config).values()}
    adapter = {}
    for name, pair in factors.items():
        if name not in by_name:
            raise BadValue(f"{folder}: {name} is no linear layer of this Whisper")
        if pair.keys() != {"A", "B"}:
            raise BadValue(f"{folder}: {name} has lora_{next(iter(pair))} alone")
        layer = by_name[name]
        rank = settings.get("rank_pattern", {}) or {}
        rank = rank.get(_pattern(rank, name), settings["r"])
        d_out, d_in = widths[f"backbone/{layer}/kernel"]
        found, want = (pair["A"].shape, pair["B"].shape), ((rank, d_in), (d_out, rank))
        if found != want:
            raise BadValue(f"{folder}: {name} has factors {found}; rank {rank} of this Whisper wants {want}")
        alpha = settings.get("alpha_pattern", {}) or {}
        alpha = alpha.get(_pattern(alpha, name), settings["lora_alpha"])
        scale = alpha / _divisor(rank, settings.get("use_rslora", False))
        A_DR, B_RO = (np.ascontiguousarray(pair[factor].T, np.float32) for factor in "AB")
        adapter[layer] = LowRank(A_DR, B_RO, scale)
    return adapter


def load_experts(folders: Sequence[str | pathlib.Path], config: WhisperConfig) -> tuple[dict[str, Any], Params]:
    """`(options, params)`: PEFT folders side by side as the experts of one mixture.

    `options` are keyword arguments of `tasks.asr.Mixture` (targets, num_experts, rank, alpha), `params` =
    {"expert": ...}. A one-hot route to expert i computes what PEFT computes with folder i: lower ranks are padded with
    zeros, alpha / r is folded in where it differs.
    """
    if not folders:
        raise ValueError("load_experts wants at least one PEFT folder")
    adapters = [load(folder, config) for folder in folders]
    expert, rank, scale = stacked(adapters)
    targets = tuple(sorted({layer for adapter in adapters for layer in adapter}))
    options = {"targets": targets, "num_experts": len(adapters), "rank": rank, "alpha": scale * rank}
    return options, {"expert": expert}


def base_of(folder: str | pathlib.Path) -> str:
    """What an adapter says it was made for; empty where it says nothing, or is none."""
    file = pathlib.Path(folder) / CONFIG
    return str(hf_whisper.read_json(file).get("base_model_name_or_path") or "") if file.is_file() else ""


def merged(
    params: Params, config: WhisperConfig, folders: Sequence[str | pathlib.Path], route: Sequence[float] | None = None
) -> Params:
    """{"backbone", "buffer"} with PEFT folders added to the weights, each times its weight in `route`.

    A constant route through experts is one low-rank update, so nothing of it is left to compute when the model runs.
    Errors: as `load`; ValueError for several folders without a route, or a route of another length.
    """
    if route is None and len(folders) > 1:
        raise BadValue(f"{len(folders)} adapters need a route: one weight for each")
    options, experts = load_experts(folders, config)
    scale = options["alpha"] / options["rank"]
    return low_rank.merged(params, low_rank.one_route(experts["expert"], route or [1.0], scale))


def _check_settings(folder, settings):
    if settings.get("peft_type") != "LORA":
        raise BadValue(f"{folder}: a PEFT adapter of type {settings.get('peft_type')!r}; only LORA is supported")
    for name in _OTHER:
        if settings.get(name):
            raise BadValue(f"{folder}: {name} is {settings[name]!r:.60}; only plain LoRA is supported")
    if settings.get("bias", "none") != "none":
        raise BadValue(f"{folder}: bias is {settings['bias']!r}; only 'none' is supported")
    if settings.get("init_lora_weights") not in _PLAIN_STARTS:
        start = settings["init_lora_weights"]
        raise BadValue(
            f"{folder}: init_lora_weights is {start!r}, which changes the base; let PEFT convert it (save_pretrained "
            "with path_initial_model_for_weight_conversion)"
        )
    missing = [name for name in ("r", "lora_alpha") if name not in settings]
    if missing:
        raise BadValue(f"{folder / CONFIG}: no {', '.join(missing)}")
    for name, pattern in (("r", "rank_pattern"), ("lora_alpha", "alpha_pattern")):
        patterns = settings.get(pattern) or {}
        if not isinstance(patterns, dict):
            raise BadValue(f"{folder / CONFIG}: {pattern} is {patterns!r:.60}, not an object")
        for value in (settings[name], *patterns.values()):
            kind = int if name == "r" else int | float
            if isinstance(value, bool) or not isinstance(value, kind) or not 0 < value < 1e9:
                raise BadValue(f"{folder / CONFIG}: {name} is {value!r:.60}; it takes a number above 0")
        for one in patterns:
            try:
                re.compile(one)
            except re.error as error:
                raise BadValue(f"{folder / CONFIG}: {pattern} has {one!r:.60}, no regular expression") from error


def _factors(folder) -> dict[str, dict[str, np.ndarray]]:
    """{module: {"A": [r, in], "B": [out, r]}} of the weight file."""
    if (folder / WEIGHTS).is_file():
        try:
            tensors = safetensors.numpy.load_file(folder / WEIGHTS)
        except (safetensors.SafetensorError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            said = " ".join(str(error).split())[:300]
            raise BadValue(f"{folder / WEIGHTS}: not a readable safetensors file ({said})") from error
    elif (folder / OLD_WEIGHTS).is_file():
        tensors = torch_file.read(folder / OLD_WEIGHTS)
    else:
        raise NotThere(f"{folder}: neither {WEIGHTS} nor {OLD_WEIGHTS}")
    factors: dict[str, dict[str, np.ndarray]] = {}
    if not isinstance(tensors, dict):
        raise BadValue(f"{folder / OLD_WEIGHTS}: holds a {type(tensors).__name__}, not named tensors")
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key) if isinstance(key, str) else None
        if match is None or not isinstance(tensor, np.ndarray):
            raise BadValue(f"{folder}: {key!r} is no low-rank factor of a linear layer")
        factors.setdefault(match["module"], {})[match["factor"]] = hf_whisper.numbers(folder, key, tensor)
    if not factors:
        raise BadValue(f"{folder}: the weight file is empty")
    return factors


def _pattern(patterns, name):
    """The first of PEFT's patterns (regular expressions on the end of a module's name) that fits, or the name."""
    return next((p for p in patterns if re.fullmatch(rf"(.*\.)?({p})", name)), name)


def _divisor(rank, stabilised):
    return math.sqrt(rank) if stabilised else rank


def _number(alpha):
    """4 rather than 4.0: PEFT's own files hold integers where they can."""
    nearest = round(alpha)
    return nearest if math.isclose(alpha, nearest, rel_tol=1e-9) else alpha
