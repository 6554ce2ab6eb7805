"""Training that leaves a published base able to write times and to hear 30 s of talk: beside utterances alone, without
times, batches of windows of joined utterances, with times, as `data.pack` makes them.

Without these an adapter learns that a window ends where its first utterance does, and the reference's algorithm, which
goes on from the last time written, loses what comes after. There are as many windows as let every utterance be learnt
about twice; they are fixed, so that the encoder's states of them can be kept as those of utterances are.

With `model.enrolled` a share of the windows is as `decode.enrolled` makes them: phrases of a speaker whose texts are
given, and one more utterance, the only one that is learnt. So a system learns to read whom it is told about (speech
in context: Wang et al. 2024; meta-trained for it: arXiv 2509.15516).
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from moejax.audio.constants import SAMPLE_RATE
from moejax.data.collate import Collator, Utterances
from moejax.data.pack import Packer, Recipe, Window
from moejax.data.pipeline import FILLER, BatchPlan
from moejax.data.strings import codes
from moejax.decode.enrolled import LEAST_NEW_SECONDS, PAUSE_SECONDS
from moejax.training import encoder_states, fitting, gate_inputs
from moejax.work.context import Context

# No plain windows, the utterances alone are those; no noise but what the corpus has; prompts short enough to be cheap.
# The prompt is at most an eighth of the room.
RECIPE = Recipe(
    plain=0.0, nospeech=0.0, noise=0.0, prompt=0.3, prompt_tokens=48, pause=PAUSE_SECONDS, new=LEAST_NEW_SECONDS
)
HEARD = 2  # windows with times of all that an utterance stands in before no more begin with it
TOGETHER = 64  # utterances of one group at most: each window draws from all of its group
MOST = 1 << 16  # utterances that windows are made of at most: their texts and windows are held in memory
NO_WINDOW = FILLER - 1  # index of a row that rounds out a batch of windows: whose batch it is shows in every row
ROWS = 4  # a batch of windows has so many times fewer rows than one of utterances: a window holds about so many more


@dataclasses.dataclass(frozen=True)
class Joined:
    """Windows out of utterances: what is said in each, and of which utterances (`members`) each is made."""

    packer: Packer
    windows: tuple[Window, ...]
    members: tuple[tuple[int, ...], ...]  # numbers of the caller's utterances, in the order in which they are heard
    said: tuple[tuple[list[int], int], ...]  # tokens of each, and how many of them are given

    def __len__(self):
        return len(self.windows)

    def of(self, rows) -> "Joined":
        """Those windows in which nothing but these utterances is heard."""
        heard_N = np.array([row for heard in self.members for row in heard], np.int64)
        allowed_N = np.isin(heard_N, rows)
        ends = np.cumsum([0, *map(len, self.members)])
        kept = [i for i in range(len(self)) if allowed_N[ends[i] : ends[i + 1]].all()]
        return dataclasses.replace(
            self,
            windows=tuple(self.windows[i] for i in kept),
            members=tuple(self.members[i] for i in kept),
            said=tuple(self.said[i] for i in kept),
        )

    def restated(self, texts: Mapping[int, str], tokenizer, room: int) -> "Joined":
        """Those of no enrolled speaker of whose utterances all have one of these `texts`, which is written instead;
        without those that would take more than `room` tokens.
        """
        mine = self.of([number for number, text in texts.items() if text])
        rows = {
            piece.row: number
            for window, heard in zip(self.windows, self.members, strict=True)
            for piece, number in zip(window.pieces, heard, strict=True)
        }
        own = {row: texts[number] for row, number in rows.items() if texts.get(number)}
        packer, kept, said = self.packer.translated(own, tokenizer), [], []
        for number, window in enumerate(mine.windows):
            if not window.enrolled and len((ids := packer.restated(window))[0]) - 1 <= room:
                kept.append(number)
                said.append(ids)
        return Joined(
            self.packer,
            tuple(mine.windows[number] for number in kept),
            tuple(mine.members[number] for number in kept),
            tuple(said),
        )

    def beside(self, others: "Joined", count: int) -> "Joined":
        """These, and behind them so many of others of the same packer, in random order, again from the first where
        they are fewer.
        """
        order = np.random.default_rng(len(others)).permutation(len(others))
        again = np.resize(order, count).tolist() if len(others) else []
        return Joined(
            self.packer,
            (*self.windows, *(others.windows[i] for i in again)),
            (*self.members, *(others.members[i] for i in again)),
            (*self.said, *(others.said[i] for i in again)),
        )

    def collator(self, *, labels=None, gate_in=None, cohorts=None, states=None, stride=320) -> Collator:
        """Batches of windows. What is given is one for each window; `states(i)` in place of the audio of window i."""
        utterances = Utterances(
            audio=_Waves(self.packer, self.windows),
            samples=self.samples,
            tokens=[ids for ids, _ in self.said],
            prefix=[given for _, given in self.said],
            eot=self.packer.eot,
            states=states,
            stride=stride,
        )
        return Collator(utterances, (self.packer.window,), labels=labels, gate_in=gate_in, cohorts=cohorts)

    def audible(self, number: int) -> np.ndarray:
        """Audio of a window to the end of what is said, as a recording would end there."""
        window = self.windows[number]
        said = [piece for piece in window.pieces if piece.whole or window.kind == "times"]
        return self.packer.wave(window)[: max((piece.start + piece.samples for piece in said), default=None)]

    @property
    def samples(self) -> np.ndarray:
        """Samples of each window: all hear their padding."""
        return np.full(len(self), self.packer.window, np.int64)

    @property
    def tokens(self) -> np.ndarray:
        """What the decoder is given in each window."""
        return np.array([len(ids) - 1 for ids, _ in self.said])

    @property
    def names(self) -> list[str]:
        """What each is called in messages and known by."""
        return [f"window of {len(heard)} utterances, the first {heard[0]}" for heard in self.members]

    def digest(self) -> str:
        """The same for the same windows."""
        heard = repr([(window.kind, window.pieces, window.speed, window.seed) for window in self.windows])
        return hashlib.blake2b(heard.encode(), digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Waves:
    """Audio of window i; pickles for loader processes."""

    packer: Packer
    windows: tuple[Window, ...]

    def __call__(self, i):
        return self.packer.wave(self.windows[int(i)])


def join(
    *, audio, samples, texts, groups: Sequence, tokenizer, language, window, room, seed, enrolled: float = 0.0
) -> Joined | None:
    """Windows of `window` samples out of utterances of one group each (a speaker's, such as (speaker, cohort)).

    `audio(i)`, `samples`, `texts`, `groups` are of the utterances; `room` is the decoder's positions. Utterances that
    leave no room for a prompt are not in any; None where that is all of them. `enrolled`: share of the windows that are
    of an enrolled speaker.
    """
    recipe = dataclasses.replace(RECIPE, prompt_tokens=min(RECIPE.prompt_tokens, room // 8), enrolled=enrolled)
    most = room - 1 - recipe.prompt_tokens - len(tokenizer.prefix(language, "transcribe")) - 4
    lengths = np.array([len(tokenizer.encode(text)) for text in texts])
    rows = np.flatnonzero((np.asarray(samples) <= window) & (lengths <= most)).tolist()
    if not rows:
        return None
    packer = Packer(
        audio=_Picked(audio, np.array(rows)),
        samples=np.asarray(samples, np.int64)[rows],
        texts=[texts[i] for i in rows],
        speakers=_parted([groups[i] for i in rows]),
        tokenizer=tokenizer,
        language=language,
        window=window,
        room=room,
        recipe=recipe,
        seed=seed,
    )
    kept, heard = [], np.zeros(len(rows), np.int64)
    for number in range(len(packer)):
        drawn = packer.draw(number)
        if drawn.enrolled:
            kept.append(drawn)
        elif heard[drawn.pieces[0].row] < HEARD:
            kept.append(drawn)
            np.add.at(heard, [piece.row for piece in drawn.pieces], 1)
    members = tuple(tuple(int(rows[piece.row]) for piece in drawn.pieces) for drawn in kept)
    return Joined(packer, tuple(kept), members, tuple(packer.tokens(window) for window in kept))


def _parted(groups) -> list[int]:
    """Group numbers, none of more than TOGETHER utterances: where nobody has a name, all are of one group."""
    seen: dict = {}
    parts: dict = {}
    found = []
    for group in groups:
        seen[group] = seen.get(group, -1) + 1
        found.append(parts.setdefault((group, seen[group] // TOGETHER), len(parts)))
    return found


@dataclasses.dataclass(frozen=True)
class _Picked:
    """Audio of utterance `rows[i]`; pickles for loader processes."""

    audio: Callable
    rows: np.ndarray

    def __call__(self, i):
        return self.audio(int(self.rows[i]))


@dataclasses.dataclass(frozen=True)
class Alternating:
    """A plan whose batches are those of `alone`, but a share of them those of `joined`, evenly spread; endless. Indices
    of the second begin at `first`.
    """

    alone: Any
    joined: BatchPlan
    share: float
    first: int
    made: str  # digest of the windows

    def _place(self, number) -> tuple[bool, int]:
        """(whether batch `number` is one of windows, its number among its like)."""
        before = int(number * self.share + 1e-9)
        joined = int((number + 1) * self.share + 1e-9) > before
        return joined, before if joined else number - before

    def __getitem__(self, number):
        joined, own = self._place(int(number))
        if not joined:
            return self.alone[own]
        bucket, index_B = self.joined[own]
        return bucket, np.where(index_B == FILLER, NO_WINDOW, index_B + self.first)

    def names_of(self, number):
        """Names of what is heard in batch `number`."""
        joined, own = self._place(int(number))
        return (self.joined if joined else self.alone).names_of(own)

    def digest(self):
        """The same for two plans that give the same batches."""
        return f"{self.alone.digest()}, {self.share:g} of {self.made} {self.joined.digest()}"


@dataclasses.dataclass(frozen=True)
class Either:
    """A collator of utterances, and from index `first` on one of windows."""

    alone: Callable
    joined: Collator
    first: int
    window: int  # samples; the buckets of windows are of tokens

    def __call__(self, bucket, rows):
        if FILLER <= rows[0] < self.first:
            return self.alone(bucket, rows)
        return self.joined(self.window, np.where(rows == NO_WINDOW, FILLER, rows - self.first), length=bucket)


def beside(alone: BatchPlan, fetch: Callable, joined: Joined, collate: Collator, share: float):
    """`(plan, fetch)` of both; a batch of windows has a quarter of the rows. All windows last alike, and their texts do
    not: those of three quarters of them take half of what the longest does, and stand in batches of their own.
    """
    first = len(alone.lengths)
    plan = BatchPlan(
        lengths=joined.tokens,
        buckets=_rooms(joined.tokens),
        batch_size=max(alone.batch_size // ROWS, 1),
        seed=alone.seed,
        multiple=alone.multiple,
        names=joined.names,
    )
    return Alternating(alone, plan, share, first, joined.digest()), Either(fetch, collate, first, joined.packer.window)


def _rooms(tokens) -> tuple[int, ...]:
    """Token lengths of batches, each one compilation of the step: the longest, and one more where that spares much."""
    most, many = (-(-int(np.quantile(tokens, share)) // 8) * 8 for share in (1.0, 0.75))
    return (many, most) if many <= 0.7 * most else (most,)


def material(context: Context, rows, section, *, labels=None, gate_in=None, own=True, kept: bool = False):
    """`(plan, fetch)` of a training on these rows of the manifest: utterances alone, and beside them windows where the
    base writes times. `labels`, `gate_in`: one for each row; a window has the label of its first utterance and the mean
    of what the gate hears of all, in which, with `own`, its own embedding stands first (`gate_inputs.of_windows`).
    `kept`: encoder states may be kept (`encoder_states.why_not`).
    """
    plan = fitting.speech_plan(context, rows, section)
    states = encoder_states.opened(context) if kept else None
    fetch = context.collator(rows, labels, gate_in, states)
    every = windows(context) if context.base.times else None
    joined = every.of(rows) if every else None
    if not every or not joined:
        return plan, fetch
    order = np.argsort(rows, kind="stable")  # a row may be there several times: the last counts
    members = [order[np.searchsorted(rows, heard, "right", order) - 1].tolist() for heard in joined.members]
    labels = None if labels is None else np.asarray(labels)[[heard[0] for heard in members]]
    if gate_in is not None:
        gate_in = np.stack([np.mean(gate_in[heard], axis=0) for heard in members])
        if own:
            heard_WU = gate_inputs.of_windows(context, every)[numbers(every, joined)]
            gate_in[:, : heard_WU.shape[1]] = heard_WU
    return among(context, plan, fetch, every, joined, labels=labels, gate_in=gate_in, kept=kept)


def numbers(every: Joined, joined: Joined) -> list[int]:
    """Which of `every` window these are."""
    number = {window.seed: i for i, window in enumerate(every.windows)}
    return [number[window.seed] for window in joined.windows]


def among(context: Context, plan, fetch, every: Joined, joined: Joined, *, labels=None, gate_in=None, kept=False):
    """`(plan, fetch)` of utterances, and batches of windows among them. `joined`: of `every` window of the training
    part; `labels`, `gate_in`: one for each window.
    """
    states = encoder_states.opened_windows(context, every) if kept else None
    if states is not None:
        states = _Picked(states, np.array(numbers(every, joined)))
    collate = joined.collator(
        labels=labels,
        gate_in=gate_in,
        cohorts=context.corpus.cohort_index([heard[0] for heard in joined.members]),
        states=states,
        stride=2 * context.base.config.hop,
    )
    behind = sum(window.enrolled for window in joined.windows)
    context.work.log(
        f"  {context.base.times:g} of the batches are windows of {joined.packer.window / SAMPLE_RATE:g} s with times:"
        f" {len(joined)} of {sum(map(len, joined.members)) / len(joined):.1f} utterances"
        + (f", {behind} of them behind phrases of the speaker" if behind else "")
    )
    return beside(plan, fetch, joined, collate, context.base.times)


def windows(context: Context) -> Joined | None:
    """The windows of the training part, the same for all stages of a run; each of one speaker, of one cohort, within or
    without the sample, so that a stage that trains on some of these finds windows of them alone. `members` are rows of
    the manifest.
    """
    manifest, rows = context.corpus.manifest, context.corpus.rows("train")
    if len(rows) > MOST:
        rows = rows[_some(codes(manifest.table.column("speaker"))[0][rows], context.cfg.data.seed)]
        context.work.log(f"  windows with times are made of {len(rows)} utterances, of speakers that are drawn")
    columns = [list(manifest.strings(name, rows)) for name in ("speaker", "cohort")]
    columns.append(manifest.table.column("sample").to_numpy()[rows].tolist())
    joined = join(
        audio=_Picked(functools.partial(_of, context.corpus.audio), rows),
        samples=context.corpus.samples[rows],
        texts=list(manifest.strings("text", rows)),
        groups=list(zip(*columns, strict=True)),
        tokenizer=context.base.tokenizer,
        language=context.cfg.data.language,
        window=context.window,
        room=context.base.config.max_target_positions,
        seed=context.cfg.data.seed,  # of the corpus, not of the training: seeds share what an encoder makes of them
        enrolled=context.base.enrolled,
    )
    if joined is None:
        return None
    members = tuple(tuple(int(rows[i]) for i in heard) for heard in joined.members)
    return dataclasses.replace(joined, members=members)


def _some(speaker_N: np.ndarray, seed: int) -> np.ndarray:
    """Numbers, ascending, of at most `MOST` of these utterances: each speaker's in groups of TOGETHER, of which as many
    are drawn as there is room for.
    """
    order = np.argsort(speaker_N, kind="stable")
    first = np.flatnonzero(np.diff(speaker_N[order], prepend=-1))  # of each speaker
    within = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    begins = (within % TOGETHER == 0).cumsum() - 1  # number of each one's group
    size = np.bincount(begins)
    drawn = np.random.default_rng(seed).permutation(len(size))
    return np.sort(order[np.isin(begins, drawn[size[drawn].cumsum() <= MOST])])


def _of(cache, row):
    return cache[row]
