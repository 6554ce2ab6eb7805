"""The rows of the table: which job against which, and the bars that the ratio is held against."""

import dataclasses
from typing import Any

from moejax.bench import floor

GROUPS = ("mel", "encode", "train", "decode", "diarize")
OURS, BESIDE = "moejax.bench.ours", "moejax.bench.ours#2"  # two processes of ours, for rows that compare us with us
OPENAI, HF, PEFT, CT2 = (
    f"moejax.bench.peers.{name}" for name in ("openai_whisper", "hf_transformers", "hf_peft", "ct2")
)
EXPERTS = {"experts": 10, "top_k": 2}
RANK = 8
TALKS = (30, 300, 1800)  # seconds


@dataclasses.dataclass(frozen=True)
class Task:
    """A job of a side (a module, `#n` tells processes of the same module apart) with its options."""

    side: str
    job: str
    options: dict = dataclasses.field(default_factory=dict)

    @property
    def module(self) -> str:
        return self.side.split("#")[0]


@dataclasses.dataclass(frozen=True)
class Row:
    """Time of `ours` over that of the fastest of `theirs`. `works` are the floor's, in order; None: not counted."""

    group: str
    name: str
    ours: Task
    theirs: tuple[Task, ...]
    must: float | None
    aim: float | None
    works: tuple[floor.Work, ...] | None = None

    @property
    def needs_peers(self) -> bool:
        return any(".peers." in task.side for task in self.theirs)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Correctness beside the speed: the largest absolute difference of two results, or the share of differing tokens
    (`tokens`). Valid on a busy machine.
    """

    group: str
    name: str
    ours: Task
    theirs: Task
    must: float | None
    aim: float | None
    tokens: bool = False


def rows(config, batch: int, seconds: float, tokens: int, prefix: int, item: int = 4) -> list[Row]:
    """Every timed row for a network of these sizes; `item` is the size in bytes of its activations' type."""
    mel = (floor.mel(batch, seconds, config.num_mel_bins),)
    encoder = floor.encoder(config, batch, seconds, item)
    return [
        Row(
            "mel",
            "log-mel / openai-whisper (faster form)",
            Task(OURS, "mel"),
            (Task(OPENAI, "mel_each"), Task(OPENAI, "mel_batch")),
            0.70,
            0.40,
            mel,
        ),
        Row(
            "encode", "encoder / transformers sdpa", Task(OURS, "encode"), (Task(HF, "encode"),), 0.90, 0.70, (encoder,)
        ),
        *_training(config, batch, seconds, tokens, encoder, item),
        *_decoding(config, batch, seconds, tokens, prefix, item),
        *_diarizing(),
    ]


def _training(config, batch, seconds, tokens, encoder, item):
    def task(side: str = OURS, states: bool = True, seconds: float = seconds, **experts: Any) -> Task:
        return Task(side, "train", {**EXPERTS, **experts, "states": states, "seconds": seconds})

    def step(seconds=seconds, chosen=EXPERTS["top_k"]):
        return floor.decoder_step(config, batch, seconds, tokens, RANK, chosen, item)

    one: dict[str, Any] = {"experts": 1, "top_k": 1}
    many: dict[str, Any] = {"experts": 64}
    six, four = (_context(seconds, share) for share in (6 / 30, 4 / 30))
    whole = task(states=False)
    shorter = [
        Row(
            "train",
            f"audio context {s:g} s over {seconds:g} s, training step",
            task(states=False, seconds=s),
            (dataclasses.replace(whole, side=BESIDE),),
            0.35,
            0.25,
            (floor.encoder(config, batch, s, item) + step(s),),
        )
        for s in (six, four)
    ]
    start = {**EXPERTS, "states": True}
    starts = [
        Row(
            "train",
            f"second start over cold: {what}",
            Task(OURS, "start", {**start, "cache": "warm", **whole_}),
            (Task(BESIDE, "start", {**start, "cache": "cold", **whole_}),),
            *bars,
        )
        for what, whole_, bars in (
            ("first step (cached program)", {}, (0.35, 0.15)),
            ("whole process", {"whole": True}, (None, None)),
        )
    ]
    return [
        Row(
            "train",
            "decoder step, E=10 k=2 / PEFT one LoRA",
            task(),
            (Task(PEFT, "train", {"states": True}),),
            0.80,
            0.60,
            (step(),),
        ),
        Row(
            "train",
            "step with frozen encoder, E=10 / PEFT",
            whole,
            (Task(PEFT, "train", {"states": False}),),
            0.90,
            0.70,
            (encoder + step(),),
        ),
        Row("train", "decoder step, E=10 over E=1", task(), (task(BESIDE, **one),), 1.10, 1.02, (step(),)),
        Row("train", "decoder step, E=64 over E=1", task(**many), (task(BESIDE, **one),), 1.15, 1.08, (step(),)),
        Row(
            "train",
            "encoder states kept on disk over computed in the step, E=10",
            task(),
            (dataclasses.replace(whole, side=BESIDE),),
            None,
            None,
            (step(),),
        ),
        *shorter,
        *starts,
    ]


def _context(seconds, share):
    """A share of the context in whole encoder frames of 20 ms."""
    return round(seconds * share * 50) / 50


def _decoding(config, batch, seconds, tokens, prefix, item):
    ours = Task(OURS, "greedy")
    routed = Task(OURS, "greedy", EXPERTS)
    works = tuple(floor.greedy(config, batch, seconds, tokens, prefix, item=item))
    heavier = tuple(floor.greedy(config, batch, seconds, tokens, prefix, RANK, EXPERTS["top_k"], item))
    return [
        Row("decode", f"greedy {tokens} / transformers", ours, (Task(HF, "greedy"),), 0.60, 0.40, works),
        Row("decode", f"greedy {tokens} / openai-whisper", ours, (Task(OPENAI, "greedy"),), 0.60, 0.40, works),
        Row(
            "decode",
            f"greedy {tokens} / ctranslate2 float32",
            ours,
            (Task(CT2, "greedy", {"compute": "float32"}),),
            0.80,
            0.60,
            works,
        ),
        Row(
            "decode",
            f"greedy {tokens} / ctranslate2 int8",
            ours,
            (Task(CT2, "greedy", {"compute": "int8"}),),
            1.10,
            0.85,
            works,
        ),
        Row("decode", "greedy, routes E=10 k=2 over none", routed, (Task(BESIDE, "greedy"),), 1.15, None, heavier),
    ]


def _diarizing():
    """Who speaks when in one talk, heard as a whole: the two attentions at equal parameters."""
    return [
        Row(
            "diarize",
            f"attention over {seconds:,} s, linear over softmax",
            Task(OURS, "diarizer", {"attention": "linear", "talk": seconds}),
            (Task(BESIDE, "diarizer", {"attention": "softmax", "talk": seconds}),),
            None,
            None,
        )
        for seconds in TALKS
    ]


def differences() -> list[Difference]:
    """What must be equal, beside the speed. Timed calls and these come from the same jobs."""
    tied = {"experts": 1, "top_k": 1, "states": True}
    return [
        Difference("mel", "log-mel, openai-whisper", Task(OURS, "mel"), Task(OPENAI, "mel_each"), 1e-4, 5e-5),
        Difference("encode", "encoder states, torch", Task(OURS, "encode"), Task(HF, "encode"), 1e-4, 1e-5),
        Difference("encode", "logits, torch", Task(OURS, "logits"), Task(HF, "logits"), 1e-4, 1e-5),
        Difference(
            "train",
            "loss of the first step, PEFT",
            Task(OURS, "train", tied),
            Task(PEFT, "train", {"states": True}),
            None,
            None,
        ),
        *[
            Difference(
                "decode",
                f"greedy tokens, {name}",
                Task(OURS, "greedy"),
                Task(side, "greedy", options),
                None,
                None,
                tokens=True,
            )
            for name, side, options in (
                ("transformers", HF, {}),
                ("openai-whisper", OPENAI, {}),
                ("ctranslate2 float32", CT2, {"compute": "float32"}),
            )
        ],
    ]
