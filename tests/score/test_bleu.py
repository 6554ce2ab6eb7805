"""BLEU and chrF: known values, signatures, and the refusal to score a translator against itself."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from moejax.score import bleu
from moejax.speech import grammar

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


def worse(sentence, rng, rate):
    """The sentence with words left out, said twice or torn at the given rate."""
    out = []
    for word in sentence.split():
        kind = rng.random()
        out += [word] if kind > rate else [] if kind < rate / 3 else [word, word] if kind < rate / 2 else [word[:-1]]
    return " ".join(out)


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """A folder with references and the outputs of three systems, 1,000 sentences each, a line a sentence."""
    folder, rng = tmp_path_factory.mktemp("thousand"), np.random.default_rng(0)
    references = [german for _, german in grammar.sample(1000, seed=5)]
    lines = {"references": references}
    lines |= {name: [worse(r, rng, rate) for r in references] for name, rate in (("a", 0.2), ("b", 0.21), ("c", 0.4))}
    for name, texts in lines.items():
        (folder / name).write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return folder, lines


def sacrebleu(folder, *options, seed=bleu.SEED):
    """What sacreBLEU's own command prints, with 12 decimals."""
    command = [sys.executable, "-m", "sacrebleu", "references", "-m", "bleu", "chrf", "-w", "12", *options]
    environment = os.environ | {"SACREBLEU_SEED": str(seed), "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout


def test_a_thousand_sentences_score_as_by_sacrebleus_command(thousand):
    folder, lines = thousand
    for name in ("a", "c"):
        found = bleu.score(lines[name], lines["references"])
        printed = json.loads(sacrebleu(folder, "-i", name, "-f", "json"))
        for key, one in zip(("bleu", "chrf"), printed, strict=True):
            assert 20 < one["score"] < 95 and found[key] == pytest.approx(one["score"], abs=1e-12, rel=0)
            signature = found[{"bleu": "signature", "chrf": "chrf_signature"}[key]]
            assert signature == one["signature"]


@pytest.mark.parametrize("seed", [bleu.SEED, 7])
def test_the_paired_bootstrap_is_that_of_sacrebleus_command(thousand, seed, monkeypatch):
    folder, lines = thousand
    monkeypatch.setenv("SACREBLEU_SEED", "99")  # of whoever calls: it neither counts nor is lost
    found = bleu.paired({n: lines[n] for n in "abc"}, lines["references"], samples=300, seed=seed)
    assert os.environ["SACREBLEU_SEED"] == "99"
    # As LaTeX: of a paired test this version prints no JSON
    options = ("-i", "a", "b", "c", "--paired-bs", "--paired-bs-n", "300", "-f", "latex")
    printed = [line.split("&") for line in sacrebleu(folder, *options, seed=seed).splitlines() if line.count("&") == 2]
    assert [row[0].split()[-1] for row in printed] == ["System", "a", "b", "c"]
    for name, *cells in printed[1:]:
        for key, cell in zip(("bleu", "chrf"), cells, strict=True):
            of = {part: found[name.split()[-1]].get(f"{key}_{part}") for part in ("mean", "ci", "p")}
            p = "" if of["p"] is None else f" (p = {of['p']:.4f})"
            assert cell.strip(" \\*").partition(" ")[2] == f"({of['mean']:.12f} ± {of['ci']:.12f}){p}"
    assert found["a"].keys() == {"bleu_mean", "bleu_ci", "chrf_mean", "chrf_ci"}
    assert found["b"]["bleu_p"] > 0.01 > found["c"]["bleu_p"]


def test_another_seed_draws_other_samples(thousand):
    _, lines = thousand
    texts, references = {n: lines[n][:50] for n in "ab"}, lines["references"][:50]
    one, other = (bleu.paired(texts, references, samples=100, seed=seed) for seed in (1, 2))
    assert one != other and one == bleu.paired(texts, references, samples=100, seed=1)


def test_what_does_not_differ_is_no_difference(thousand):
    _, lines = thousand
    texts = lines["a"][:50]
    found = bleu.paired({"a": texts, "again": list(texts)}, lines["references"][:50], samples=100)
    assert (found["again"]["bleu_p"], found["again"]["chrf_p"]) == (1.0, 1.0)
    assert found["again"]["bleu_ci"] == found["a"]["bleu_ci"] > 0
