"""Synthesised Mandarin: sentences of random syllables whose sounds and tones are known, read by espeak-ng.

Its voice reads numbered pinyin with real tones; hanzi it cannot read. Every unit occurs about as often as every other
of its kind, so nothing can be guessed from its neighbours. Like the embedded corpus it tests the pipeline, and says
nothing yet about people.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from moejax.data.manifest import Utterance
from moejax.errors import BadValue
from moejax.speech import synthetic
from moejax.speech.render import SpeechItem
from moejax.speech.timed import MANDARIN
from moejax.text import pinyin

# Voices of men and women, as espeak-ng has them; one speaker each, with a pitch and a tempo of its own
VARIANTS = ("m1", "f1", "m3", "f2", "m4", "f3", "m7", "f4", "m2", "f5")
UNREADABLE = "iong"  # behind j, q, x the voice falls back on English


def load(
    *,
    cache_dir: str | Path | None = None,
    speakers: int = 10,
    sentences: int = 60,
    shortest: int = 3,
    longest: int = 7,
    neutral: float = 0.05,
    intonation: int = 60,
    seed: int = 0,
    workers: int = 2,
    progress: Callable[[int, int], None] | None = None,
) -> list[Utterance]:
    """Utterances with WAV paths, text in numbered pinyin; missing audio is synthesised first.

    speakers: at most ten; sentences: of each, none of which two share; shortest, longest: syllables of one; neutral:
    share of syllables, the first apart, whose tone is neutral; intonation: how far the voice moves, 0 to 99, where 0
    flattens all tones: a control, in which there is nothing to hear. Third tones never follow each other, so that
    nobody's sandhi counts. Raises ValueError for numbers that do not fit, ModuleNotFoundError without espeakng-loader.
    """
    if not 1 <= speakers <= len(VARIANTS):
        raise BadValue(f"data.options: speakers={speakers}; there are 1 to {len(VARIANTS)} voices")
    if not 1 <= shortest <= longest:
        raise BadValue(f"data.options: shortest={shortest}, longest={longest}; needs 1 <= shortest <= longest")
    said = [
        (
            f"{VARIANTS[speaker]}-{number:04d}",
            speaker,
            sentence(f"{seed} {speaker} {number}", shortest, longest, neutral),
        )
        for speaker in range(speakers)
        for number in range(sentences)
    ]
    items = [_item(text, speaker, intonation, f"{seed} {name}") for name, speaker, text in said]
    folder = (Path(cache_dir) if cache_dir else synthetic.cache_folder()) / "speech"
    paths = synthetic.synthesize(items, folder, workers=workers, progress=progress)
    return [
        Utterance(
            id=name,
            audio=str(path),
            text=text,
            speaker=VARIANTS[speaker],
            gender=VARIANTS[speaker][0],
            prompt=text,
            language="zh",
        )
        for (name, speaker, text), path in zip(said, paths, strict=True)
    ]


def sentence(seed: str, shortest: int, longest: int, neutral: float = 0.05) -> str:
    """Numbered pinyin of random syllables: finals alike, then their initials."""
    rng, found = random.Random(f"mandarin {seed}"), []
    with_final: dict[str, list[str]] = {}
    for initial, finals in pinyin.TABLE.items():
        for final in finals:
            with_final.setdefault(final, []).append(initial)
    for place in range(rng.randint(shortest, longest)):
        final = rng.choice([one for one in sorted(with_final) if one != UNREADABLE])
        tones = [tone for tone in (1, 2, 3, 4) if not (tone == 3 and found and found[-1].endswith("3"))]
        tone = pinyin.NEUTRAL if place and rng.random() < neutral else rng.choice(tones)
        found.append(f"{pinyin.spelled(rng.choice(with_final[final]), final)}{tone}")
    return " ".join(found)


def _item(text: str, speaker: int, intonation: int, seed: str) -> SpeechItem:
    rng = random.Random(f"voice {seed}")
    voice = random.Random(f"voice of {VARIANTS[speaker]}")
    return SpeechItem(
        text=text,
        voice=MANDARIN,
        variant=VARIANTS[speaker],
        rate_wpm=round(voice.uniform(130, 190) * rng.uniform(0.95, 1.05)),
        pitch=round(min(99, max(1, voice.uniform(25, 75) + rng.uniform(-5, 5)))),
        range=intonation,
        tract=voice.uniform(0.93, 1.08),
        microphone=speaker,
        snr_db=rng.uniform(25, 40),
        level_db=rng.uniform(-28, -18),
        seed=rng.randrange(2**31),
    )
