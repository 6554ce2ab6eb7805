"""The embedded corpus: seven cohorts of synthetic speakers read sentences of a small English-German grammar.

Nothing is downloaded; speech is made by espeak-ng once and then read from the cache. It is made to test and to teach
the pipeline: what a method gains on it says nothing yet about people.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

from moejax.data.manifest import Utterance
from moejax.speech import grammar, speakers, synthetic


def _readings(people: Sequence[tuple[speakers.Speaker, int]], pool: Sequence[tuple[str, str]], seed: int):
    """(speaker, number, english, german): each speaker draws sentences without repetition until the pool is used up."""
    for speaker, count in people:
        rng, drawn = random.Random(f"prompts {seed} {speaker.name}"), []
        while len(drawn) < count:
            drawn += rng.sample(pool, min(len(pool), count - len(drawn)))
        for number, (english, german) in enumerate(drawn):
            yield speaker, number, english, german


def load(
    *,
    cache_dir: str | Path | None = None,
    speakers_per_cohort: int = 3,
    utterances_per_speaker: int = 80,
    typical_speakers: int = 10,
    typical_utterances: int = 250,
    prompts: int | None = None,
    seed: int = 0,
    cohorts: Sequence[str] | None = None,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Utterance]:
    """The corpus as utterances with WAV paths; missing audio is synthesised first (5 to 10 ms an utterance on 2 cores).

    cache_dir: default `synthetic.cache_folder()`; cohorts: names from `speakers.COHORTS`, None for all; the typical
    cohort is larger, as a base model is trained on it. prompts: number of different sentences (default: half the
    number of utterances), which all speakers share, so a prompt-disjoint split keeps all speakers; the prompt id is
    the text. A speaker and a sentence are fixed by seed and index: a larger corpus keeps the speakers of the smaller
    one. Raises ValueError for an unknown cohort, ModuleNotFoundError without espeakng-loader.
    """
    people = []
    for cohort in speakers.COHORTS if cohorts is None else cohorts:
        typical = cohort == "typical"
        for index in range(typical_speakers if typical else speakers_per_cohort):
            people.append(
                (speakers.cast(cohort, index, seed), typical_utterances if typical else utterances_per_speaker)
            )
    total = sum(count for _, count in people)
    pool = grammar.sample(max(1, total // 2) if prompts is None else prompts, seed)
    said = list(_readings(people, pool, seed))
    items = [speaker.say(english, f"{seed} {number}") for speaker, number, english, _ in said]
    folder = (Path(cache_dir) if cache_dir else synthetic.cache_folder()) / "speech"
    paths = synthetic.synthesize(items, folder, workers=workers, progress=progress)
    return [
        Utterance(
            id=f"{speaker.name}-{number:04d}",
            audio=str(path),
            text=english,
            speaker=speaker.name,
            translation=german,
            translation_source="grammar",
            cohort=speaker.cohort,
            etiology=speaker.etiology,
            severity=speaker.severity,
            accent=speaker.accent,
            gender=speaker.gender,
            prompt=english,
        )
        for (speaker, number, english, german), path in zip(said, paths, strict=True)
    ]
