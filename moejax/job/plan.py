"""`moejax plan`: what a config would put on each device, worked out without weights, data or devices.

The model is built abstractly (shapes only) and cut over a pretend mesh by the rules of the real one. Parameters,
optimizer state and the decoding cache are exact; activations are arithmetic, an estimate that no compiler confirmed.
"""

import math
import re

import jax.numpy as jnp
import numpy as np

from moejax.convert import find, whisper_folder
from moejax.errors import BadValue
from moejax.nn import functional, quantize
from moejax.runtime import sharding
from moejax.tasks import asr
from moejax.training import network as mixtures
from moejax.training.base import from_scratch
from moejax.work.context import bucket_samples

MOMENTS = 2  # arrays that Adam keeps for each trained one
STAGES = (("gate", ("gate",)), ("experts", ("expert",)), ("joint", ("expert", "gate")), ("st", ("expert", "gate")))


def plan(cfg, devices: int = 1) -> str:
    """The plan as text. Errors: ValueError for a mesh or batch that does not fit `devices`, an idle pattern."""
    if devices < 1:
        raise BadValue(f"--devices must be at least 1, got {devices}")
    mesh = sharding.pretend_mesh(cfg.mesh.to_dict(), devices)
    config, origin = network(cfg)
    params = abstract(cfg, config)
    rows = rows_per_device(cfg, mesh)
    head = f"{cfg.name}: {origin}, d_model {config.d_model}, {config.encoder_layers} + {config.decoder_layers} layers, "
    head += f"{devices} device{'s' * (devices > 1)}, mesh " + " ".join(f"{axis}={n}" for axis, n in mesh.shape.items())
    parts = [
        [head],
        groups(cfg, params),
        trainable(params),
        largest(params, mesh),
        budget(cfg, config, params, mesh, rows),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts)


def network(cfg):
    """`(WhisperConfig, where it came from)`: that of the pretrained model, which need not be here if it has a name; or
    without one that of model.size.
    """
    name = cfg.model.pretrained
    folder = find.here(name) if name else None
    if folder is not None and (folder / "config.json").is_file():
        return whisper_folder.load_config(folder), name
    if name in find.NAMES:
        return find.NAMES[name].config, name
    why = f"{name} is not there, " if name else ""
    return from_scratch(cfg), f"{why}sizes of {cfg.model.size}"


def abstract(cfg, config) -> dict:
    """Shapes of everything: base (in model.dtype), experts, gate."""
    E = max(cfg.gate.num_experts, 1)  # without a mixture: one LoRA of its rank
    gate = gate_shape(cfg, config)
    return functional.abstract(asr.build(config, mixture=mixtures.definition(cfg, E), gate=gate))[1]


def gate_shape(cfg, config) -> dict:
    """The gate that a config asks for, over embeddings by a base of these sizes, as `asr.build` takes it."""
    width = config.d_model * len(cfg.embed.layers) * (2 if cfg.embed.pooling == "mean_std" else 1)
    seen = width if cfg.cluster.discriminant == "none" else min(cfg.cluster.discriminant_dims, width)
    seen = {"raw": width, "pca": min(cfg.gate.input_dims, width)}.get(cfg.gate.input, seen)
    return {
        "mean": np.zeros(width, np.float32),
        "matrix": np.zeros((width, seen), np.float32),
        "hidden": cfg.gate.hidden,
        "zero_start": cfg.gate.zero_start,
    }


def rows_per_device(cfg, mesh) -> dict[str, int]:
    """{section: rows of a batch on one device}. Errors: a batch that does not divide."""
    cuts = mesh.shape[sharding.DATA] * mesh.shape[sharding.FSDP]
    found = {}
    for section in ("experts", "joint", *(["st"] if cfg.st.kinds else []), "evaluate"):
        size = cfg[section].batch_size
        if size % cuts:
            raise BadValue(f"{section}.batch_size={size} does not divide by data * fsdp = {cuts} of this mesh")
        found[section] = size // cuts
    return found


def groups(cfg, params) -> list[str]:
    """Arrays and scalars of each group, and the stages that train it."""
    who = {"backbone": ["base"] if cfg.base.steps or cfg.base.pack.seconds else []}
    for stage, trained in STAGES:
        for group in trained if stage != "st" or cfg.st.kinds else ():
            who.setdefault(group, []).append(stage)
    lines = [f"  {'group':<10}{'arrays':>8}{'scalars':>16}  trained by"]
    for group, tree in params.items():
        arrays = len(functional.paths(tree))
        lines.append(f"  {group:<10}{arrays:>8}{functional.count(tree):>16,}  {', '.join(who.get(group, [])) or '-'}")
    # Published counts take the encoder's fixed sinusoids in.
    base = functional.count(params["backbone"]) + functional.count(params["buffer"]["encoder"])
    return [*lines, f"  the base with its fixed positions: {base:,} parameters"]


def trainable(params) -> list[str]:
    """The leaves that the joint stage trains, one line for those of one shape and place in all layers."""
    counts: dict[tuple, int] = {}
    layers: dict[tuple, dict] = {}
    for group in ("expert", "gate"):
        for path, leaf in functional.paths(params[group], group).items():
            stack, _, inside = re.sub(r"/\d+/", "/*/", path).rpartition("/*/")
            layer, _, name = inside.rpartition("/experts/")
            key = (f"{stack}/*/" if stack else "", "/experts/" if layer else "", name, tuple(leaf.shape))
            counts[key] = counts.get(key, 0) + 1
            layers.setdefault(key, {})[layer] = None
    lines = []
    for key, count in counts.items():
        stack, between, name, shape = key
        named = ",".join(layers[key])
        lines.append(f"  {count:>4} x {stack}{f'{{{named}}}' if ',' in named else named}{between}{name} {shape}")
    return [f"joint trains {sum(counts.values())} arrays:", *lines]


def largest(params, mesh, count: int = 8) -> list[str]:
    """How the largest arrays are cut, one line for equal ones of all layers."""
    flat = {path: leaf for path, leaf in functional.paths(params).items() if not path.startswith("buffer")}
    lines, seen = [f"  {'array':<52}{'shape':>22}{'cut over':>28}{'on one device':>22}"], set()
    for path, leaf in sorted(flat.items(), key=lambda item: -item[1].size):
        name = re.sub(r"/\d+/", "/*/", path)
        if name in seen or len(seen) == count:
            continue
        seen.add(name)
        spec = sharding.param_spec(path, tuple(leaf.shape), mesh)
        cut = ", ".join("-" if axis is None else str(axis) for axis in spec) or "whole"
        lines.append(f"  {name:<52}{leaf.shape!s:>22}{cut:>28}{shard(path, leaf.shape, mesh)!s:>22}")
    return ["the largest arrays:", *lines]


def shard(path, shape, mesh) -> tuple[int, ...]:
    """Shape of one device's part of an array. Errors: ValueError where a rule cuts an axis that does not divide."""
    spec = sharding.param_spec(path, tuple(shape), mesh)
    cuts = [mesh.shape[axis] if axis else 1 for axis in (*spec, *[None] * (len(shape) - len(spec)))]
    if any(size % cut for size, cut in zip(shape, cuts, strict=True)):
        raise BadValue(f"{path} {tuple(shape)} does not divide by {cuts}")
    return tuple(size // cut for size, cut in zip(shape, cuts, strict=True))


def per_device(params, mesh, groups, itemsize) -> int:
    """Bytes of these groups on one device; `itemsize` of each scalar."""
    flat = functional.paths({group: params[group] for group in groups if group in params})
    return sum(math.prod(shard(path, leaf.shape, mesh)) for path, leaf in flat.items()) * itemsize


def base_bytes(kind: str, dtype: str, params, mesh) -> int:
    """Bytes of backbone and constants on one device, kept as `kind`; with int8 weights a byte for each number of a
    linear kernel, and `dtype` for the rest.
    """
    if kind != "int8":
        return per_device(params, mesh, ("backbone", "buffer"), jnp.dtype(kind).itemsize)
    item = jnp.dtype(dtype).itemsize
    kernels = {path: leaf for path, leaf in functional.paths(params["backbone"]).items() if quantize.linear(path, leaf)}
    linear = per_device({"backbone": functional.nest(kernels)}, mesh, ("backbone",), 1)
    return per_device(params, mesh, ("backbone", "buffer"), item) - (item - 1) * linear


def budget(cfg, config, params, mesh, rows) -> list[str]:
    """Bytes of each kind on one device."""
    item = jnp.dtype(cfg.model.dtype).itemsize
    trained = per_device(params, mesh, ("expert", "gate"), 4)
    samples = bucket_samples(cfg.model.buckets, config.hop)[-1]
    if cfg.model.pretrained and cfg.model.times and not config.mask_padding:  # it hears all of its window
        samples = 2 * config.max_source_positions * config.hop
    frames = min(samples // (2 * config.hop), config.max_source_positions)
    # Targets are short (rarely 100 tokens in 30 s); half of the room is what decoding may use.
    tokens = config.max_target_positions // 2 if config.max_target_positions > 128 else config.max_target_positions
    b, d, layers = max(rows["joint"], rows.get("st", 0)), rows["evaluate"], config.decoder_layers
    mel = config.num_mel_bins * samples // config.hop
    encoder = any(path.startswith("encoder") for path in functional.paths(params["expert"]))
    entries = [
        (
            "base and constants",
            base_bytes(cfg.model.weights or cfg.model.dtype, cfg.model.dtype, params, mesh),
            f"{cfg.model.weights or cfg.model.dtype}, read only",
        ),
        ("experts and gate", trained, "float32"),
        ("their gradient", trained, "float32, during a step"),
        ("optimizer state", MOMENTS * trained, "float32, two moments of Adam"),
        ("audio and mel", b * (samples + mel) * 4, f"{b} rows, {samples} samples"),
        (
            "activations, encoder",
            encoder_bytes(config, b, frames, item, kept=encoder),
            "estimate: kept for the gradient of its experts"
            if encoder
            else "estimate: no gradient, one block at a time",
        ),
        ("activations, decoder", decoder_bytes(config, b, frames, tokens, item), f"estimate: {tokens} tokens, kept"),
        (
            "decoding: encoder keys",
            2 * layers * d * frames * config.d_model * item,
            f"{d} rows, {layers} layers, {frames} frames",
        ),
        ("decoding: own keys", 2 * layers * d * tokens * config.d_model * item, f"{tokens} tokens"),
    ]
    step = sum(size for name, size, _ in entries if not name.startswith("decoding"))
    decode = sum(size for name, size, _ in entries[:2]) + sum(size for name, size, _ in entries[-2:])
    lines = [f"  {name:<26}{size / 2**30:>10.3f} GiB  {note}" for name, size, note in entries]
    return [
        "on one device (activations are arithmetic, not the compiler's word):",
        *lines,
        f"  {'st or joint step' if cfg.st.kinds else 'joint step, together':<26}{step / 2**30:>10.3f} GiB",
        f"  {'decoding, together':<26}{decode / 2**30:>10.3f} GiB",
    ]


def encoder_bytes(config, rows: int, frames: int, item: int, *, kept: bool) -> int:
    """Of one forward pass: each block's inputs of linear layers, 6 D + 2 F wide, and one layer's scores in float32.

    Half precision is taken to mean fused attention on a GPU, without scores; a pass without gradient computes them in
    blocks of 18 MiB (`ops.attention`).
    """
    widths = 6 * config.d_model + 2 * config.encoder_ffn
    block = rows * frames * widths * item
    scores = rows * config.encoder_heads * frames * frames * 4 if item > 2 else 0
    states = rows * frames * config.d_model * item * (config.encoder_layers + 1)
    return (config.encoder_layers * block if kept else block + states) + min(scores, 18 * 2**20 if not kept else scores)


def decoder_bytes(config, rows: int, frames: int, tokens: int, item: int) -> int:
    """Kept for the gradient: inputs of linear layers, attention weights, encoder keys and values, logits twice."""
    c = config
    linear = rows * tokens * (10 * c.d_model + 2 * c.decoder_ffn) * item
    weights = rows * c.decoder_heads * tokens * (tokens + frames) * (4 + item)
    keys = 2 * rows * frames * c.d_model * item
    return c.decoder_layers * (linear + weights + keys) + 2 * rows * tokens * c.vocab_size * 4
