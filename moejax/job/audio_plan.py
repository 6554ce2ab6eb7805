"""`moejax plan --audio_llm`: what SALMONN's training and answering take on each device, by shapes alone.

Parameters, what learns, optimizer state and keys are exact, cut over a pretend mesh by the rules of the real one.
Activations are arithmetic, an estimate that no compiler confirmed.
"""

import dataclasses
import functools

import jax.numpy as jnp

from moejax.errors import BadValue
from moejax.job.plan import MOMENTS, base_bytes, per_device
from moejax.nn import functional
from moejax.nn.audio_llm import AudioLLM, AudioLLMConfig
from moejax.nn.llama import SIZES
from moejax.nn.whisper import SIZES as WHISPERS
from moejax.runtime import sharding
from moejax.tasks import asr, audio_llm
from moejax.tasks.answers import ALPHA, MOST, TARGETS

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


def plan(asked: Asked, devices: int = 1) -> str:
    """The plan as text. Errors: BadValue for devices among which the weights cannot be shared out."""
    if devices < 1:
        raise BadValue(f"--devices must be at least 1, got {devices}")
    config, heard, params = _shapes(asked.size, asked.experts)
    mesh = sharding.pretend_mesh({asked.axis: devices}, devices)
    head = f"SALMONN with Vicuna {asked.size}, {asked.experts} LoRA{'s' * (asked.experts > 1)} of rank {RANK}, frozen "
    head += f"weights in {asked.weights}, {devices} device{'s' * (devices > 1)} along {asked.axis}; "
    head += f"{heard} vectors of 30 s"
    parts = [[head], _counts(params), _budget(asked, config, heard, params, mesh)]
    return "\n\n".join("\n".join(lines) for lines in parts)


@functools.cache
def _shapes(size, experts):
    """(sizes of all parts, vectors of 30 s, shapes of all arrays)"""
    config = AudioLLMConfig(WHISPERS["large-v2"], dataclasses.replace(SIZES[size], dtype=DTYPE))
    mixture, made = asr.Mixture(targets=TARGETS, num_experts=experts, rank=RANK, alpha=ALPHA), []

    def build() -> AudioLLM:
        made.append(audio_llm.build(config, mixture=mixture)())
        return made[-1]

    params = functional.abstract(build)[1]
    return config, made[-1].heard, params


def _counts(params) -> list[str]:
    whose = {name: functional.count(params["backbone"][name]) for name in ("encoder", "sounds", "decoder")}
    connector = functional.count(params["head"])
    hung = functional.count(params["expert"])
    rows = [
        ("Whisper's encoder", whose["encoder"], "frozen"),
        ("BEATs", whose["sounds"], "frozen"),
        ("language model", whose["decoder"], "frozen"),
        ("connector", connector, "learns"),
        ("experts on q and v", hung, "learns"),
    ]
    lines = [f"  {name:<26}{count:>16,}  {state}" for name, count, state in rows]
    return ["parameters:", *lines, f"  {'what learns':<26}{connector + hung:>16,}"]


def _budget(asked, config, heard, params, mesh) -> list[str]:
    item, c = jnp.dtype(DTYPE).itemsize, config.llama
    trained = per_device(params, mesh, ("head", "expert"), 4)
    frozen = base_bytes(asked.weights, DTYPE, params, mesh)
    rows, tokens = ROWS, heard + TEXT
    keys = 2 * c.layers * rows * c.key_heads * c.width * item
    entries = [
        ("frozen weights", frozen, f"{asked.weights}, read only"),
        ("connector and experts", trained, "float32"),
        ("their gradient", trained, "float32, during a step"),
        ("optimizer state", MOMENTS * trained, "float32, two moments of Adam"),
        ("activations", _activations(c, rows, tokens, item), f"estimate: {rows} rows of {tokens} tokens, kept"),
        ("keys of prompts", keys * tokens, f"{rows} rows, {tokens} tokens"),
        ("keys of answers", keys * BEAMS * MOST, f"{BEAMS} beams, {MOST} tokens"),
    ]
    step, answer = sum(size for _, size, _ in entries[:5]), sum(size for _, size, _ in (*entries[:2], *entries[5:]))
    lines = [f"  {name:<26}{size / 2**30:>10.3f} GiB  {note}" for name, size, note in entries]
    return [
        "on one device (activations are arithmetic, not the compiler's word):",
        *lines,
        f"  {'training step, together':<26}{step / 2**30:>10.3f} GiB",
        f"  {'answering, together':<26}{answer / 2**30:>10.3f} GiB",
    ]


def _activations(c, rows: int, tokens: int, item: int) -> int:
    """What a gradient that passes through frozen layers keeps: inputs of norms and experts, queries, keys, values, the
    softmax, both halves of the feed-forward layer; and logits twice in float32.
    """
    linear = rows * tokens * (4 * c.d_model + 2 * (c.heads + c.key_heads) * c.width + 4 * c.ffn) * item
    weights = rows * c.heads * tokens * tokens * (4 + item)
    return c.layers * (linear + weights) + 2 * rows * tokens * c.vocab_size * 4
