"""From manifest rows to fixed-shape batches."""

import numpy as np

from moejax.types import Batch


class Collator:
    """Makes the `Batch` of one bucket from row numbers; row -1 is filler.

    `tokens` lists each row's ids (prefix, text, end token) and `prefix` how many of them are given, not predicted. The
    token length of a bucket is the longest of its rows rounded up to 8, known before the first batch, so that each
    bucket has one shape. `audio(row) -> float32 [S]`.
    """

    def __init__(self, *, audio, samples, tokens, prefix, eot, buckets, labels=None, gate_in=None, cohorts=None):
        self.audio, self.samples, self.tokens = audio, np.asarray(samples), tokens
        self.prefix, self.eot = prefix, eot
        rows = len(self.samples)
        self.labels = np.full(rows, -1) if labels is None else np.asarray(labels)
        self.gate_in = np.zeros((rows, 0), np.float32) if gate_in is None else np.asarray(gate_in, np.float32)
        self.cohorts = np.zeros(rows, np.int64) if cohorts is None else np.asarray(cohorts)
        self.lengths = self._token_lengths(sorted(buckets))

    def _token_lengths(self, buckets):
        lengths = {}
        low = 0
        for high in buckets:
            rows = np.flatnonzero((self.samples > low) & (self.samples <= high))
            longest = max((len(self.tokens[r]) - 1 for r in rows), default=1)
            lengths[high] = -(-longest // 8) * 8
            low = high
        return lengths

    def __call__(self, bucket: int, rows) -> Batch:
        B, L = len(rows), self.lengths[bucket]
        audio_BS = np.zeros((B, bucket), np.float32)
        samples_B = np.ones(B, np.int32)  # a filler row has one sample: no mask is ever empty
        tokens_BL = np.full((B, L), self.eot, np.int32)
        targets_BL = np.full((B, L), self.eot, np.int32)
        score_BL = np.zeros((B, L), bool)
        real_B = np.asarray(rows) >= 0
        for b, row in enumerate(rows):
            if row < 0:
                continue
            wave = self.audio(row)
            ids = self.tokens[row]
            audio_BS[b, : len(wave)] = wave
            samples_B[b] = len(wave)
            tokens_BL[b, : len(ids) - 1] = ids[:-1]
            targets_BL[b, : len(ids) - 1] = ids[1:]
            score_BL[b, self.prefix - 1 : len(ids) - 1] = True
        pick = np.where(real_B, rows, 0)
        return Batch(
            audio_BS=audio_BS,
            samples_B=samples_B,
            tokens_BL=tokens_BL,
            targets_BL=targets_BL,
            score_BL=score_BL,
            label_B=np.where(real_B, self.labels[pick], -1).astype(np.int32),
            gate_in_BU=self.gate_in[pick] * real_B[:, None],
            cohort_B=self.cohorts[pick].astype(np.int32),
            real_B=real_B,
        )
