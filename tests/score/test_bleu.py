"""BLEU and chrF: known values, signatures, and the refusal to score a translator against itself."""

import numpy as np
import pytest

from moejax.score import bleu

REFERENCES = ["Der Hund läuft schnell nach Hause .", "Das ist ein gutes Buch ."]


def test_perfect_is_100_and_worse_is_less():
    perfect = bleu.score(REFERENCES, REFERENCES)
    worse = bleu.score(["Der Hund geht schnell nach Hause .", "Das ist Buch ."], REFERENCES)
    assert perfect["bleu"] == pytest.approx(100) and perfect["chrf"] == pytest.approx(100)
    assert 0 < worse["bleu"] < 100 and 0 < worse["chrf"] < 100
    assert worse["sentences"] == 2


def test_signatures_name_the_variant():
    scored = bleu.score(REFERENCES, REFERENCES)
    assert scored["signature"].startswith("nrefs:1|case:mixed|") and "tok:13a" in scored["signature"]
    assert "nc:6" in scored["chrf_signature"]


@pytest.mark.parametrize("source", ["deepl", "DeepL", "deepl:2026-01"])
def test_own_references_are_refused(source):
    with pytest.raises(ValueError, match="1 of 2 references were made by 'deepl'"):
        bleu.score(REFERENCES, REFERENCES, system="deepl", translation_sources=["human", source])


def test_references_of_others_are_scored():
    sources = ["human", None]
    assert bleu.score(REFERENCES, REFERENCES, system="deepl", translation_sources=sources)["bleu"] > 99


@pytest.mark.parametrize(
    ("hypotheses", "references", "options", "message"),
    [
        ([], [], {}, "nothing to score"),
        (["a"], ["a", "b"], {}, "2 references for 1 translations"),
        (["a"], [" "], {}, "1 of 1 reference translations are empty"),
        (["a"], ["a"], {"translation_sources": ["human"]}, "without the system"),
        (["a"], ["a"], {"system": "x", "translation_sources": []}, "0 translation sources for 1"),
    ],
)
def test_bad_input_is_named(hypotheses, references, options, message):
    with pytest.raises(ValueError, match=message):
        bleu.score(hypotheses, references, **options)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("count", [1, 5, 60])
def test_bleu_of_sums_is_that_of_the_corpus(rate, count):
    rng = np.random.default_rng(count)
    words = "der die das hund katze geht im garten heute nicht sehr schnell".split()
    references = [" ".join(rng.choice(words, rng.integers(1, 12))) for _ in range(count)]
    hypotheses = [" ".join(w if rng.random() > rate else str(rng.choice(words)) for w in r.split()) for r in references]
    sums_US = bleu.sums(hypotheses, references)
    assert sums_US.shape == (count, bleu.SUMS)
    found = bleu.of_sums(np.stack([sums_US.sum(0), 2 * sums_US.sum(0), 0 * sums_US.sum(0)]))
    assert found[0] == pytest.approx(bleu.score(hypotheses, references)["bleu"], abs=1e-9)
    assert np.isnan(found[2])
