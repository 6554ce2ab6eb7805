"""Digit strings: clips of single digits (a folder like the Free Spoken Digit Dataset) joined into short utterances.

Clips are first dealt to train, dev and test, then strings are drawn inside each part: no clip is heard in two parts.
The official test clips (takes 0 to 4) are always test; more are added by hash, since 4 clips of a digit are few.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping, Sequence

import numpy as np

from moejax.audio.flaws import Rejected
from moejax.audio.read import gate, read
from moejax.data.manifest import SPLITS, Utterance
from moejax.data.sources import folder
from moejax.data.splits import unit
from moejax.errors import BadValue, NotThere

_COLUMNS = ("file", "text", "digit", "speaker", "take")
STRINGS = {"train": 400, "dev": 30, "test": 60}


@functools.lru_cache(maxsize=4096)
def _clip(path: str) -> tuple[np.ndarray, int]:
    samples, rate = read(path)
    return gate(samples, rate, target_rate=rate, min_seconds=0.02).samples, rate


@dataclasses.dataclass(frozen=True)
class Joined:
    """Joins clips with pauses (seconds of digital silence between them) at the rate that they all share."""

    paths: tuple[str, ...]
    pauses: tuple[float, ...]

    def __call__(self) -> tuple[np.ndarray, int]:
        clips = [_clip(path) for path in self.paths]
        rates = {rate for _, rate in clips}
        if len(rates) > 1:
            raise Rejected("unreadable", f"clips of one string have rates {sorted(rates)}: {', '.join(self.paths)}")
        rate = rates.pop()
        pieces = [clips[0][0]]
        for pause, (samples, _) in zip(self.pauses, clips[1:], strict=True):
            pieces += [np.zeros(round(pause * rate), np.float32), samples]
        return np.concatenate(pieces), rate


def load(
    *,
    root: str,
    cohorts: Mapping[str, Sequence[str]] | None = None,
    strings_per_speaker: Mapping[str, int] = STRINGS,
    min_digits: int = 1,
    max_digits: int = 4,
    pause_seconds: tuple[float, float] = (0.05, 0.2),
    dev_share: float = 0.1,
    test_share: float = 0.1,
    seed: int = 0,
) -> list[Utterance]:
    """Digit strings of every speaker, repeatable from `seed`, with `split` filled (use the split scheme `official`).

    root: holds metadata.csv with file, text, digit, speaker, take, and if known official_split, accent, gender.
    cohorts: {cohort: speakers}; only these speakers are used. Without it all are, and cohort is empty.
    strings_per_speaker: {train, dev, test: number}; more strings leave the first ones as they are.
    dev_share, test_share: shares of the clips outside the official test that are dealt to dev and, on top of the
        official ones, to test, by hash of the clip and at least one clip of every digit and speaker to each part.
    Every clip of a part is used once before one is used again. Errors: missing folder, table, column, speaker.
    """
    rows = _rows(root)
    cohort_of = _cohorts(cohorts or {}, {row["speaker"] for row in rows})
    _check(strings_per_speaker, min_digits, max_digits, pause_seconds)
    clips: dict[tuple[str, str], list[dict]] = {}
    by_digit: dict[tuple[str, str], list[dict]] = {}
    for row in rows:
        if row["speaker"] in cohort_of:
            by_digit.setdefault((row["speaker"], row["digit"]), []).append(row)
    for (speaker, _), takes in sorted(by_digit.items()):
        for part, dealt in deal(takes, seed=seed, dev_share=dev_share, test_share=test_share).items():
            clips.setdefault((speaker, part), []).extend(dealt)
    utterances = []
    for (speaker, part), pool in sorted(clips.items()):
        drawn = _draw(pool, strings_per_speaker[part], min_digits, max_digits, pause_seconds, f"{speaker}/{part}", seed)
        for number, (string, pauses) in enumerate(drawn):
            text = " ".join(clip["text"] for clip in string)
            utterances.append(
                Utterance(
                    id=f"{speaker}-{part}-{number:04d}",
                    audio=Joined(tuple(clip["path"] for clip in string), pauses),
                    text=text,
                    speaker=speaker,
                    cohort=cohort_of[speaker],
                    accent=string[0].get("accent"),
                    gender=string[0].get("gender"),
                    prompt=text,
                    split=part,
                )
            )
    return utterances


def deal(takes: list[dict], *, seed: int, dev_share: float, test_share: float) -> dict[str, list[dict]]:
    """{part: clips} of the takes of one digit by one speaker, disjoint, at least one in each part."""
    if len(takes) < 3:
        name = f"{takes[0]['speaker']}, digit {takes[0]['digit']}"
        raise BadValue(f"digits: {name}: {len(takes)} clips cannot be dealt to train, dev and test; at least 3")
    parts: dict[str, list[dict]] = {part: [] for part in SPLITS}
    rest = []
    for clip in takes:
        (parts["test"] if clip.get("official_split") == "test" else rest).append(clip)
    rest.sort(key=lambda clip: unit(seed, "clip", f"{clip['speaker']}/{clip['digit']}/{clip['take']}"))
    for clip in rest:
        number = unit(seed, "clip", f"{clip['speaker']}/{clip['digit']}/{clip['take']}")
        parts["test" if number < test_share else "dev" if number < test_share + dev_share else "train"].append(clip)
    for part in ("train", "dev", "test"):
        if not parts[part]:
            largest = max(parts, key=lambda name: len(parts[name]))
            parts[part].append(parts[largest].pop(0))
    return parts


def _draw(pool, count, min_digits, max_digits, pause_seconds, name, seed):
    rng = np.random.default_rng(int(unit(seed, "strings", name) * 2**53))
    deck: list[dict] = []
    for _ in range(count):
        length = int(rng.integers(min_digits, max_digits + 1))
        if len(deck) < length:
            deck += [pool[index] for index in rng.permutation(len(pool))] * -(-length // len(pool))
        string, deck = deck[:length], deck[length:]
        yield string, tuple(round(float(pause), 4) for pause in rng.uniform(*pause_seconds, size=length - 1))


def _rows(root: str) -> list[dict]:
    if not root or not os.path.isdir(root):
        raise NotThere(f"digits: no folder {root!r} (data.root)")
    table = os.path.join(os.path.abspath(root), "metadata.csv")
    if not os.path.isfile(table):
        raise NotThere(f"digits: no table {table}")
    rows, root = folder.read_table(table), os.path.abspath(root)
    for name in _COLUMNS:
        if name not in rows[0]:
            raise BadValue(f"{table}: no column {name!r}; it has {', '.join(rows[0])}")
    for number, row in enumerate(rows, start=1):
        row["path"] = folder.inside(root, root, row["file"], where=f"{table}: row {number}")
    return rows


def _cohorts(cohorts: Mapping[str, Sequence[str]], speakers: set[str]) -> dict[str, str]:
    if not cohorts:
        return dict.fromkeys(speakers, "")
    cohort_of: dict[str, str] = {}
    for cohort, names in cohorts.items():
        for name in names:
            if name not in speakers:
                raise BadValue(
                    f"digits: no speaker {name!r} (cohort {cohort}); there are {', '.join(sorted(speakers))}"
                )
            if name in cohort_of:
                raise BadValue(f"digits: speaker {name!r} stands in cohorts {cohort_of[name]} and {cohort}")
            cohort_of[name] = cohort
    return cohort_of


def _check(strings, min_digits: int, max_digits: int, pause_seconds) -> None:
    if set(strings) != set(SPLITS):
        raise BadValue(f"digits: strings_per_speaker has {', '.join(strings)}; it needs {', '.join(SPLITS)}")
    if not 1 <= min_digits <= max_digits:
        raise BadValue(f"digits: min_digits={min_digits}, max_digits={max_digits}; needs 1 <= min <= max")
    if len(pause_seconds) != 2 or not 0 <= pause_seconds[0] <= pause_seconds[1]:
        raise BadValue(f"digits: pause_seconds={tuple(pause_seconds)}; needs (shortest, longest)")
