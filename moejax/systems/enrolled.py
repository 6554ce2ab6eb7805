"""Rows in which every speaker is enrolled by a few phrases with their texts (`decode.enrolled`), nothing trained.

A speaker's phrases are drawn from what was learnt of him, or, where nobody has heard him, from the part that is scored:
these utterances are then left out of every row.
"""

import dataclasses
import random
from collections.abc import Sequence

import numpy as np

from moejax.decode.enrolled import Context as Front
from moejax.decode.enrolled import front
from moejax.errors import BadValue
from moejax.text.sentence import sentence
from moejax.work.context import Context


@dataclasses.dataclass(frozen=True)
class Phrases:
    """`own`: rows of the manifest that each speaker is enrolled by, best first; `rows`: those that are scored."""

    own: dict[str, list[int]]
    rows: np.ndarray

    def fronts(self, context: Context, rows: np.ndarray, count: int) -> list[Front | None]:
        """What stands in front of each of these rows: at most `count` phrases; None for one who has none."""
        manifest, made = context.corpus.manifest, {}
        for speaker, own in self.own.items():
            waves = [context.corpus.audio[row] for row in own[:count]]
            made[speaker] = front(waves, [sentence(str(text)) for text in manifest.column("text")[own[:count]]], count)
        return [made.get(str(speaker)) for speaker in manifest.column("speaker")[rows]]


def phrases(context: Context, rows: np.ndarray, counts: Sequence[int]) -> Phrases:
    """Who is enrolled by what. Rows without a speaker's name are scored as ever. Errors: BadValue for a base that does
    not hear 30 s with times.
    """
    most = max(counts, default=0)
    if not most:
        return Phrases({}, rows)
    if not context.base.times:
        raise BadValue(
            "evaluate.enroll: phrases stand in windows of 30 s; set model.pretrained, and model.times above 0"
        )
    manifest = context.corpus.manifest
    speaker_N, split_N = manifest.column("speaker"), manifest.column("split")
    own, spoken = {}, set()
    for name in sorted({str(name) for name in speaker_N[rows]} - {""}):
        heard = np.flatnonzero((speaker_N == name) & (split_N == "train")).tolist()
        here = rows[speaker_N[rows] == name].tolist()
        pool, limit = (heard, most) if heard else (here, min(most, len(here) - 1))  # one at least is scored
        own[name] = random.Random(f"{context.cfg.seed} {name}").sample(pool, min(limit, len(pool)))
        spoken |= set() if heard else set(own[name])
    return Phrases(own, np.array([row for row in rows.tolist() if row not in spoken]))
