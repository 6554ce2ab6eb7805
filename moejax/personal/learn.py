"""From a person's recordings to the way in which they are read best: every way is tried on recordings it never saw."""

import dataclasses
from collections.abc import Callable, Sequence

from moejax.convert.low_rank import LowRank
from moejax.decode.enrolled import Context, front
from moejax.personal import choice, lora
from moejax.personal.choice import Promise, Way
from moejax.personal.material import Material, Recording
from moejax.recognizer import Recognizer
from moejax.score import wer
from moejax.score.wer import Counts

RANKS = (4, 16)
Told = Callable[[str, int, int], None]  # what is done, how much of it, of how much


@dataclasses.dataclass(frozen=True)
class Learnt:
    """What was found out. `adapter`: that of the chosen way, of all recordings; None where it has none."""

    promise: Promise
    counts: dict[Way, list[Counts]]  # of every recording, read by what did not learn from it
    adapter: dict[str, LowRank] | None


def learn(
    recognizer: Recognizer,
    recordings: Sequence[Recording],
    normalise: Callable[[str], str],
    *,
    options: dict,
    ranks: Sequence[int] = RANKS,
    steps: int | None = None,
    rate: float = lora.RATE,
    seed: int = 0,
    told: Told = lambda what, done, of: None,
) -> Learnt:
    """Tries all ways by cross-validation. `options`: of `Recognizer.transcribe`; `steps` None: `lora.steps_for` so many
    recordings.

    Errors: BadValue for too few recordings (`choice.LEAST`), and for a model that cannot learn a voice.
    """
    parts, ways = choice.folds(len(recordings), seed), choice.ways(ranks)
    everything = list(range(len(recordings)))
    learnt_from = [[place for place in everything if place not in part] for part in parts]
    material = Material(recognizer, recordings, options.get("language") or recognizer.language or "en")
    adapters: dict[int, list] = {0: [None] * (len(parts) + 1)}
    for rank in ranks:
        adapters[rank] = lora.train(
            recognizer,
            material,
            [*learnt_from, everything],
            rank=rank,
            steps=steps or lora.steps_for(len(recordings)),
            rate=rate,
            seed=seed,
            told=lambda done, of, rank=rank: told(f"LoRA of rank {rank}", done, of),
        )
    texts: dict[Way, dict[int, str]] = {way: {} for way in ways}
    for number, part in enumerate(parts):
        context = _context(recordings, learnt_from[number])
        for rank, own in adapters.items():
            reader = recognizer if own[number] is None else lora.with_adapter(recognizer, own[number])
            for way in (way for way in ways if way.rank == rank):
                waves = [recordings[place].wave for place in part]
                fronts = [context if way.context else None] * len(waves)
                for place, found in reader.stream(waves, contexts=fronts, **options):
                    texts[way][part[place]] = found.text
                told("reading", sum(map(len, texts.values())), len(ways) * len(recordings))
    said = [normalise(one.text) for one in recordings]
    counts = {way: wer.count(said, [normalise(texts[way][place]) for place in everything]) for way in ways}
    promise = choice.promise(counts, parts, ways)
    return Learnt(promise, counts, adapters[promise.way.rank][-1])


def _context(recordings, places) -> Context | None:
    """The first phrases that fit, of the recordings that may be used."""
    own = [recordings[place] for place in places]
    return front([one.wave for one in own], [one.text for one in own])
