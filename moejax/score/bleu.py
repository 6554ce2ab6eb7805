"""BLEU and chrF of translations, with the signatures that make the figures comparable (Post 2018, sacreBLEU)."""

from collections.abc import Sequence

from moejax.errors import BadValue


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


def made_by(source: str | None) -> str:
    """The translator's name in a manifest's `translation_source`: lower case, without what follows a colon."""
    return (source or "").split(":")[0].strip().lower()


def _refuse_own_references(system: str | None, sources: list[str | None], references: int) -> None:
    if len(sources) != references:
        raise ValueError(f"{len(sources)} translation sources for {references} references: there must be one each")
    if system is None:
        raise ValueError("translation_sources given without the system that is scored: name the translator")
    if own := sum(made_by(s) == made_by(system) for s in sources):
        raise BadValue(
            f"{own} of {references} references were made by {system!r}, the system that is scored: "
            "use references of a person or of another translator"
        )
