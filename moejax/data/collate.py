"""From manifest rows to fixed-shape batches."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from moejax.types import Batch


@dataclasses.dataclass(frozen=True)
class Utterances:
    """What batches are made of: `audio(row)` float32 [S], `samples` of each row, and `tokens`, each row's ids (prefix,
    text, end token), of which `prefix` are given, not predicted (one number, or one for each row). With `states(row)`
    [T, D] and the `stride` in samples between them, batches hold these in place of audio.
    """

    audio: Callable
    samples: np.ndarray
    tokens: Sequence
    prefix: int | Sequence[int]
    eot: int
    states: Callable | None = None
    stride: int = 320


class Tokens(Sequence):
    """`prefix`, the ids of a text, the end token: made of each of `texts` when it is asked for, so that a million of
    them take four bytes each. `counts` int32 [rows]: how many ids each has.
    """

    def __init__(self, texts: Sequence[str], prefix: list[int], tokenizer):
        self.texts, self.prefix, self.tokenizer = texts, list(prefix), tokenizer
        lengths = (len(tokenizer.encode(text)) for text in texts)
        self.counts = np.fromiter(lengths, np.int32, len(texts)) + len(prefix) + 1

    def __len__(self):
        return len(self.texts)

    def __getitem__(self, row):
        return [*self.prefix, *self.tokenizer.encode(self.texts[int(row)]), self.tokenizer.eot]


def token_counts(tokens: Sequence) -> np.ndarray:
    """How many ids each row has, int32 [rows]."""
    return tokens.counts if isinstance(tokens, Tokens) else np.fromiter(map(len, tokens), np.int32, len(tokens))


class Collator:
    """Makes the `Batch` of one bucket from row numbers; row -1 is filler.

    The token length of a bucket is the longest of its rows rounded up to 8, known before the first batch, so that each
    bucket has one shape. `labels`, `gate_in` and `cohorts` are one for each row.
    """

    def __init__(self, utterances: Utterances, buckets, *, labels=None, gate_in=None, cohorts=None):
        self.of = utterances
        rows = len(utterances.samples)
        self.labels = np.full(rows, -1, np.int32) if labels is None else np.asarray(labels, np.int32)
        self.gate_in = np.zeros((rows, 0), np.float32) if gate_in is None else np.asarray(gate_in, np.float32)
        self.cohorts = np.zeros(rows, np.int32) if cohorts is None else np.asarray(cohorts, np.int32)
        self.lengths = self._token_lengths(sorted(buckets))

    def _token_lengths(self, buckets):
        lengths, counts = {}, token_counts(self.of.tokens)
        low = 0
        for high in buckets:
            within = (self.of.samples > low) & (self.of.samples <= high)
            longest = int(counts[within].max(initial=0)) - 1 if within.any() else 1
            lengths[high] = -(-longest // 8) * 8
            low = high
        return lengths

    def __call__(self, bucket: int, rows, length: int | None = None) -> Batch:
        """`length`: tokens, where the plan knows them better than the bucket does."""
        real_B, pick = np.asarray(rows) >= 0, np.maximum(rows, 0)
        kept = self.of.states is not None
        silence = np.zeros(0, np.float32)
        batch = assemble(
            [None if row < 0 else silence if kept else self.of.audio(row) for row in rows],
            [self.of.tokens[row] for row in pick],
            self._given(pick),
            samples=0 if kept else bucket,
            length=length or self.lengths[bucket],
            eot=self.of.eot,
        )
        if kept:
            samples_B = np.where(real_B, self.of.samples[pick], 1).astype(np.int32)
            batch = dataclasses.replace(batch, samples_B=samples_B, states_BTD=self._states(bucket, rows))
        return dataclasses.replace(
            batch,
            label_B=np.where(real_B, self.labels[pick], -1).astype(np.int32),
            gate_in_BU=self.gate_in[pick] * real_B[:, None],
            cohort_B=self.cohorts[pick].astype(np.int32),
        )

    def _given(self, pick):
        prefix = self.of.prefix
        return [prefix if isinstance(prefix, int) else prefix[row] for row in pick]

    def _states(self, bucket, rows):
        assert self.of.states is not None  # asked where states were kept
        found = [None if row < 0 else self.of.states(row) for row in rows]
        one = next(states for states in found if states is not None)
        states_BTD = np.zeros((len(rows), -(-bucket // self.of.stride), one.shape[1]), one.dtype)
        for b, states in enumerate(found):
            if states is not None:
                states_BTD[b, : len(states)] = states
        return states_BTD


def assemble(waves, ids, given, *, samples, length, eot) -> Batch:
    """A `Batch` of waveforms and their tokens; a waveform None is filler. Label -1, cohort 0, no gate input.

    waves: float32 [S], S <= samples. ids: prefix, text and end token, at most length + 1. given: how many of each row's
    ids are input only; every later one is scored.
    """
    B = len(waves)
    audio_BS = np.zeros((B, samples), np.float32)
    samples_B = np.ones(B, np.int32)  # a filler row has one sample: no mask is ever empty
    tokens_BL = np.full((B, length), eot, np.int32)
    targets_BL = np.full((B, length), eot, np.int32)
    score_BL = np.zeros((B, length), bool)
    for b, (wave, row, first) in enumerate(zip(waves, ids, given, strict=True)):
        if wave is None:
            continue
        audio_BS[b, : len(wave)] = wave
        samples_B[b] = len(wave)
        tokens_BL[b, : len(row) - 1] = row[:-1]
        targets_BL[b, : len(row) - 1] = row[1:]
        score_BL[b, first - 1 : len(row) - 1] = True
    return Batch(
        audio_BS=audio_BS,
        samples_B=samples_B,
        tokens_BL=tokens_BL,
        targets_BL=targets_BL,
        score_BL=score_BL,
        label_B=np.full(B, -1, np.int32),
        gate_in_BU=np.zeros((B, 0), np.float32),
        cohort_B=np.zeros(B, np.int32),
        real_B=np.array([wave is not None for wave in waves]),
    )
