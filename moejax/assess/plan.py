"""What is scored: which utterances, which of them a speaker is enrolled by, and in which conditions."""

import dataclasses
import random
from collections.abc import Sequence

from moejax.data.manifest import Utterance
from moejax.errors import BadValue

OWN, OTHER, TEXTS = "", "other", "texts"  # whose phrases: the speaker's; somebody else's; the texts alone, as a prompt
# What is done with them: they stand in front of every utterance, a mixture's route is fitted on them, a LoRA learns
CONTEXT, ROUTE, LORA = "context", "route", "lora"
WAYS = (CONTEXT, ROUTE, LORA, f"{ROUTE}+{CONTEXT}", f"{LORA}+{CONTEXT}")


@dataclasses.dataclass(frozen=True)
class Condition:
    """`count` phrases of a speaker, used in one of `WAYS`; `control` of (OWN, OTHER, TEXTS)."""

    count: int
    control: str = OWN
    way: str = CONTEXT

    @property
    def name(self) -> str:
        """As a table calls it: 0, 3, 3-other, 3-texts, 3-route."""
        more = self.control or (self.way if self.way != CONTEXT else "")
        return f"{self.count}-{more}" if more else str(self.count)

    @property
    def learns(self) -> str:
        """ROUTE or LORA where something is fitted on the phrases, else nothing."""
        return next((kind for kind in (ROUTE, LORA) if kind in self.way.split("+")), "")

    @property
    def in_front(self) -> bool:
        """Whether the phrases stand in front of what is read."""
        return bool(self.count) and CONTEXT in self.way.split("+")


@dataclasses.dataclass(frozen=True)
class Plan:
    """`phrases`: utterances of each speaker to enroll by, best first; `scored`: all others, the same in every row."""

    phrases: dict[str, list[Utterance]]
    scored: list[Utterance]
    conditions: list[Condition]

    def enrolled(self, speaker: str, condition: Condition) -> list[Utterance]:
        """What stands in front of this speaker's utterances."""
        if condition.control == OTHER:
            names = sorted(self.phrases)
            speaker = names[(names.index(speaker) + len(names) // 2) % len(names)]
        return self.phrases[speaker][: condition.count]


def make(
    utterances: Sequence[Utterance],
    counts: Sequence[int],
    *,
    ways: Sequence[str] = (CONTEXT,),
    controls: bool = False,
    limit: int | None = None,
    seed=0,
) -> Plan:
    """The plan of a corpus; which utterances of a speaker are phrases, and which `limit` of the others are scored, is
    drawn from the seed and the speaker's name, so another speaker more or less changes nothing.

    Errors: BadValue for phrases of speakers who are not named, or who have none left to score.
    """
    counts, most = sorted(set(counts)), max(counts, default=0)
    by_speaker: dict[str, list[Utterance]] = {}
    for utterance in utterances:
        by_speaker.setdefault(utterance.speaker, []).append(utterance)
    if most and "" in by_speaker:
        raise BadValue(f"--enroll {most}: {len(by_speaker[''])} utterances name no speaker; enroll 0, or name a column")
    phrases, scored = {}, []
    for speaker, own in by_speaker.items():
        drawn = random.Random(f"{seed} {speaker}").sample(own, len(own))
        phrases[speaker], rest = drawn[:most], drawn[most:]
        if not rest:
            raise BadValue(f"speaker {speaker!r} has {len(own)} utterances: {most} to enroll leave none to score")
        chosen = {utterance.id for utterance in rest[:limit]}
        scored += [utterance for utterance in own if utterance.id in chosen]
    conditions = [Condition(count, way=way) for count in counts for way in (ways if count else [CONTEXT])]
    if controls and most:
        if len(phrases) < 2:
            raise BadValue("--controls: another speaker's phrases need two speakers")
        middle = next((count for count in counts if count >= 3), most)
        conditions += [Condition(middle, OTHER), Condition(middle, TEXTS)]
    return Plan(phrases, scored, conditions)
