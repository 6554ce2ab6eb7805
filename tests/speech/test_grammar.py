"""The parallel grammar: repeatable, one German reference per English sentence, correct German."""

import pytest

from moejax.speech import grammar

WORDS = {word for english, _ in grammar.sample(8000, 3) for word in english.split()}


def test_sample_is_repeatable_and_distinct():
    first, again, other = grammar.sample(500, 1), grammar.sample(500, 1), grammar.sample(500, 2)
    assert first == again
    assert first != other
    assert len({english for english, _ in first}) == 500


def test_a_longer_sample_begins_with_the_shorter_one():
    assert grammar.sample(300, 1)[:100] == grammar.sample(100, 1)


def test_text_is_normalised_and_of_the_promised_length():
    for english, german in grammar.sample(3000, 0):
        assert 3 <= len(english.split()) <= 9
        assert english == english.lower() and english.replace(" ", "").isalpha()
        assert german.replace(" ", "").isalpha()


def test_vocabulary_is_what_is_said():
    assert set(grammar.vocabulary()) == WORDS
    assert 110 <= len(WORDS) <= 150


def test_english_decides_the_german():
    """A second translation of one sentence would cap BLEU below 100 for a perfect system."""
    known = {}
    for seed in range(5):
        for english, german in grammar.sample(4000, seed):
            assert known.setdefault(english, german) == german


def test_excluded_sentences_do_not_come_back():
    first = {english for english, _ in grammar.sample(200, 0)}
    assert not first & {english for english, _ in grammar.sample(200, 0, exclude=first)}


def test_asking_for_more_than_there_is_says_so():
    with pytest.raises(ValueError, match="asked for 50"):
        grammar.sample(50, 0, words=(1, 2))


@pytest.mark.parametrize(
    ("determiner", "case", "german"),
    [
        ("the", "nom", "der kleine Junge"),
        ("the", "acc", "den kleinen Jungen"),
        ("the", "dat", "dem kleinen Jungen"),
        ("a", "nom", "ein kleiner Junge"),
        ("a", "acc", "einen kleinen Jungen"),
        ("my", "dat", "meinem kleinen Jungen"),
        ("this", "nom", "dieser kleine Junge"),
        ("every", "acc", "jeden kleinen Jungen"),
    ],
)
def test_weak_noun_declines(determiner, case, german):
    boy = next(noun for noun in grammar.NOUNS["people"] if noun.english == "boy")
    assert grammar.noun_phrase(boy, determiner, case, ("small", "klein")).german == german


@pytest.mark.parametrize(
    ("noun", "determiner", "case", "german"),
    [
        ("house", "a", "acc", "ein rotes Haus"),
        ("house", "the", "acc", "das rote Haus"),
        ("flower", "a", "acc", "eine rote Blume"),
        ("flower", "my", "dat", "meiner roten Blume"),
        ("apple", "a", "acc", "einen roten Apfel"),
    ],
)
def test_adjectives_agree(noun, determiner, case, german):
    thing = next(thing for thing in grammar.NOUNS["things"] if thing.english == noun)
    assert grammar.noun_phrase(thing, determiner, case, ("red", "rot")).german == german


def test_counted_nouns_take_strong_endings_and_the_dative_n():
    child = next(noun for noun in grammar.NOUNS["people"] if noun.english == "child")
    assert grammar.counted_phrase(child, "three", "acc", ("tired", "müde")).german == "drei müde Kinder"
    assert grammar.counted_phrase(child, "three", "dat", ("tired", "müde")).german == "drei müden Kindern"


def test_word_order():
    said = dict(grammar.sample(8000, 0))
    assert any(
        e.startswith("today") and g.split()[1] in {"kauft", "kaufen", "kaufe", "kaufst"} for e, g in said.items()
    )
    for english, german in said.items():
        words = german.split()
        if "weil" in words:  # the verb of a subordinate clause comes last
            forms = {form for verb in grammar.INTRANSITIVE for form in verb.present}
            assert words[-1] in forms, german
        if {"can", "must", "will"} & set(english.split()):  # so does the infinitive
            assert words[-1] in {verb.infinitive for verb in grammar.TRANSITIVE}, german
        if "not" in english.split() and "is" not in english.split():
            assert words[-1] == "nicht", german
