"""What the report makes of a system by its name: the only place of the report that knows names of systems."""

from collections.abc import Iterable, Sequence

from moejax.systems import base
from moejax.systems.mixture import FROZEN, JOINT

BASE = base.KIND.names[0]
MIXTURE = JOINT.name
MEAN_GATE = "moe_mean_gate"  # the mixture with one route for everybody: what it lacks is what routing is worth
JUDGED = (MIXTURE, FROZEN.name)  # the first of them that there is
SAME_SIZE = "lora_total"  # one LoRA with as many parameters as the whole mixture
BEFORE = (BASE, "lora", SAME_SIZE)  # what the judged system is held against speaker by speaker, weakest first
OWN = {"cohort": "own_cohort", "speaker": "own_speaker"}  # each utterance scored by its own adapter of that kind
TRAINED = (BASE, "gate", "experts", "joint", "adapters/lora", f"adapters/{SAME_SIZE}")  # folders with learning curves
MOST_MAIN = 8  # systems shown where none of the config's main ones is there

# One colour and one marker per system everywhere, distinguishable without colour; related systems share a hue.
LOOKS = {
    "base": ("#7a7f87", "o"),
    "lora": ("#6fa8d6", "s"),
    "lora_total": ("#1f5fa8", "D"),
    "lora_merged": ("#3b8f9e", "<"),
    "full": ("#4a4f57", "p"),
    "own_cohort": ("#2f9e6e", "^"),
    "own_speaker": ("#8abf3f", "v"),
    "moe_frozen": ("#eda04f", "P"),
    "moe": ("#c8324a", "o"),
    "moe_oracle": ("#8c2f6b", "d"),
    "moe_mean_gate": ("#5b3f8c", "h"),
    "moe_random_gate": ("#b79cc6", "X"),
    "hyper": ("#a6761d", "o"),
    "hyper_AB": ("#a6761d", ">"),
    "moe_hyper_AB": ("#d98e04", "H"),
    "lora_AB": ("#6b7a3a", "s"),
    "lora_st": ("#2a4d7a", "8"),
    "moe_st": ("#e07a8b", "*"),
    "salmonn": ("#5f5f5f", "X"),
    "salmonn_lora": ("#274060", "h"),
    "salmonn_moe": ("#a03e99", "P"),
}


def judged(main: Sequence[str]) -> str:
    """The system that the report judges: the mixture, else the one with a frozen gate, else the last one."""
    return next((s for s in JUDGED if s in main), main[-1])


def before(main: Sequence[str], focus: str) -> list[str]:
    """The baselines that the judged system is compared with, weakest first."""
    return [s for s in BEFORE if s in main and s != focus]


def start(main: Sequence[str]) -> str:
    """The system from which the figure by speaker starts."""
    return BASE if BASE in main else main[0]


def between(main: Sequence[str]) -> str | None:
    """The system that stands as a tick in the figure by speaker."""
    return SAME_SIZE if SAME_SIZE in main else None


def main_systems(systems: Sequence[str], wanted: Iterable[str], derived: Sequence[str]) -> list[str]:
    """What figures and the first table show: those of `wanted` that there are, and `derived` before the mixtures."""
    chosen = [s for s in wanted if s in systems]
    if not chosen:
        return list(systems[:MOST_MAIN])
    place = next((i for i, s in enumerate(chosen) if s.startswith(MIXTURE)), len(chosen))
    return [*chosen[:place], *derived, *chosen[place:]]


def look(system: str) -> tuple[str, str]:
    """Colour and marker."""
    return LOOKS.get(system, ("#444444", "*"))
