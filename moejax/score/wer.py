"""Edit counts of words and characters, utterance by utterance; corpus rates are ratios of their sums.

The alignment is the one of least edits (Levenshtein, all edits cost 1). Texts are taken as they are: normalise first.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import jiwer

from moejax.errors import BadValue

_WORDS = jiwer.Compose([jiwer.Strip(), jiwer.RemoveMultipleSpaces(), jiwer.ReduceToListOfListOfWords()])
_CHARS = jiwer.Compose([jiwer.Strip(), jiwer.RemoveMultipleSpaces(), jiwer.ReduceToListOfListOfChars()])


@dataclass(frozen=True)
class Counts:
    """Edits of one utterance: errors = substitutions + deletions + insertions; `words` counts the reference's units."""

    errors: int
    words: int
    substitutions: int
    deletions: int
    insertions: int

    @property
    def length_ratio(self) -> float:
        """Units said by the system over units of the reference (an empty reference counts as one unit).

        Far above 1 is how hallucination shows (repetition loops, text on silence), far below 1 how early stopping does.
        """
        return (self.words - self.deletions + self.insertions) / max(self.words, 1)


@dataclass(frozen=True)
class Edit:
    """One differing word: kind is "substitute", "delete" or "insert"; "" on the side that has none."""

    kind: str
    reference: str
    hypothesis: str


def count(references: Sequence[str], hypotheses: Sequence[str]) -> list[Counts]:
    """Word edits per utterance. An empty reference has 0 words and as many errors as the hypothesis has words."""
    return _count(jiwer.process_words, _WORDS, references, hypotheses)


def count_characters(references: Sequence[str], hypotheses: Sequence[str]) -> list[Counts]:
    """Character edits per utterance; the space between two words is a character."""
    return _count(jiwer.process_characters, _CHARS, references, hypotheses)


def clipped(references: Sequence[str | Sequence[str]], hypotheses: Sequence[str]) -> list[Counts]:
    """Word edits as the Speech Accessibility Project scores: at most the reference's words, better of references.

    The better reference is the one with the lower clipped rate, the longer of two equals. Only `errors` is clipped, so
    that it may be less than the sum of its kinds. See `normalize.disfluency_references` for the two references.
    """
    choices = [[r] if isinstance(r, str) else list(r) for r in references]
    if len(choices) != len(hypotheses):
        raise ValueError(f"{len(choices)} references for {len(hypotheses)} hypotheses: one (or one tuple) each")
    if not all(choices):
        raise BadValue(f"utterance {choices.index([])} has no reference at all")
    flat = count([r for rs in choices for r in rs], [h for rs, h in zip(choices, hypotheses, strict=True) for _ in rs])
    best, start = [], 0
    for rs in choices:
        options = [
            Counts(min(c.errors, c.words), c.words, c.substitutions, c.deletions, c.insertions)
            for c in flat[start : start + len(rs)]
        ]
        best.append(min(options, key=lambda c: (c.errors / max(c.words, 1), -c.words)))
        start += len(rs)
    return best


def edits(reference: str, hypothesis: str) -> list[Edit]:
    """The differing words of one utterance in order; runs of substitutions are taken apart word by word."""
    found = []
    if not reference.strip() and not hypothesis.strip():
        return found
    out = jiwer.process_words(reference, hypothesis, _WORDS, _WORDS)
    said, heard = out.references[0], out.hypotheses[0]
    for chunk in out.alignments[0]:
        refs = said[chunk.ref_start_idx : chunk.ref_end_idx]
        hyps = heard[chunk.hyp_start_idx : chunk.hyp_end_idx]
        if chunk.type == "substitute":
            found += [Edit("substitute", r, h) for r, h in zip(refs, hyps, strict=True)]
        elif chunk.type == "delete":
            found += [Edit("delete", r, "") for r in refs]
        elif chunk.type == "insert":
            found += [Edit("insert", "", h) for h in hyps]
    return found


def pairs(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int | None, int | None]]:
    """(place in the reference, place in the hypothesis) of all words in order; None on the side that has none."""
    found: list[tuple[int | None, int | None]] = []
    if not reference or not hypothesis:  # which jiwer refuses
        found += [(i, None) for i in range(len(reference))]
        found += [(None, j) for j in range(len(hypothesis))]
        return found
    for chunk in jiwer.process_words([" ".join(reference)], [" ".join(hypothesis)], _WORDS, _WORDS).alignments[0]:
        said = range(chunk.ref_start_idx, chunk.ref_end_idx)
        heard = range(chunk.hyp_start_idx, chunk.hyp_end_idx)
        if chunk.type == "delete":
            found += [(i, None) for i in said]
        elif chunk.type == "insert":
            found += [(None, j) for j in heard]
        else:
            found += zip(said, heard, strict=True)
    return found


def rate(counts: Sequence[Counts]) -> float:
    """Corpus rate: all errors over all reference units (a fraction, may exceed 1); NaN when no reference has any."""
    units = sum(c.words for c in counts)
    return sum(c.errors for c in counts) / units if units else float("nan")


def _count(process, transform, references, hypotheses) -> list[Counts]:
    references, hypotheses = list(references), list(hypotheses)
    if len(references) != len(hypotheses):
        raise ValueError(f"{len(references)} references for {len(hypotheses)} hypotheses: there must be one each")
    if not references:
        return []
    out = process(references, hypotheses, transform, transform)
    counts = []
    for reference, chunks in zip(out.references, out.alignments, strict=True):
        by = {"substitute": 0, "delete": 0, "insert": 0, "equal": 0}
        for c in chunks:
            by[c.type] += max(c.ref_end_idx - c.ref_start_idx, c.hyp_end_idx - c.hyp_start_idx)
        errors = by["substitute"] + by["delete"] + by["insert"]
        counts.append(Counts(errors, len(reference), by["substitute"], by["delete"], by["insert"]))
    return counts
