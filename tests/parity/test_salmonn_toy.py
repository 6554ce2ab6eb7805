"""Whether the rows of a finished configs/salmonn_toy.py answer by what they hear.

MOEJAX_TOY_WORKDIR is its workdir. Each answer is scored against its own utterance's reference, and against those of
all others of another text: a model that writes likely sentences whatever is said does as well there.
"""

import os
from pathlib import Path

import pytest

from moejax.runtime.files import read_jsonl
from moejax.score import bleu, wer
from moejax.text import normalize

ROWS = ("salmonn_lora", "salmonn_moe")
MARGIN = 0.8  # of the rate against others: what the rate has to be below


def own_and_others(lines):
    """(WER of the answers, mean WER against the references of other texts), as shares of words."""
    references, answers = ([normalize.english(line[name]) for line in lines] for name in ("reference", "hypothesis"))
    turned = [
        wer.rate(wer.count([references[n] for n in kept], [answers[(n + shift) % len(lines)] for n in kept]))
        for shift in range(1, len(lines))
        if (kept := [n for n in range(len(lines)) if references[n] != references[(n + shift) % len(lines)]])
    ]
    return wer.rate(wer.count(references, answers)), sum(turned) / len(turned)


def listens(lines):
    own, others = own_and_others(lines)
    return own < MARGIN * others


SAID = ["the boy sees a house", "my sister is in the garden", "where is the old dog", "we do not buy the bread"]


@pytest.mark.parametrize(
    ("answers", "want"),
    [
        (["the boy sees a horse", "my sister in the garden", "where is an old dog", "we buy the bread"], True),
        (["the boy sees the garden"] * 4, False),  # likely, whatever was said
        (SAID[1:] + SAID[:1], False),  # right sentences of others
    ],
)
def test_the_check_finds_who_does_not_listen(answers, want):
    lines = [{"reference": said, "hypothesis": answer} for said, answer in zip(SAID, answers, strict=True)]
    assert listens(lines) is want


@pytest.fixture(scope="module")
def workdir():
    place = Path(os.environ.get("MOEJAX_TOY_WORKDIR") or pytest.skip("MOEJAX_TOY_WORKDIR"))
    return place if (place / "evaluate").is_dir() else pytest.skip(f"{place} has no evaluate/")


@pytest.mark.parametrize("row", ROWS)
def test_transcripts_are_those_of_what_was_said(workdir, row):
    lines = read_jsonl(workdir / "evaluate" / f"{row}.jsonl")
    own, others = own_and_others(lines)
    distinct = len({line["hypothesis"] for line in lines})
    print(f"\n{row}: WER {100 * own:.1f} %, against others' references {100 * others:.1f} %, {distinct} answers")
    assert listens(lines) and distinct > len({line["reference"] for line in lines}) / 2


@pytest.mark.parametrize("row", ROWS)
def test_translations_are_those_of_what_was_said(workdir, row):
    lines = read_jsonl(workdir / "translate" / f"{row}.end_to_end.jsonl")
    references, answers = ([line[name] for line in lines] for name in ("reference", "hypothesis"))
    half = len(lines) // 2
    own, others = (bleu.score(said, references)["chrf"] for said in (answers, answers[half:] + answers[:half]))
    print(f"\n{row}: chrF {own:.1f}, of translations half a table on {others:.1f}")
    assert own > others / MARGIN
