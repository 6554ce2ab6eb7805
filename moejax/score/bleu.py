"""BLEU and chrF of translations, with the signatures that make the figures comparable (Post 2018, sacreBLEU)."""

import contextlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from moejax.errors import BadValue

ORDER = 4  # longest n-gram
SAMPLES, SEED = 1000, 12345  # of the bootstrap, as sacrebleu's command line has them
_SEED = "SACREBLEU_SEED"
SUMS = 2 * ORDER + 2  # what corpus BLEU is made of: matched and possible n-grams, words of translation and reference


def score(
    hypotheses: Sequence[str],
    references: Sequence[str],
    *,
    system: str | None = None,
    translation_sources: Sequence[str | None] | None = None,
) -> dict[str, float | str | int]:
    """Corpus BLEU and chrF (both 0 to 100), their sacreBLEU signatures and the number of sentences.

    `system` is the translator that made the hypotheses, `translation_sources` says who made each reference. References
    that came from the same translator would score it against itself: that is refused, never averaged away. A source may
    carry a detail after a colon ("deepl:2026-01"), which does not matter here.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    hypotheses, references = list(hypotheses), list(references)
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(references)} references for {len(hypotheses)} translations: there must be one each")
    if not hypotheses:
        raise BadValue("nothing to score: no translation has a reference")
    if empty := sum(not r.strip() for r in references):
        raise BadValue(f"{empty} of {len(references)} reference translations are empty: leave those utterances out")
    if translation_sources is not None:
        _refuse_own_references(system, list(translation_sources), len(references))
    bleu, chrf = BLEU(), CHRF()
    return {
        "bleu": float(bleu.corpus_score(hypotheses, [references]).score),
        "chrf": float(chrf.corpus_score(hypotheses, [references]).score),
        "signature": str(bleu.get_signature()),
        "chrf_signature": str(chrf.get_signature()),
        "sentences": len(references),
    }


def paired(
    systems: Mapping[str, Sequence[str]], references: Sequence[str], *, samples: int = SAMPLES, seed: int = SEED
) -> dict[str, dict[str, float]]:
    """{system: bleu_mean, bleu_ci, chrf_mean, chrf_ci and, except of the first, bleu_p and chrf_p}: sacreBLEU's paired
    bootstrap (Koehn 2004) of every system against the first, over the same sentences.

    mean, ci: of the resampled scores, 0 to 100, the middle and half the width of their 95 %; p: how often chance alone
    makes a difference as large: 1 where there is none, of which sacrebleu says 1 / (samples + 1). `seed` is at least 1:
    sacrebleu takes 0 for none.
    """
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF
    from sacrebleu.significance import PairedTest

    named: Any = [(name, list(hypotheses)) for name, hypotheses in systems.items()]
    with _seeded(seed):
        metrics = {"BLEU": BLEU(), "chrF2": CHRF()}
        test: Any = PairedTest(named, metrics, [list(references)], test_type="bs", n_samples=samples)
        _, found = test()
    made: dict[str, dict[str, float]] = {name: {} for name in systems}
    for metric, key in (("BLEU", "bleu"), ("chrF2", "chrf")):
        first = found[metric][0].score
        for name, result in zip(systems, found[metric], strict=True):
            made[name] |= {f"{key}_mean": float(result.mean), f"{key}_ci": float(result.ci)}
            if result.p_value is not None:
                made[name][f"{key}_p"] = 1.0 if result.score == first else float(result.p_value)
    return made


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """sacrebleu takes its seed from the environment alone."""
    before = os.environ.get(_SEED)
    os.environ[_SEED] = str(seed)
    try:
        yield
    finally:
        os.environ.pop(_SEED)
        if before is not None:
            os.environ[_SEED] = before


def sums(hypotheses: Sequence[str], references: Sequence[str]) -> np.ndarray:
    """Of each sentence what corpus BLEU adds up [U, SUMS]: `of_sums` of their sum is the BLEU that `score` gives."""
    from sacrebleu.metrics.bleu import BLEU

    sentence = BLEU(effective_order=True)
    found = [sentence.sentence_score(h, [r]) for h, r in zip(hypotheses, references, strict=True)]
    return np.array([[*s.counts, *s.totals, s.sys_len, s.ref_len] for s in found], np.float64).reshape(-1, SUMS)


def of_sums(sums_NS: np.ndarray) -> np.ndarray:
    """Corpus BLEU [N], 0 to 100, of added-up `sums` [N, SUMS]; NaN where nothing is referred to.

    As sacreBLEU (Post 2018): geometric mean of the precisions, those of no match smoothed exponentially, times the
    brevity penalty.
    """
    matched_NO, possible_NO = sums_NS[:, :ORDER], sums_NS[:, ORDER : 2 * ORDER]
    said_N, referred_N = sums_NS[:, -2], sums_NS[:, -1]
    none_NO = (matched_NO == 0) & (possible_NO > 0)
    smooth_NO = np.where(none_NO, 0.5 ** np.cumsum(none_NO, axis=1), matched_NO)
    defined_N = np.all(possible_NO > 0, axis=1) & np.any(matched_NO > 0, axis=1)
    precision_NO = np.where(np.expand_dims(defined_N, 1), smooth_NO, 1.0) / np.maximum(possible_NO, 1e-9)
    brevity_N = np.exp(np.minimum(0.0, 1.0 - referred_N / np.maximum(said_N, 1e-9)))
    bleu_N = 100.0 * brevity_N * np.exp(np.log(precision_NO).mean(1))
    return np.where(referred_N > 0, np.where(defined_N, bleu_N, 0.0), np.nan)


def made_by(source: str | None) -> str:
    """The translator's name in a manifest's `translation_source`: lower case, without what follows a colon."""
    return (source or "").split(":")[0].strip().lower()


def own_references(system: str, sources: Sequence[str | None]) -> int:
    """How many references the system that is scored has made itself."""
    return sum(made_by(source) == made_by(system) for source in sources)


def _refuse_own_references(system: str | None, sources: list[str | None], references: int) -> None:
    if len(sources) != references:
        raise ValueError(f"{len(sources)} translation sources for {references} references: there must be one each")
    if system is None:
        raise ValueError("translation_sources given without the system that is scored: name the translator")
    if own := own_references(system, sources):
        raise BadValue(
            f"{own} of {references} references were made by {system!r}, the system that is scored: "
            "use references of a person or of another translator"
        )
