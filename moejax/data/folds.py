"""Cross-validation without leaks: which clips are tested when, and that no recording or speaker is on both sides.

Of fold k the clips are tested, those of the next fold choose, and all others teach. A corpus that comes with folds
keeps them; of any other, folds are made of its groups (actors, speakers, recordings of origin), which stay whole.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from moejax.errors import BadValue


@dataclasses.dataclass(frozen=True)
class Folds:
    """`names[k]` of every fold, and the fold of every clip."""

    names: tuple[str, ...]
    fold_U: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def parts(self, test: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Clips that teach, choose and are tested (train, validation, test) in round `test`."""
        choose = (test + 1) % len(self)
        train = np.flatnonzero((self.fold_U != test) & (self.fold_U != choose))
        return train, np.flatnonzero(self.fold_U == choose), np.flatnonzero(self.fold_U == test)


def made(folds: Sequence[str], groups: Sequence[str], count: int) -> Folds:
    """The folds of a corpus.

    folds   of every clip as the corpus says, "" where it says nothing
    groups  of every clip: who or what is heard; "" where nobody knows
    count   folds to make where the corpus has none: each group goes to the smallest, the largest groups first, so that
            they come out alike in size; 0: one for each group
    Errors: BadValue for fewer than three folds, some clips without one, a group in two of them, nothing to go by.
    """
    if any(folds):
        if not all(folds):
            lacking = sum(not fold for fold in folds)
            raise BadValue(f"{lacking} of {len(folds)} clips have no fold: fill the column, or leave it out for all")
        names = tuple(sorted(set(folds), key=lambda name: (len(name), name)))  # 2 before 10
        fold_U = np.array([names.index(fold) for fold in folds])
    else:
        names, fold_U = _of_groups(groups, count)
    if len(names) < 3:
        raise BadValue(f"{len(names)} folds: one is tested and one chooses, so there must be at least three")
    check(fold_U, groups)
    return Folds(names, fold_U)


def check(fold_U: np.ndarray, groups: Sequence[str]) -> None:
    """BadValue naming a group that is in two folds: what is known of it in training helps in the test."""
    seen: dict[str, int] = {}
    for fold, group in zip(fold_U.tolist(), groups, strict=True):
        if group and seen.setdefault(group, fold) != fold:
            raise BadValue(f"{group!r} is in two folds: a model that learnt it in one is tested on it in the other")


def _of_groups(groups, count):
    if not all(groups):
        raise BadValue(
            "the corpus has no folds and some clips no speaker: map data.columns.fold or data.columns.speaker"
        )
    sizes = collections.Counter(groups)
    if count > len(sizes):
        raise BadValue(f"folds.count is {count}, and there are {len(sizes)} speakers; a fold needs one")
    number = count or len(sizes)
    held, place = [0] * number, {}
    for name, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        place[name] = min(range(number), key=lambda fold: (held[fold], fold))
        held[place[name]] += size
    names = tuple(str(fold + 1) for fold in range(number))
    if not count:
        names = tuple(sorted(sizes))
        place = {name: fold for fold, name in enumerate(names)}
    return names, np.array([place[group] for group in groups])
