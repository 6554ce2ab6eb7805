"""What SALMONN's training and answering take on each device, by shapes alone: of `moejax plan --audio_llm`, and of a
config with the stage `salmonn`.

Parameters, what learns, optimizer state and keys are exact, cut over a pretend mesh by the rules of the real one.
Activations are arithmetic, an estimate that no compiler confirmed.
"""

import dataclasses
import functools

import jax.numpy as jnp

from moejax.audio.constants import SAMPLE_RATE
from moejax.errors import BadValue
from moejax.job.plan import MOMENTS, base_bytes, gate_shape, network, per_device
from moejax.nn import functional
from moejax.nn.audio_llm import AudioLLM, AudioLLMConfig
from moejax.nn.connectors import ConnectorConfig
from moejax.nn.llama import SIZES
from moejax.nn.whisper import SIZES as WHISPERS
from moejax.runtime import sharding
from moejax.tasks import answers, asr, audio_llm
from moejax.tasks.answers import ALPHA, MOST, TARGETS
from moejax.training import salmonn

RANK = 8
ROWS = 8  # of a batch on one device, as SALMONN trains
TEXT = 64  # tokens of prompt and answer beside what is heard
BEAMS = 4
DTYPE = "bfloat16"  # of activations
MESHES = ("fsdp", "model")  # axes that the frozen weights may be cut over


@dataclasses.dataclass(frozen=True)
class Asked:
    """One plan: size of the language model, how frozen weights are kept, experts (1: the one LoRA), and the axis of the
    mesh that all devices lie along.
    """

    size: str = "7b"
    weights: str = "bfloat16"
    experts: int = 1
    axis: str = "fsdp"

    def __post_init__(self):
        for what, value, known in (("size", self.size, SIZES), ("axis", self.axis, MESHES)):
            if value not in known:
                raise BadValue(f"unknown {what} {value!r} of an audio LLM; known: {', '.join(known)}")
        if self.weights not in (DTYPE, "int8", "float32"):
            raise BadValue(f"unknown format of weights {self.weights!r}; known: float32, bfloat16, int8")
        if self.experts < 1:
            raise BadValue(f"an audio LLM has one LoRA or more, not {self.experts} experts")


@dataclasses.dataclass(frozen=True)
class Use:
    """How a model is used: formats of frozen weights and of activations, rows of a training batch on one device (0: it
    learns nothing), recordings that are answered together, by how many beams of how many tokens.
    """

    weights: str
    dtype: str = DTYPE
    rows: int = ROWS
    asked: int = ROWS
    beams: int = BEAMS
    most: int = MOST


def plan(asked: Asked, devices: int = 1) -> str:
    """The plan as text. Errors: BadValue for devices among which the weights cannot be shared out."""
    if devices < 1:
        raise BadValue(f"--devices must be at least 1, got {devices}")
    config, heard, params = _shapes(asked.size, asked.experts)
    mesh = sharding.pretend_mesh({asked.axis: devices}, devices)
    head = f"SALMONN with Vicuna {asked.size}, {_loras(asked.experts)} of rank {RANK}, frozen "
    head += f"weights in {asked.weights}, {devices} device{'s' * (devices > 1)} along {asked.axis}; "
    head += f"{heard} vectors of 30 s"
    return _text(head, _counts(params), _budget(Use(asked.weights), config, heard, params, mesh, mesh))


def of_config(cfg, devices: int = 1) -> str:
    """The plan of the largest of a config's salmonn.systems, in the sizes of salmonn.folder as far as it is there, as
    text. The learning is cut over the config's mesh; each process answers on one device, which holds all of it.

    Errors: BadValue for a batch that does not divide, a mesh that does not fit.
    """
    own, mesh = cfg.salmonn, sharding.pretend_mesh(cfg.mesh.to_dict(), devices)
    name = max(own.systems, key=salmonn.KINDS.index)
    config, rank, missing = answers.sizes(own.folder, fresh=ConnectorConfig(kind=own.connector))
    config = dataclasses.replace(config, llama=dataclasses.replace(config.llama, dtype=cfg.model.dtype))
    gated, rank = name == "salmonn_moe", rank or own.rank
    experts, gate = (cfg.gate.num_experts, gate_shape(cfg, network(cfg)[0])) if gated else (1, None)
    cuts = mesh.shape[sharding.DATA] * mesh.shape[sharding.FSDP]
    if own.batch_size % cuts:
        raise BadValue(f"salmonn.batch_size={own.batch_size} does not divide by data * fsdp = {cuts} of this mesh")
    use = Use(
        cfg.model.weights or cfg.model.dtype,
        cfg.model.dtype,
        0 if name == "salmonn" else own.batch_size // cuts,
        cfg.evaluate.batch_size,
        own.beams,
        own.most,
    )
    heard, params = _abstract(config, experts, rank, gate)
    one = sharding.pretend_mesh({}, 1)
    head = f"{name}: a language model of d_model {config.llama.d_model}, {config.llama.layers} layers, "
    head += f"{_loras(experts)} of rank {rank}, {heard} vectors of {config.samples / SAMPLE_RATE:g} s"
    if missing:
        head += f"\n  {', '.join(missing)} of {own.folder} not there: sizes as published with 7b"
    return _text(head, _counts(params, use.rows > 0), _budget(use, config, heard, params, mesh, one))


def _loras(count: int) -> str:
    return f"{count} LoRA{'s' * (count > 1)}"


def _text(head: str, counts: list[str], budget: list[str]) -> str:
    return "\n\n".join("\n".join(lines) for lines in ([head], counts, budget))


@functools.cache
def _shapes(size, experts):
    """(sizes of all parts, vectors of 30 s, shapes of all arrays)"""
    config = AudioLLMConfig(WHISPERS["large-v2"], dataclasses.replace(SIZES[size], dtype=DTYPE))
    return config, *_abstract(config, experts, RANK, None)


def _abstract(config, experts: int, rank: int, gate):
    """(vectors of a window, shapes of all arrays)"""
    mixture, made = asr.Mixture(targets=TARGETS, num_experts=experts, rank=rank, alpha=ALPHA), []

    def build() -> AudioLLM:
        made.append(audio_llm.build(config, mixture=mixture, gate=gate)())
        return made[-1]

    params = functional.abstract(build)[1]
    return made[-1].heard, params


def _counts(params, learning: bool = True) -> list[str]:
    whose = {name: functional.count(params["backbone"].get(name, {})) for name in ("encoder", "sounds", "decoder")}
    own = {name: functional.count(params.get(name, {})) for name in ("head", "expert", "gate")}
    state = "learns" if learning else "as published"
    rows = [
        ("Whisper's encoder", whose["encoder"], "frozen"),
        ("BEATs", whose["sounds"], "frozen"),
        ("language model", whose["decoder"], "frozen"),
        ("connector", own["head"], state),
        ("experts on q and v", own["expert"], state),
        ("gate", own["gate"], state),
        *([("what learns", sum(own.values()), "")] if learning else []),
    ]
    return ["parameters:", *(f"  {name:<26}{count:>16,}  {state}".rstrip() for name, count, state in rows if count)]


def _budget(use: Use, config, heard, params, mesh, answers_on) -> list[str]:
    """Bytes of each kind; `answers_on`: the mesh of what answers, which may be another than that of training."""
    item, c = jnp.dtype(use.dtype).itemsize, config.llama
    trained = per_device(params, mesh, ("head", "expert", "gate"), 4)
    frozen = base_bytes(use.weights, use.dtype, params, mesh)
    whole = base_bytes(use.weights, use.dtype, params, answers_on) + per_device(
        params, answers_on, ("head", "expert", "gate"), 4
    )
    tokens = heard + TEXT
    keys = 2 * c.layers * use.asked * c.key_heads * c.width * item
    training = [
        ("frozen weights", frozen, f"{use.weights}, read only"),
        ("connector and experts", trained, "float32"),
        ("their gradient", trained, "float32, during a step"),
        ("optimizer state", MOMENTS * trained, "float32, two moments of Adam"),
        (
            "activations",
            _activations(c, use.rows, tokens, item),
            f"estimate: {use.rows} rows of {tokens} tokens, kept",
        ),
    ]
    answering = [
        ("keys of prompts", keys * tokens, f"{use.asked} rows, {tokens} tokens"),
        ("keys of answers", keys * use.beams * use.most, f"{use.beams} beams, {use.most} tokens"),
    ]
    answer = whole + sum(size for _, size, _ in answering)
    if mesh is not answers_on:  # what is not said above
        answering.insert(0, ("weights that answer", whole, "each process answers on one device"))
    totals = [("training step, together", sum(size for _, size, _ in training)), ("answering, together", answer)]
    if not use.rows:
        training, totals = [], totals[1:]
    lines = [f"  {name:<26}{size / 2**30:>10.3f} GiB  {note}" for name, size, note in (*training, *answering)]
    return [
        "on one device (activations are arithmetic, not the compiler's word):",
        *lines,
        *(f"  {name:<26}{size / 2**30:>10.3f} GiB" for name, size in totals),
    ]


def _activations(c, rows: int, tokens: int, item: int) -> int:
    """What a gradient that passes through frozen layers keeps: inputs of norms and experts, queries, keys, values, the
    softmax, both halves of the feed-forward layer; and logits twice in float32.
    """
    linear = rows * tokens * (4 * c.d_model + 2 * (c.heads + c.key_heads) * c.width + 4 * c.ffn) * item
    weights = rows * c.heads * tokens * tokens * (4 + item)
    return c.layers * (linear + weights) + 2 * rows * tokens * c.vocab_size * 4
