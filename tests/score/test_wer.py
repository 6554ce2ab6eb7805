"""Edit counts: hand-counted cases, properties of the distance, and what clipping does."""

import random
import unicodedata

import pytest

from moejax.score import wer
from moejax.text import normalize


def by_hand(reference: list, hypothesis: list) -> int:
    """Levenshtein distance by the textbook recursion, the independent implementation."""
    row = list(range(len(hypothesis) + 1))
    for i, r in enumerate(reference, 1):
        diagonal, row[0] = row[0], i
        for j, h in enumerate(hypothesis, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (r != h))
    return row[-1]


def random_pairs(n: int, seed: int) -> tuple[list[str], list[str]]:
    rng = random.Random(seed)

    def text() -> str:
        return " ".join(rng.choice(["a", "bb", "ca", "dad"]) for _ in range(rng.randrange(0, 9)))

    return [text() for _ in range(n)], [text() for _ in range(n)]


def test_kinds_of_edits_counted_by_hand():
    assert wer.count(["the cat sat down"], ["a cat sat right here"]) == [wer.Counts(3, 4, 2, 0, 1)]
    assert wer.count(["one two three", ""], ["one", "uh oh"]) == [wer.Counts(2, 3, 0, 2, 0), wer.Counts(2, 0, 0, 0, 2)]
    assert wer.count([], []) == []


def test_counts_equal_the_textbook_distance_and_their_kinds_add_up():
    references, hypotheses = random_pairs(200, seed=1)
    for r, h, words, chars in zip(
        references,
        hypotheses,
        wer.count(references, hypotheses),
        wer.count_characters(references, hypotheses),
        strict=True,
    ):
        assert words.errors == by_hand(r.split(), h.split())
        assert chars.errors == by_hand(list(r), list(h))
        for counts in (words, chars):
            assert counts.errors == counts.substitutions + counts.deletions + counts.insertions
        assert words.words + words.insertions - words.deletions == len(h.split())


def test_scoring_one_by_one_equals_scoring_together():
    references, hypotheses = random_pairs(30, seed=2)
    singly = [wer.count([r], [h])[0] for r, h in zip(references, hypotheses, strict=True)]
    assert wer.count(references, hypotheses) == singly


def test_edits_name_the_words_and_are_as_many_as_the_errors():
    assert wer.edits("the cat sat", "a cat sat down") == [
        wer.Edit("substitute", "the", "a"),
        wer.Edit("insert", "", "down"),
    ]
    references, hypotheses = random_pairs(50, seed=3)
    for r, h, counts in zip(references, hypotheses, wer.count(references, hypotheses), strict=True):
        kinds = [e.kind for e in wer.edits(r, h)]
        assert kinds.count("substitute") == counts.substitutions
        assert kinds.count("delete") == counts.deletions
        assert kinds.count("insert") == counts.insertions


def test_clipping_never_exceeds_the_reference_and_takes_the_better_one():
    loop = " ".join(["yes"] * 40)
    assert wer.clipped(["no no"], [loop])[0].errors == 2
    with_fillers, without = normalize.disfluency_references("(I) (w-) I want (um) tea")
    assert (with_fillers, without) == ("I w- I want um tea", "I want tea")
    assert wer.clipped([(with_fillers, without)], ["I want tea"])[0] == wer.Counts(0, 3, 0, 0, 0)
    assert wer.clipped([(with_fillers, without)], ["I w- I want um tea"])[0].words == 6


def test_length_ratio_tells_loops_from_early_stops():
    loop, stop, empty = wer.count(["a b", "a b c d", ""], ["a b a b a b", "a", "x y z"])
    assert (loop.length_ratio, stop.length_ratio, empty.length_ratio) == (3.0, 0.25, 3.0)


def test_rate_is_of_the_corpus_not_a_mean_of_rates():
    counts = wer.count(["a", "a b c d e f g h i"], ["x", "a b c d e f g h i"])
    assert wer.rate(counts) == 0.1


def test_unequal_lengths_are_named():
    with pytest.raises(ValueError, match="2 references for 1 hypotheses"):
        wer.count(["a", "b"], ["a"])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("none", "  Hello,   World ", "Hello, World"),
        ("lower", "Hello, World! It's twenty-one U.S. 'dollars'.", "hello world it's twenty one u s dollars"),
        ("lower", "yes/no at 10:30, well...then AT&T", "yes no at 10 30 well then at t"),
        ("lower", "3.5 or .5, 3. 1,234,567 and 1,2", "3.5 or 5 3 1234567 and 1 2"),
        ("lower", "rock'n'roll 'quoted' o´clock", "rock'n'roll quoted o'clock"),
        ("lower", "co\u00adoperate", "cooperate"),
        ("lower", "हिन्दी में", "हिन्दी में"),
        ("basic", "हिन्दी, में!", "हिन्दी में"),
        ("basic", "น้ำแข็ง", unicodedata.normalize("NFKC", "น้ำแข็ง")),
        ("lower", "Größe — ÉTÉ", "grösse été"),
        ("lower", "don’t", "don't"),
        ("basic", "Hello [noise] (um) World!", "hello world"),
        ("english", "I'm gonna pay twenty one dollars", "i am going to pay $21"),
    ],
)
def test_normalisers(name, text, expected):
    assert normalize.get(name)(text) == expected
    assert normalize.get(name)(expected) == expected or name == "english"


def test_english_maps_spellings_only_when_given_them():
    assert normalize.english("colour") == "colour"
    assert normalize.get("english", {"colour": "color"})("Colour!") == "color"
    with pytest.raises(ValueError, match="belongs to the normalizer 'english'"):
        normalize.get("lower", {"colour": "color"})


def test_unknown_normaliser_lists_the_known():
    with pytest.raises(ValueError, match="unknown normalizer 'lowr'; known: none, lower, basic, english"):
        normalize.get("lowr")
